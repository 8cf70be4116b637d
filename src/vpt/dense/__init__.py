"""Dense prediction: from a trunk to feature maps, and from maps to one score per class and pixel."""
