"""Feature maps of a trunk of any family: the input of a dense head."""

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from vpt.attention.detection import as_input
from vpt.attention.forward_state import ForwardState
from vpt.backbones.layout import BackboneLayout
from vpt.errors import UnsupportedError

FeatureMaps = tuple[Tensor, ...]


class FeatureHook:
    """A forward hook that keeps the last output of a module. The module tree stays as it is.

    Args:
        module: The module.
    """

    def __init__(self, module: nn.Module) -> None:
        self._output: ForwardState[Any] = ForwardState()
        module.register_forward_hook(self)

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> None:
        """Keep the output of a module, as a forward hook does."""
        self._output.set(output)

    def pop(self) -> Tensor:
        """Return the last output and forget it; prompts that accompany a grid (Swin) are left out."""
        if not self._output.is_set:
            raise UnsupportedError("a stage of the backbone is never called, so its features cannot be read")
        output = self._output.pop()
        feature_map = output[0] if isinstance(output, tuple) else output
        if not isinstance(feature_map, Tensor):
            kind = type(feature_map).__name__
            raise UnsupportedError(f"a stage of the backbone puts out a {kind}, so its features cannot be read")
        return feature_map


def patch_grid(trunk: nn.Module, patch_size: int, height: int, width: int) -> tuple[int, int]:
    """Return the rows and columns of the patches of an image.

    Args:
        trunk: A plain transformer.
        patch_size: Its patch size in pixels.
        height: Height of the image in pixels.
        width: Width of the image.

    Returns:
        Rows and columns, as timm's `PatchEmbed` counts them: with `dynamic_img_pad` it pads the last patches.
    """
    embed: Any = getattr(trunk, "patch_embed", None)
    if hasattr(embed, "dynamic_feat_size"):
        rows, columns = embed.dynamic_feat_size((height, width))
        return rows, columns
    return height // patch_size, width // patch_size


class HookedTrunk(nn.Module):
    """Base of networks that read outputs of several modules of a trunk.

    Args:
        trunk: The trunk.
        layout: Its layout.
        paths: Paths of the modules inside the trunk.
    """

    def __init__(self, trunk: nn.Module, layout: BackboneLayout, paths: Iterable[str]) -> None:
        super().__init__()
        self.trunk = trunk
        self.kind: str = layout.kind
        self.pooled_norm: str | None = layout.pooled_norm
        self.hooks: list[FeatureHook] = [FeatureHook(trunk.get_submodule(path)) for path in paths]

    def run(self, images: Tensor) -> list[Tensor]:
        """Run the trunk.

        Args:
            images: Normalized images (batch, 3, height, width).

        Returns:
            The outputs of the modules, and last the final, normalized features.
        """
        *outputs, tokens = self.run_trunk(images)
        return [*outputs, self.normalize_pooled(tokens)]

    def run_trunk(self, images: Tensor) -> list[Tensor]:
        """Run the trunk.

        Args:
            images: Normalized images (batch, 3, height, width).

        Returns:
            The outputs of the modules, and last the final features before the norm that timm applies after pooling.
        """
        trunk: Any = self.trunk
        tokens = trunk.forward_features(as_input(images, trunk))
        return [*(hook.pop() for hook in self.hooks), tokens]

    def normalize_pooled(self, x: Tensor, *, hooks: bool = True) -> Tensor:
        """Apply the norm that timm applies after pooling, if there is one.

        Args:
            x: Features.
            hooks: False calls the norm without its hooks. Default: True.

        Returns:
            The normalized features.
        """
        if self.pooled_norm is None:
            return x
        norm: Any = self.trunk.get_submodule(self.pooled_norm)
        return norm(x) if hooks else norm.forward(x)  # type: ignore[no-any-return]


