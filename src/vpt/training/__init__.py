"""Training: configurations, the loop, callbacks, checkpoints, evaluation."""

from vpt.training.batches import CROP_SCALE, DeviceDataset, Examples
from vpt.training.callbacks import Callback, CallbackList, EpochMetrics, HistoryCallback, Progress
from vpt.training.config import TaskConfig, TaskOptions, TrainingConfig
from vpt.training.evaluation import Scores, predict_logits, score_logits
from vpt.training.feature_cache import (
    cache_frozen_features,
    class_prototypes,
    collect_block_inputs,
    collect_init_inputs,
)
from vpt.training.head_grid import HeadResult, train_head_grid
from vpt.training.loop import Objective, fit

__all__ = [
    "CROP_SCALE",
    "Callback",
    "CallbackList",
    "DeviceDataset",
    "EpochMetrics",
    "Examples",
    "HeadResult",
    "HistoryCallback",
    "Objective",
    "Progress",
    "Scores",
    "TaskConfig",
    "TaskOptions",
    "TrainingConfig",
    "cache_frozen_features",
    "class_prototypes",
    "collect_block_inputs",
    "collect_init_inputs",
    "fit",
    "predict_logits",
    "score_logits",
    "train_head_grid",
]
