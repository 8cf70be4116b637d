"""Weights files: safetensors, PyTorch's .pth (tensors only) and Google's original .npz, into a timm model.

Names are translated by timm's own filter of the model's family. What stands here is what timm leaves to its callers:
the part of a pretraining file that is the backbone, shared bias tables, and where the final norm goes.
Nothing in a file is ever executed: PyTorch files are read with `weights_only`, NumPy ones without pickle.
"""

from __future__ import annotations

import inspect
import io
import pickle
import sys
import warnings
from collections.abc import Collection, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile, is_zipfile

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from vpt.backbones.backbone import classifier_prefixes
from vpt.errors import BackboneError

# Under these keys training code keeps the state dict inside a checkpoint; the averaged weights come first.
_NESTS = ("state_dict_ema", "model_ema", "state_dict", "model", "teacher", "module")
# What wrappers put before every name: DDP, MoCo v3, detection backbones, DINO, MoCo v1 and v2, SimSiam.
_PREFIXES = (
    "",
    "module.",
    "model.",
    "backbone.",
    "module.base_encoder.",
    "base_encoder.",
    "module.backbone.",
    "module.encoder_q.",
    "module.encoder.",
)
# Where CLIP and its kin keep the image's part; everything else is the text's. timm takes this prefix away itself.
_IMAGE_TOWER = "visual."
# Parts of a pretraining model that no backbone has: MAE's decoder, mask tokens, projection and momentum heads.
_PRETRAINING = (
    "decoder",
    "mask_token",
    "head",
    "lm_head",
    "fc",
    "predictor",
    "momentum_encoder",
    "projector",
    "norm.",
    "fc_norm.",
)
# BEiT's pretraining has one table of relative positions for all blocks; tuned files have a copy in every block.
_SHARED_TABLE = "rel_pos_bias.relative_position_bias_table"
_BLOCK_TABLE = ".attn.relative_position_bias_table"
# The final norm in timm, and what a file may have instead: the first comes after pooling, the second before it.
_NORMS = (("fc_norm.", "norm."), ("norm.", "fc_norm."))
# A counter that evaluation never reads; files written before torch 0.4.1, torchvision's first, do not have it.
_COUNTER = "num_batches_tracked"
# What the arrays of a ViT in Google's .npz files belong to: the backbone, the stem that hybrids put before it, and the
# classifier that is left out.
_NPZ_PREFIXES = ("opt/target/", "params/img/", "params/", "")
_NPZ_PARTS = (
    "cls",
    "embedding/",
    "pos_embedding",
    "Transformer/",
    "conv_root/",
    "gn_root/",
    "block",
    "head/",
    "pre_logits/",
)
# What timm's filters and loaders raise on a file of another model.
_MISFITS = (KeyError, IndexError, AttributeError, AssertionError, TypeError, ValueError, RuntimeError)
_ADVICE = "is the backbone's name the one these weights were trained with?"


