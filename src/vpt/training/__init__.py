"""Training: configurations, the loop, callbacks, checkpoints, evaluation."""

from vpt.training.augmentation import CROP_SCALE as CROP_SCALE
from vpt.training.augmentation import make_augmentation as make_augmentation
from vpt.training.augmentation import parse_augmentation as parse_augmentation
from vpt.training.batches import DeviceDataset as DeviceDataset
from vpt.training.batches import Examples as Examples
from vpt.training.callbacks import Callback as Callback
from vpt.training.callbacks import CallbackList as CallbackList
from vpt.training.callbacks import EpochMetrics as EpochMetrics
from vpt.training.callbacks import HistoryCallback as HistoryCallback
from vpt.training.callbacks import Progress as Progress
from vpt.training.config import TrainingConfig as TrainingConfig
from vpt.training.evaluation import Scores as Scores
from vpt.training.evaluation import predict_logits as predict_logits
from vpt.training.evaluation import score_logits as score_logits
from vpt.training.feature_cache import cache_frozen_features as cache_frozen_features
from vpt.training.head_grid import HeadResult as HeadResult
from vpt.training.head_grid import train_head_grid as train_head_grid
from vpt.training.init_inputs import class_prototypes as class_prototypes
from vpt.training.init_inputs import collect_block_inputs as collect_block_inputs
from vpt.training.init_inputs import collect_init_inputs as collect_init_inputs
from vpt.training.loop import Objective as Objective
from vpt.training.loop import fit as fit
from vpt.training.task_config import TaskConfig as TaskConfig
from vpt.training.task_config import TaskOptions as TaskOptions
