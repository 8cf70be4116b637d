"""What a tuned model adds to the graph of its backbone: keys and values of prompts, and a head."""

import json
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vpt.attention.joint_attention import GatedPrompts, KeyValues, keys_and_values
from vpt.core.io import write_atomic
from vpt.errors import UnsupportedError
from vpt.export.backbone import MASKED, PromptedBackbone, block_index
from vpt.model.shared_prompts import shared_prompts
from vpt.model.tuned_model import TunedModel


def export_task(model: TunedModel, out: Path) -> None:
    """Write the keys and values of a model's prompts and its head, for the graph that `export_backbone` writes.

    Args:
        model: The tuned model: prompts as keys and values with a linear or MLP head, or a head alone.
        out: The file, .safetensors. Its tensors are `keys` and `values` (L, heads, p, d/heads), `bias` (L, p), and
            `head.0.weight`, `head.0.bias` and so on.

    Raises:
        UnsupportedError: The method or the head is another one.
    """
    training = model.training
    model.eval()
    try:
        tensors = _tensors_of(model)
    finally:
        model.train(training)
    metadata = {
        "format": 1,
        "backbone": model.backbone.name,
        "fingerprint": model.backbone.weights_digest(),
        "method": model.method.spec(full=True),
        "classes": model.classes,
        "label_kind": model.label_kind.to_dict(),
        "preprocessing": model.layout.preprocessing.to_dict(),
    }
    contiguous = {name: tensor.float().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomic(out, safetensors.torch.save(contiguous, {"vpt-task": json.dumps(metadata)}))


@torch.no_grad()
def _tensors_of(model: TunedModel) -> dict[str, Tensor]:
    """Return the tensors of `export_task`, of a model in eval mode."""
    prompts = shared_prompts(model)
    layers = _linear_layers(model.head)
    if prompts is None or layers is None:
        raise UnsupportedError(
            f"{model.method} with the head {model.readout} does more than add keys and values of prompts to attention "
            "and read the backbone's feature, so that it needs a graph of its own; write .onnx"
        )
    backbone = PromptedBackbone(model.backbone)
    found: list[KeyValues | None] = [None] * backbone.num_blocks
    for path, keys in prompts.items():
        attention: Any = model.wrappers()[path]
        weight = next(attention.parameters())
        prompt = keys(torch.empty(1, 1, 1, dtype=weight.dtype, device=weight.device))
        if isinstance(prompt, GatedPrompts):
            raise UnsupportedError(f"{model.method} gives its prompts a softmax of their own; write .onnx")
        pair = prompt if isinstance(prompt, KeyValues) else keys_and_values(attention.attention, prompt)
        found[block_index(path, model.layout)] = KeyValues(
            *(each.reshape(each.shape[-3:]).float().cpu() for each in pair)
        )
    length = max((one.keys.shape[1] for one in found if one is not None), default=1)
    shape = (backbone.heads, length, backbone.head_width)
    tensors: dict[str, Tensor] = {
        "keys": torch.stack([_padded(None if one is None else one.keys, shape) for one in found]),
        "values": torch.stack([_padded(None if one is None else one.values, shape) for one in found]),
        "bias": torch.full((backbone.num_blocks, length), MASKED),
    }
    for index, one in enumerate(found):
        tensors["bias"][index, : 0 if one is None else one.keys.shape[1]] = 0
    for index, (weight, bias) in enumerate(layers):
        tensors |= {f"head.{index}.weight": weight, f"head.{index}.bias": bias}
    return tensors


def _padded(tensor: Tensor | None, shape: tuple[int, int, int]) -> Tensor:
    if tensor is None:
        return torch.zeros(shape)
    return F.pad(tensor, (0, 0, 0, shape[1] - tensor.shape[1]))


def _linear_layers(head: nn.Module) -> list[tuple[Tensor, Tensor]] | None:
    """Return weights and biases of a linear head, or of an MLP with ReLU between its layers; None for another head.

    Batch norm, which stands behind a ReLU, is folded into the next layer.
    """
    layers: list[tuple[Tensor, Tensor]] = []
    scale, shift = None, None
    for module in head if isinstance(head, nn.Sequential) else [head]:
        if isinstance(module, nn.Linear):
            weight = module.weight.detach()
            bias = torch.zeros(len(weight)) if module.bias is None else module.bias.detach()
            if scale is not None and shift is not None:
                weight, bias = weight * scale, bias + weight @ shift
            layers.append((weight, bias))
            scale, shift = None, None
        elif isinstance(module, nn.BatchNorm1d):
            assert module.running_mean is not None and module.running_var is not None
            scale = module.weight.detach() / (module.running_var + module.eps).sqrt()
            shift = module.bias.detach() - module.running_mean * scale
        elif not isinstance(module, (nn.ReLU, nn.Dropout)):
            return None
    return layers
