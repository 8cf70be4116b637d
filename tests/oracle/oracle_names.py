"""The authors' names and shapes of tensors in those of timm and of tuned models."""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
from oracle_files import Tensors

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

_OFFICIAL_VIT = (
    (r"^enc\.transformer\.", ""),
    (r"^embeddings\.patch_embeddings\.", "patch_embed.proj."),
    (r"^embeddings\.position_embeddings", "pos_embed"),
    (r"^embeddings\.cls_token", "cls_token"),
    (r"^encoder\.encoder_norm\.", "norm."),
    (r"^encoder\.layer\.", "blocks."),
    (r"\.attention_norm\.", ".norm1."),
    (r"\.ffn_norm\.", ".norm2."),
    (r"\.attn\.out\.", ".attn.proj."),
    (r"\.ffn\.", ".mlp."),
    (r"\.adapter_downsample\.", ".mlp.adapter.down."),
    (r"\.adapter_upsample\.", ".mlp.adapter.up."),
    (r"^side_projection\.", "projection."),
    (r"^side_alpha$", "alpha"),
    (r"^side\.features\.", "side.0."),
)


def renamed(tensors: Tensors, *rules: tuple[str, str | Callable[[re.Match[str]], str]]) -> Tensors:
    """Apply regular expressions to the names, in order."""
    result = {}
    for name, tensor in tensors.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        result[name] = tensor
    return result


def fused_qkv(tensors: Tensors, query: str, key: str, value: str) -> Tensors:
    """Concatenate the layers of queries, keys and values, as timm does."""
    result = {}
    for name, tensor in tensors.items():
        if f".attn.{query}." in name:
            parts = [tensor, *(tensors[name.replace(f".{query}.", f".{other}.")] for other in (key, value))]
            result[name.replace(f".{query}.", ".qkv.")] = torch.cat(parts)
        elif f".attn.{key}." not in name and f".attn.{value}." not in name:
            result[name] = tensor
    return result


def official_vit(tensors: Tensors) -> Tensors:
    """KMnP/vpt: a ViT with its head, and prompts (1, p, d) before the first block, (blocks - 1, p, d) before others."""
    result = fused_qkv(renamed(tensors, *_OFFICIAL_VIT), "query", "key", "value")
    result = _official_head(result)
    if "prompt_embeddings" in result:
        result["prompts.0.tokens"] = result.pop("prompt_embeddings")[0]
    for index, tokens in enumerate(result.pop("deep_prompt_embeddings", ()), 1):
        result[f"prompts.{index}.tokens"] = tokens
    for kind in ("weight", "bias"):
        if f"prompt_proj.{kind}" in result:
            result[f"prompts.0.projection.{kind}"] = result.pop(f"prompt_proj.{kind}")
    return result


def official_swin(tensors: Tensors) -> Tensors:
    """KMnP/vpt: a Swin with its head; its deep prompts are one tensor for each stage, the first block's own."""
    result = _official_head(swin(renamed(tensors, (r"^enc\.", ""))))
    prompts = list(result.pop("prompt_embeddings", ()))
    for stage in range(4):
        prompts += result.pop(f"deep_prompt_embeddings_{stage}", ())
    return {**result, **{f"prompts.{index}.tokens": tokens for index, tokens in enumerate(prompts)}}


def official_convnet(tensors: Tensors) -> Tensors:
    """KMnP/vpt: a ResNet or ConvNeXt cut into frozen and tuned layers, of which the last block alone has no index."""
    convnext = any("dwconv" in name for name in tensors)
    result = renamed(
        tensors,
        (r"^tuned_layers\.(layer|stage)4\.(?!\d)", r"\g<1>4.1."),
        (r"^(frozen|tuned)_layers\.", ""),
    )
    if convnext:
        result = renamed(
            result,
            (r"^norm\.", "head.norm."),
            (r"^downsample_layer1\.", "stem."),
            (r"^(downsample_layer|stage)(\d)", lambda found: f"{found[1]}{int(found[2]) - 1}"),
            (r"^downsample_layer(\d)\.", r"stages.\1.downsample."),
            (r"^stage(\d)\.(\d)\.", r"stages.\1.blocks.\2."),
            (r"\.dwconv\.", ".conv_dw."),
            (r"\.pwconv(\d)\.", r".mlp.fc\1."),
        )
    return _official_head(result)


def timm_vit(tensors: Tensors) -> Tensors:
    """KMnP/vpt: the ViTs of MAE and MoCo v3, which are timm's, with prompts and head."""
    return official_vit(renamed(tensors, (r"^enc\.timm\.", "")))


