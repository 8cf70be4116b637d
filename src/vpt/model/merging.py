"""Merging: a tuned model as a plain timm state dict."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vpt.attention.detection import probe_image, structural_copy
from vpt.backbones.backbone import Backbone, classifier_prefixes
from vpt.backbones.loading import is_timm_model
from vpt.errors import UnsupportedError
from vpt.methods.base import Method


@torch.no_grad()
def merge(
    method: Method,
    backbone: Backbone,
    original_modules: Mapping[str, nn.Module],
    wrappers: Mapping[str, nn.Module],
    head: nn.Module | None,
    network: nn.Module,
) -> dict[str, Tensor]:
    """Merge the injected modules into the weights of the trunk, and give the head the classifier's name.

    Args:
        method: The method, for the message.
        backbone: The backbone.
        original_modules: Path -> module of the trunk before injection.
        wrappers: Path -> the module that replaced the one there.
        head: The head; None where it reads something else than the backbone's own feature.
        network: The network in front of the head, in eval mode.

    Returns:
        Copies of the weights under timm's own names.

    Raises:
        UnsupportedError: A module is no linear change of a weight, timm has no such head, or timm's model with these
            weights does not give the same logits.
    """
    unmergeable = [path for path, module in wrappers.items() if not hasattr(module, "merged_state")]
    if unmergeable:
        raise UnsupportedError(
            f"{method} cannot be merged into the weights of {backbone.name}: the module at "
            f"{unmergeable[0] or 'images'} is no linear change of a weight; "
            "lora, ssf, bias, norm, partial, full, class_token and linear can"
        )
    classifier = classifier_prefixes(backbone.module)
    if not isinstance(head, nn.Linear) or len(classifier) != 1:
        raise UnsupportedError(
            f"{method} on {backbone.name} has a head for which timm has no place; it cannot be merged"
        )
    plain = structural_copy(backbone.module, head.out_features).to(head.weight.device)
    shapes = {name: tensor.shape for name, tensor in plain.state_dict().items()}
    place = shapes.get(f"{classifier[0]}weight", head.weight.shape)
    if place not in (head.weight.shape, (*head.weight.shape, 1, 1)):
        raise UnsupportedError(
            f"{method} on {backbone.name} has a head for which timm has no place: it reads {head.in_features} "
            f"features, and timm's classifier {place[1]}, behind layers of its own; it cannot be merged"
        )
    state: dict[str, Tensor] = {f"{classifier[0]}{name}": tensor for name, tensor in head.named_parameters()}
    for name, tensor in state.items():
        if shapes.get(name) == (*tensor.shape, 1, 1):  # some of timm's classifiers are a convolution of single pixels
            state[name] = tensor[..., None, None]
    wrapped: dict[int, Any] = {id(original_modules[path]): wrapper for path, wrapper in wrappers.items()}
    for path, module in original_modules.items():  # a module that stands in several places has several paths
        if id(module) in wrapped:
            tensors: Mapping[str, Tensor] = wrapped[id(module)].merged_state()
        else:
            own = (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
            persistent = module.state_dict().keys()
            tensors = {name: tensor for name, tensor in own if name in persistent}
        state |= {f"{path}.{name}".lstrip("."): tensor for name, tensor in tensors.items()}
    # A norm of the classifier, in front of its linear layer, stays as timm makes it: it does nothing.
    state = {name: tensor.detach().clone() for name, tensor in (plain.state_dict() | state).items()}
    image = probe_image(plain, backbone.preprocessing)
    features = structural_copy(network, None)(image)  # without what modules keep of their weights in eval mode
    try:
        plain.load_state_dict(state, assign=True)
        logits, expected = plain.to(image.dtype)(image), head(features.to(head.weight.dtype))
    except RuntimeError as error:
        raise UnsupportedError(f"{method} on {backbone.name} does not merge: timm cannot load it ({error})") from error
    tolerance = 1e-3 if image.dtype == torch.float32 else 5e-2
    # Written so that NaN, which compares as False, is refused.
    if not logits.is_meta and not ((logits - expected).abs().max() <= tolerance * expected.abs().max()):
        raise UnsupportedError(f"{method} on {backbone.name} does not merge: timm gives other logits with its weights")
    return state


def loading_call(backbone: Backbone, num_classes: int, file: Path) -> str | None:
    """Return the Python call by which timm loads merged weights.

    Args:
        backbone: The backbone.
        num_classes: Number of classes.
        file: The file with the weights.

    Returns:
        A call of `timm.create_model`, or None where timm does not know the backbone by its name.
    """
    name, _, pool = backbone.name.partition("(global_pool=")
    if ":" not in name and not is_timm_model(name):
        return None
    size, channels = backbone.preprocessing.size, backbone.preprocessing.channels
    options: dict[str, Any] = {"num_classes": num_classes}
    if pool:
        options["global_pool"] = pool.removesuffix(")")
    if hasattr(getattr(backbone.module, "patch_embed", None), "img_size"):
        options["img_size"] = size
    if channels != 3:
        options["in_chans"] = channels
    options["checkpoint_path"] = str(file)
    return f"timm.create_model({name!r}, {', '.join(f'{key}={value!r}' for key, value in options.items())})"
