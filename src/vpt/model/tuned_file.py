"""The tuned file: one safetensors file, one JSON text in its header. About a megabyte for prompts and a head."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from vpt._version import __version__
from vpt.backbones.backbone import Backbone
from vpt.core.environment import versions
from vpt.core.hub import local_path
from vpt.core.io import write_atomic
from vpt.core.lock import lock_output
from vpt.core.text import comma_list, pluralize
from vpt.errors import SpecError, TrainingError, TunedFileError, UnsupportedError, VptError
from vpt.methods.registry import parse_method
from vpt.model import header_v1
from vpt.model.header import KEY, checksum_of, inspect, seal
from vpt.model.header import Header as Header
from vpt.model.named_backbone import backbone_for
from vpt.model.portable import Portable
from vpt.model.readout import parse_readout
from vpt.model.state_dict import check_shapes

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16}
ModelT = TypeVar("ModelT", bound=Portable)
_PATIENCE = 10.0  # seconds: processes that train together may all save


def save(
    model: nn.Module,
    path: str | Path,
    *,
    scores: Mapping[str, Any] | None = None,
    split_options: Mapping[str, Any] | None = None,
    save_dtype: Literal["fp32", "fp16"] = "fp32",
    protocol: str | None = None,
    license: str | None = None,
) -> Path:
    """Write the method's tensors and the head, without auxiliary heads, to one safetensors file.

    Args:
        model: A tuned model, or a wrapper with one inside: torch.compile, DDP, a LightningModule.
        path: The file.
        scores: Metrics for the header; tensors and arrays become numbers. Default: none.
        split_options: Seed and fractions of the split of the data. Default: none.
        save_dtype: "fp16" halves the file and rounds the weights; "fp32" keeps every bit. Default: "fp32".
        protocol: Name of the protocol of the training, for the header. Default: none.
        license: License of the file, such as "CC-BY-4.0", for the header. Default: none.

    Returns:
        The path. A UserWarning says if the backbone's own weights were written to since it was loaded, or if the
        frozen weights of a deep copy, which are its own, have other values.

    Raises:
        StorageError: The file cannot be written, or another process has been writing it for ten seconds.
        SpecError: `save_dtype` is unknown, a score has no form in JSON, or a text of the header is too long.
        TrainingError: A tensor holds NaN or infinity, or does in fp16.
        VptError: There is no tuned model inside, or more than one.
    """
    path = Path(path)
    tuned = _unwrap(model)
    if save_dtype not in _DTYPES:
        raise SpecError(f"save_dtype is {save_dtype!r}; it must be fp32 or fp16")
    changed = tuned.backbone.changed_weights()
    if changed:
        warnings.warn(tuned.backbone.describe_change(changed), stacklevel=2)
    elif unlike := tuned.unlike_backbone():
        warnings.warn(
            f"this model has {pluralize(len(unlike), 'frozen weight')} ({comma_list(unlike, 3)}) with other values "
            f"than its backbone {tuned.backbone.name}, and a tuned file holds no frozen weights, so that the model "
            "that is loaded predicts something else; train and load_state_dict what `trainable_parameters()` returns",
            stacklevel=2,
        )
    tensors = {name: _to_save_dtype(tensor, save_dtype) for name, tensor in tuned.inference_state_dict().items()}
    broken = _not_finite(tensors)
    if broken:
        raise TrainingError(
            f"{path} is not written: {comma_list(broken)} hold NaN or infinity as {save_dtype}; train with a smaller "
            "learning rate, or save as fp32"
        )
    header = Header(
        method=tuned.method.spec(full=True),
        backbone=tuned.backbone.name,
        fingerprint=tuned.backbone.fingerprint(),
        preprocessing=tuned.backbone.preprocessing,
        num_classes=tuned.num_classes,
        classes=tuned.classes,
        save_dtype=save_dtype,
        scores=dict(scores or {}),
        split_options=dict(split_options or {}),
        versions=versions(),
        head=tuned.readout.for_inference().spec(full=True),
        parameter_counts=tuned.counts_by_component(),
        label_kind=tuned.label_kind,
        protocol=protocol,
        license=license,
        class_colors=tuned.class_colors,
    )
    text = header.to_json()
    try:
        Header.from_json(text, path)
    except TunedFileError as error:
        raise SpecError(f"a file of this model could not be read again: {error}; shorten what it names") from error
    with lock_output(path, patience=_PATIENCE):
        write_atomic(path, seal(safetensors.torch.save(tensors, {KEY: text})))
    return path


def load_as(
    make: Callable[..., ModelT],
    path: str | Path,
    backbone: str | nn.Module | Backbone | None = None,
    known_fingerprint: str | None = None,
) -> ModelT:
    """Read a tuned file and attach it to its backbone.

    Args:
        make: The class of the model.
        path: The file, or its address on the Hugging Face Hub, `hf://owner/name[/file][@revision]`.
        backbone: The backbone: a timm model, a `Backbone` or a name. Several files share one backbone if they are
            given the same object. Default: the one named in the file, whose weights are downloaded.
        known_fingerprint: Fingerprint of that backbone, for callers that load many files. Default: computed, which
            reads every weight.

    Returns:
        The tuned model in eval mode.

    Raises:
        TunedFileError: The file is damaged or altered, holds NaN or infinity, or was made for another backbone.
    """
    path = local_path(path)
    header = read_header(path)
    content = _read_unaltered(path, header)
    found = backbone_for(path, header, backbone)
    fingerprint = known_fingerprint or header.fingerprint_of(found)
    if fingerprint != header.fingerprint:
        raise TunedFileError(
            f"{path} was made for {header.backbone} with {header.fingerprint[:19]}..., but this is {found.origin} with "
            f"{fingerprint[:19]}...; load the same weights"
            + f", of the same type and image size ({header.preprocessing.size} px)"
            * (header.format == 1)
        )
    shared = replace(found, preprocessing=header.preprocessing)
    try:
        readout = parse_readout(header.head)
        method = parse_method(header.method).without_initial_weights()
        tensors = safetensors.torch.load(content)
        model = make(shared, method, header.num_classes, header.classes, readout, tensors)
        _fill(path, header, tensors, model)
    except (SpecError, UnsupportedError) as error:
        raise TunedFileError(f"{path} does not fit this vpt ({__version__}): {error}") from error
    except AssertionError as error:  # timm's word for an image of another size, where weights do not show it (Swin)
        size = header.preprocessing.size
        raise TunedFileError(
            f"{path} was made for images of {size} px, which this {found.name} does not take ({error}); load the "
            f"backbone with image_size={size}"
        ) from error
    model.split_options = dict(header.split_options)
    return model


def load_values(path: Path, header: Header, model: Portable) -> None:
    """Read the tensors of a tuned file into a model of another one, which is much faster than `load`.

    Args:
        path: The file.
        header: Its header, which has the method, the head, the number of classes, the preprocessing and the fingerprint
            of the other file.
        model: The model of the other file, whose names of classes it keeps. After an error, its values are of neither.

    Raises:
        TunedFileError: The file is damaged or altered, or holds NaN or infinity, or other tensors.
    """
    tensors = safetensors.torch.load(_read_unaltered(path, header))
    try:
        check_shapes(model.trainable_state_dict(), tensors, f"{header.method} with {header.num_classes} classes")
        _fill(path, header, tensors, model)
    except SpecError as error:
        raise TunedFileError(f"{path} does not fit this vpt ({__version__}): {error}") from error


def _fill(path: Path, header: Header, tensors: Mapping[str, Tensor], model: Portable) -> None:
    """Check tensors and copy them into a model, with what the header says of its predictions."""
    _check_values(path, header, tensors, model)
    model.label_kind, model.class_colors = header.label_kind, header.class_colors
    model.load_trainable_state_dict(tensors)


def read_header(path: str | Path) -> Header:
    """Read the header of a tuned file, and check that its method and its head are known.

    Args:
        path: The tuned file, or its address on the Hugging Face Hub, `hf://owner/name`.

    Returns:
        The header.

    Raises:
        TunedFileError: As `inspect`; or the method or the head is none of this vpt.
    """
    header = inspect(path)
    try:
        parse_method(header.method)
        parse_readout(header.head)
    except (SpecError, UnsupportedError) as error:
        raise TunedFileError(f"{path} does not fit this vpt ({__version__}): {error}") from error
    return header


def require_unaltered(path: Path) -> None:
    """Check that a tuned file is as it was written, without its backbone.

    Args:
        path: The file.

    Raises:
        TunedFileError: The file is damaged or altered, or no tuned file.
    """
    _read_unaltered(path, inspect(path))


def _read_unaltered(path: Path, header: Header) -> bytes:
    """Return the content of a file. Raises TunedFileError where its checksum is not that of the header."""
    try:
        content = path.read_bytes()
        if header.format == header_v1.FORMAT:
            checksum = header_v1.checksum_of(safetensors.torch.load(content).items())
        else:
            checksum = checksum_of(content)
    except (SafetensorError, OSError, MemoryError, KeyError, TypeError, ValueError) as error:
        raise TunedFileError(f"{path} is damaged ({error}); fetch it again") from error
    if checksum != header.checksum:
        raise TunedFileError(
            f"{path} was altered or damaged after it was written (its checksum differs); fetch it again"
        )
    return content


def _check_values(path: Path, header: Header, tensors: Mapping[str, Tensor], model: Portable) -> None:
    """Raise TunedFileError if tensors have another type than the header says, or hold NaN or infinity."""
    if header.format != header_v1.FORMAT:
        floats = _DTYPES[header.save_dtype]
        own = {name: floats if x.is_floating_point() else x.dtype for name, x in model.trainable_state_dict().items()}
        other = [f"{name} is {tensors[name].dtype}" for name, dtype in own.items() if tensors[name].dtype != dtype]
        if other:
            raise TunedFileError(
                f"{path} has {header.save_dtype} in its header, but {comma_list(other)}; fetch it again"
            )
    broken = _not_finite(tensors)
    if broken:
        raise TunedFileError(f"{path} holds NaN or infinity in {comma_list(broken)}; train the model again")


def _not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the tensors that hold NaN or infinity."""
    return [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]


def _unwrap(model: nn.Module) -> Portable:
    """Return the tuned model inside torch.compile, DDP, a LightningModule or another wrapper."""
    found = [module for module in model.modules() if isinstance(module, Portable)]
    if len(found) != 1:
        raise VptError(
            f"one tuned model can be saved, and {type(model).__name__} contains {len(found)}; make one with "
            "vpt.attach, and give that"
        )
    return found[0]


def _to_save_dtype(tensor: Tensor, save_dtype: str) -> Tensor:
    tensor = tensor.detach().cpu().contiguous()
    return tensor.to(_DTYPES[save_dtype] if tensor.is_floating_point() else tensor.dtype, copy=True)
