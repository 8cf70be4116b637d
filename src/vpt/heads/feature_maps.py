"""Feature maps of a trunk of any family: the input of a dense head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from vpt.attention.detection import compute_dtype
from vpt.backbones.layout import BackboneLayout
from vpt.errors import UnsupportedError

FeatureMaps = tuple[Tensor, ...]


class FeatureHook:
    """A forward hook that keeps the last output of a module. The module tree stays as it is.

    Args:
        module: The module.
    """

    def __init__(self, module: nn.Module) -> None:
        self.output: Any = None
        module.register_forward_hook(self)

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> None:
        """Keep the output of a module, as a forward hook does."""
        self.output = output

    def pop(self) -> Tensor:
        """Return the last output and forget it; prompts that accompany a grid (Swin) are left out."""
        output, self.output = self.output, None
        feature_map: Tensor = output[0] if isinstance(output, tuple) else output
        return feature_map


class TokenMaps(nn.Module):
    """Feature maps of a plain transformer.

    Class token, registers and prompts stand before the patches in every sequence, so the last tokens are the patches.

    Args:
        trunk: The trunk.
        patch_size: Side of a patch in pixels.
        width: Channels of a token.
        hook_paths: Paths of the blocks whose outputs become maps, before the map of the final, normalized tokens.
    """

    def __init__(self, trunk: nn.Module, patch_size: int, width: int, hook_paths: Sequence[str]) -> None:
        super().__init__()
        self.trunk = trunk
        self.patch_size = patch_size
        self.hooks: list[FeatureHook] = [FeatureHook(trunk.get_submodule(path)) for path in hook_paths]
        self.shapes: tuple[tuple[int, int], ...] = ((width, patch_size),) * (len(hook_paths) + 1)

    def forward(self, images: Tensor) -> FeatureMaps:
        """Return the maps.

        Args:
            images: Normalized images (batch, 3, height, width).

        Returns:
            Maps (batch, d, height / patch_size, width / patch_size), the final one last.
        """
        trunk: Any = self.trunk
        final_features = trunk.forward_features(images.to(compute_dtype(trunk)))
        if getattr(trunk, "fc_norm", None) is not None:  # stands for the final norm where a model averages its patches
            final_features = trunk.fc_norm(final_features)
        height, width = (side // self.patch_size for side in images.shape[-2:])
        sequences = [*(hook.pop() for hook in self.hooks), final_features]
        return tuple(tokens[:, -height * width :].transpose(1, 2).unflatten(2, (height, width)) for tokens in sequences)


class PyramidMaps(nn.Module):
    """Feature maps of falling resolution, as timm describes the stages of a backbone.

    Args:
        trunk: The trunk.
        stages: Entries of timm's `feature_info`, the finest first.
        channels_last: True where the trunk's grids are (batch, height, width, d), as in Swin.
    """

    def __init__(self, trunk: nn.Module, stages: Sequence[Mapping[str, Any]], channels_last: bool) -> None:
        super().__init__()
        self.trunk = trunk
        self.hooks: list[FeatureHook] = [FeatureHook(trunk.get_submodule(stage["module"])) for stage in stages[:-1]]
        self.channels_last = channels_last
        self.shapes: tuple[tuple[int, int], ...] = tuple(
            (int(stage["num_chs"]), int(stage["reduction"])) for stage in stages
        )

    def forward(self, images: Tensor) -> FeatureMaps:
        """Return the maps.

        Args:
            images: Normalized images (batch, 3, height, width).

        Returns:
            Maps (batch, d_k, height / r_k, width / r_k), the finest first.
        """
        trunk: Any = self.trunk
        final_features = trunk.forward_features(images.to(compute_dtype(trunk)))
        feature_maps = [*(hook.pop() for hook in self.hooks), final_features]
        return tuple(
            feature_map.permute(0, 3, 1, 2) if self.channels_last else feature_map for feature_map in feature_maps
        )


def build_feature_maps(
    trunk: nn.Module, layout: BackboneLayout, auxiliary_depths: Sequence[float]
) -> TokenMaps | PyramidMaps:
    """Build the module that returns the feature maps of a trunk.

    Args:
        trunk: The trunk.
        layout: Its layout.
        auxiliary_depths: Depths, as fractions of all blocks, of the further maps of a plain transformer.

    Returns:
        The module; its `shapes` are the channels and the stride in pixels of each map.

    Raises:
        UnsupportedError: The backbone has neither tokens nor stages, or too few blocks.
    """
    if layout.kind == "tokens":
        num_blocks = len(layout.blocks)
        hook_paths = [layout.blocks[max(1, round(depth * num_blocks)) - 1] for depth in auxiliary_depths]
        if len({*hook_paths, layout.blocks[-1]}) != len(hook_paths) + 1:
            raise UnsupportedError(
                f"{num_blocks} blocks are too few for {len(hook_paths)} auxiliary heads; ask for fewer of them"
            )
        return TokenMaps(trunk, layout.patch_size, layout.width, hook_paths)
    return PyramidMaps(trunk, feature_stages(trunk), channels_last=layout.kind == "windows")


def feature_stages(trunk: nn.Module) -> list[dict[str, Any]]:
    """Return the stages of a backbone from timm's `feature_info`, without those of stride below 4.

    Args:
        trunk: The trunk.

    Returns:
        Entries with the keys `module` (path), `num_chs` and `reduction` (stride in pixels), the finest first.

    Raises:
        UnsupportedError: timm does not describe the stages of this backbone.
    """
    stages = [stage for stage in getattr(trunk, "feature_info", None) or [] if stage["reduction"] >= 4]
    if not stages:
        raise UnsupportedError(
            f"{type(trunk).__name__} tells neither tokens nor stages, so it has no maps for a dense head"
        )
    return stages
