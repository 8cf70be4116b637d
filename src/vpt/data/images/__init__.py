"""Image files and images in memory: RGB, upright, 8 bits per channel."""
