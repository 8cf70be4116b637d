"""Images with a mask each, for segmentation: pairs in folders, and what the ids of masks mean."""
