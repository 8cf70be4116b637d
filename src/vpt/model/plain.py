"""The plain form of a tuned model: an ordinary module tree of its own, for tools that take timm models apart."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vpt.attention.class_token_block import ClassTokenBlock
from vpt.attention.forward_state import empty_caches
from vpt.attention.joint_attention import GatedPrompts, KeyValues, keys_and_values
from vpt.attention.kv_attention import KVAttention
from vpt.attention.windows import KVWindowAttention
from vpt.methods.kv_prompts import PromptKeys
from vpt.model.readout import Readout


class PlainModel(nn.Module):
    """A network and a head with weights of their own. Nothing is shared with a backbone.

    Args:
        network: Normalized images (batch, channels, size, size) -> the head's input.
        head: The head.
        readout: The readout, which resizes the logits of a dense head.
    """

    def __init__(self, network: nn.Module, head: nn.Module, readout: Readout) -> None:
        super().__init__()
        self.network = network
        self.head = head
        self._readout = readout

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, as the tuned model does.

        Args:
            images: Normalized images (batch, channels, size, size).

        Returns:
            (batch, classes), or (batch, classes, size, size) where the head is dense.
        """
        features: Any = match_dtype(self.network(images), self.head)
        return self._readout.resize_logits(self.head(features), images.shape[-2:])


def match_dtype(features: Any, head: nn.Module) -> Any:
    """Return features in the dtype of a head.

    Args:
        features: Features (batch, width), or a tuple of feature maps.
        head: The head.

    Returns:
        The features, or a tuple of them.
    """
    weights = list(head.parameters())
    if not weights:  # as in quantized layers
        return features
    dtype = weights[0].dtype
    return features.to(dtype) if isinstance(features, Tensor) else tuple(each.to(dtype) for each in features)


class ConstantPrompts(nn.Module):
    """Prompts of a block that depend on nothing any more.

    Args:
        prompts: Tokens after the block's norm (p, d), `KeyValues`, or `GatedPrompts` of these.
    """

    def __init__(self, prompts: Tensor | KeyValues | GatedPrompts) -> None:
        super().__init__()
        inner, gate = prompts if isinstance(prompts, GatedPrompts) else (prompts, None)
        keys, values = inner if isinstance(inner, KeyValues) else (inner, None)
        self.keys: Tensor
        self.values: Tensor | None
        self.gate: Tensor | None
        for name, tensor in (("keys", keys), ("values", values), ("gate", gate)):
            self.register_buffer(name, None if tensor is None else _copy(tensor))

    def forward(self, x: Tensor) -> Tensor | KeyValues | GatedPrompts:
        """Return the prompts.

        Args:
            x: Tokens of the block, which are not used but for their dtype.

        Returns:
            The prompts in that dtype.
        """
        keys = self.keys.to(x.dtype)
        prompts = keys if self.values is None else KeyValues(keys, self.values.to(x.dtype))
        return prompts if self.gate is None else GatedPrompts(prompts, self.gate)


def _standardizes(layer: nn.Module) -> bool:
    """Return whether a convolution standardizes its weight, which undoes what is folded into it."""
    return "StdConv" in type(layer).__name__


@torch.no_grad()
def fold_constants(
    network: nn.Module,
    head: nn.Module,
    readout: Readout,
    original_modules: Mapping[str, nn.Module],
    wrappers: Mapping[str, nn.Module],
    *,
    dtype: torch.dtype,
    all_tokens: bool,
) -> PlainModel:
    """Return a copy of a tuned model in which all that does not depend on the image is computed.

    Prompts become keys and values of their blocks, and wrappers that are a linear change of a weight become the module
    that they wrap, with that weight.

    Args:
        network: The network in front of the head, in eval mode.
        head: The head.
        readout: The readout.
        original_modules: Path -> module of the trunk before injection.
        wrappers: Path -> the module that replaced the one there.
        dtype: The dtype of the tokens.
        all_tokens: True lets the last block compute all tokens, as in the backbone, where it computes the class token
            alone.

    Returns:
        The copy, in eval mode. No weight requires a gradient.
    """
    memo: dict[int, Any] = empty_caches(network)  # identity -> what stands for it in the copy
    for path, wrapper in wrappers.items():
        merged_state: Any = getattr(wrapper, "merged_state", None)
        if merged_state is not None and not _standardizes(original_modules[path]):
            memo[id(wrapper)] = _merged(original_modules[path], merged_state())
    for module in network.modules():
        prompts = module.kv_prompts if isinstance(module, (KVAttention, KVWindowAttention)) else None
        if type(prompts) is PromptKeys:
            memo[id(prompts)] = _constant(module, prompts, dtype, all_tokens=all_tokens)
    if all_tokens:
        for block in [module for module in network.modules() if isinstance(module, ClassTokenBlock)]:
            plain_block = copy.deepcopy(block.block, memo)
            getattr(plain_block, block.block_layout.attention).num_queries = None
            memo[id(block)] = plain_block
    plain = PlainModel(copy.deepcopy(network, memo), copy.deepcopy(head, memo), readout)
    _adopt(plain)
    return plain.requires_grad_(False).train().eval()  # what modules keep of their weights in eval mode is forgotten


def _adopt(root: nn.Module) -> None:
    """Make each module that is referred to, but stands nowhere in the tree, a child of the first that refers to it."""
    known = set(root.modules())
    queue = list(root.modules())
    while queue:
        module = queue.pop(0)
        for name, value in list(vars(module).items()):
            if isinstance(value, nn.Module) and value not in known:
                setattr(module, name, value)
                known |= set(value.modules())
                queue += value.modules()


def _constant(attention: Any, prompts: PromptKeys, dtype: torch.dtype, *, all_tokens: bool) -> ConstantPrompts:
    """Return the prompts of an attention: tokens where it forms no keys, as few queries ask, else keys and values."""
    device = next(attention.parameters()).device
    found: Any = prompts(torch.empty(prompts.windows_per_image, 1, 1, dtype=dtype, device=device))
    forms_no_keys = not all_tokens and getattr(attention, "num_queries", None) is not None
    inner, gate = found if isinstance(found, GatedPrompts) else (found, None)
    if not forms_no_keys and not isinstance(inner, KeyValues):
        inner = KeyValues(*(each.squeeze(0) for each in keys_and_values(attention.attention, inner)))
    return ConstantPrompts(inner if gate is None else GatedPrompts(inner, gate))


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().clone(memory_format=torch.contiguous_format)


def _merged(original: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """Return a copy of a module with other tensors; a state may have a bias that the module has not."""
    module = copy.deepcopy(original)
    for name, tensor in state.items():
        value = _copy(tensor)
        setattr(module, name, nn.Parameter(value) if name not in module._buffers else value)
    return module
