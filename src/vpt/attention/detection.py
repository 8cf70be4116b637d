"""A trunk: a backbone's structure of its own, over the very same weights.

Modules are injected into the trunk. The backbone keeps its modules, their mode, and the flags of its weights, so any
number of methods share one backbone at a time, and detaching needs no work.
"""

import copy
import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vpt.attention.class_token_block import ClassTokenBlock
from vpt.attention.kv_attention import attend
from vpt.attention.projections import score_bias
from vpt.attention.windows import attend_windows
from vpt.backbones.layout import BackboneLayout, read_layout
from vpt.data.preprocessing import Preprocessing
from vpt.errors import DataError

_DTYPE_MARKER = "_frozen_dtype"


def structural_copy(model: nn.Module, num_classes: int | None = 0) -> nn.Module:
    """A frozen copy of the module tree in eval mode with the same weights, and a new classifier, none, or its own."""
    shared: dict[int, Any] = {id(buffer): buffer for buffer in model.buffers()}
    shared |= {id(weight): nn.Parameter(weight.detach(), requires_grad=False) for weight in model.parameters()}
    trunk: Any = copy.deepcopy(model, shared)
    if num_classes is not None and hasattr(trunk, "reset_classifier"):
        trunk.reset_classifier(num_classes)
    weight = next(trunk.parameters(), None)
    if weight is not None:
        # A buffer follows casts of the whole model, as an attribute would not; it is empty and stands in no file.
        trunk.register_buffer(_DTYPE_MARKER, weight.new_empty(0), persistent=False)
    return trunk.train().eval()  # type: ignore[no-any-return] # biases that LeViT keeps from an earlier pass are forgotten


def compute_dtype(trunk: nn.Module) -> torch.dtype:
    """Return the dtype of the frozen weights; injected modules may come first and have a wider dtype."""
    marker = getattr(trunk, _DTYPE_MARKER, None)
    if marker is not None:
        return marker.dtype  # type: ignore[no-any-return]
    frozen = (weight for weight in trunk.parameters() if not weight.requires_grad)
    return next(frozen, next(trunk.parameters())).dtype


def as_input(images: Tensor, trunk: nn.Module) -> Tensor:
    """Return normalized images in the dtype of the frozen weights; raise DataError for what is no such batch."""
    if images.dim() != 4 or not images.is_floating_point():
        raise DataError(
            f"images are {images.dtype} {tuple(images.shape)}; give normalized floats (batch, channels, height, width) "
            "like those of `model.backbone.preprocessing.normalize` and `model.backbone.transform()`"
        )
    return images.to(compute_dtype(trunk))


Pool = Callable[[Tensor], Tensor]


class FeatureExtractor(nn.Module):
    """Normalized images (batch, 3, height, width) -> pooled features (batch, d), by timm's own two steps.

    pool: instead of the backbone's own: the final, normalized tokens (batch, tokens, d) -> (batch, d), or
    (batch, n, d), which become (batch, n * d).
    """

    def __init__(self, trunk: nn.Module, pool: Pool | None = None) -> None:
        super().__init__()
        self.trunk = trunk
        self.pool = pool

    def forward(self, images: Tensor) -> Tensor:
        """Return the features of normalized images.

        Args:
            images: Normalized images (batch, 3, height, width).

        Returns:
            Pooled features (batch, d).
        """
        trunk: Any = self.trunk
        tokens = trunk.forward_features(as_input(images, trunk))
        if self.pool is None:
            return trunk.forward_head(tokens, pre_logits=True)  # type: ignore[no-any-return]
        pooled = self.pool(tokens)
        return (trunk.fc_norm(pooled) if getattr(trunk, "fc_norm", None) is not None else pooled).flatten(1)


def probe_image(trunk: nn.Module, preprocessing: Preprocessing) -> Tensor:
    """One image without a pattern that could hide a fault, in the trunk's dtype, on its device."""
    shape = (1, preprocessing.channels, preprocessing.size, preprocessing.size)
    image = torch.arange(math.prod(shape), dtype=torch.float32).mul(0.7).sin().view(shape)
    return image.to(next(trunk.parameters()).device, compute_dtype(trunk))


@torch.no_grad()
def detect_layout(trunk: nn.Module, preprocessing: Preprocessing) -> BackboneLayout:
    """The places of a trunk, the width of its feature, and whether its blocks can be opened, all tried on one image."""
    layout, image = read_layout(trunk, preprocessing), probe_image(trunk, preprocessing)
    feature = FeatureExtractor(trunk)(image)
    layout = replace(layout, feature_width=feature.shape[1] if feature.dim() == 2 else 0)
    if not layout.blocks or layout.kind == "maps":
        return layout
    blocks = [trunk.get_submodule(path) for path in layout.blocks]
    if layout.kind == "windows":
        return replace(layout, supports_kv_prompts=_supports_window_prompts(trunk, image, layout, blocks))
    x, context = capture_block_input(blocks[0], FeatureExtractor(trunk), image)
    layout = _measure_patches(replace(layout, num_tokens=x.shape[1]))
    if layout.reads_class_token and not _pools_class_token_alone(trunk, x, x[:, :1]):
        layout = replace(layout, reads_class_token=False)
    block_layouts = {layout.block_layout(block) for block in blocks}
    block_layout = block_layouts.pop()
    if block_layout is None or block_layouts:
        return layout
    block, attentions = blocks[0], [getattr(block, block_layout.attention) for block in blocks]
    if len({type(attention) for attention in attentions}) != 1 or not all(map(_is_readable, attentions)):
        return layout
    normed = getattr(block, block_layout.norm1)(x)
    prompts = normed[:, -3:].flip(1, 2)  # of the size of tokens, and unlike any of them
    attend_to_prompts = partial(attend, attentions[0], normed, kv_prompts=prompts, **context)
    concatenated = partial(_attend_concatenated, attentions[0], normed, prompts, context)
    if not _agree(lambda: (attend_to_prompts(), concatenated())):
        return layout
    # Only the CLS of the last block is read, and a block restated for CLS alone gives it.
    cls_only = (
        layout.reads_class_token
        and _is_unhooked(blocks[-1])
        and _agree(lambda: (attend_to_prompts(num_queries=1), concatenated()[:, :1]))
        and _agree(
            lambda: (ClassTokenBlock(structural_copy(block), block_layout)(x, **context), block(x, **context)[:, :1])
        )
    )
    return replace(layout, supports_kv_prompts=True, cls_only=cls_only)


