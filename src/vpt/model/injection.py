"""Carrying out a plan on a trunk: weights are taken over, modules are hung, and what was where is remembered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor, nn

from vpt.attention.class_token_block import ClassTokenBlock
from vpt.backbones.layout import BackboneLayout
from vpt.methods.base import NETWORK, Injection


def clone_trainable(trunk: nn.Module, path: str) -> Iterator[tuple[str, Tensor]]:
    """Replace the weight at `path`, or every weight and buffer of the module there, by a copy of the method's own.

    Yields their names in the trunk, and the copies. Weights that the backbone ties stay tied.
    """
    parent_path, _, name = path.rpartition(".")
    parent = trunk.get_submodule(parent_path)
    if isinstance(getattr(parent, name, None), nn.Parameter):
        setattr(parent, name, nn.Parameter(getattr(parent, name).detach().clone()))
        yield path, getattr(parent, name)
        return
    copies: dict[nn.Parameter, nn.Parameter] = {}  # by identity, as tensors hash
    for module_path, module in trunk.get_submodule(path).named_modules(prefix=path):
        for key, weight in list(module.named_parameters(recurse=False)):
            is_tied = weight in copies
            if not is_tied:
                copies[weight] = nn.Parameter(weight.detach().clone())
            setattr(module, key, copies[weight])
            if not is_tied:
                yield f"{module_path}.{key}".lstrip("."), getattr(module, key)
        for key, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, key, buffer.clone())
            if key not in module._non_persistent_buffers_set:  # made anew with the model, never saved
                yield f"{module_path}.{key}".lstrip("."), getattr(module, key)


def trainable_module_ids(trunk: nn.Module, injection: Injection) -> set[int]:
    """Identities of the modules that train as a whole, so in train mode: dropout, statistics of a batch."""
    names = {name for name, _ in trunk.named_modules()}
    return {
        id(module) for path in injection.trainable if path in names for module in trunk.get_submodule(path).modules()
    }


def inject(trunk: nn.Module, injection: Injection) -> dict[str, nn.Module]:
    """Put every wrap inside the trunk in its place; path -> what hangs there now."""

    def sort_key(path: str) -> tuple[int, bool]:
        # Deepest first: once a block is wrapped, what is inside it has another path. Of two at one depth the leaf
        # first, so that a wrap of attention already sees what became of the norm before it.
        return -path.count("."), any(True for _ in trunk.get_submodule(path).children())

    injected = {}
    for path in sorted((path for path in injection.wrappers if path != NETWORK), key=sort_key):
        injected[path] = injection.wrappers[path](trunk.get_submodule(path))
        trunk.set_submodule(path, injected[path])
    return injected


def first_modified_block(injection: Injection, layout: BackboneLayout) -> int:
    """Position of the first block that depends on what the method trains or hangs; 0 where even its input may."""
    if not layout.blocks:
        return 0
    last = len(layout.blocks) - 1
    block_indices = [
        next(
            (index for index, block in enumerate(layout.blocks) if f"{path}.".startswith(f"{block}.")),
            last if path in layout.final_norms else 0,
        )
        for path in (*injection.trainable, *injection.wrappers)
    ]
    return min(block_indices, default=last)


def use_class_token_block(trunk: nn.Module, layout: BackboneLayout) -> None:
    """Let the last block compute CLS alone, unless a method has put something of its own in that block's place."""
    path = layout.blocks[-1]
    block = trunk.get_submodule(path)
    block_layout = layout.block_layout(block)
    if block_layout is not None:
        trunk.set_submodule(path, ClassTokenBlock(block, block_layout))


def named_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """All parameters, then all buffers, by name."""
    yield from module.named_parameters()
    yield from module.named_buffers()


def merge_weights(
    original_modules: Mapping[str, nn.Module], injected: Mapping[str, nn.Module]
) -> dict[str, Tensor] | list[str]:
    """The weights of the trunk with what hangs folded in, under the trunk's own names.

    original_modules: path -> module, as the trunk was. Gives a list of paths instead where something cannot be folded.
    """
    unmergeable = [path for path, module in injected.items() if not hasattr(module, "merged_state")]
    if unmergeable:
        return unmergeable
    state: dict[str, Tensor] = {}
    for path, module in original_modules.items():
        tensors: Mapping[str, Tensor]
        if path in injected:
            tensors = injected[path].merged_state()  # type: ignore[operator]
        else:
            persistent = module.state_dict().keys()
            tensors = {
                name: tensor
                for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
                if name in persistent
            }
        state.update({f"{path}.{name}".lstrip("."): tensor.detach().clone() for name, tensor in tensors.items()})
    return state
