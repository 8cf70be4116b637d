"""Training: a configuration, one loop, checkpoints, evaluation."""

from vpt.training.batches import CROP_SCALE, DeviceDataset, Examples
from vpt.training.callbacks import Callback, CallbackList
from vpt.training.config import TrainingConfig
from vpt.training.evaluation import Scores, predict_logits, score_logits
from vpt.training.feature_cache import cache_frozen_features, class_prototypes
from vpt.training.head_grid import HeadResult, train_head_grid
from vpt.training.history import EpochMetrics
from vpt.training.loop import Lesson, fit, micro_batches, train

__all__ = [
    "CROP_SCALE",
    "Callback",
    "CallbackList",
    "DeviceDataset",
    "EpochMetrics",
    "Examples",
    "HeadResult",
    "Lesson",
    "Scores",
    "TrainingConfig",
    "cache_frozen_features",
    "class_prototypes",
    "fit",
    "micro_batches",
    "predict_logits",
    "score_logits",
    "train",
    "train_head_grid",
]
