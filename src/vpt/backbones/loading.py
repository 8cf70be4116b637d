"""Backbones by name, from a weights file, or from a timm model at hand."""

import copy
import difflib
import fnmatch
import inspect
import re
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import timm
import timm.data
import torch
from torch import nn

from vpt.backbones import embedded
from vpt.backbones.backbone import Backbone, fingerprint_of
from vpt.backbones.meta_device import meta_device
from vpt.backbones.weights import load_weights
from vpt.core.text import did_you_mean
from vpt.data.preprocessing import MAX_SIZE, Preprocessing, for_channels
from vpt.errors import BackboneError, SpecError

DEFAULT = embedded.NAME
_POOLED_NAME = re.compile(r"(.*?)(?:\(global_pool=(\w+)\))?", re.DOTALL)


def load_backbone(
    name: str | nn.Module | Backbone = DEFAULT,
    *,
    weights: str | Path | None = None,
    image_size: int | None = None,
    pretrained: bool = True,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> Backbone:
    """Return a backbone, ready to be tuned.

    Args:
        name: A timm name (`vit_base_patch16_224.augreg_in21k`, `hf-hub:...`), the embedded default, a timm model, or a
            `Backbone`. `vit_base_patch16_224.mae(global_pool=avg)` averages the patches instead of timm's default, and
            applies the final norm to the average.
        weights: Local .safetensors, .pth or .npz file that replaces timm's download. A given model is filled with it.
        image_size: Side of the input in pixels; position embeddings are resized. Default: the model's own. A given
            model keeps its own, unless it takes any.
        pretrained: False leaves the weights random, for tests. Default: True.
        dtype: Type of the frozen weights. torch.bfloat16 halves their memory, for ViT-H/14 and larger. Prompts,
            adapters, LoRA, SSF and heads stay in fp32; backbone weights that train are rounded at every step. A given
            model keeps its own. Default: torch.float32.
        device: Device of the weights, such as "cuda". "meta" loads no weights and takes no memory: enough to count
            parameters and to see where a method is injected. A given model stays where it is. Default: "cpu".

    Returns:
        The backbone, in eval mode.

    Raises:
        SpecError: `image_size` is below 1 or above 8192.
        BackboneError: The name is unknown, the weights cannot be loaded or do not fit, or the image size is below one
            patch or differs from that of a given model, or the device "meta" comes with weights, or a given model lacks
            timm's interface, is compiled or is quantized.
    """
    if image_size is not None and not 1 <= image_size <= MAX_SIZE:
        raise SpecError(f"image_size is {image_size}; it must be at least 1 px and at most {MAX_SIZE:,}")
    file = None if weights is None else Path(weights)
    if isinstance(name, Backbone):
        if weights is not None:
            raise BackboneError(f"{name.name} is loaded already; give its name, or its module, with {weights}")
        return _require_image_size(name, image_size)
    if isinstance(name, nn.Module):
        _require_timm_interface(name)
        notes = load_weights(name, file) if file is not None else ()
        made = Backbone(name, _name_of(name), _read_preprocessing(name), notes, file=file)
        return _require_image_size(made, image_size)
    if not isinstance(name, str):
        raise BackboneError(f"the backbone is {name!r}; give a timm name, a timm model, or what load_backbone made")
    is_meta = torch.device(device).type == "meta"
    if is_meta and weights is not None:
        raise BackboneError(f"the device meta holds no weights, and {weights} is given; leave out one of the two")
    if _split_pool(name)[0] == embedded.NAME and pretrained and not is_meta:
        weights = weights or embedded.WEIGHTS
    pretrained = pretrained and weights is None and not is_meta
    with meta_device() if is_meta else nullcontext():
        model = _create_known(name, image_size, pretrained)
    patch = getattr(getattr(model, "patch_embed", None), "patch_size", None)
    if image_size is not None and isinstance(patch, tuple) and image_size < max(patch):
        raise BackboneError(f"image_size is {image_size}, less than one patch of {name}, which has {max(patch)} px")
    native = None
    if image_size is not None and (pretrained or weights is not None):
        native = _native_model(name, model, pretrained)
    notes = load_weights(model, Path(weights), native) if weights is not None else ()
    source = None if native is None else fingerprint_of(native, native.state_dict())
    if dtype != torch.float32 and source is None and not is_meta:
        source = fingerprint_of(model, model.state_dict())
    preprocessing = _read_preprocessing(model)
    if image_size is not None:
        preprocessing = replace(preprocessing, size=image_size)
    return Backbone(model.eval().to(device, dtype), name, preprocessing, notes, source, file=file)


def _native_model(name: str, model: nn.Module, pretrained: bool) -> nn.Module | None:
    """Return the model for images of its own size, without weights unless timm fetches them.

    None where a model for another size has weights of the same shapes, such as a ConvNet.
    """
    with meta_device():
        native = _create_known(name, None, pretrained=False)
    shapes = [{key: weight.shape for key, weight in each.state_dict().items()} for each in (native, model)]
    if shapes[0] == shapes[1]:
        return None
    return create_model(name, None, pretrained=True) if pretrained else native


def _create_known(name: str, image_size: int | None, pretrained: bool) -> nn.Module:
    """Return the embedded model, without its weights, or one of timm's."""
    architecture, pool = _split_pool(name)
    if architecture != embedded.NAME:
        return create_model(name, image_size, pretrained)
    model = embedded.create_model(image_size)
    return model if pool is None else _pool_by(model, pool, architecture)


def list_backbones(pattern: str = "*") -> list[str]:
    """Return the names that `load_backbone` takes.

    Args:
        pattern: A shell pattern, such as "vit_base*". Default: all names.

    Returns:
        Matching names, the embedded backbone first.
    """
    return [*fnmatch.filter([embedded.NAME], pattern), *timm.list_models(pattern, pretrained=True)]


def create_model(name: str, image_size: int | None, pretrained: bool) -> nn.Module:
    """A timm model without its classifier. Raises BackboneError for an unknown name, or weights that do not come."""
    name, pool = _split_pool(name)
    if ":" not in name and not is_timm_model(name):
        raise BackboneError(f"the backbone {name!r} is unknown; {_suggest_model(name)}")
    options: dict[str, Any] = {"num_classes": 0}
    try:
        if image_size is not None and _accepts_img_size(name):
            options["img_size"] = image_size
        model: nn.Module = timm.create_model(name, pretrained=pretrained, **options)
    except Exception as error:  # timm and the hub raise many kinds; each ends in the same advice
        if not pretrained:
            raise BackboneError(f"timm cannot make {name!r} with {options}: {error}") from error
        raise BackboneError(
            f"the weights of {name!r} could not be fetched: {error}; check the connection, or give a local file "
            f"with --weights (weights=...), or use the embedded backbone {embedded.NAME!r}"
        ) from error
    return model if pool is None else _pool_by(model, pool, name)


def _split_pool(name: str) -> tuple[str, str | None]:
    """Return a name without the pooling in it, and the pooling."""
    return _POOLED_NAME.fullmatch(name).groups()  # type: ignore[return-value, union-attr]  # which matches every text


def _pool_by(model: Any, pool: str, name: str) -> nn.Module:
    """Let a model pool in another way; its final norm moves behind an average, as in MAE's own fine-tuning."""
    try:
        model.reset_classifier(0, pool)
    except (AssertionError, AttributeError, TypeError, ValueError, RuntimeError) as error:
        raise BackboneError(f"{name} cannot pool by {pool!r} ({error}); leave global_pool out") from error
    if pool == "avg" and isinstance(getattr(model, "fc_norm", None), nn.Identity):
        model.norm, model.fc_norm = model.fc_norm, model.norm
    return model  # type: ignore[no-any-return]


def _require_timm_interface(model: nn.Module) -> None:
    """Raise BackboneError for a module that is no timm model, or a compiled one, or whose weights are no tensors."""
    if hasattr(model, "_orig_mod"):
        raise BackboneError("the backbone is compiled; give the model itself, and compile the tuned model")
    absent = [name for name in ("forward_features", "forward_head") if not hasattr(model, name)]
    if absent:
        raise BackboneError(
            f"the backbone {type(model).__name__} has no {absent[0]}; give a timm model made without features_only"
        )
    packed = [name for name, weight in model.state_dict().items() if not isinstance(weight, torch.Tensor)]
    if packed:
        raise BackboneError(
            f"{packed[0]} of the backbone {_name_of(model)} is no tensor, as in quantized layers; tune the model "
            "before it is quantized, and quantize `model.plain()` instead"
        )


def _require_image_size(backbone: Backbone, image_size: int | None) -> Backbone:
    """A backbone at hand, for images of that size. Raises BackboneError where its model has a size of its own."""
    size = backbone.preprocessing.size
    if image_size is None or image_size == size:
        return backbone
    if not _has_image_size(backbone.module):
        return replace(backbone, preprocessing=replace(backbone.preprocessing, size=image_size))
    raise BackboneError(
        f"{backbone.name} is made for {size} px, and {image_size} are asked for; give its name, or make the timm "
        f"model with img_size={image_size}"
    )


def _accepts_img_size(name: str) -> bool:
    """Return whether a model has a size of its own to be changed: transformers do, ConvNets take any image."""
    with meta_device():
        model = timm.create_model(name, pretrained=False, num_classes=0)
    return _has_image_size(model)


def _has_image_size(model: nn.Module) -> bool:
    in_patches = hasattr(getattr(model, "patch_embed", None), "img_size")
    kinds = [kind for kind in type(model).__mro__ if issubclass(kind, nn.Module)]  # a subclass may hide it in **kwargs
    return in_patches or any("img_size" in inspect.signature(kind).parameters for kind in kinds)


def is_timm_model(name: str) -> bool:
    """Return True if timm has this architecture and, where a tag is given, weights of that tag.

    Args:
        name: The name, such as "vit_base_patch16_224.augreg_in21k".

    Returns:
        True or False.
    """
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
    known, channels = ("nearest", "bilinear", "bicubic", "lanczos"), _input_channels(model, int(size[0]))
    return Preprocessing(
        size=int(size[0]),
        mean=for_channels(config["mean"], channels),
        std=for_channels(config["std"], channels),
        interpolation=config["interpolation"] if config["interpolation"] in known else "bicubic",
        crop_fraction=float(config["crop_pct"]),
    )


def _input_channels(model: nn.Module, size: int) -> int:
    """Return the channels of the images that a timm model reads: those of its first convolution, if it fails with 3."""
    named = (getattr(model, "pretrained_cfg", None) or {}).get("first_conv")
    name = named[0] if isinstance(named, (tuple, list)) and named else named  # parallel branches read the same image
    channels: int = getattr(dict(model.named_modules()).get(str(name)), "in_channels", 3)
    if channels != 3:  # some models put pixels into channels before it
        shapes: Any = copy.deepcopy(model).to("meta").eval()
        with suppress(RuntimeError):
            shapes.forward_features(torch.zeros(1, 3, size, size, device="meta"))
            return 3
    return channels