def _official_head(tensors: Tensors) -> Tensors:
    """`head.projection` and `head.last_layer`: one layer, or the layers of an MLP in a row."""
    hidden = [int(name.split(".")[2]) for name in tensors if name.startswith("head.projection.")]
    last = f"head.{max(hidden) + 2}." if hidden else "head."  # a dropout without weights stands between
    return renamed(tensors, (r"^head\.projection\.", "head."), (r"^head\.last_layer\.", last))


def official_pixel_patches(tensors: Tensors) -> Tensors:
    """Prompts in pixel space (1, 3, P, p * P), side by side, as p patches."""
    name = "enc.transformer.prompt_embeddings"
    result = official_vit({key: tensor for key, tensor in tensors.items() if key != name})
    result["prompts.0.patches"] = torch.stack(tensors[name][0].split(tensors[name].shape[2], dim=2))
    return result


def official_channels(tensors: Tensors) -> Tensors:
    """Further channels (1, p, size, size), and a patch projection that reads them too."""
    result = official_vit(tensors)
    weight = result["patch_embed.proj.weight"]
    result["patch_embed.proj.weight"], result["patch_embed.proj.further"] = weight[:, :3], weight[:, 3:]
    result["patch_embed.proj.channels"] = result.pop("prompts.0.tokens")
    return result


def with_frame(tensors: Tensors) -> Tensors:
    """A frame: rows above and below side by side, (1, 3, 2 p, size), and columns (1, 3, size - 2 p, 2 p)."""
    result = dict(tensors)
    for ours, theirs, dim in (("rows", "prompt_embeddings_tb", 1), ("columns", "prompt_embeddings_lr", 2)):
        result[ours] = torch.stack(result.pop(theirs)[0].chunk(2, dim=dim))
    return result


def normalized_frame(weights: Tensors, gradients: Tensors) -> tuple[Tensors, Tensors]:
    """The authors' frame has pixels of 0 to 1 that every pass normalizes; that of vpt is kept normalized."""
    weights, gradients = with_frame(weights), with_frame(gradients)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    for name in ("rows", "columns"):
        weights[name] = (weights[name] - mean) / std
        gradients[name] = gradients[name] * std
    return weights, gradients


def adaptformer(tensors: Tensors) -> Tensors:
    """ShoufaChen/AdaptFormer: separate layers of queries, keys and values, an MLP without a module of its own."""
    return renamed(
        fused_qkv(tensors, "q_proj", "k_proj", "v_proj"),
        (r"\.fc(\d)\.", r".mlp.fc\1."),
        (r"\.adaptmlp\.(down|up)_proj\.", r".mlp.branch.\1."),
    )


def ssf(tensors: Tensors) -> Tensors:
    """dongzelian/SSF: a module holds the scales and shifts of its layers, in the order in which they run."""
    layers = {
        "patch_embed": ("proj", "norm"),
        "attn": ("qkv", "proj"),
        "mlp": ("fc1", "fc2"),
        "downsample": ("norm",),
        "": ("norm",),
    }
    result = {}
    for name, tensor in tensors.items():
        path, _, own = name.rpartition(".")
        found = re.fullmatch(r"ssf_(scale|shift)_(\d)", own)
        if found is None:
            result[name] = tensor
            continue
        of_block = ("norm1", "norm2")
        layer = layers.get(path.rpartition(".")[2], of_block)[int(found[2]) - 1]
        result[f"{path}.{layer}.".lstrip(".") + {"scale": "gamma", "shift": "beta"}[found[1]]] = tensor
    return result


def lora(tensors: Tensors) -> Tensors:
    """microsoft/LoRA: `lora_A` (rank, in) and `lora_B` (out, rank) beside the weight of a layer."""
    return renamed(tensors, (r"\.lora_A$", ".down"), (r"\.lora_B$", ".up"))


def gated(tensors: Tensors) -> Tensors:
    """ryongithub/GatedPromptTuning: one vector of temperatures, one of gates, and the ViT of timm."""
    result = renamed(tensors, (r"^enc\.", ""))
    result["prompts.0.tokens"] = result.pop("prompt_embeddings")[0]
    for index, temperature in enumerate(result.pop("temp")):
        result[f"blocks.{index}.attn.q_norm.temperature"] = temperature
    for index, logit in enumerate(result.pop("gate_logit")):
        # Prompts enter around the first block, so that its gate is one level deeper.
        result["blocks.0.block.logit" if index == 0 else f"blocks.{index}.logit"] = logit
    return result


