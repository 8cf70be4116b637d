"""Linear heads in closed form: alone on a frozen backbone, or beside the trained head of any method."""

from dataclasses import replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from vpt.attention.detection import FeatureExtractor, structural_copy
from vpt.core.text import format_bytes
from vpt.errors import SpecError, TrainingError, is_out_of_memory
from vpt.methods.base import Method
from vpt.methods.linear import Linear
from vpt.model.readout import MultiBlock, Pooled, Readout
from vpt.model.tuned_model import TunedModel
from vpt.tasks.classification.labels import label_task
from vpt.training import DeviceDataset, Examples
from vpt.training.block_features import (
    BlockFeatureNetwork,
    FeatureTable,
    columns_of_head,
    compute_block_features,
    compute_features,
)
from vpt.training.callbacks import Progress
from vpt.training.ridge import MAX_COMPARED, LeftOut, Ridge, near_copies
from vpt.training.verdicts import RIDGE_JOINS

Penalty = float | Literal["auto"]  # of the squared weights, or the best for images that are left out

_MAX_BYTES = 2 << 30  # of the arrays of a ridge head that nobody asked for


def trains_first(method: Method, penalty: Penalty | None) -> bool:
    """Return whether a ridge head joins a trained one.

    Args:
        method: The method.
        penalty: Penalty of the ridge head, or None without one.

    Returns:
        True if it joins the trained head of the method, False if it is the only head, or if there is none.
    """
    return penalty is not None and method != Linear()


def check_penalty(penalty: Penalty) -> None:
    """Refuse a penalty that is not above 0.

    Args:
        penalty: The penalty, or "auto".

    Raises:
        SpecError: It is not above 0.
    """
    is_number = isinstance(penalty, float | int) and not isinstance(penalty, bool)
    if penalty != "auto" and not (is_number and penalty > 0):
        raise SpecError(f'ridge is {penalty!r}; it must be a number above 0, "auto" or "none"')


def gains_ridge_head(model: TunedModel) -> bool:
    """Return whether a ridge head can add to what a model has learned.

    Args:
        model: The model.

    Returns:
        True if its head is one linear layer on the pooled feature and something else trains, too: the ridge head of a
        probe would read the frozen feature again.
    """
    return isinstance(model.head, nn.Linear) and isinstance(model.readout, Pooled) and bool(_without_head(model))


def add_ridge_head_if_better(
    model: TunedModel, examples: Examples, *, bf16: bool, on_batch: Progress
) -> tuple[TunedModel, str]:
    """Join the head of a trained model with a ridge head on the pooled feature, where that is possible and of use.

    Args:
        model: The trained model, for which `gains_ridge_head` is true.
        examples: The images and labels that the model was trained on.
        bf16: True runs the forward passes in bf16.
        on_batch: Function that receives the number of finished images and of all images.

    Returns:
        The joined model, or `model`, and a note that says which, and why.
    """
    # Features, scores along directions, and those of a group, four and two times; targets, residuals, errors, logits.
    needed = 8 * len(examples) * (6 * model.width + 6 * model.num_classes)
    reason = f"it needs {format_bytes(needed)} of memory; --ridge auto adds it"
    if needed <= _MAX_BYTES:
        try:
            joined, left_out = add_ridge_head(model, model.readout, examples, "auto", bf16=bf16, on_batch=on_batch)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            reason = "memory does not suffice"
        except TrainingError as error:
            reason = str(error)
        else:
            if not left_out.is_at_chance:
                return joined, describe_joined(left_out)
            reason = "images that are left out are predicted no better than by the shares of the classes"
    return model, f"the trained head has no ridge head beside it: {reason}"


def describe_joined(left_out: LeftOut) -> str:
    """Return the note on a model whose trained head a ridge head has joined.

    Args:
        left_out: Its predictions for images that are left out.

    Returns:
        The note.
    """
    return f"{RIDGE_JOINS}, with the penalty {left_out.penalty:g}; the curves are those of the trained head alone"


