"""Tasks: the objective, metrics, scoring and prediction of classification and segmentation."""
