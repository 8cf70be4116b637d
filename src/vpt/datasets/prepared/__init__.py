"""Folders that vpt writes: images as they came, list files beside them, and in the end `prepared.json`."""
