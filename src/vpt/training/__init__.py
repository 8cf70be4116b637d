"""Training: a recipe, one loop, checkpoints, evaluation."""

from vpt.training.batches import SIDES, Examples, Feed
from vpt.training.evaluate import Scores, logits_of, score
from vpt.training.features import prototypes, what_must_run
from vpt.training.grid import Trained, train_grid
from vpt.training.loop import Epoch, Lesson, Watcher, fit, parts_of, train
from vpt.training.recipe import Recipe

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
