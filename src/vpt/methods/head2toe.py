"""Head2Toe (Evci et al., ICML 2022): a linear head on features of all blocks that a group lasso selects."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vpt.backbones.layout import BackboneLayout
from vpt.core.text import comma_list
from vpt.errors import SpecError, UnsupportedError
from vpt.heads.multi_block import MultiBlockFeatures, features_of, units
from vpt.methods.base import NETWORK, Injection, Method
from vpt.methods.init_inputs import InitInput, InitInputs
from vpt.methods.references import refer


@dataclass(frozen=True)
class Head2Toe(Method, name="head2toe", learning_rate=0.5):
    """A linear head on the features of all blocks that a group lasso on the training images selects; no prompts.

    The features are class token, mean and standard deviation of the patches of every block, as `multi_block` heads read
    them. The weights of a feature for all classes are one group.

    Args:
        keep: Number of features that are selected, in multiples of the width d of the backbone's own. Default: 1.
        penalty: Penalty of the group lasso, as a fraction of the least one that selects nothing. Default: 0.1.
    """

    keep: int = 1
    penalty: float = 0.1

    def __post_init__(self) -> None:
        if self.keep < 1:
            raise SpecError(f"keep is {self.keep}; it must be at least 1")
        if not 0 < self.penalty < 1:
            raise SpecError(f"penalty is {self.penalty}; it must lie between 0 and 1")

    def plan(self, trunk: nn.Module, layout: BackboneLayout) -> Injection:
        """Plan the selected features; raise UnsupportedError if there are fewer."""
        names = features_of(layout)
        widths = [len(names) * width for width in units(trunk, layout).values()]
        total, size = sum(widths), self.keep * layout.feature_width
        if size > total:
            raise UnsupportedError(
                f"keep is {self.keep}, so {size} features, and the blocks have {total}; give at most "
                f"{total // layout.feature_width}"
            )
        selection = _Selection(widths, size)
        wrapper = partial(_SelectedFeatures, layout=layout, names=names, selection=selection)
        modules = {"selection": selection}
        # A pooling of its own tells that the last block has to compute all tokens.
        return Injection(modules=modules, wrappers={NETWORK: wrapper}, pool=_leave_tokens, num_pooled=self.keep)

    @property
    def init_inputs(self) -> frozenset[InitInput]:
        """The features of all blocks."""
        return frozenset({"features"})

    def initialize(self, inputs: InitInputs, modules: nn.ModuleDict) -> None:
        """Select the features of the largest weights."""
        indices: Any = modules["selection"].indices
        assert inputs.features is not None and inputs.targets is not None
        ranked = rank_by_group_lasso(inputs.features, inputs.targets, self.penalty)
        indices.copy_(ranked[: len(indices)].sort().values)

    def check_values(self, modules: nn.ModuleDict) -> None:
        """Check the indices of the selected features; raise SpecError if there is no such feature."""
        selection: Any = modules["selection"]
        unknown = selection.indices[(selection.indices < 0) | (selection.indices >= selection.total)].tolist()
        if unknown:
            raise SpecError(
                f"selection.indices has {comma_list(list(map(str, unknown)))}, and features are numbered from 0 to "
                f"{selection.total - 1}; save the model again"
            )


def rank_by_group_lasso(features: Tensor, targets: Tensor, penalty: float) -> Tensor:
    """Rank features by the norm of their weights in a linear regression with one group of weights for each.

    It minimizes |Y - X W|^2 / 2 + penalty * limit * sum_j |W_j| over the weights W of standardized features X and
    centered targets Y. Features without weight follow by their correlation with the residual.

    Args:
        features: Features X (n, width).
        targets: Targets Y (n, outputs), such as 1 for the class of an image and 0 for the others.
        penalty: Fraction of `limit`, the least penalty for which all weights are 0.

    Returns:
        Indices of the features (width,), the most important first.
    """
    from sklearn.exceptions import ConvergenceWarning  # slow import
    from sklearn.linear_model import MultiTaskLasso

    x, y = features.cpu().double(), targets.cpu().double()  # MPS has no float64
    deviation, mean = torch.std_mean(x, dim=0, correction=0)
    x, y = (x - mean) / deviation.clamp_min(1e-6), y - y.mean(0)
    limit = float((x.T @ y).norm(dim=1).max()) / len(x)
    weights = torch.zeros(x.shape[1], y.shape[1], dtype=x.dtype)
    if limit > 0:
        lasso = MultiTaskLasso(alpha=penalty * limit, fit_intercept=False, max_iter=200)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a ranking needs no exact weights
            weights = torch.from_numpy(lasso.fit(x.numpy(), y.numpy()).coef_.T)
    norms, rest = weights.norm(dim=1), (x.T @ (y - x @ weights)).norm(dim=1)
    ranked = torch.argsort(torch.where(norms > 0, rest.max() + norms, rest), descending=True, stable=True)
    return ranked.to(features.device)


class _Selection(nn.Module):
    """The indices of the selected features; before the selection, of those of the last blocks."""

    def __init__(self, widths: Sequence[int], size: int) -> None:
        super().__init__()
        self.total = sum(widths)
        blocks = torch.arange(self.total).split(list(widths))
        self.indices: Tensor
        self.register_buffer("indices", torch.cat(blocks[::-1])[:size])


class _SelectedFeatures(MultiBlockFeatures):
    """Replacement of the network: normalized images -> the selected features of all blocks."""

    selection: _Selection

    def __init__(self, network: Any, layout: BackboneLayout, names: Sequence[str], selection: _Selection) -> None:
        trunk = getattr(network, "trunk", None)
        if trunk is None:
            raise UnsupportedError("another method of the sum replaces the network, whose blocks it cannot read then")
        super().__init__(trunk, layout, range(len(units(trunk, layout))), names)
        refer(self, selection=selection)

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).index_select(1, self.selection.indices)


def _leave_tokens(tokens: Tensor) -> Tensor:
    """Return the tokens, which are read block by block."""
    return tokens