def load_weights(model: nn.Module, path: Path) -> tuple[str, ...]:
    """Load a weights file into a timm model made without its classifier. Returns notes on what was left over.

    Positions are resized where the file has another grid (by timm's own filter of the model's family).
    Raises BackboneError with the list of keys when a weight of the model is missing or has another shape.
    """
    if not path.is_file():
        raise BackboneError(f"the weights file {path} does not exist; give a .safetensors, .pth or .npz file")
    if path.suffix == ".npz":
        return _load_npz(model, path)
    own = model.state_dict()
    state, outside = _backbone_part(_read_state(path), own)
    notes = _note_on_patches(path, _patch_of(state), model) + _note_on_norm(path, state, own)
    try:
        state = _convert(_unshare(state, own), model)
    except _MISFITS as error:
        raise BackboneError(f"{path} does not fit {type(model).__name__}: {error}; {_ADVICE}") from error
    state = _place_norm(state, own)
    misshapen = [
        f"{key}: {tuple(state[key].shape)} in the file, {tuple(own[key].shape)} in the model"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    missing = [key for key in own if key not in state and not key.endswith(_COUNTER)]
    if missing or misshapen:
        raise BackboneError(
            f"{path} does not fit {type(model).__name__}"
            + _listing("missing in the file", missing)
            + _listing("of another shape", misshapen)
            + f"; {_ADVICE}"
        )
    model.load_state_dict({key: state.get(key, own[key]) for key in own})
    unused = [key for key in state if key not in own and not key.startswith(classifier_prefixes(model) or ("head.",))]
    foreign = [key for key in unused if not key.startswith(_PRETRAINING)]
    if foreign:
        notes.append(f"{path.name}: {len(foreign)} keys fit nothing in the model" + _listing("unused", foreign))
    outside += [key for key in unused if key.startswith(_PRETRAINING)]
    return (*notes, *_note_on_the_rest(path, [key.removeprefix("module.").split(".")[0] for key in outside]))


def _is_safetensors(path: Path) -> bool:
    """By its ending, or by its first bytes: a length and the JSON that has it."""
    with path.open("rb") as file:
        return path.suffix == ".safetensors" or file.read(9)[8:] == b"{"


def _read_state(path: Path) -> dict[str, Tensor]:
    if _is_torchscript(path):
        raise BackboneError(
            f"{path} is a TorchScript archive, a program besides its weights, so it is not read; where you trust it, "
            "convert it once: torch.jit.load(path).state_dict(), then safetensors.torch.save_file(...)"
        )
    try:
        content: Any = (
            load_file(path) if _is_safetensors(path) else torch.load(path, map_location="cpu", weights_only=True)
        )
    except pickle.UnpicklingError as error:
        raise BackboneError(
            f"{path} holds Python objects besides tensors, which could run code, so it is not read; where you trust "
            "it, convert it once: torch.load(path, weights_only=False), then safetensors.torch.save_file(...)"
        ) from error
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise BackboneError(f"{path} is no readable weights file ({error}); fetch it again") from error
    for nest in _NESTS:
        if isinstance(content, dict) and isinstance(content.get(nest), Mapping):
            content = content[nest]
    state = (
        {key: value for key, value in content.items() if isinstance(value, Tensor)} if isinstance(content, dict) else {}
    )
    if not state:
        raise BackboneError(f"{path} holds no weights (a mapping of names to tensors was expected)")
    return state


def _is_torchscript(path: Path) -> bool:
    """OpenAI published CLIP as such archives."""
    try:
        with path.open("rb") as stream:
            return is_zipfile(stream) and any(name.endswith("/constants.pkl") for name in ZipFile(stream).namelist())
    except (BadZipFile, OSError):
        return False


def _backbone_part(state: dict[str, Tensor], own: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """What belongs to the backbone, without the prefix its names have in the file, and the names of the rest."""

    def hits(prefix: str) -> int:
        return sum(key.startswith(prefix) and key[len(prefix) :] in own for key in state)

    prefix = max(_PREFIXES, key=hits)  # ties go to the shorter, which comes first
    if not hits(prefix) and all(key.startswith("module.") for key in state):
        prefix = "module."  # none is the model's before timm's filter has renamed it, but DDP wraps every name
    part = {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
    outside = [key for key in state if not key.startswith(prefix)]
    if any(key.startswith(_IMAGE_TOWER) for key in part):
        outside += [key for key in part if not key.startswith(_IMAGE_TOWER)]
        part = {key: value for key, value in part.items() if key.startswith(_IMAGE_TOWER)}
    return part, outside


def _unshare(state: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give every block the bias table that pretraining shares between them, where the model has one per block."""
    tables = [key for key in own if key.endswith(_BLOCK_TABLE)]
    if _SHARED_TABLE not in state or _SHARED_TABLE in own or not tables:
        return state
    rest = {key: value for key, value in state.items() if key != _SHARED_TABLE}
    return rest | dict.fromkeys(tables, state[_SHARED_TABLE])


def _convert(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Names and shapes of the model, by timm's own filter of its family."""
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return state
    # timm asks for this only where DeiT-3 is made by name; in files of other ViTs there is nothing to rename.
    known = inspect.signature(convert).parameters
    options = {"adapt_layer_scale": True} if "adapt_layer_scale" in known else {}
    lost = _biases_without_a_place(state, model.state_dict())
    # It prints what it leaves out, where a program may be reading, and torch warns of code that is timm's.
    with redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        converted: dict[str, Tensor] = convert(state, model, **options)
    return lost | converted


def _biases_without_a_place(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """DINOv3's attention biases are zero in most files, and timm's models then have none: those that are not zero.

    The third of the keys does not count: DINOv3 masks it.
    """
    found: dict[str, Tensor] = {}
    if "storage_tokens" not in state:  # by which timm knows DINOv3
        return found
    for key, value in state.items():
        if key.endswith("attn.qkv.bias") and key not in own and key.replace("qkv.bias", "q_bias") not in own:
            query, _, values = value.chunk(3)
            if query.any() or values.any():
                found[key] = value
    return found


def _place_norm(state: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The final norm where the model has it."""
    for ours, theirs in _NORMS:
        if _moves(ours, theirs, state, own):
            return {
                ours + key.removeprefix(theirs) if key.startswith(theirs) else key: value
                for key, value in state.items()
            }
    return state


def _moves(ours: str, theirs: str, names: Collection[str], own: Collection[str]) -> bool:
    """Whether the model has its norm as `ours` alone, and a file of these names as `theirs` alone."""
    ours, theirs = ours + "weight", theirs + "weight"
    return ours in own and theirs in names and ours not in names and theirs not in own


def _patch_of(state: Mapping[str, Tensor]) -> tuple[int, ...]:
    """Rows and columns of a patch in the file, or nothing where it has no convolution over patches."""
    names = ("patch_embed.proj.weight", f"{_IMAGE_TOWER}conv1.weight")
    return next((tuple(value.shape[2:]) for key, value in state.items() if key.endswith(names)), ())


def _note_on_patches(path: Path, theirs: tuple[int, ...], model: nn.Module) -> list[str]:
    """A remark where timm resamples the filters that read a patch: the usual cause is another model's file."""
    projection = getattr(getattr(model, "patch_embed", None), "proj", None)
    ours = tuple(projection.weight.shape[2:]) if isinstance(projection, nn.Conv2d) else ()
    if len(theirs) != 2 or len(ours) != 2 or theirs == ours:
        return []
    return [
        f"{path.name}: its patches of {theirs[0]}x{theirs[1]} px were resampled to {ours[0]}x{ours[1]}; {_ADVICE}",
    ]


def _note_on_norm(path: Path, names: Collection[str], own: Collection[str]) -> list[str]:
    """A remark where the final norm changes its place: it then sees what it was not trained on."""
    return [
        f"{path.name}: its final {theirs[:-1]} is used as {ours[:-1]}, {order} pooling"
        for (ours, theirs), order in zip(_NORMS, ("after", "before"), strict=True)
        if _moves(ours, theirs, names, own)
    ]


def _note_on_the_rest(path: Path, parts: list[str]) -> list[str]:
    if not parts:
        return []
    listing = _listing("parts", list(dict.fromkeys(parts)))
    return [f"{path.name}: {len(parts)} keys outside the backbone were left out{listing}"]


def _load_npz(model: Any, path: Path) -> tuple[str, ...]:
    load = getattr(model, "load_pretrained", None)
    if load is None:
        raise BackboneError(
            f"{path}: {type(model).__name__} has no .npz layout; give its weights as .safetensors or .pth"
        )
    before = {key: (id(weight), weight._version) for key, weight in model.state_dict(keep_vars=True).items()}
    try:
        with path.open("rb") as stream:  # timm would leave the file open where it does not fit
            with np.load(stream) as file:
                notes = _survey_npz(file, model, path)
            stream.seek(0)
            load(stream)
    except (*_MISFITS, OSError, BadZipFile) as error:
        raise BackboneError(
            f"{path} does not fit {type(model).__name__}: {error}; is the backbone's name the one of this file "
            "(ViT-B_16.npz is vit_base_patch16_224)?"
        ) from error
    # timm fills what the layout knows, and is silent about the rest: a weight that nothing was written to.
    after = {key: (id(weight), weight._version) for key, weight in model.state_dict(keep_vars=True).items()}
    missing = [key for key in after if after[key] == before.get(key)]
    if missing:
        raise BackboneError(f"{path} does not fit {type(model).__name__}{_listing('missing in the file', missing)}")
    return tuple(notes)


def _survey_npz(file: Mapping[str, Any], model: Any, path: Path) -> list[str]:
    """Remarks on the file of a ViT, read from its names. Raises ValueError where it has more blocks than the model.

    timm takes as many blocks as the model has, and is silent about the rest.
    """
    names = list(file)
    prefix = next((prefix for prefix in _NPZ_PREFIXES if f"{prefix}embedding/kernel" in names), None)
    if prefix is None:
        return []  # not a ViT's: timm knows whether it is the model's
    blocks = len(model.blocks)
    stacked = f"{prefix}Transformer/encoderblock/LayerNorm_0/scale"  # SigLIP 2 keeps all blocks in one array
    more = stacked in names and len(file[stacked]) > blocks
    if more or any(name.startswith(f"{prefix}Transformer/encoderblock_{blocks}/") for name in names):
        raise ValueError(f"the file has more than {blocks} blocks")
    known = _NPZ_PARTS + ("MAPHead_0/",) * (getattr(model, "attn_pool", None) is not None)
    inside = tuple(prefix + part for part in known)
    outside = [name for name in names if not name.startswith(inside)]
    parts = [name.removeprefix(prefix).removeprefix("params/").split("/")[0] for name in outside]
    patch = tuple(file[f"{prefix}embedding/kernel"].shape[:2])
    return _note_on_patches(path, patch, model) + _note_on_the_rest(path, parts)


def _listing(title: str, keys: list[str], most: int = 12) -> str:
    if not keys:
        return ""
    more = f", and {len(keys) - most} more" if len(keys) > most else ""
    return f"; {title}: {', '.join(keys[:most])}{more}"