def _measure_patches(layout: BackboneLayout) -> BackboneLayout:
    """Return the layout with the patch size that its number of tokens tells, where the model's own says otherwise.

    A hybrid names the patches of its feature maps, and NaFlexViT none.
    """
    size, side = layout.preprocessing.size, math.isqrt(max(1, layout.num_tokens - layout.num_prefix_tokens))
    return layout if size // layout.patch_size == side else replace(layout, patch_size=size // side)


def _attend_concatenated(attention: Any, x: Tensor, prompts: Tensor, context: dict[str, Any]) -> Tensor:
    """Return the output of the module's own forward for x, with prompts that have no position in its sequence."""
    first, length = getattr(attention, "num_prefix_tokens", 1), prompts.shape[1]
    longer = copy.copy(attention)
    if hasattr(attention, "num_prefix_tokens"):  # rotary positions begin behind these
        longer.num_prefix_tokens = first + length
    if getattr(attention, "relative_position_bias_table", None) is not None or "shared_rel_pos_bias" in context:
        # The table has a row for every token: its values are given from outside, with zeros for the prompts.
        longer._parameters = {**attention._parameters, "relative_position_bias_table": None}
        context = {**context, "shared_rel_pos_bias": score_bias(attention, context, length)}
    out = longer(torch.cat([x[:, :first], prompts, x[:, first:]], dim=1), **context)
    return torch.cat([out[:, :first], out[:, first + length :]], dim=1)


def _is_unhooked(module: nn.Module) -> bool:
    """Return True if calling a module runs its class's forward and nothing else."""
    return not (module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module))


def _is_readable(attention: Any) -> bool:
    """Return True if nothing wraps the weights that `attend` reads instead of calling their module, such as PEFT's."""
    qkv = getattr(attention, "qkv", None)
    return _is_unhooked(attention) and (qkv is None or (type(qkv) is nn.Linear and _is_unhooked(qkv)))


def _supports_window_prompts(trunk: nn.Module, image: Tensor, layout: BackboneLayout, blocks: list[nn.Module]) -> bool:
    """Return whether every window attention is the known one, by a pass of one image through all of them."""
    if not all(layout.block_layout(block) and _is_unhooked(block.get_submodule("attn")) for block in blocks):
        return False
    matches: list[bool] = []

    def compare(attention: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], expected: Tensor) -> None:
        matches.append(_agree(lambda: (attend_windows(attention, args[0], mask=kwargs.get("mask"))[0], expected)))

    with ExitStack() as hooks:
        for block in blocks:
            hooks.enter_context(block.get_submodule("attn").register_forward_hook(compare, with_kwargs=True))
        FeatureExtractor(trunk)(image)
    return len(matches) == len(blocks) and all(matches)


def _agree(compute: Callable[[], tuple[Tensor, Tensor]]) -> bool:
    """Return True if the two outputs are equal to rounding; on the meta device, where they have no values, too."""
    try:
        actual, expected = compute()
    except (AttributeError, TypeError, ValueError, RuntimeError):
        return False  # another kind of module: parts are missing or shaped differently
    tolerance = 1e-4 if expected.dtype == torch.float32 else 3e-2
    return actual.shape == expected.shape and (
        actual.is_meta or torch.allclose(actual, expected, rtol=tolerance, atol=tolerance)
    )


class _InputCaptured(Exception):
    """Carries a block's input out of the forward pass, which need not go on."""


@torch.no_grad()
def capture_block_input(block: nn.Module, network: nn.Module, images: Tensor) -> tuple[Tensor, dict[str, Any]]:
    """Return the input of a block of a network: the tokens, and the other arguments."""

    def stop(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        raise _InputCaptured(args[0], kwargs)

    with block.register_forward_pre_hook(stop, with_kwargs=True):
        try:
            network(images)
        except _InputCaptured as captured:
            x, context = captured.args
            return x, context
    raise RuntimeError(f"{type(network).__name__} never calls this block")


def _pools_class_token_alone(trunk: Any, x: Tensor, cls: Tensor) -> bool:
    """Return whether the head reads the same from CLS alone; a distilled DeiT also reads its second token."""
    try:
        all_tokens, cls_alone = (trunk.forward_head(tokens, pre_logits=True) for tokens in (x, cls))
    except (IndexError, RuntimeError):
        return False
    return cls_alone.is_meta or torch.equal(all_tokens, cls_alone)
