"""Batches whose samples belong to different models on one backbone: tasks of a server, members of an ensemble."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vpt.attention.kv_attention import KVAttention, PromptGroups
from vpt.methods.base import NETWORK
from vpt.methods.mergeable import Mergeable
from vpt.model.injection import named_tensors
from vpt.model.tuned_model import TunedModel

State = Tensor | tuple[Tensor, ...]


class BatchParts(nn.Module):
    """A module that runs another module for each part of the batch.

    Args:
        parts: Number of samples and module of each part, in the order of the batch; equal numbers are equal parts. The
            modules stand elsewhere in the tree. Default: none yet.
    """

    def __init__(self, parts: Sequence[tuple[int, nn.Module]] = ()) -> None:
        super().__init__()
        self.parts = parts

    def forward(self, x: State, *args: Any, **context: Any) -> State:
        """Return the outputs of the modules for their parts, in the order of the batch.

        Args:
            x: The input, or a tuple of inputs, with the samples along the first dimension; several rows may belong to a
                sample (windows).
            *args: Further arguments of each module.
            **context: Further arguments of each module by name.

        Returns:
            The output, or a tuple of outputs.
        """
        outputs = [module(chunk, *args, **context) for chunk, module in self.chunks(x)]
        if len(outputs) == 1:
            return outputs[0]  # type: ignore[no-any-return]
        if isinstance(outputs[0], tuple):
            return tuple(map(torch.cat, zip(*outputs, strict=True)))
        return torch.cat(outputs)

    def chunks(self, x: State) -> Iterator[tuple[State, nn.Module]]:
        """Iterate over the parts of an input.

        Args:
            x: The input, as for `forward`.

        Yields:
            The part and its module.
        """
        numbers, modules = zip(*self.parts, strict=True)

        def split(tensor: Tensor) -> tuple[Tensor, ...]:
            rows = tensor.shape[0] // sum(numbers)  # of a sample
            chunks: tuple[Tensor, ...] = tensor.split([rows * number for number in numbers])
            return chunks

        parts: Any = zip(*map(split, x), strict=True) if isinstance(x, tuple) else split(x)
        yield from zip(parts, modules, strict=True)


class PromptParts(BatchParts):
    """The prompts of an attention, by another module for each part of the batch."""

    def forward(self, x: Any, *args: Any, **context: Any) -> Any:
        """Return the prompts.

        Args:
            x: Normalized tokens (batch, n, d).
            *args: Further arguments of each module.
            **context: Further arguments of each module by name.

        Returns:
            Number of samples and prompts of each part, as `KVAttention` reads them.
        """
        groups: PromptGroups = [(len(chunk), module(chunk, *args, **context)) for chunk, module in self.chunks(x)]
        return groups


def learned_modules(model: TunedModel) -> dict[str, nn.Module] | None:
    """Return the modules that contain all that a model has learned but its head.

    Args:
        model: The model.

    Returns:
        Path in the trunk -> the prompts of an attention, or the module that replaced the one there. None where the
        method trains or changes weights of the backbone itself, or replaces the network as a whole.
    """
    wrappers = model.wrappers()
    if NETWORK in wrappers:
        return None
    found: dict[str, nn.Module] = {}
    for path, wrapper in wrappers.items():
        if any(path.startswith(f"{outer}.") for outer in wrappers):
            continue
        prompts = wrapper.kv_prompts if isinstance(wrapper, KVAttention) else None
        if isinstance(wrapper, Mergeable) or (prompts is not None and any(p.startswith(f"{path}.") for p in wrappers)):
            return None  # attention reads the weights of such a layer without calling it
        found[path] = wrapper if prompts is None else prompts
    holders = (model.head, model.added_modules, *found.values())
    known = {id(tensor) for module in holders for _, tensor in named_tensors(module)}
    return found if all(id(tensor) in known for tensor in model.trainable_state_dict().values()) else None
