"""Classification: one label for each image."""

from vpt.tasks.classification.config import ClassificationConfig, ClassificationOptions
from vpt.tasks.classification.training import ClassificationObjective, train

__all__ = ["ClassificationConfig", "ClassificationObjective", "ClassificationOptions", "train"]
