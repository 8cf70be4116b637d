"""Weights files: safetensors, PyTorch's .pth (tensors only) and Google's original .npz, into a timm model.

Names are translated by timm's own filter of the model's family. What stands here is what timm leaves to its callers:
the part of a pretraining file that is the backbone, shared bias tables, and where the final norm goes.
Nothing in a file is ever executed: PyTorch files are read with `weights_only`, NumPy ones without pickle.
"""

import inspect
import io
import pickle
import re
import sys
import tomllib
import warnings
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
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
from vpt.core.damage import FAULTS
from vpt.core.foreign_files import HEAD_SIZE, describe_foreign_file
from vpt.core.input_files import require_regular_file
from vpt.errors import BackboneError

_LAYOUTS = tomllib.loads(Path(__file__).with_name("weight_layouts.toml").read_text(encoding="utf-8"))
_PRETRAINING_KEYS = tuple(_LAYOUTS["pretraining_keys"])
# Where CLIP and its kin keep the image's part; everything else is the text's. timm takes this prefix away itself.
_IMAGE_TOWER_PREFIX = "visual."
# BEiT's pretraining has one table of relative positions for all blocks; tuned files have a copy in every block.
_SHARED_BIAS_TABLE = "rel_pos_bias.relative_position_bias_table"
_BLOCK_BIAS_TABLE = ".attn.relative_position_bias_table"
# A counter that evaluation never reads; files written before torch 0.4.1, torchvision's first, do not have it.
_BATCH_COUNTER = "num_batches_tracked"
_PATCH_WEIGHTS = ("patch_embed.proj.weight", f"{_IMAGE_TOWER_PREFIX}conv1.weight")
# What timm's filters and loaders raise on a file of another model.
_LOAD_ERRORS = (KeyError, IndexError, AttributeError, AssertionError, TypeError, ValueError, RuntimeError)
_ADVICE = "is the backbone's name the one these weights were trained with?"


def load_weights(model: nn.Module, path: Path, native: nn.Module | None = None) -> tuple[str, ...]:
    """Load a weights file into a timm model. Returns notes on what was left over.

    A classifier that the file has not, or for other classes, stays as it is: a tuned model has a head of its own.
    Positions are resized where the file has another grid (by timm's own filter of the model's family). `native` is the
    same model for images of its own size, on the device "meta", if `model` is for others; it gets the weights, too.
    Raises BackboneError with the list of keys when a weight of the model is missing or has another shape.
    """
    require_regular_file(path, "weights file", "give a .safetensors, .pth or .npz file", BackboneError)
    if path.suffix == ".npz":
        if native is not None:
            _load_npz(native.to_empty(device="cpu"), path)
        return _load_npz(model, path)
    model_state = model.state_dict()
    selected, ignored = _select_backbone(_read_state(path), model_state)
    # Rows and columns of a patch in the file, or nothing where it has no convolution over patches.
    patch = next((tuple(value.shape[2:]) for key, value in selected.items() if key.endswith(_PATCH_WEIGHTS)), ())
    notes = _note_on_patches(path, patch, model)
    # A norm that changes its place sees what it was not trained on.
    notes += [
        f"{path.name}: its final {file_norm[:-1]} is used as {model_norm[:-1]}, {order} pooling"
        for model_norm, file_norm, order in _norm_renames(selected, model_state)
    ]
    state = _fit(selected, model, path)
    if native is not None:
        fitted = model_state | _fit(selected, native, path)  # batch counters, which a file may lack, are the model's
        native.load_state_dict({key: fitted[key].to(own.dtype) for key, own in model_state.items()}, assign=True)
    model.load_state_dict({key: state.get(key, model_state[key]) for key in model_state})
    classifier = classifier_prefixes(model) or ("head.",)
    unused = [key for key in state if key not in model_state and not key.startswith(classifier)]
    unknown = [key for key in unused if not key.startswith(_PRETRAINING_KEYS)]
    if unknown:
        notes.append(f"{path.name}: {len(unknown)} keys fit nothing in the model" + _list_keys("unused", unknown))
    ignored += [key for key in unused if key.startswith(_PRETRAINING_KEYS)]
    return (*notes, *_note_on_ignored_keys(path, [key.removeprefix("module.").split(".")[0] for key in ignored]))


