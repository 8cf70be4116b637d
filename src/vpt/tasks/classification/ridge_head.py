"""Linear heads in closed form, on the features of a frozen backbone."""

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from vpt.errors import SpecError
from vpt.methods.linear import Linear
from vpt.model.tuned_model import TunedModel
from vpt.tasks.classification.labels import label_task
from vpt.training import DeviceDataset, Examples
from vpt.training.block_features import BlockFeatureNetwork, FeatureTable, compute_block_features
from vpt.training.callbacks import Progress
from vpt.training.ridge import LeftOut, Ridge, near_copies


def solve_head(
    model: TunedModel, examples: Examples, penalty: float | Literal["auto"], *, bf16: bool, on_batch: Progress
) -> LeftOut:
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
        SpecError: The model has more to train than a linear head on a feature of the backbone, or the penalty is not
            above 0.
    """
    if model.method != Linear() or not isinstance(model.head, nn.Linear):
        raise SpecError(f"ridge={penalty} solves for a linear head alone, and the method is {model.method}; "
                        "write method=linear, or leave ridge out")  # fmt: skip
    if penalty != "auto" and not (isinstance(penalty, float | int) and penalty > 0):
        raise SpecError(f'ridge is {penalty!r}; it must be above 0, or "auto"')
    dataset = DeviceDataset.for_model(model, examples)
    network = BlockFeatureNetwork(model.backbone, dataset.device)
    features = compute_block_features(network, dataset, bf16=bf16, on_batch=on_batch)
    return solve_head_on(model, features, network.table, examples.labels, penalty, examples.groups)


def solve_head_on(
    model: TunedModel,
    features: NDArray[np.float16],
    table: FeatureTable,
    labels: NDArray[Any],
    penalty: float | Literal["auto"],
    groups: NDArray[np.int64] | None = None,
) -> LeftOut:
    """Give a linear head its weights by ridge regression on features that are computed already.

    Args:
        model: The model.
        features: Features of the images, of `compute_block_features`.
        table: Their columns.
        labels: Labels of the images, of the kind that the model predicts.
        penalty: Penalty of the squared weights, or "auto", as for `solve_head`.
        groups: Group of each image (n,), which is left out whole. Default: every image is on its own.

    Returns:
        The predictions for images that are left out, together with their group and near copies.
    """
    targets = label_task(model.label_kind).targets(torch.from_numpy(labels)).numpy()
    ridge = Ridge(features, table.columns(model.readout), targets, model.num_classes)
    copies = near_copies(features[:, : table.pooled], groups)
    left_out = ridge.best(copies) if penalty == "auto" else ridge.leave_out(penalty, copies)
    weight, bias = ridge.solve(left_out.penalty, left_out.scale)
    with torch.no_grad():
        model.head.weight.copy_(torch.from_numpy(weight))  # type: ignore[operator]
        model.head.bias.copy_(torch.from_numpy(bias))  # type: ignore[operator]
    return left_out
