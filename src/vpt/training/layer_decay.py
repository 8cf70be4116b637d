"""Layer-wise decay of the learning rate (BEiT: Bao et al., 2022), with timm's layers."""

from timm.models import group_parameters

from vpt.errors import SpecError
from vpt.model.tuned_model import TunedModel


def layer_lr_scales(model: TunedModel, decay: float) -> dict[str, float]:
    """Return the learning rate of each trainable tensor, relative to that of the head.

    A layer has `decay` times the rate of the next one, as in timm's `param_groups_layer_decay`. Patch embedding and
    tokens are the first layer, each block is one, the last with the final norm, and the head has the full rate, as what
    a method adds outside of the layers.

    Args:
        model: The model.
        decay: Ratio of the rates of neighboring layers, above 0 and at most 1.

    Returns:
        The scales by the names of `trainable_state_dict`.

    Raises:
        SpecError: The backbone names no layers, or nothing in them trains.
    """
    if not hasattr(model.trunk, "group_matcher"):
        raise SpecError(
            f"layer_decay is {decay:g}, and {model.backbone.name} does not say which layers it has; leave it out"
        )
    layers = layer_numbers(model)
    last, paths = max(layers.values()), {id(weight): path for path, weight in model.named_parameters()}
    scales = {
        name: decay ** (last - layers.get(paths.get(id(tensor), ""), last))
        for name, tensor in model.trainable_state_dict().items()
    }
    if decay < 1 and all(scale == 1 for scale in scales.values()):
        raise SpecError(
            f"layer_decay is {decay:g}, and {model.method} trains nothing in the layers of the backbone; leave it out, "
            "or choose a method that does, such as full, partial, bias, norm, ssf or lora"
        )
    return scales


def layer_numbers(model: TunedModel) -> dict[str, int]:
    """Return the number of the layer of each parameter, as timm counts them.

    Args:
        model: The model.

    Returns:
        Path of the parameter to number, 0 for what comes before the blocks; empty if the backbone names no layers.
    """
    if not hasattr(model.trunk, "group_matcher"):
        return {}
    found: dict[str, int] = group_parameters(model, model.group_matcher(coarse=False), reverse=True)
    return found
