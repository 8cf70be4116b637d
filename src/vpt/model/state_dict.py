"""One name per tensor in the state dict of a module whose tree contains shared modules."""

from itertools import chain
from typing import Any

from torch import Tensor, nn


def use_one_name_per_tensor(module: nn.Module) -> None:
    """Let `state_dict` name each tensor once, as `named_parameters` does, and let `load_state_dict` accept that.

    State dicts that contain a tensor under several names are accepted too.

    Args:
        module: The module; the hooks are registered on it.
    """
    module.register_state_dict_post_hook(_remove_aliases)
    module.register_load_state_dict_pre_hook(_add_aliases)


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
