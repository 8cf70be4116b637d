"""Semantic segmentation: a class for every pixel."""

from vpt.tasks.segmentation.config import SegmentationConfig, SegmentationOptions
from vpt.tasks.segmentation.objective import SegmentationObjective

__all__ = ["SegmentationConfig", "SegmentationObjective", "SegmentationOptions"]
