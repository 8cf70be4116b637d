"""A frozen backbone as a graph that takes the prompts and the head of each image as inputs."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vpt.attention.detection import compute_dtype
from vpt.attention.kv_attention import KVAttention, prepare_qkv
from vpt.attention.projections import project_output
from vpt.backbones.backbone import Backbone
from vpt.backbones.layout import BackboneLayout
from vpt.core.environment import versions
from vpt.errors import UnsupportedError
from vpt.methods.vpt import VPT
from vpt.model.exporting import save_graph
from vpt.model.shared_prompts import shared_prompts
from vpt.model.tuned_model import TunedModel

# Of the inputs of the graph, in order.
INPUTS = ("images", "keys", "values", "bias", "weight", "head_bias")
MASKED = -1e4  # added to the score of a missing prompt; infinity would give NaN in half precision


class PromptedBackbone(nn.Module):
    """A frozen backbone; each image has its own prompts and its own head.

    Args:
        backbone: The backbone.

    Attributes:
        num_blocks: Number of blocks L that take prompts.
        heads: Number of heads of attention.
        head_width: Channels of a head.
        width: Channels d of the feature.

    Raises:
        UnsupportedError: The attention of the backbone cannot take prompts as keys and values.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        model = TunedModel(backbone, VPT(length=1, dropout=0.0), 1)
        prompts = shared_prompts(model)
        if not prompts:
            raise UnsupportedError(
                f"{backbone.name} cannot share one graph: its prompts are not keys and values of attention that all "
                "blocks have alike"
            )
        self._prompts = _Prompts()
        paths = {id(module): path for path, module in model.trunk.named_modules()}
        wrappers: dict[str, Any] = {path: model.wrappers()[path] for path in prompts}
        for path, wrapper in wrappers.items():
            attention = _PromptedAttention(wrapper, self._prompts, block_index(path, model.layout))
            model.trunk.set_submodule(paths[id(wrapper)], attention)
        inner = next(iter(wrappers.values())).attention
        self.network: nn.Module = model.network
        self.num_blocks: int = len(prompts)
        self.heads: int = inner.num_heads
        self.head_width: int = inner.proj.in_features // inner.num_heads
        self.width: int = model.width

    def forward(
        self, images: Tensor, keys: Tensor, values: Tensor, bias: Tensor, weight: Tensor, head_bias: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the logits and the feature of each image.

        Args:
            images: Normalized images (batch, 3, size, size).
            keys: Keys of the prompts (batch, L, heads, p, d/heads).
            values: Their values, of the same shape.
            bias: Added to the scores of the prompts, 0, or -10,000 for one that is not there (batch, L, p).
            weight: Weights of the linear head of each image (batch, classes, d).
            head_bias: Their biases (batch, classes).

        Returns:
            Logits (batch, classes) and features (batch, d).
        """
        self._prompts.current = (keys, values, bias)
        features = self.network(images)
        self._prompts.current = None
        return torch.einsum("bcd,bd->bc", weight, features.to(weight.dtype)) + head_bias, features


class _Prompts:
    """The prompts of the batch that passes through the network. No module, so that tracing does not see it change."""

    current: tuple[Tensor, Tensor, Tensor] | None = None


class _PromptedAttention(nn.Module):
    """Attention to tokens and to the prompts of each image."""

    def __init__(self, wrapper: KVAttention, prompts: _Prompts, index: int) -> None:
        super().__init__()
        self.attention = wrapper.attention
        self.num_queries = wrapper.num_queries
        self._prompts = prompts
        self._index = index

    def forward(self, x: Tensor, **context: Any) -> Tensor:
        assert self._prompts.current is not None
        attention: Any = self.attention
        prompt_k, prompt_v, prompt_bias = (each[:, self._index] for each in self._prompts.current)
        q, k, v, bias = prepare_qkv(attention, x, self.num_queries, 0, context)
        k, v = (torch.cat([tokens, own.to(tokens.dtype)], dim=2) for tokens, own in ((k, prompt_k), (v, prompt_v)))
        own_bias = prompt_bias[:, None, None, :].to(q.dtype).expand(-1, 1, q.shape[2], -1)
        if bias is None:
            scores_bias = F.pad(own_bias, (k.shape[2] - own_bias.shape[3], 0))
        else:
            bias = bias.to(q.dtype).reshape(*[1] * (4 - bias.dim()), *bias.shape)
            own_bias = own_bias.expand(-1, bias.shape[1], -1, -1)
            scores_bias = torch.cat([bias.expand(q.shape[0], -1, -1, -1), own_bias], dim=3)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=scores_bias, scale=attention.scale)
        return project_output(attention, x, out)


def block_index(path: str, layout: BackboneLayout) -> int:
    """Return the index of the block that a module is in.

    Args:
        path: Path of the module in the trunk.
        layout: The layout of the trunk.

    Returns:
        The index, from 0.
    """
    return next(index for index, block in enumerate(layout.blocks) if f"{path}.".startswith(f"{block}."))


def export_backbone(backbone: Backbone, out: Path) -> None:
    """Write a backbone as one ONNX graph for any number of tasks.

    Inputs are images, and for each image the keys and values of its prompts, and a linear head; `export_task` writes
    those of a tuned model. Batch size, number of prompts and number of classes are dynamic.

    Args:
        backbone: The backbone.
        out: The file, .onnx.

    Raises:
        UnsupportedError: The attention of the backbone cannot take prompts as keys and values, or the graph gives other
            outputs.
        VptError: A package that is needed is not installed.
    """
    network = PromptedBackbone(backbone).to("cpu").eval()
    if compute_dtype(network) != torch.float32:
        network = network.float()
    pre = backbone.preprocessing
    batch, length, classes = (torch.export.Dim(name, min=1) for name in ("batch", "prompts", "classes"))
    example = (
        torch.rand(2, pre.channels, pre.size, pre.size) * 4 - 2,
        torch.randn(2, network.num_blocks, network.heads, 3, network.head_width),
        torch.randn(2, network.num_blocks, network.heads, 3, network.head_width),
        torch.tensor([0.0, 0.0, MASKED]).expand(2, network.num_blocks, 3).clone(),
        torch.randn(2, 5, network.width),
        torch.randn(2, 5),
    )
    dims: list[dict[int, Any]] = [
        {0: batch}, {0: batch, 3: length}, {0: batch, 3: length}, {0: batch, 2: length},
        {0: batch, 1: classes}, {0: batch, 1: classes},
    ]  # fmt: skip
    metadata = {
        "format": 1,
        "backbone": backbone.name,
        "fingerprint": backbone.weights_digest(),
        "preprocessing": pre.to_dict(),
        "versions": versions(),
    }
    save_graph(network, example, dims, out, "onnx", INPUTS, ("logits", "features"), metadata)
