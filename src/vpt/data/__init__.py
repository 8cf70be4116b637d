"""Data as arrays: image folders, list files, masks, splits, decoding, and synthetic tasks."""
