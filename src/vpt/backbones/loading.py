"""Backbones by name, from a weights file, or from a timm model at hand."""

from __future__ import annotations

import difflib
import inspect
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import timm
import timm.data
import torch
from torch import nn

from vpt.backbones import embedded
from vpt.backbones.backbone import Backbone
from vpt.backbones.weights import load_weights
from vpt.core.text import did_you_mean
from vpt.data.preprocessing import Preprocessing
from vpt.errors import BackboneError, SpecError

DEFAULT = embedded.NAME


def load_backbone(
    name: str | nn.Module | Backbone = DEFAULT,
    *,
    weights: str | Path | None = None,
    image_size: int | None = None,
    pretrained: bool = True,
    dtype: torch.dtype = torch.float32,
) -> Backbone:
    """A backbone ready to be tuned.

    name: a timm name (`vit_base_patch16_224.augreg_in21k`, `hf-hub:...`), the embedded default, or a timm model.
    weights: a local .safetensors, .pth or .npz file instead of timm's download; a model at hand is filled with it.
    image_size: side in pixels if it is not the model's own; positions are resized. A model at hand keeps its own.
    pretrained: False leaves the weights random (for tests and for counting).
    dtype: of the frozen weights; torch.bfloat16 halves their memory, for ViT-H/14 and larger. What is
        new (prompts, adapters, LoRA, SSF, heads) stays in fp32, what trains of the backbone itself would be rounded
        at every step; images are rounded to it. The fingerprint is another. A model at hand keeps its own.
    Raises BackboneError for an unknown name, with the nearest one, for weights that do not fit or load, for a size
    below a patch, and for another size of a model at hand.
    """
    if image_size is not None and image_size < 1:
        raise SpecError(f"image_size is {image_size}; it must be at least 1 px")
    if isinstance(name, Backbone):
        if weights is not None:
            raise BackboneError(f"{name.name} is loaded already; give its name, or its module, with {weights}")
        return _require_image_size(name, image_size)
    if isinstance(name, nn.Module):
        notes = load_weights(name, Path(weights)) if weights is not None else ()
        return _require_image_size(Backbone(name, _name_of(name), _read_preprocessing(name), notes), image_size)
    if not isinstance(name, str):
        raise BackboneError(f"the backbone is {name!r}; give a timm name, a timm model, or what load_backbone made")
    if name == embedded.NAME:
        model: nn.Module = embedded.create_model(image_size)
        if pretrained and weights is None:
            weights = embedded.WEIGHTS
    else:
        model = create_model(name, image_size, pretrained and weights is None)
    patch = getattr(getattr(model, "patch_embed", None), "patch_size", None)
    if image_size is not None and isinstance(patch, tuple) and image_size < max(patch):
        raise BackboneError(f"image_size is {image_size}, less than one patch of {name}, which has {max(patch)} px")
    notes = load_weights(model, Path(weights)) if weights is not None else ()
    preprocessing = _read_preprocessing(model)
    if image_size is not None:
        preprocessing = replace(preprocessing, size=image_size)
    return Backbone(model.eval().to(dtype), name, preprocessing, notes)


def meta_backbone(name: str, image_size: int | None = None) -> Backbone:
    """A backbone without weights (meta device), to count and to see where a method hangs: no download, no memory."""
    with torch.device("meta"):
        return load_backbone(name, image_size=image_size, pretrained=False)


def list_backbones(pattern: str = "*") -> list[str]:
    """Names that `load_backbone` takes, the embedded default first; `pattern` is a shell pattern."""
    own = [embedded.NAME] if fnmatch(embedded.NAME, pattern) else []
    return [*own, *timm.list_models(pattern, pretrained=True)]


def create_model(name: str, image_size: int | None, pretrained: bool) -> nn.Module:
    """A timm model without its classifier. Raises BackboneError for an unknown name, or weights that do not come."""
    if ":" not in name and not _is_timm_model(name):
        raise BackboneError(f"the backbone {name!r} is unknown; {_suggest_model(name)}")
    options: dict[str, Any] = {"num_classes": 0}
    if image_size is not None and _accepts_img_size(name):
        options["img_size"] = image_size
    try:
        model: nn.Module = timm.create_model(name, pretrained=pretrained, **options)
    except Exception as error:  # timm and the hub raise many kinds; each ends in the same advice
        if not pretrained:
            raise BackboneError(f"timm cannot make {name!r} with {options}: {error}") from error
        raise BackboneError(
            f"the weights of {name!r} could not be fetched: {error}; check the connection, or give a local file "
            f"with --weights (weights=...), or use the embedded backbone {embedded.NAME!r}"
        ) from error
    return model


def _require_image_size(backbone: Backbone, image_size: int | None) -> Backbone:
    """A backbone at hand, as it is. Raises BackboneError where another size is asked for."""
    size = backbone.preprocessing.size
    if image_size not in (None, size):
        raise BackboneError(
            f"{backbone.name} is made for {size} px, and {image_size} are asked for; give its name, or make the timm "
            f"model with img_size={image_size}"
        )
    return backbone


def _accepts_img_size(name: str) -> bool:
    """Whether the model has a size of its own to be changed: transformers do, ConvNets take any image."""
    with torch.device("meta"):
        model = timm.create_model(name, pretrained=False, num_classes=0)
    return (
        hasattr(getattr(model, "patch_embed", None), "img_size")
        or "img_size" in inspect.signature(type(model)).parameters
    )


def _is_timm_model(name: str) -> bool:
    """Whether timm has this architecture and, where a tag is given, weights of that tag."""
    return timm.is_model(name) and ("." not in name or name in timm.list_pretrained(name))


def _suggest_model(name: str) -> str:
    architecture, _, tag = name.partition(".")
    names = timm.list_models()
    if architecture in names:
        tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{architecture}.*")]
        return f"weights of {architecture}: {did_you_mean(tag, tags)}"
    close = difflib.get_close_matches(architecture, [*names, embedded.NAME], n=3, cutoff=0.4)
    return f"did you mean {' or '.join(map(repr, close))}? " * bool(close) + "`vpt list backbones` shows all"


def _name_of(model: nn.Module) -> str:
    config = getattr(model, "pretrained_cfg", None) or {}
    architecture, tag = config.get("architecture"), config.get("tag")
    return ".".join(filter(None, (architecture, tag))) or type(model).__name__


def _read_preprocessing(model: nn.Module) -> Preprocessing:
    """Read from timm's data configuration of the model."""
    config = timm.data.resolve_model_data_config(model)
    size = getattr(getattr(model, "patch_embed", None), "img_size", None) or config["input_size"][-2:]
    if len(set(size)) != 1:
        raise BackboneError(f"the backbone takes images of {size[0]}x{size[1]} px; only square inputs are supported")
    known = ("nearest", "bilinear", "bicubic", "lanczos")
    return Preprocessing(
        size=int(size[0]),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation=config["interpolation"] if config["interpolation"] in known else "bicubic",
        crop_fraction=float(config["crop_pct"]),
    )
