"""State dicts: one name per tensor where a module's tree contains shared modules, and tensors that fit."""

from collections.abc import Mapping
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from vpt.backbones.backbone import Backbone
from vpt.core.text import comma_list
from vpt.errors import SpecError


def use_one_name_per_tensor(module: nn.Module) -> None:
    """Let `state_dict` name each tensor once, as `named_parameters` does, and let `load_state_dict` accept that.

    State dicts that contain a tensor under several names are accepted too.

    Args:
        module: The module; the hooks are registered on it.
    """
    module.register_state_dict_post_hook(_remove_aliases)
    module.register_load_state_dict_pre_hook(_add_aliases)


def check_shapes(own: Mapping[str, Tensor], state: Mapping[str, Tensor], model: str) -> None:
    """Check that tensors fit into a model.

    Args:
        own: The tensors of the model by name.
        state: The tensors to be loaded.
        model: The model, for the message.

    Raises:
        SpecError: Names or shapes differ; the message lists the tensors.
    """
    mismatched = sorted(own.keys() ^ state.keys())
    mismatched += [
        f"{name} {tuple(state[name].shape)} for {tuple(own[name].shape)}"
        for name in sorted(own.keys() & state.keys())
        if state[name].shape != own[name].shape
    ]
    if mismatched:
        raise SpecError(f"these tensors do not fit {model}: {comma_list(mismatched, limit=12)}")


def accept_equal_weights(module: nn.Module, backbone: Backbone) -> None:
    """Let `load_state_dict` write to the weights of a backbone the values that they have, as a restored state does.

    Args:
        module: The module; the hooks are registered on it.
        backbone: The backbone whose weights are in the module.
    """
    equal_states: list[bool] = []
    module.register_load_state_dict_pre_hook(partial(_compare_frozen, backbone, equal_states))
    module.register_load_state_dict_post_hook(partial(_accept_equal, backbone, equal_states))


def _compare_frozen(
    backbone: Backbone, equal_states: list[bool], module: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any
) -> None:
    """Append True if a state has the values of the backbone, which nothing else has written to."""
    shared = {tensor.data_ptr() for tensor in backbone.module.state_dict().values()}
    pairs = [(tensor, state.get(prefix + name)) for name, tensor in module.state_dict().items()]
    frozen = ((own, given) for own, given in pairs if given is not None and own.data_ptr() in shared)
    equal = all(own.shape == given.shape and torch.equal(own, given.to(own)) for own, given in frozen)
    equal_states.append(equal and not backbone.changed_weights())


def _accept_equal(backbone: Backbone, equal_states: list[bool], *_: Any) -> None:
    if equal_states and equal_states.pop():
        backbone.accept_writes()


def names_in_backbone(module: nn.Module, backbone: Backbone) -> dict[str, str]:
    """Return the names of the tensors that a module shares with a backbone.

    Args:
        module: The module.
        backbone: The backbone.

    Returns:
        Name in the module -> name in the backbone.
    """
    names = {_address(tensor): name for name, tensor in backbone.module.state_dict().items()}
    state = module.state_dict().items()
    return {path: names[_address(tensor)] for path, tensor in state if _address(tensor) in names}


def unlike_backbone(module: nn.Module, backbone: Backbone, names: Mapping[str, str]) -> list[str]:
    """Return the names of the frozen tensors whose values are no longer those of the backbone.

    A deep copy has frozen tensors of its own, as a moving average writes to all of them. Its rounding is no change, nor
    is that of a cast.

    Args:
        module: The module.
        backbone: Its backbone.
        names: Name in the module -> name in the backbone, as `names_in_backbone` returned them before.

    Returns:
        The names in the backbone.
    """
    own, theirs = module.state_dict(), backbone.module.state_dict()
    pairs = ((name, own[path], theirs[name]) for path, name in names.items() if path in own)
    return [name for name, one, other in pairs if _address(one) != _address(other) and not _is_close(one, other)]


def _address(tensor: Tensor) -> tuple[int, torch.Size]:
    return tensor.data_ptr(), tensor.shape


def _is_close(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one.float(), other.to(one.device).float(), rtol=1e-2, atol=1e-6)  # that of bf16, and fp16


def _aliases(module: nn.Module) -> dict[str, str]:
    """Return each further name of a tensor -> its first name."""
    named = (module.named_parameters(remove_duplicate=False), module.named_buffers(remove_duplicate=False))
    first: dict[int, str] = {}
    canonical = {name: first.setdefault(id(tensor), name) for name, tensor in chain(*named)}
    return {name: other for name, other in canonical.items() if name != other}


def _remove_aliases(module: nn.Module, state: dict[str, Tensor], prefix: str, _: Any) -> None:
    for alias in _aliases(module):
        state.pop(prefix + alias, None)


def _add_aliases(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    for alias, canonical in _aliases(module).items():
        if prefix + canonical in state:
            state.setdefault(prefix + alias, state[prefix + canonical])
