"""Carrying out a plan on a trunk: weights are taken over, modules are hung, and what was where is remembered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor, nn

from vpt.attention.class_token_block import ClassTokenBlock
from vpt.backbones.layout import Sites
from vpt.methods.base import WHOLE, Plan


def take_over(trunk: nn.Module, path: str) -> Iterator[tuple[str, Tensor]]:
    """Replace the weight at `path`, or every weight and buffer of the module there, by a copy of the method's own.

    Yields their names in the trunk, and the copies. Weights that the backbone ties stay tied.
    """
    above, _, last = path.rpartition(".")
    owner = trunk.get_submodule(above)
    if isinstance(getattr(owner, last, None), nn.Parameter):
        setattr(owner, last, nn.Parameter(getattr(owner, last).detach().clone()))
        yield path, getattr(owner, last)
        return
    copies: dict[nn.Parameter, nn.Parameter] = {}  # by identity, as tensors hash
    for name, module in trunk.get_submodule(path).named_modules(prefix=path):
        for key, weight in list(module.named_parameters(recurse=False)):
            tied = weight in copies
            if not tied:
                copies[weight] = nn.Parameter(weight.detach().clone())
            setattr(module, key, copies[weight])
            if not tied:
                yield f"{name}.{key}".lstrip("."), getattr(module, key)
        for key, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, key, buffer.clone())
            if key not in module._non_persistent_buffers_set:  # made anew with the model, never saved
                yield f"{name}.{key}".lstrip("."), getattr(module, key)


def modules_that_train(trunk: nn.Module, plan: Plan) -> set[int]:
    """Identities of the modules that train as a whole, so in train mode: dropout, statistics of a batch."""
    names = {name for name, _ in trunk.named_modules()}
    return {id(m) for path in plan.trains if path in names for m in trunk.get_submodule(path).modules()}


def hang(trunk: nn.Module, plan: Plan) -> dict[str, nn.Module]:
    """Put every wrap inside the trunk in its place; path -> what hangs there now."""

    def late(path: str) -> tuple[int, bool]:
        # Deepest first: once a block is wrapped, what is inside it has another path. Of two at one depth the leaf
        # first, so that a wrap of attention already sees what became of the norm before it.
        return -path.count("."), any(True for _ in trunk.get_submodule(path).children())

    hung = {}
    for path in sorted((path for path in plan.wraps if path != WHOLE), key=late):
        hung[path] = plan.wraps[path](trunk.get_submodule(path))
        trunk.set_submodule(path, hung[path])
    return hung


def first_changed(plan: Plan, sites: Sites) -> int:
    """Position of the first block that depends on what the method trains or hangs; 0 where even its input may."""
    if not sites.blocks:
        return 0
    last = len(sites.blocks) - 1
    places = [
        next(
            (index for index, block in enumerate(sites.blocks) if f"{path}.".startswith(f"{block}.")),
            last if path in sites.norms else 0,
        )
        for path in (*plan.trains, *plan.wraps)
    ]
    return min(places, default=last)


def narrow(trunk: nn.Module, sites: Sites) -> None:
    """Let the last block compute CLS alone, unless a method has put something of its own in that block's place."""
    path = sites.blocks[-1]
    block = trunk.get_submodule(path)
    layout = sites.layout(block)
    if layout is not None:
        trunk.set_submodule(path, ClassTokenBlock(block, layout))


def tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """All parameters, then all buffers, by name."""
    yield from module.named_parameters()
    yield from module.named_buffers()


def merged(places: Mapping[str, nn.Module], hung: Mapping[str, nn.Module]) -> dict[str, Tensor] | list[str]:
    """The weights of the trunk with what hangs folded in, under the trunk's own names.

    places: path -> module, as the trunk was. Gives a list of paths instead where something cannot be folded.
    """
    stuck = [path for path, module in hung.items() if not hasattr(module, "folded")]
    if stuck:
        return stuck
    state: dict[str, Tensor] = {}
    for path, module in places.items():
        own: Mapping[str, Tensor]
        if path in hung:
            own = hung[path].folded()  # type: ignore[operator]
        else:
            keep = module.state_dict().keys()
            own = {
                name: tensor
                for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
                if name in keep
            }
        state.update({f"{path}.{name}".lstrip("."): tensor.detach().clone() for name, tensor in own.items()})
    return state
