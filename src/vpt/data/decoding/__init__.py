"""Decoding of images and masks into arrays of the input size of a backbone, at once or in a stream."""
