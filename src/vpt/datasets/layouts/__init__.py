"""One file for each format in which a publisher ships images and labels; each reads one source into a `Listing`."""
