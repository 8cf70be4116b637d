"""Weights files: safetensors, PyTorch's .pth (tensors only) and Google's original .npz, into a timm model.

Nothing in a file is ever executed: PyTorch files are read with `weights_only`, NumPy ones without pickle.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from vpt.backbone.record import classifier_prefixes
from vpt.errors import BackboneError

# Under these keys training code keeps the state dict inside a checkpoint; the averaged weights come first.
_NESTS = ("state_dict_ema", "model_ema", "state_dict", "model", "teacher", "module")
# What wrappers put before every name: DDP, MoCo v3, detection backbones, DINO.
_PREFIXES = (
    "",
    "module.",
    "model.",
    "backbone.",
    "module.base_encoder.",
    "base_encoder.",
    "module.backbone.",
)
# Parts of a pretraining model that no backbone has: MAE's decoder, mask tokens, projection and momentum heads.
_PRETRAINING = (
    "decoder",
    "mask_token",
    "head",
    "fc",
    "predictor",
    "momentum_encoder",
    "projector",
    "norm.",
    "fc_norm.",
)


def load_weights(model: nn.Module, path: Path) -> tuple[str, ...]:
    """Load a weights file into a timm model made without its classifier. Returns notes on what was left over.

    Positions are resized where the file has another grid (by timm's own filter of the model's family).
    Raises BackboneError with the list of keys when a weight of the model is missing or has another shape.
    """
    if not path.is_file():
        raise BackboneError(f"the weights file {path} does not exist; give a .safetensors, .pth or .npz file")
    if path.suffix == ".npz":
        return _load_npz(model, path)
    state = _strip(_read_state(path), model)
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if convert is not None:
        state = convert(state, model)
    own = model.state_dict()
    misshapen = [
        f"{key}: {tuple(state[key].shape)} in the file, {tuple(own[key].shape)} in the model"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    missing = [key for key in own if key not in state]
    if missing or misshapen:
        raise BackboneError(
            f"{path} does not fit {type(model).__name__}"
            + _listing("missing in the file", missing)
            + _listing("of another shape", misshapen)
            + "; is the backbone's name the one these weights were trained with?"
        )
    model.load_state_dict({key: state[key] for key in own})
    unused = [key for key in state if key not in own and not key.startswith(classifier_prefixes(model) or ("head.",))]
    foreign = [key for key in unused if not key.startswith(_PRETRAINING)]
    notes = []
    if foreign:
        notes.append(f"{path.name}: {len(foreign)} keys fit nothing in the model" + _listing("unused", foreign))
    if len(unused) > len(foreign):
        notes.append(f"{path.name}: {len(unused) - len(foreign)} keys belong to its pretraining and were left out")
    return tuple(notes)


def _read_state(path: Path) -> dict[str, Tensor]:
    try:
        content: Any = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
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


def _strip(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Take away the prefix under which most names are the model's own."""
    own = set(model.state_dict())

    def hits(prefix: str) -> int:
        return sum(key.startswith(prefix) and key[len(prefix) :] in own for key in state)

    best = max(_PREFIXES, key=hits)  # ties go to the shorter, which comes first
    if not best or not hits(best):
        return state
    return {key[len(best) :]: value for key, value in state.items() if key.startswith(best)}


def _load_npz(model: Any, path: Path) -> tuple[str, ...]:
    load = getattr(model, "load_pretrained", None)
    if load is None:
        raise BackboneError(
            f"{path}: {type(model).__name__} has no .npz layout; give its weights as .safetensors or .pth"
        )
    try:
        with path.open("rb") as stream:  # timm would leave the file open where it does not fit
            with np.load(stream) as file:
                # timm takes as many blocks as the model has, and is silent about the rest
                if any(f"/encoderblock_{len(model.blocks)}/" in name for name in file.files):
                    raise ValueError(f"the file has more than {len(model.blocks)} blocks")
            stream.seek(0)
            load(stream)
    except (KeyError, AssertionError, AttributeError, ValueError, OSError, RuntimeError, BadZipFile) as error:
        raise BackboneError(
            f"{path} does not fit {type(model).__name__}: {error}; is the backbone's name the one of this file "
            "(ViT-B_16.npz is vit_base_patch16_224)?"
        ) from error
    return ()


def _listing(title: str, keys: list[str], most: int = 12) -> str:
    if not keys:
        return ""
    more = f", and {len(keys) - most} more" if len(keys) > most else ""
    return f"; {title}: {', '.join(keys[:most])}{more}"
