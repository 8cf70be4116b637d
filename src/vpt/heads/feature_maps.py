"""Feature maps of a trunk, whatever its family: what a dense head reads instead of the pooled feature."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from vpt.attention.detection import dtype_of
from vpt.backbones.layout import Sites
from vpt.errors import FitError

Maps = tuple[Tensor, ...]


class Tap:
    """Listens at a module and keeps what came out of it, until it is asked for. The tree of modules stays as it is."""

    def __init__(self, module: nn.Module) -> None:
        self.kept: Any = None
        module.register_forward_hook(self)

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self.kept = output

    def take(self) -> Tensor:
        """What came out last; prompts that travel beside a grid (Swin) are left out."""
        kept, self.kept = self.kept, None
        found: Tensor = kept[0] if isinstance(kept, tuple) else kept
        return found


class TokenMaps(nn.Module):
    """Normalised images (batch, 3, height, width) -> maps (batch, d, height / patch, width / patch), finest last.

    The last map is of the final, normalised patch tokens; before it come the outputs of the tapped blocks.
    Class token, registers and prompts stand before the patches in every sequence, so the last tokens are the patches.
    """

    def __init__(self, trunk: nn.Module, patch: int, taps: Sequence[str]) -> None:
        super().__init__()
        self.trunk = trunk
        self.patch = patch
        self.taps = [Tap(trunk.get_submodule(path)) for path in taps]

    def forward(self, images: Tensor) -> Maps:
        trunk: Any = self.trunk
        final = trunk.forward_features(images.to(dtype_of(trunk)))
        if getattr(trunk, "fc_norm", None) is not None:  # stands for the final norm where a model averages its patches
            final = trunk.fc_norm(final)
        height, width = (side // self.patch for side in images.shape[-2:])
        sequences = [*(tap.take() for tap in self.taps), final]
        return tuple(tokens[:, -height * width :].transpose(1, 2).unflatten(2, (height, width)) for tokens in sequences)


class PyramidMaps(nn.Module):
    """Normalised images -> maps of falling resolution (batch, d_k, height / r_k, width / r_k), as timm describes them.

    channels_last: the trunk's grids are (batch, height, width, d), as in Swin.
    """

    def __init__(self, trunk: nn.Module, taps: Sequence[str], channels_last: bool) -> None:
        super().__init__()
        self.trunk = trunk
        self.taps = [Tap(trunk.get_submodule(path)) for path in taps]
        self.channels_last = channels_last

    def forward(self, images: Tensor) -> Maps:
        trunk: Any = self.trunk
        final = trunk.forward_features(images.to(dtype_of(trunk)))
        found = [*(tap.take() for tap in self.taps), final]
        return tuple(map_.permute(0, 3, 1, 2) if self.channels_last else map_ for map_ in found)


def maps_of(
    trunk: nn.Module, sites: Sites, auxiliary: Sequence[float]
) -> tuple[TokenMaps | PyramidMaps, tuple[tuple[int, int], ...]]:
    """The maps of a trunk, and of each its channels and its stride in pixels.

    auxiliary: depths, as shares of all blocks, whose outputs are wanted besides the last of a plain transformer.
    Raises FitError where a model tells neither its tokens nor its stages.
    """
    if sites.kind == "tokens":
        count = len(sites.blocks)
        taps = [sites.blocks[max(1, round(share * count)) - 1] for share in auxiliary]
        if len({*taps, sites.blocks[-1]}) != len(taps) + 1:
            raise FitError(f"{count} blocks are too few for {len(taps)} auxiliary heads; ask for fewer of them")
        return TokenMaps(trunk, sites.patch, taps), ((sites.width, sites.patch),) * (len(taps) + 1)
    stages = [stage for stage in getattr(trunk, "feature_info", None) or [] if stage["reduction"] >= 4]
    if not stages:
        raise FitError(f"{type(trunk).__name__} tells neither tokens nor stages, so it has no maps for a dense head")
    taps = [stage["module"] for stage in stages[:-1]]
    shapes = tuple((int(stage["num_chs"]), int(stage["reduction"])) for stage in stages)
    return PyramidMaps(trunk, taps, channels_last=sites.kind == "windows"), shapes