def _fit(state: dict[str, Tensor], model: nn.Module, path: Path) -> dict[str, Tensor]:
    """Return weights under the names and in the shapes of a model. Raises BackboneError where some are missing."""
    classifier = classifier_prefixes(model)
    model_state = model.state_dict()
    try:
        fitted = _convert(_expand_shared_bias_table(state, model_state), model)
    except _LOAD_ERRORS as error:
        raise BackboneError(f"{path} does not fit {type(model).__name__}: {error}; {_ADVICE}") from error
    for model_norm, file_norm, _ in _norm_renames(fitted, model_state):
        fitted = {re.sub(f"^{re.escape(file_norm)}", model_norm, key): value for key, value in fitted.items()}
    fitted = {
        key: value
        for key, value in fitted.items()
        if not (key.startswith(classifier) and key in model_state and value.shape != model_state[key].shape)
    }
    mismatched = [
        f"{key}: {tuple(fitted[key].shape)} in the file, {tuple(weight.shape)} in the model"
        for key, weight in model_state.items()
        if key in fitted and fitted[key].shape != weight.shape
    ]
    channels = next(
        (
            f"; its {key} reads {fitted[key].shape[1]} channels; give vpt.load_backbone the timm model that has them, "
            f"made with in_chans={fitted[key].shape[1]}"
            for key, weight in model_state.items()
            if key in fitted and weight.ndim == fitted[key].ndim == 4 and weight.shape[1] != fitted[key].shape[1]
            and (weight.shape[0], *weight.shape[2:]) == (fitted[key].shape[0], *fitted[key].shape[2:])
        ),
        "",
    ) if len(mismatched) == 1 else ""  # fmt: skip
    required = [key for key in model_state if not key.endswith(_BATCH_COUNTER) and not key.startswith(classifier)]
    missing = [key for key in required if key not in fitted]
    if missing or mismatched:
        faults = _list_keys("missing in the file", missing) + _list_keys("of another shape", mismatched)
        raise BackboneError(f"{path} does not fit {type(model).__name__}{faults}{channels or f'; {_ADVICE}'}")
    return fitted


def _read_state(path: Path) -> dict[str, Tensor]:
    with path.open("rb") as file:
        foreign = describe_foreign_file(file.read(HEAD_SIZE))
    if foreign is not None:
        raise BackboneError(f"{path} holds no weights: it is {foreign}")
    if _is_torchscript(path):
        raise BackboneError(
            f"{path} is a TorchScript archive, a program besides its weights, so it is not read; ask its "
            "publisher for a .safetensors file, or for a state dict without code"
        )
    try:
        with path.open("rb") as file:  # known by its ending, or by its first bytes: a length and the JSON that has it
            is_safetensors = path.suffix == ".safetensors" or file.read(9)[8:] == b"{"
        content: Any = load_file(path) if is_safetensors else torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise BackboneError(
            f"{path} holds Python objects besides tensors, which could run code, so it is not read; ask its "
            "publisher for a .safetensors file, or for a state dict, which holds tensors alone"
        ) from error
    except (SafetensorError, RuntimeError, MemoryError, *FAULTS) as error:
        raise BackboneError(f"{path} is no readable weights file ({error}); fetch it again") from error
    content = content if isinstance(content, dict) else {}
    for key in _LAYOUTS["state_dict_keys"]:
        if isinstance(content.get(key), Mapping):
            content = content[key]
    state = {key: value for key, value in content.items() if isinstance(value, Tensor)}
    if not state:
        raise BackboneError(f"{path} holds no weights (a mapping of names to tensors was expected)")
    return state


