"""Models, data and progress, as the calls that use a tuned file share them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from vpt.api.options import Model
from vpt.api.progress import ConsoleCallback
from vpt.data.dataset import Dataset
from vpt.data.in_memory import dataset_from_memory, split_mapping
from vpt.errors import DataError, SpecError
from vpt.model.tuned_file import backbone_for, inspect, load
from vpt.model.tuned_model import TunedModel
from vpt.training import Callback, CallbackList, distributed


@contextmanager
def show_progress(shown: bool, callback: Callback | None) -> Iterator[Callback]:
    """Yield a callback, together with progress on the console if it is wanted and there is one.

    Args:
        shown: True shows progress.
        callback: Receiver of events, or None.

    Yields:
        The receiver of all events.
    """
    has_console = (sys.stderr.isatty() or "ipykernel" in sys.modules) and distributed.rank() == 0
    with ConsoleCallback() if shown and has_console else nullcontext() as console:
        yield CallbackList([receiver for receiver in (console, callback) if receiver is not None])


def open_model(model: Model, backbone: str | None, weights: str | Path | None, device: str) -> TunedModel:
    """Return the model of a tuned file, or the given model, on a device.

    Args:
        model: The tuned file, or a model.
        backbone: Name of the backbone of the file, or None.
        weights: File with local weights of the backbone of the file, or None.
        device: Name of a device; "auto" leaves a given model where it is.

    Returns:
        The model.

    Raises:
        SpecError: `backbone` or `weights` comes with a model.
    """
    if isinstance(model, TunedModel):
        if backbone is not None or weights is not None:
            raise SpecError("backbone and weights belong to a tuned file, and a model is given, which has both")
        return model if device == "auto" else model.to(distributed.resolve_device(device))
    target, local = distributed.resolve_device(device), None if weights is None else Path(weights)
    return load(model, backbone_for(Path(model), inspect(model), backbone, local)).to(target)


def scored_data(
    model: Model, tuned: TunedModel, data: Any, split: str, classes: Sequence[str] | None
) -> tuple[str | Dataset, dict[str, Any]]:
    """Return data to be scored, and options of the splits that they lack.

    Args:
        model: The tuned file, which knows the split of its training, or a model.
        tuned: The model of the file.
        data: A folder, the name of a built-in task, or data in memory.
        split: Name of the split.
        classes: Names of the classes of data in memory, or None.

    Returns:
        A folder, a name or a dataset, and the arguments of `load_dataset`.

    Raises:
        SpecError: `classes` comes with a folder.
        DataError: Data in memory lack the split, or cannot be read.
    """
    if not isinstance(data, str | Path | Dataset):
        splits = split_mapping(data) if isinstance(data, Mapping) else {split: data}
        if split not in splits:
            raise DataError(f"the data have no split {split}; they have {', '.join(splits)}")
        dataset = dataset_from_memory({split: splits[split]}, classes, default_classes=tuned.classes)
        return dataset, {"val_fraction": 0.0, "test_fraction": 0.0}
    if classes is not None:
        raise SpecError(f"classes belongs to data in memory, and {str(data)!r} is a folder or a built-in task")
    options = {} if isinstance(model, TunedModel) else dict(inspect(model).split_options)
    return (data if isinstance(data, Dataset) else str(data)), options