def solve_head(model: TunedModel, examples: Examples, penalty: Penalty, *, bf16: bool, on_batch: Progress) -> LeftOut:
    """Give a linear head its weights by ridge regression on frozen features, which are computed in one pass.

    Args:
        model: The model, on its device.
        examples: Training images and labels.
        penalty: Penalty of the squared weights, see `vpt.training.ridge.Ridge`, or "auto" for the one of
            `vpt.training.ridge.PENALTIES` with the lowest log loss on images that are left out.
        bf16: True runs the forward pass in bf16.
        on_batch: Function that receives the number of finished images and of all images.

    Returns:
        The predictions for images that are left out.

    Raises:
        SpecError: The penalty is not above 0.
    """
    check_penalty(penalty)
    dataset = DeviceDataset.for_model(model, examples)
    network = BlockFeatureNetwork(model.backbone, dataset.device)
    features = compute_block_features(network, dataset, bf16=bf16, on_batch=on_batch)
    return solve_head_on(model, features, network.table, examples.labels, penalty, examples.groups)


def solve_head_on(
    model: TunedModel,
    features: NDArray[np.float16],
    table: FeatureTable,
    labels: NDArray[Any],
    penalty: Penalty,
    groups: NDArray[np.int64] | None = None,
    *,
    copies: NDArray[np.int64] | None = None,
) -> LeftOut:
    """Give a linear head its weights by ridge regression on features that are computed already.

    Args:
        model: The model.
        features: Features of the images, of `compute_block_features`.
        table: Their columns.
        labels: Labels of the images, of the kind that the model predicts.
        penalty: Penalty of the squared weights, or "auto", as for `solve_head`.
        groups: Group of each image (n,), which is left out whole. Default: every image is on its own.
        copies: Group of each image with its near copies (n,), where it is known. Default: found from `groups`.

    Returns:
        The predictions for images that are left out, together with their group and near copies.
    """
    targets = label_task(model.label_kind).targets(torch.from_numpy(labels)).numpy()
    ridge = Ridge(features, table.columns(model.readout), targets, model.num_classes)
    if copies is None:
        copies = near_copies(features[:, : table.pooled], groups)
    left_out = ridge.best(copies) if penalty == "auto" else ridge.leave_out(penalty, copies)
    weight, bias = ridge.solve(left_out.penalty, left_out.scale)
    with torch.no_grad():
        model.head.weight.copy_(torch.from_numpy(weight))  # type: ignore[operator]
        model.head.bias.copy_(torch.from_numpy(bias))  # type: ignore[operator]
    return left_out


def wide_model(model: TunedModel, readout: Readout) -> TunedModel:
    """Return a new model with room for both heads, of any weights.

    Args:
        model: A model whose linear head reads the pooled feature.
        readout: What the ridge head reads.

    Returns:
        The model, on the same device.

    Raises:
        SpecError: The head of the model is not linear, or the method depends on what the head reads.
        UnsupportedError: The backbone, or the method, does not have what the ridge head reads.
    """
    if not isinstance(model.head, nn.Linear) or not isinstance(model.readout, Pooled):
        raise SpecError(f"ridge adds to a linear head, and {model.method} has a head of its own; leave ridge out")
    wide = replace(readout, pooled=True) if isinstance(readout, MultiBlock) else model.readout
    with torch.random.fork_rng(devices=[]):  # the seed of the training decides on nothing here
        joined = TunedModel(model.backbone, model.method, model.num_classes, model.classes, wide)
    state = joined.trainable_state_dict()
    if any(state[name].shape != tensor.shape for name, tensor in _without_head(model).items()):
        raise SpecError(
            f"ridge has a head that reads several blocks, and {model.method} changes with what the head reads; leave "
            "ridge out"
        )
    return joined.to(next(model.parameters()).device)


