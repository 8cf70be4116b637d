"""Logits of images that are decoded batch by batch while the model runs: any number of images, in the same memory."""

from functools import partial

import numpy as np
import torch
from torch import Tensor

from vpt.data.dataset import Split
from vpt.data.decoding.arrays import describe_dropped, describe_notes
from vpt.data.decoding.batches import BatchRequest
from vpt.data.decoding.stream import ImageLoader, default_workers
from vpt.model.tuned_model import TunedModel
from vpt.training import Callback
from vpt.training.batches import iter_batches

_BATCH = 64  # images that a worker decodes at once, as many as `predict_logits` takes


@torch.inference_mode()
def stream_logits(
    model: TunedModel, split: Split, name: str, callback: Callback, *, workers: int | None, skip_corrupt: bool
) -> tuple[Tensor, Split]:
    """Compute the logits of images in one pass, in which worker processes decode them.

    Args:
        model: The model.
        split: The images.
        name: Name of the images for progress.
        callback: Receiver of progress and of notes about images.
        workers: Number of worker processes. Default: one for each core, at most 8.
        skip_corrupt: True leaves unreadable images out.

    Returns:
        Logits (n, classes), float32 on the CPU, and the images that they are of.

    Raises:
        DataError: Images cannot be used. The message names all of them.
    """
    preprocessing, device = model.backbone.preprocessing, next(model.parameters()).device
    loader = ImageLoader([split.images], preprocessing, None, default_workers() if workers is None else workers)
    batches = list(iter_batches(np.arange(len(split)), _BATCH))
    loader.plan([BatchRequest(indices) for indices in batches])
    progress, found = partial(callback.on_data_progress, name), list[Tensor]()
    notes, faults = dict[int, list[str]](), dict[int, str]()
    model.eval()
    for indices in batches:
        batch = loader.load(BatchRequest(indices))
        notes |= {int(indices[i]): texts for i, texts in batch.notes.items()}
        faults |= {int(indices[i]): fault for i, fault in batch.faults.items()}
        pixels = np.delete(batch.pixels, list(batch.faults), axis=0)
        if len(pixels):
            found.append(model(preprocessing.normalize(torch.from_numpy(pixels).to(device))).float().cpu())
        progress(int(indices[-1]) + 1, len(split))
    dropped = describe_dropped(split, faults, skip_corrupt)
    left = split.select(np.delete(np.arange(len(split)), list(faults))) if faults else split
    empty = len(np.setdiff1d(split.strata, left.strata))
    for note in (*describe_notes(split, notes, empty), *(f"left out {image}" for image in dropped)):
        callback.on_note(note)
    return torch.cat(found), left
