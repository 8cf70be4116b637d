"""Training: a recipe, one loop, checkpoints, evaluation."""

from vpt.training.batches import SIDES, Examples, Feed
from vpt.training.config import Recipe
from vpt.training.evaluation import Scores, logits_of, score
from vpt.training.feature_cache import prototypes, what_must_run
from vpt.training.head_grid import Trained, train_grid
from vpt.training.loop import Epoch, Lesson, Watcher, fit, parts_of, train

__all__ = [
    "SIDES",
    "Epoch",
    "Examples",
    "Feed",
    "Lesson",
    "Recipe",
    "Scores",
    "Trained",
    "Watcher",
    "fit",
    "logits_of",
    "parts_of",
    "prototypes",
    "score",
    "train",
    "train_grid",
    "what_must_run",
]
