"""Injection: a method and a readout applied to a structural copy of a backbone.

A module that never takes part would silently train nothing, so every injection is verified.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vpt.attention.class_token_block import ClassTokenBlock
from vpt.attention.detection import detect_layout, probe_image, structural_copy
from vpt.backbones.backbone import Backbone
from vpt.backbones.layout import BackboneLayout
from vpt.errors import UnsupportedError, VptError
from vpt.methods.base import NETWORK, Injection, Method
from vpt.methods.registry import METHODS
from vpt.model.readout import MakeHead, Readout
from vpt.model.state_dict import check_shapes


@dataclass(frozen=True, eq=False)
class Injected:
    """A backbone's structure with the modules of a method, and the network in front of the head.

    Attributes:
        network: Normalized images (batch, 3, size, size) -> the head's input.
        make_head: (width of the head's input, classes) -> head.
        injection: The injection that the method planned.
        layout: The layout of the trunk, as the readout adapted it.
        wrappers: Path -> the module that replaced the one there.
        cloned: Name -> copy of each weight and buffer of the backbone that the method trains.
        shared_ids: Identities of the tensors that the backbone shares with the trunk.
        original_modules: Path -> module of the trunk before injection.
        frozen_ids: Identities of the original modules that stay in eval mode.
    """

    network: nn.Module
    make_head: MakeHead
    injection: Injection
    layout: BackboneLayout
    wrappers: dict[str, nn.Module]
    cloned: dict[str, Tensor]
    shared_ids: set[int]
    original_modules: dict[str, nn.Module]
    frozen_ids: set[int]


def inject(
    backbone: Backbone, method: Method, readout: Readout, check: Callable[[Injected], None] | None = None
) -> Injected:
    """Inject the modules of a method into a structural copy of a backbone.

    Args:
        backbone: The backbone; it is not changed.
        method: The method.
        readout: The readout.
        check: Function that is called with the same injection on the device "meta", before memory is allocated.
            Default: none.

    Returns:
        The network and a record of the changes.

    Raises:
        UnsupportedError: The backbone does not have what the method or the readout needs.
    """
    trunk = structural_copy(backbone.module)
    layout = readout.adapt(trunk, detect_layout(trunk, backbone.preprocessing))
    if check is not None:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            check(_inject(structural_copy(trunk).to("meta"), layout, method, readout))
    return _inject(trunk, layout, method, readout)


def _inject(trunk: nn.Module, layout: BackboneLayout, method: Method, readout: Readout) -> Injected:
    """Inject the modules of a method into a trunk, which is changed."""
    try:
        injection = method.plan(trunk, layout)
    except UnsupportedError as error:
        fitting = supported_methods(trunk, layout)
        raise UnsupportedError(f"{method} does not fit {type(trunk).__name__}: {error}; {fitting}") from error
    readout.check(method, injection, layout)
    original_modules = dict(trunk.named_modules(remove_duplicate=False))  # kept, so that no identity is used twice
    frozen_ids = {id(module) for module in original_modules.values()} - _trainable_module_ids(trunk, injection)
    cloned = {f"backbone.{name}": tensor for path in injection.trainable for name, tensor in _clone(trunk, path)}
    shared_ids = {id(tensor) for _, tensor in named_tensors(trunk)}
    wrappers = _wrap_modules(trunk, injection, method)
    if layout.cls_only and injection.pool is None:
        _use_class_token_block(trunk, layout)
    network, make_head = readout.connect(trunk, layout, injection)
    if NETWORK in injection.wrappers:
        network = wrappers[NETWORK] = injection.wrappers[NETWORK](network)
    return Injected(network, make_head, injection, layout, wrappers, cloned, shared_ids, original_modules, frozen_ids)


def check_planned(state: Mapping[str, Tensor], method: Method, num_classes: int, planned: Injected) -> None:
    """Compare tensors with a planned injection.

    Args:
        state: The tensors of a tuned file.
        method: The method, for the message.
        num_classes: Number of classes.
        planned: The injection, on any device.

    Raises:
        SpecError: Names or shapes differ; the message lists the tensors.
    """
    head = planned.make_head(planned.injection.num_pooled * planned.layout.feature_width, num_classes)
    own = trainable_tensors(planned, nn.ModuleDict(planned.injection.modules), head)
    check_shapes(own, state, f"{method} with {num_classes} classes")


def first_modified_block(injection: Injection, layout: BackboneLayout) -> int:
    """Return the index of the first block that depends on a trained or injected module.

    Args:
        injection: The injection.
        layout: The layout of the trunk.

    Returns:
        The index, from 0; 0 where even the input of the first block may depend on one.
    """
    if not layout.blocks:
        return 0
    last = len(layout.blocks) - 1

    def block_of(path: str) -> int:
        inside = (index for index, block in enumerate(layout.blocks) if f"{path}.".startswith(f"{block}."))
        return next(inside, last if path in layout.final_norms else 0)

    return min(map(block_of, (*injection.trainable, *injection.wrappers)), default=last)


def trainable_tensors(injected: Injected, added_modules: nn.Module, head: nn.Module) -> dict[str, Tensor]:
    """Return the tensors that do not belong to the backbone, by identity.

    Args:
        injected: The injected network.
        added_modules: The modules that the method's wrappers share.
        head: The head.

    Returns:
        The tensors under their names in a tuned file.
    """
    trainable, known = dict(injected.cloned), set(injected.shared_ids)
    for path, module in (("", added_modules), ("head", head), *injected.wrappers.items()):
        for name, tensor in named_tensors(module):
            if id(tensor) not in known:
                trainable[f"{path}.{name}".lstrip(".")] = tensor
                known.add(id(tensor))
    return trainable


def named_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield all parameters, then all buffers, by name."""
    yield from module.named_parameters()
    yield from module.named_buffers()


def supported_methods(trunk: nn.Module, layout: BackboneLayout) -> str:
    """Return the end of an error message: the methods of the registry that support this backbone."""
    supported = []
    with torch.random.fork_rng(devices=[]), torch.device("meta"):  # new modules are only counted
        for name, kind in METHODS.items():
            try:
                kind().plan(trunk, layout)
            except VptError:  # a side network may not take such small images
                continue
            supported.append(name)
    return f"methods that fit: {', '.join(supported)}"


def _clone(trunk: nn.Module, path: str) -> Iterator[tuple[str, Tensor]]:
    """Replace the weight at `path`, or every weight and buffer of the module there, by a trainable copy.

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
            if weight not in copies:
                copies[weight] = nn.Parameter(weight.detach().clone())
                yield f"{module_path}.{key}".lstrip("."), copies[weight]
            setattr(module, key, copies[weight])
        for key, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, key, buffer.clone())
            if key not in module._non_persistent_buffers_set:  # made anew with the model, never saved
                yield f"{module_path}.{key}".lstrip("."), getattr(module, key)


def _trainable_module_ids(trunk: nn.Module, injection: Injection) -> set[int]:
    """Return the identities of the modules that train as a whole, so in train mode."""
    modules = dict(trunk.named_modules())
    return {id(inner) for path in injection.trainable if path in modules for inner in modules[path].modules()}


def _wrap_modules(trunk: nn.Module, injection: Injection, method: Method) -> dict[str, nn.Module]:
    """Replace the modules inside the trunk by their wrappers; returns path -> wrapper."""

    def sort_key(path: str) -> tuple[int, bool]:
        # Deepest first: once a block is wrapped, the modules inside it have other paths. Of two at one depth the leaf
        # first, so that a wrapper of attention already sees the wrapped norm.
        return -path.count("."), any(True for _ in trunk.get_submodule(path).children())

    wrappers = {}
    for path in sorted((path for path in injection.wrappers if path != NETWORK), key=sort_key):
        try:
            wrappers[path] = injection.wrappers[path](trunk.get_submodule(path))
        except UnsupportedError as error:
            raise UnsupportedError(f"{method} cannot be injected at {path}: {error}") from error
        trunk.set_submodule(path, wrappers[path])
    return wrappers


def _use_class_token_block(trunk: nn.Module, layout: BackboneLayout) -> None:
    """Let the last block compute the class token alone, unless a method has replaced that block."""
    block = trunk.get_submodule(layout.blocks[-1])
    block_layout = layout.block_layout(block)
    if block_layout is not None:
        trunk.set_submodule(layout.blocks[-1], ClassTokenBlock(block, block_layout))


def check_all_called(injected: Injected, trunk: nn.Module, method: str, backbone: Backbone) -> None:
    """Run one image and check that every injected module takes part.

    Args:
        injected: The injected network.
        trunk: The trunk inside it.
        method: The method's text, for the message.
        backbone: The backbone without the injection, for the message.

    Raises:
        UnsupportedError: An injected module is never called, and the features do not depend on its weights.
    """
    if not injected.wrappers:
        return
    image = probe_image(trunk, injected.layout.preprocessing)
    called = _called_modules(injected.network, injected.wrappers.values(), image)
    never_called = [
        path
        for path, module in injected.wrappers.items()
        if id(module) not in called and not _affects_output(injected.network, module, image)
    ]
    if never_called:
        raise UnsupportedError(
            f"{method} is injected at {', '.join(never_called)} of {backbone.name}, but the model never calls these "
            f"modules, so nothing would train; {supported_methods(structural_copy(backbone.module), injected.layout)}"
        )


@torch.no_grad()
def _called_modules(network: nn.Module, modules: Iterable[nn.Module], image: Tensor) -> set[int]:
    """Return the identities of the modules that a forward pass calls."""
    called: set[int] = set()
    with ExitStack() as hooks:
        for module in modules:
            hooks.enter_context(module.register_forward_hook(lambda module, *_: called.add(id(module))))
        network(image)
    return called


def _affects_output(network: nn.Module, module: nn.Module, image: Tensor) -> bool:
    """Return True if the features depend on a module that is not called: attention may read its weight instead."""
    weights = [weight for weight in module.parameters() if weight.requires_grad]
    if not weights:
        return False
    with torch.enable_grad():
        total = sum(features.sum() for features in network(image))  # over samples, or over maps
        gradients = torch.autograd.grad(total, weights, allow_unused=True)
    return any(gradient is not None for gradient in gradients)