class MapNetwork(HookedTrunk):
    """Feature maps of a trunk.

    Class token, registers and prompts stand before the patches in every sequence, so the last tokens are the patches.

    Args:
        trunk: The trunk.
        layout: Its layout.
        paths: Paths of the modules whose outputs become maps, before the map of the final features.
        shapes: Channels and stride in pixels of each map.
    """

    def __init__(
        self, trunk: nn.Module, layout: BackboneLayout, paths: Iterable[str], shapes: Iterable[tuple[int, int]]
    ) -> None:
        super().__init__(trunk, layout, paths)
        if self.kind != "tokens":
            # Tuned files of version 1 read the last map of ConvNeXt before its final norm.
            self.pooled_norm: str | None = None
        self.patch_size: int = layout.patch_size
        self.shapes: tuple[tuple[int, int], ...] = tuple(shapes)

    def forward(self, images: Tensor) -> FeatureMaps:
        """Return the maps.

        Args:
            images: Normalized images (batch, 3, height, width).

        Returns:
            Maps (batch, d_k, height / r_k, width / r_k): those of the modules, and last the final one.
        """
        outputs = self.run(images)
        if self.kind == "windows":
            return tuple(grid.permute(0, 3, 1, 2) for grid in outputs)
        if self.kind != "tokens":
            return tuple(outputs)
        height, width = patch_grid(self.trunk, self.patch_size, *images.shape[-2:])
        return tuple(tokens[:, -height * width :].transpose(1, 2).unflatten(2, (height, width)) for tokens in outputs)


def build_feature_maps(trunk: nn.Module, layout: BackboneLayout, auxiliary_depths: Sequence[float]) -> MapNetwork:
    """Build the module that returns the feature maps of a trunk.

    Args:
        trunk: The trunk.
        layout: Its layout.
        auxiliary_depths: Depths, as fractions of all blocks, of the further maps of a plain transformer.

    Returns:
        The module. Its maps are those at the depths and the final one, or those of all stages, the finest first.

    Raises:
        UnsupportedError: The backbone has neither tokens nor stages, or too few blocks.
    """
    if layout.kind != "tokens":
        stages = feature_stages(trunk)
        shapes = [(int(stage["num_chs"]), int(stage["reduction"])) for stage in stages]
        return MapNetwork(trunk, layout, [stage["module"] for stage in stages[:-1]], shapes)
    num_patches = layout.num_tokens - layout.num_prefix_tokens
    if (layout.preprocessing.size // layout.patch_size) ** 2 != num_patches:
        raise UnsupportedError(
            f"{type(trunk).__name__} has {num_patches} patches, which make no square map; give a backbone whose "
            "patches are a grid"
        )
    num_blocks = len(layout.blocks)
    paths = [layout.blocks[max(1, round(depth * num_blocks)) - 1] for depth in auxiliary_depths]
    if len({*paths, layout.blocks[-1]}) != len(paths) + 1:
        raise UnsupportedError(f"{num_blocks} blocks are too few for {len(paths)} further maps; ask for fewer of them")
    return MapNetwork(trunk, layout, paths, [(layout.width, layout.patch_size)] * (len(paths) + 1))


def feature_stages(trunk: nn.Module) -> list[dict[str, Any]]:
    """Return the stages of a backbone from timm's `feature_info`, without those of stride below 4.

    Args:
        trunk: The trunk.

    Returns:
        Entries with the keys `module` (path), `num_chs` and `reduction` (stride in pixels), the finest first.

    Raises:
        UnsupportedError: timm does not describe the stages of this backbone, or names modules that it has not.
    """
    stages = [stage for stage in getattr(trunk, "feature_info", None) or [] if stage["reduction"] >= 4]
    if not stages:
        name = type(trunk).__name__
        raise UnsupportedError(f"{name} tells neither tokens nor stages, so it has no maps for a dense head")
    modules = dict(trunk.named_modules())
    absent = [stage["module"] for stage in stages[:-1] if stage["module"] not in modules]  # the last is read behind all
    if absent:
        raise UnsupportedError(
            f"timm names {absent[0]} as a stage of {type(trunk).__name__}, which has no such module, so its maps "
            "cannot be read; give another backbone, or a head of the pooled feature"
        )
    return stages
