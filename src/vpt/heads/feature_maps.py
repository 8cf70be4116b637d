"""Feature maps of a trunk, whatever its family: what a dense head reads instead of the pooled feature."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from vpt.attention.detection import compute_dtype
from vpt.backbones.layout import BackboneLayout
from vpt.errors import UnsupportedError

FeatureMaps = tuple[Tensor, ...]


class FeatureHook:
    """Listens at a module and keeps what came out of it, until it is asked for. The tree of modules stays as it is."""

    def __init__(self, module: nn.Module) -> None:
        self.output: Any = None
        module.register_forward_hook(self)

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self.output = output

    def pop(self) -> Tensor:
        """What came out last; prompts that travel beside a grid (Swin) are left out."""
        output, self.output = self.output, None
        feature_map: Tensor = output[0] if isinstance(output, tuple) else output
        return feature_map


class TokenMaps(nn.Module):
    """Normalised images (batch, 3, height, width) -> maps (batch, d, height / patch, width / patch), finest last.

    The last map is of the final, normalized patch tokens; before it come the outputs of the tapped blocks.
    Class token, registers and prompts stand before the patches in every sequence, so the last tokens are the patches.
    """

    def __init__(self, trunk: nn.Module, patch_size: int, hook_paths: Sequence[str]) -> None:
        super().__init__()
        self.trunk = trunk
        self.patch_size = patch_size
        self.hooks = [FeatureHook(trunk.get_submodule(path)) for path in hook_paths]

    def forward(self, images: Tensor) -> FeatureMaps:
        trunk: Any = self.trunk
        final_features = trunk.forward_features(images.to(compute_dtype(trunk)))
        if getattr(trunk, "fc_norm", None) is not None:  # stands for the final norm where a model averages its patches
            final_features = trunk.fc_norm(final_features)
        height, width = (side // self.patch_size for side in images.shape[-2:])
        sequences = [*(hook.pop() for hook in self.hooks), final_features]
        return tuple(tokens[:, -height * width :].transpose(1, 2).unflatten(2, (height, width)) for tokens in sequences)


class PyramidMaps(nn.Module):
    """Normalised images -> maps of falling resolution (batch, d_k, height / r_k, width / r_k), as timm describes them.

    channels_last: the trunk's grids are (batch, height, width, d), as in Swin.
    """

    def __init__(self, trunk: nn.Module, hook_paths: Sequence[str], channels_last: bool) -> None:
        super().__init__()
        self.trunk = trunk
        self.hooks = [FeatureHook(trunk.get_submodule(path)) for path in hook_paths]
        self.channels_last = channels_last

    def forward(self, images: Tensor) -> FeatureMaps:
        trunk: Any = self.trunk
        final_features = trunk.forward_features(images.to(compute_dtype(trunk)))
        feature_maps = [*(hook.pop() for hook in self.hooks), final_features]
        return tuple(
            feature_map.permute(0, 3, 1, 2) if self.channels_last else feature_map for feature_map in feature_maps
        )


def build_feature_maps(
    trunk: nn.Module, layout: BackboneLayout, auxiliary_depths: Sequence[float]
) -> tuple[TokenMaps | PyramidMaps, tuple[tuple[int, int], ...]]:
    """The maps of a trunk, and of each its channels and its stride in pixels.

    auxiliary_depths: depths, as shares of all blocks, whose outputs are wanted besides the last of a plain transformer.
    Raises UnsupportedError where a model tells neither its tokens nor its stages.
    """
    if layout.kind == "tokens":
        num_blocks = len(layout.blocks)
        hook_paths = [layout.blocks[max(1, round(depth * num_blocks)) - 1] for depth in auxiliary_depths]
        if len({*hook_paths, layout.blocks[-1]}) != len(hook_paths) + 1:
            raise UnsupportedError(
                f"{num_blocks} blocks are too few for {len(hook_paths)} auxiliary heads; ask for fewer of them"
            )
        return TokenMaps(trunk, layout.patch_size, hook_paths), ((layout.width, layout.patch_size),) * (
            len(hook_paths) + 1
        )
    stages = [stage for stage in getattr(trunk, "feature_info", None) or [] if stage["reduction"] >= 4]
    if not stages:
        raise UnsupportedError(
            f"{type(trunk).__name__} tells neither tokens nor stages, so it has no maps for a dense head"
        )
    hook_paths = [stage["module"] for stage in stages[:-1]]
    shapes = tuple((int(stage["num_chs"]), int(stage["reduction"])) for stage in stages)
    return PyramidMaps(trunk, hook_paths, channels_last=layout.kind == "windows"), shapes