def swin(tensors: Tensors) -> Tensors:
    """The names of a Swin: the authors merge patches at the end of a stage, timm at the start of the next."""
    return {
        re.sub(r"layers\.(\d+)\.downsample", lambda found: f"layers.{int(found[1]) + 1}.downsample", name): tensor
        for name, tensor in tensors.items()
    }


def adapter_plus(tensors: Tensors) -> Tensors:
    """visinf/adapter_plus: an adapter inside each block, which is wrapped here, and the ViT of timm."""
    return renamed(
        tensors,
        (r"\.adapter\.bottleneck\.1\.", ".adapter.down."),
        (r"\.adapter\.bottleneck\.4\.", ".adapter.up."),
        (r"\.adapter\.scaling$", ".scale"),
    )


def cvpt(tensors: Tensors) -> Tensors:
    """Lingyun0419/CVPT: prompts of all blocks in one tensor, and copies of the weights of self-attention."""
    result = {name: tensor for name, tensor in tensors.items() if ".CrossAttn." not in name}
    for index, tokens in enumerate(result.pop("Prompt_Tokens")):
        result[f"cross_prompts.{index}.tokens"] = tokens
    return result


def e2vpt(tensors: Tensors) -> Tensors:
    """ChengHan111/E2VPT: keys and values in each attention, or one tensor that is both."""
    rules = (
        (r"^transformer\.", ""),
        (r"^encoder\.layer\.(\d+)\.attn\.deep_QKV_embeddings(_K)?$", r"prefix.\1.keys"),
        (r"^encoder\.layer\.(\d+)\.attn\.deep_QKV_embeddings_V$", r"prefix.\1.values"),
    )
    return official_vit(renamed(tensors, *rules))


def bpt(tensors: Tensors) -> Tensors:
    """WangYZ1608/BPT: the first factors of all blocks in one tensor, the second ones as 1 x 1 convolutions."""
    result = renamed(tensors, (r"^conv1x1\.(\d+)\.", r"prompts.\1.projection."))
    result = {name: x.squeeze(3, 2) if ".projection." in name else x for name, x in result.items()}
    for index, tokens in enumerate(result.pop("random_vectors")):
        result[f"prompts.{index}.tokens"] = tokens
    return result


def llama_adapter(tensors: Tensors, gates: Tensors | None = None) -> Tensors:
    """OpenGVLab/LLaMA-Adapter in a ViT: its gate passes through tanh, and its attention has no biases.

    Args:
        tensors: Weights, or gradients.
        gates: The weights, for gradients: those of the gate are divided by the derivative of tanh.
    """
    rules = (
        (r"\.attn\.attention\.gate$", ".attn.kv_prompts.gate"),
        (r"\.attn\.attention\.wo\.", ".attn.proj."),
        (r"\.attn\.attention\.", ".attn."),
        (r"^blocks\.(\d+)\.attn\.adapter$", r"prompts.\1.tokens"),
    )
    result = fused_qkv(renamed(tensors, *rules), "wq", "wk", "wv")
    for name, tensor in list(result.items()):
        if name.startswith("prompts."):
            result[name] = tensor[0]
        elif name.endswith("kv_prompts.gate"):
            theirs = (gates or tensors)[name.replace("kv_prompts", "attention")].flatten()
            result[name] = theirs.tanh() if gates is None else tensor.flatten() / (1 - theirs.tanh() ** 2)
        elif name.endswith("attn.proj.weight"):
            result[name.replace("weight", "bias")] = torch.zeros(len(tensor))
    return result


def vapt(tensors: Tensors) -> Tensors:
    """Minhchuyentoancbn/VAPT: norms, filters and weights of all blocks but the first in lists, and one MLP."""
    rules = (
        (r"^transformer\.", ""),
        (r"^deep_prompt_norm\.(\d+)\.", r"prompts.\1.norm."),
        (r"^deep_prompt_downsample\.(\d+)\.conv\.kernel$", r"prompts.\1.kernel"),
        (r"^deep_prompt_downsample\.(\d+)\.linear\.", r"prompts.\1.weights."),
        (r"^deep_prompt_embeddings_mlp\.block\.0\.", "prompts.0.mlp.down."),
        (r"^deep_prompt_embeddings_mlp\.block\.2\.", "prompts.0.mlp.up."),
        (r"^prompts\.(\d+)\.", lambda found: f"prompts.{int(found[1]) + 1}."),
    )
    return official_vit(renamed(tensors, *rules))
