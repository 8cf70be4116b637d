"""The pictures of a search: curve, confusion matrix, mistakes, and training images."""

from pathlib import Path

import numpy as np
import torch

from vpt.plots import figures
from vpt.search.outcome import Model, Scored
from vpt.tasks.classification.task import ClassificationTask
from vpt.tasks.evaluation import Evaluation
from vpt.training import Callback

_NUM_MISTAKES = 6


def draw_search(final: Model, scored: Scored, evaluation: Evaluation, callback: Callback) -> None:
    """Draw search.png and examples.png. A failure becomes a note, as the result is complete without them.

    Args:
        final: The model that is saved.
        scored: The images that score it.
        evaluation: Its scores.
        callback: Receiver of the note.
    """
    path = final.job.run_dir / "search.png"
    try:
        _draw_summary(path, final, scored, evaluation)
        path = path.with_name("examples.png")
        figures.class_examples(path, final.data.examples(), f"Training images of {final.data.name}")
    except Exception as error:
        callback.on_note(f"{path} could not be drawn: {error}; the result is complete without it")


def _draw_summary(path: Path, final: Model, scored: Scored, evaluation: Evaluation) -> None:
    """Draw curve, confusion matrix and the most confident mistakes in one picture."""
    classes, labels, logits = final.data.classes, scored.labels, scored.outputs
    probabilities = torch.from_numpy(logits).softmax(1).numpy()
    wrong = np.flatnonzero(logits.argmax(1) != labels)
    worst = wrong[np.argsort(-probabilities[wrong].max(1), kind="stable")][:_NUM_MISTAKES]
    size = final.model.backbone.preprocessing.size
    mistakes = []
    for index in worst:
        pixels = scored.source.pixels[scored.rows[index]]
        start = (pixels.shape[-1] - size) // 2
        cropped = pixels[:, start : start + size, start : start + size].transpose(1, 2, 0)
        predicted = int(logits[index].argmax())
        title = f"{classes[labels[index]]}\nas {classes[predicted]}, {100 * probabilities[index, predicted]:.0f} %"
        mistakes.append((cropped, title))
    images = "test images" if evaluation.split == "test" else "images, each left out of training"
    accuracy = f"{100 * evaluation.metrics['top1']:.1f} % of {evaluation.images} {images}"
    title = f"{final.job.method} on {final.data.name}: {accuracy}"
    history = [vars(epoch) for epoch in final.history]
    metrics = ClassificationTask.metrics
    figures.search_summary(path, history, evaluation.confusion, classes, mistakes, title, metrics)