def _without_head(model: TunedModel) -> dict[str, torch.Tensor]:
    head = {id(tensor) for tensor in model.head.parameters()}
    return {name: tensor for name, tensor in model.trainable_state_dict().items() if id(tensor) not in head}


def add_ridge_head(
    model: TunedModel,
    readout: Readout,
    examples: Examples,
    penalty: Penalty,
    *,
    bf16: bool,
    on_batch: Progress,
) -> tuple[TunedModel, LeftOut]:
    """Join the head of a trained model with a ridge head on the features of the same pass: the mean of both logits.

    The ridge head reads what the trained method makes of several blocks. Both heads are linear, so the mean is one
    linear head, and inference costs one pass.

    Args:
        model: The trained model, on its device, whose linear head reads the pooled feature.
        readout: What the ridge head reads: the pooled feature or several blocks.
        examples: The images and labels that the model was trained on.
        penalty: Penalty of the squared weights, or "auto", as for `solve_head`.
        bf16: True runs the forward passes in bf16.
        on_batch: Function that receives the number of finished images and of all images.

    Returns:
        The joined model, and the ridge head's predictions for images that are left out. They are optimistic, as the
        method was trained on these images.

    Raises:
        SpecError: The head of the model is not linear, the penalty is not above 0, or the method depends on what the
            head reads.
        TrainingError: Features of the trained model are NaN or infinite, or too far apart to be decomposed.
        UnsupportedError: The backbone, or the method, does not have what the ridge head reads.
    """
    check_penalty(penalty)
    joined = _join(model, readout).eval()
    dataset = DeviceDataset.for_model(joined, examples)
    compute = partial(compute_features, dataset=dataset, bf16=bf16, on_batch=on_batch)
    features = compute(joined.network, joined.width)
    if not np.isfinite(features).all():
        raise TrainingError("the trained model gives features that are NaN or infinite; lower the learning rate")
    copies = examples.groups
    if len(examples) <= MAX_COMPARED:
        # Trained features of a class are alike, so copies of an image are found by those of the backbone.
        frozen = FeatureExtractor(structural_copy(model.backbone.module)).to(dataset.device)
        copies = near_copies(compute(frozen, model.layout.feature_width), examples.groups)
    elif copies is not None:
        copies = np.unique(copies, return_inverse=True)[1].astype(np.int64)
    targets = label_task(model.label_kind).targets(torch.from_numpy(examples.labels)).numpy()
    columns = columns_of_head(joined)
    if isinstance(readout, MultiBlock) and readout.pooled:
        columns.insert(0, slice(0, model.width))
    try:
        ridge = Ridge(features, columns, targets, model.num_classes)
        left_out = ridge.best(copies) if penalty == "auto" else ridge.leave_out(penalty, copies)
    except np.linalg.LinAlgError as error:
        raise TrainingError(f"the ridge head cannot be solved for: {error}; lower the learning rate") from error
    weight, bias = (torch.from_numpy(values) for values in ridge.solve(left_out.penalty, left_out.scale))
    head = joined.head
    assert isinstance(head, nn.Linear)
    with torch.no_grad():
        head.weight[:, columns[0].start :] += weight.to(head.weight)
        head.bias.add_(bias.to(head.bias))
        head.weight.mul_(0.5)
        head.bias.mul_(0.5)
    return joined, left_out


def _join(model: TunedModel, readout: Readout) -> TunedModel:
    """Return a model with room for both heads, and the trained one alone in it: its logits are those of `model`."""
    joined = wide_model(model, readout)
    joined.label_kind = model.label_kind
    joined.load_trainable_state_dict({**joined.trainable_state_dict(), **_without_head(model)})
    head, trained = joined.head, model.head
    assert isinstance(head, nn.Linear) and isinstance(trained, nn.Linear)
    with torch.no_grad():
        head.weight.zero_()
        head.weight[:, : model.width] = trained.weight
        head.bias.copy_(trained.bias)
    return joined