def _is_torchscript(path: Path) -> bool:
    """OpenAI published CLIP as such archives."""
    try:
        with path.open("rb") as stream:
            return is_zipfile(stream) and any(name.endswith("/constants.pkl") for name in ZipFile(stream).namelist())
    except (BadZipFile, RuntimeError, *FAULTS):
        return False


def _select_backbone(
    state: dict[str, Tensor], model_state: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], list[str]]:
    """Return the tensors of the backbone, without the prefix of their names in the file, and the names of the rest."""
    counts = Counter(
        key[: len(key) - len(rest)]
        for key in state
        for rest in (key.split(".", depth)[-1] for depth in range(key.count(".") + 1))
        if rest in model_state
    )
    listed = _LAYOUTS["prefixes"]
    foreign = sorted(
        prefix for prefix, count in counts.items() if prefix not in listed and 2 * count >= len(model_state)
    )
    prefix: str = max([*listed, *foreign], key=lambda name: counts[name])
    if not counts[prefix] and all(key.startswith("module.") for key in state):
        prefix = "module."  # none is the model's before timm's filter has renamed it, but DDP wraps every name
    selected = {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
    ignored = [key for key in state if not key.startswith(prefix)]
    if any(key.startswith(_IMAGE_TOWER_PREFIX) for key in selected):
        ignored += [key for key in selected if not key.startswith(_IMAGE_TOWER_PREFIX)]
        selected = {key: value for key, value in selected.items() if key.startswith(_IMAGE_TOWER_PREFIX)}
    return selected, ignored


def _expand_shared_bias_table(state: dict[str, Tensor], model_state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give every block the bias table that pretraining shares between them, where the model has one per block."""
    tables = [key for key in model_state if key.endswith(_BLOCK_BIAS_TABLE)]
    if _SHARED_BIAS_TABLE not in state or _SHARED_BIAS_TABLE in model_state or not tables:
        return state
    rest = {key: value for key, value in state.items() if key != _SHARED_BIAS_TABLE}
    return rest | dict.fromkeys(tables, state[_SHARED_BIAS_TABLE])


def _convert(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Names and shapes of the model, by timm's own filter of its family."""
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return state
    # timm asks for this only where DeiT-3 is made by name; in files of other ViTs there is nothing to rename.
    known = inspect.signature(convert).parameters
    options = {"adapt_layer_scale": True} if "adapt_layer_scale" in known else {}
    missing_biases = _biases_missing_in_model(state, model.state_dict())
    # It prints what it leaves out, where a program may be reading, and torch warns of code that is timm's.
    with redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        converted: dict[str, Tensor] = convert(dict(state), model, **options)
    return missing_biases | converted


def _biases_missing_in_model(state: Mapping[str, Tensor], model_state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """DINOv3's attention biases are zero in most files, and timm's models then have none: those that are not zero.

    The third of the keys does not count: DINOv3 masks it.
    """
    found: dict[str, Tensor] = {}
    if "storage_tokens" not in state:  # by which timm knows DINOv3
        return found
    for key, value in state.items():
        if key.endswith("attn.qkv.bias") and model_state.keys().isdisjoint((key, key.replace("qkv.bias", "q_bias"))):
            query, _, values = value.chunk(3)
            if query.any() or values.any():
                found[key] = value
    return found


def _norm_renames(names: Collection[str], model_state: Collection[str]) -> Iterator[tuple[str, str, str]]:
    """Yield the prefix of the final norm in the model, its other prefix in the file, and where the model applies it."""
    for model_norm, file_norm, order in (("fc_norm.", "norm.", "after"), ("norm.", "fc_norm.", "before")):
        ours, theirs = f"{model_norm}weight", f"{file_norm}weight"
        if ours in model_state and theirs in names and ours not in names and theirs not in model_state:
            yield model_norm, file_norm, order


def _note_on_patches(path: Path, file_patch: tuple[int, ...], model: nn.Module) -> list[str]:
    """A remark where timm resamples the filters that read a patch: the usual cause is another model's file."""
    projection = getattr(getattr(model, "patch_embed", None), "proj", None)
    model_patch = tuple(projection.weight.shape[2:]) if isinstance(projection, nn.Conv2d) else ()
    if len(file_patch) != 2 or len(model_patch) != 2 or file_patch == model_patch:
        return []
    theirs, ours = ("{}x{}".format(*patch) for patch in (file_patch, model_patch))
    return [f"{path.name}: its patches of {theirs} px were resampled to {ours}; {_ADVICE}"]


def _note_on_ignored_keys(path: Path, key_groups: list[str]) -> list[str]:
    if not key_groups:
        return []
    listing = _list_keys("parts", list(dict.fromkeys(key_groups)))
    return [f"{path.name}: {len(key_groups)} keys outside the backbone were left out{listing}"]


def _load_npz(model: Any, path: Path) -> tuple[str, ...]:
    load = getattr(model, "load_pretrained", None)
    if load is None:
        advice = "give its weights as .safetensors or .pth"
        raise BackboneError(f"{path}: {type(model).__name__} has no .npz layout; {advice}")

    def versions() -> dict[str, tuple[int, int]]:
        return {key: (id(weight), weight._version) for key, weight in model.state_dict(keep_vars=True).items()}

    before = versions()
    try:
        with path.open("rb") as stream:  # timm would leave the file open where it does not fit
            with np.load(stream) as file:
                notes = _check_npz(file, model, path)
            stream.seek(0)
            load(stream)
    except (*_LOAD_ERRORS, OSError, EOFError, BadZipFile) as error:
        raise BackboneError(
            f"{path} does not fit {type(model).__name__}: {error}; is the backbone's name the one of this file "
            "(ViT-B_16.npz is vit_base_patch16_224)?"
        ) from error
    # timm fills what the layout knows, and is silent about the rest: a weight that nothing was written to.
    classifier = classifier_prefixes(model)
    unwritten = [key for key, version in versions().items() if version == before.get(key)]
    missing = [key for key in unwritten if not key.startswith(classifier)]
    if missing:
        raise BackboneError(f"{path} does not fit {type(model).__name__}{_list_keys('missing in the file', missing)}")
    return tuple(notes)


def _check_npz(file: Mapping[str, Any], model: Any, path: Path) -> list[str]:
    """Remarks on the file of a ViT, read from its names. Raises ValueError where it has more blocks than the model.

    timm takes as many blocks as the model has, and is silent about the rest.
    """
    names = list(file)
    prefix = next((prefix for prefix in _LAYOUTS["npz"]["prefixes"] if f"{prefix}embedding/kernel" in names), None)
    if prefix is None:
        return []  # not a ViT's: timm knows whether it is the model's
    blocks = len(model.blocks)
    stacked = f"{prefix}Transformer/encoderblock/LayerNorm_0/scale"  # SigLIP 2 keeps all blocks in one array
    more = stacked in names and len(file[stacked]) > blocks
    if more or any(name.startswith(f"{prefix}Transformer/encoderblock_{blocks}/") for name in names):
        raise ValueError(f"the file has more than {blocks} blocks")
    pooling = () if getattr(model, "attn_pool", None) is None else ("MAPHead_0/",)
    inside = tuple(prefix + group for group in (*_LAYOUTS["npz"]["groups"], *pooling))
    ignored = [name for name in names if not name.startswith(inside)]
    key_groups = [name.removeprefix(prefix).removeprefix("params/").split("/")[0] for name in ignored]
    patch = tuple(file[f"{prefix}embedding/kernel"].shape[:2])
    return _note_on_patches(path, patch, model) + _note_on_ignored_keys(path, key_groups)


def _list_keys(title: str, keys: list[str]) -> str:
    more = f", and {len(keys) - 12} more" if len(keys) > 12 else ""
    return f"; {title}: {', '.join(keys[:12])}{more}" if keys else ""
