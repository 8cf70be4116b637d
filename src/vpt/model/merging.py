"""Merging: a tuned model as a plain timm state dict."""

from collections.abc import Mapping

from torch import Tensor, nn

from vpt.backbones.backbone import Backbone, classifier_prefixes
from vpt.errors import UnsupportedError
from vpt.methods.base import Method


def merge(
    method: Method,
    backbone: Backbone,
    original_modules: Mapping[str, nn.Module],
    wrappers: Mapping[str, nn.Module],
    head: nn.Module | None,
) -> dict[str, Tensor]:
    """Merge the injected modules into the weights of the trunk, and give the head the classifier's name.

    Args:
        method: The method, for the message.
        backbone: The backbone.
        original_modules: Path -> module of the trunk before injection.
        wrappers: Path -> the module that replaced the one there.
        head: The head; None where it reads something else than the backbone's own feature.

    Returns:
        Copies of the weights under timm's own names.

    Raises:
        UnsupportedError: A module is no linear change of a weight, or timm has no such head.
    """
    unmergeable = [path for path, module in wrappers.items() if not hasattr(module, "merged_state")]
    if unmergeable:
        raise UnsupportedError(
            f"{method} cannot be merged into the weights of {backbone.name}: the module at {unmergeable[0]} "
            "is no linear change of a weight; lora, ssf, bias, norm, partial, full, class_token and linear can"
        )
    classifier = classifier_prefixes(backbone.module)
    if not isinstance(head, nn.Linear) or len(classifier) != 1:
        raise UnsupportedError(
            f"{method} on {backbone.name} has a head for which timm has no place; it cannot be merged"
        )
    state: dict[str, Tensor] = {f"{classifier[0]}{name}": tensor for name, tensor in head.named_parameters()}
    for path, module in original_modules.items():
        if path in wrappers:
            tensors: Mapping[str, Tensor] = wrappers[path].merged_state()  # type: ignore[operator]
        else:
            own = (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
            persistent = module.state_dict().keys()
            tensors = {name: tensor for name, tensor in own if name in persistent}
        state |= {f"{path}.{name}".lstrip("."): tensor for name, tensor in tensors.items()}
    return {name: tensor.detach().clone() for name, tensor in state.items()}
