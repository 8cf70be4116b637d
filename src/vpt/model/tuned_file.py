"""The tuned file: one safetensors file, one JSON text in its header. About a megabyte for prompts and a head."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from vpt._version import __version__
from vpt.backbones.backbone import Backbone, digest_tensors
from vpt.backbones.loading import load_backbone
from vpt.core.environment import versions
from vpt.core.io import write_atomic
from vpt.core.legacy_keys import upgrade
from vpt.data.preprocessing import Preprocessing
from vpt.errors import SpecError, TunedFileError, VptError
from vpt.methods.registry import parse_method
from vpt.model.label_kinds import LabelKind, SingleLabel, parse_label_kind
from vpt.model.readout import parse_readout
from vpt.model.tuned_model import TunedModel

FORMAT = 1
_KEY = "vpt"  # the one entry of the safetensors header's metadata


@dataclass(frozen=True)
class Header:
    """The description of a tuned file.

    Attributes:
        method: The method's text with every field.
        backbone: Name of the backbone.
        fingerprint: Fingerprint of its weights.
        preprocessing: The preprocessing of the images.
        num_classes: Number of classes.
        classes: Names of the classes, or None.
        save_dtype: Type of the tensors in the file: "fp32" or "fp16".
        checksum: SHA-256 over the tensors, which reveals an altered file.
        scores: Metrics measured when the file was made.
        versions: Versions of the software that made the file.
        format: Version of the file format.
        head: Text of the head; None for the default, a linear layer on the pooled feature.
        parameter_counts: Trained parameters of the head, its auxiliary heads (not in the file), and the method.
        split_options: Seed and fractions of the split of the data, and marks of some training images.
        label_kind: The kind of labels: one class for each image, several with their thresholds, or a number with mean
            and standard deviation.
    """

    method: str
    backbone: str
    fingerprint: str
    preprocessing: Preprocessing
    num_classes: int
    classes: tuple[str, ...] | None
    save_dtype: Literal["fp32", "fp16"]
    checksum: str
    scores: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    format: int = FORMAT
    head: str | None = None
    parameter_counts: Mapping[str, int] = field(default_factory=dict)
    split_options: Mapping[str, Any] = field(default_factory=dict)
    label_kind: LabelKind = field(default_factory=SingleLabel)

    @property
    def is_dense(self) -> bool:
        """True if the file's model gives every pixel a class, False if it gives every image one."""
        return parse_readout(self.head).is_dense

    def to_json(self) -> str:
        """One line of JSON."""
        values = {**asdict(self), "preprocessing": self.preprocessing.to_dict()}
        values["label_kind"] = self.label_kind.to_dict()
        if self.label_kind == SingleLabel():  # files of single labels say nothing of it
            del values["label_kind"]
        if self.head is None:  # files of classifiers say nothing of it
            del values["head"], values["parameter_counts"]
        return json.dumps(values)

    @classmethod
    def from_json(cls, text: str, path: Path) -> Self:
        """The inverse; raises TunedFileError for another format version or a header that is no header."""
        try:
            values = upgrade("tuned_file", json.loads(text))
            if values["format"] != FORMAT:
                made_by = values.get("versions", {}).get("vpt", "unknown")
                raise TunedFileError(
                    f"{path} has format version {values['format']}, this vpt ({__version__}) reads version {FORMAT}; "
                    f"install the vpt that made it, or a newer one: {made_by}"
                )
            values["preprocessing"] = Preprocessing.from_dict(values["preprocessing"])
            values["classes"] = None if values["classes"] is None else tuple(values["classes"])
            if "label_kind" in values:
                values["label_kind"] = parse_label_kind(values["label_kind"])
            return cls(**values)
        except (KeyError, TypeError, ValueError, AttributeError, SpecError) as error:
            raise TunedFileError(f"{path} has a damaged header ({error}); fetch the file again") from error


def save(
    model: nn.Module,
    path: str | Path,
    *,
    scores: Mapping[str, Any] | None = None,
    split_options: Mapping[str, Any] | None = None,
    save_dtype: Literal["fp32", "fp16"] = "fp32",
) -> Path:
    """Write the method's tensors and the head, without auxiliary heads, to one safetensors file.

    Args:
        model: A tuned model, or a wrapper with one inside: torch.compile, DDP, a LightningModule.
        path: The file.
        scores: Metrics for the header. Default: none.
        split_options: Seed and fractions of the split of the data. Default: none.
        save_dtype: "fp16" halves the file and rounds the weights; "fp32" keeps every bit. Default: "fp32".

    Returns:
        The path.

    Raises:
        StorageError: The file cannot be written.
        SpecError: `save_dtype` is unknown.
        VptError: There is no tuned model inside, or more than one.
    """
    path = Path(path)
    tuned = _unwrap(model)
    if save_dtype not in ("fp32", "fp16"):
        raise SpecError(f"save_dtype is {save_dtype!r}; it must be fp32 or fp16")
    tensors = {name: _to_save_dtype(tensor, save_dtype) for name, tensor in tuned.inference_state_dict().items()}
    header = Header(
        method=tuned.method.spec(full=True),
        backbone=tuned.backbone.name,
        fingerprint=tuned.backbone.fingerprint(),
        preprocessing=tuned.backbone.preprocessing,
        num_classes=tuned.num_classes,
        classes=tuned.classes,
        save_dtype=save_dtype,
        checksum=digest_tensors(tensors.items()),
        scores=dict(scores or {}),
        split_options=dict(split_options or {}),
        versions=versions(),
        head=tuned.readout.for_inference().spec(full=True),
        parameter_counts=tuned.counts_by_component(),
        label_kind=tuned.label_kind,
    )
    write_atomic(path, safetensors.torch.save(tensors, {_KEY: header.to_json()}))
    return path


