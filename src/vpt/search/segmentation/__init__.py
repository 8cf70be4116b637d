"""The search in segmentation: the same procedure, by other candidates, costs and comparisons."""
