"""Training: a configuration, one loop, checkpoints, evaluation."""

from vpt.training.batches import CROP_SCALE, DeviceDataset, Examples
from vpt.training.config import TrainingConfig
from vpt.training.evaluation import Scores, predict_logits, score_logits
from vpt.training.feature_cache import cache_frozen_features, class_prototypes
from vpt.training.head_grid import HeadResult, train_head_grid
from vpt.training.loop import EpochMetrics, Lesson, Watcher, fit, micro_batches, train

__all__ = [
    "CROP_SCALE",
    "EpochMetrics",
    "Examples",
    "DeviceDataset",
    "Lesson",
    "TrainingConfig",
    "Scores",
    "HeadResult",
    "Watcher",
    "fit",
    "predict_logits",
    "micro_batches",
    "class_prototypes",
    "score_logits",
    "train",
    "train_head_grid",
    "cache_frozen_features",
]