def load(
    path: str | Path, backbone: str | nn.Module | Backbone | None = None, *, known_fingerprint: str | None = None
) -> TunedModel:
    """Read a tuned file and attach it to its backbone.

    Args:
        path: The file.
        backbone: The backbone: a timm model, a `Backbone` or a name. Several files share one backbone if they are
            given the same object. Default: the one named in the file, whose weights are downloaded.
        known_fingerprint: Fingerprint of that backbone, for callers that load many files. Default: computed, which
            reads every weight.

    Returns:
        The tuned model in eval mode.

    Raises:
        TunedFileError: The file is damaged or altered, or was made for another backbone.
    """
    path = Path(path)
    header = inspect(path)
    found = backbone_for(path, header, backbone)
    fingerprint = known_fingerprint or found.fingerprint()
    if fingerprint != header.fingerprint:
        raise TunedFileError(
            f"{path} was made for {header.backbone} with {header.fingerprint[:19]}..., but this is {found.name} with "
            f"{fingerprint[:19]}...; load the same weights, of the same type and image size "
            f"({header.preprocessing.size} px)"
        )
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError) as error:
        raise TunedFileError(f"{path} is damaged ({error}); fetch it again") from error
    if digest_tensors(tensors.items()) != header.checksum:
        raise TunedFileError(
            f"{path} was altered or damaged after it was written (its checksum differs); fetch it again"
        )
    shared = replace(found, preprocessing=header.preprocessing)
    try:
        readout = parse_readout(header.head)
        method = parse_method(header.method).without_initial_weights()
        model = TunedModel(shared, method, header.num_classes, header.classes, readout)
        model.label_kind = header.label_kind
        model.load_trainable_state_dict(tensors)
    except SpecError as error:
        raise TunedFileError(f"{path} does not fit this vpt ({__version__}): {error}") from error
    except AssertionError as error:  # timm's word for an image of another size, where weights do not show it (Swin)
        size = header.preprocessing.size
        raise TunedFileError(
            f"{path} was made for images of {size} px, which this {found.name} does not take ({error}); load the "
            f"backbone with image_size={size}"
        ) from error
    return model


def backbone_for(
    path: Path, header: Header, backbone: str | nn.Module | Backbone | None = None, weights: Path | None = None
) -> Backbone:
    """Load the backbone that a tuned file names, at the file's image size.

    Args:
        path: The tuned file.
        header: Its header.
        backbone: Another name, or the backbone itself. Default: the name in the file.
        weights: File with local weights of the backbone. Default: timm's download.

    Returns:
        The backbone.

    Raises:
        TunedFileError: The name in the file is not in timm's own list.
    """
    if not (backbone is None or isinstance(backbone, str)):
        return load_backbone(backbone, weights=weights)
    if backbone is None:
        check_backbone_name(path, header)
    size, channels = header.preprocessing.size, header.preprocessing.channels
    if channels != 3:
        raise TunedFileError(f"{path} reads {channels} channels; give the timm model, made with in_chans={channels}")
    own = load_backbone(backbone or header.backbone, device="meta").preprocessing.size
    return load_backbone(backbone or header.backbone, weights=weights, image_size=None if own == size else size)


def check_backbone_name(path: Path, header: Header) -> None:
    """Refuse a backbone that timm reads as a place, which a stranger may have chosen.

    Args:
        path: The tuned file.
        header: Its header.

    Raises:
        TunedFileError: The name in the file is not in timm's own list.
    """
    if ":" in header.backbone:
        raise TunedFileError(
            f"{path} asks for the backbone {header.backbone}, which is not in timm's own list; if you trust that "
            "place, give it as the backbone yourself"
        )


def inspect(path: str | Path) -> Header:
    """Read the header of a tuned file, and nothing else.

    Args:
        path: The tuned file.

    Returns:
        The header.

    Raises:
        TunedFileError: The path is a folder or does not exist, or the file is damaged or not a tuned file.
    """
    path = Path(path)
    if path.is_dir():
        raise TunedFileError(f"{path} is a folder, not a tuned file; give one of its .safetensors files")
    if not path.is_file():
        raise TunedFileError(f"the tuned file {path} does not exist; `vpt tune DATA --out FILE` makes one")
    try:
        with safe_open(path, framework="np") as file:
            text = (file.metadata() or {}).get(_KEY)
    except (SafetensorError, OSError, ValueError) as error:
        raise TunedFileError(f"{path} is damaged or no safetensors file ({error}); fetch it again") from error
    if text is None:
        raise TunedFileError(f"{path} is a safetensors file but not one of vpt's; `vpt tune DATA --out FILE` makes one")
    return Header.from_json(text, path)


def _unwrap(model: nn.Module) -> TunedModel:
    """Return the tuned model inside torch.compile, DDP, a LightningModule or another wrapper."""
    found = [module for module in model.modules() if isinstance(module, TunedModel)]
    if len(found) != 1:
        raise VptError(
            f"one tuned model can be saved, and {type(model).__name__} contains {len(found)}; make one with "
            "vpt.attach, and give that"
        )
    return found[0]


def _to_save_dtype(tensor: Tensor, save_dtype: str) -> Tensor:
    tensor = tensor.detach().cpu().contiguous()
    return tensor.half() if save_dtype == "fp16" and tensor.is_floating_point() else tensor.clone()
