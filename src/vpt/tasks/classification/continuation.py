"""Training that goes on from a tuned file, with more images or new classes."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vpt.core.hub import local_path
from vpt.data.dataset import Dataset, Split
from vpt.errors import SpecError
from vpt.model import tuned_file
from vpt.model.load import load
from vpt.model.named_backbone import check_backbone_name
from vpt.model.tuned_model import TunedModel
from vpt.training import DeviceDataset, Examples, predict_logits, score_logits

# Options that the file decides on, and their defaults.
_FIXED = {
    "normalization": "backbone", "value_range": None, "image_size": None, "resize": "squash", "crop_fraction": None,
    "interpolation": None, "ridge": None, "probe_epochs": 0,
}  # fmt: skip


def init_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return options of a job with those that its tuned file `init` decides on: backbone and head.

    Args:
        given: Options by name.

    Returns:
        The options.

    Raises:
        SpecError: An option is given that the file decides on.
        TunedFileError: The backbone of the file is not in timm's own list, and none is given.
    """
    if "init" not in given:
        return dict(given)
    path = local_path(given["init"])
    allowed = {**given, "ridge": None} if given.get("ridge") in ("default", "none") else given
    faults = sorted(name for name, default in _FIXED.items() if allowed.get(name, default) != default)
    if faults:
        raise SpecError(
            f"{', '.join(faults)}: {path} decides on the images and the head that training begins with; leave it "
            "out, or begin without init"
        )
    header = tuned_file.read_header(path)
    if "backbone" not in given:
        check_backbone_name(path, header)
    head = {} if header.head is None else {"head": header.head}
    return {"backbone": header.backbone, **head, **given, "init": path}


def class_names(file: Path) -> tuple[str, ...]:
    """Return the names of the classes of a tuned file of classification.

    Args:
        file: The tuned file.

    Returns:
        The names.

    Raises:
        SpecError: The file has no names of classes, segments, or predicts several labels or a number.
    """
    header = tuned_file.read_header(file)
    if header.classes is None or header.is_dense or header.label_kind.name != "single_label":
        raise SpecError(f"{file} does not name one class of an image, so training cannot start from it; give another "
                        "--init")  # fmt: skip
    return header.classes


def join_classes(dataset: Dataset, old: tuple[str, ...]) -> Dataset:
    """Return a dataset whose classes begin with given ones, in their order; its other classes follow.

    Args:
        dataset: The dataset.
        old: Names of the first classes. Those without images are kept.

    Returns:
        The dataset with other labels.
    """
    classes = (*old, *(name for name in dataset.classes if name not in old))
    label_of = np.array([classes.index(name) for name in dataset.classes], np.int64)

    def relabel(split: Split) -> Split:
        return replace(split, labels=label_of[split.labels])

    train, val, test = map(relabel, dataset.splits.values())
    return replace(dataset, classes=classes, train=train, val=val, test=test)


@torch.no_grad()
def start_from(model: TunedModel, file: Path) -> None:
    """Copy the tensors of a tuned file into a model; rows of the head go to the class of the same name.

    Rows of other classes keep their initial values. A TunedFileError is raised for a file of another backbone.

    Args:
        model: The model.
        file: The tuned file.

    Raises:
        SpecError: The file has another method or another head.
    """
    old = load(file, model.backbone)
    assert model.classes is not None and old.classes is not None
    state, own = old.trainable_state_dict(), model.trainable_state_dict()
    by_class = _tensors_by_class(model)
    faults = sorted(state.keys() ^ own.keys())
    faults += [
        name
        for name in sorted(state.keys() & own.keys())
        if state[name].shape[name in by_class :] != own[name].shape[name in by_class :]
    ]
    if faults:
        raise SpecError(
            f"{file} has the method {old.method} and the head {old.readout.spec() or 'linear'}, which do not fit "
            f"{model.method} and {model.readout.spec() or 'linear'} ({faults[0]}); leave --method and --head out"
        )
    rows = torch.tensor([model.classes.index(name) for name in old.classes])
    for name, tensor in own.items():
        if name in by_class:
            tensor[rows.to(tensor.device)] = state[name]
        else:
            tensor.copy_(state[name])


def _tensors_by_class(model: TunedModel) -> set[str]:
    """Return the names of the tensors with a row for each class: those that one class more makes longer."""
    longer = dict(model._make_head(model.width, model.num_classes + 1).named_parameters())
    ids = {id(tensor) for name, tensor in model.head.named_parameters() if tensor.shape != longer[name].shape}
    return {name for name, tensor in model.trainable_state_dict().items() if id(tensor) in ids}


def measure_old_classes(model: TunedModel, file: Path, examples: Examples) -> dict[str, Any]:
    """Score images of the classes of a tuned file, by that file and by the model that went on from it.

    Args:
        model: The model; its first classes are those of the file.
        file: The tuned file.
        examples: Images and labels of all classes.

    Returns:
        "images" and "classes", and top-1 "before" and "after", None where there is no image of these classes. The
        model can also choose new classes, which the file cannot.
    """
    old = load(file, model.backbone)
    old.to(next(model.parameters()).device)
    known = np.flatnonzero(examples.labels < old.num_classes)
    found: dict[str, Any] = {"file": str(file), "images": len(known), "classes": list(old.classes or ())}
    if not len(known):
        return {**found, "before": None, "after": None}
    for name, each in (("before", old), ("after", model)):
        dataset = DeviceDataset.for_model(each, examples)
        found[name] = score_logits(predict_logits(each, dataset)[known], dataset.labels[known]).accuracy
    return found
