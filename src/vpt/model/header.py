"""The header of a tuned file: one JSON text in the metadata of a safetensors file. Reading it imports no torch.

The checksum covers the header and the tensors, so that an altered file is refused as a whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, InstanceOf, JsonValue, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, from_json, to_json
from safetensors import SafetensorError, safe_open

from vpt._version import __version__
from vpt.core.hub import local_path
from vpt.core.input_files import require_regular_file
from vpt.data.preprocessing import Preprocessing
from vpt.errors import SpecError, TunedFileError
from vpt.model import header_v1
from vpt.model.label_kinds import LabelKind, MultiLabel, SingleLabel, parse_label_kind

if TYPE_CHECKING:
    from vpt.backbones.backbone import Backbone

FORMAT: Final = 2
KEY = "vpt"  # the one entry of the safetensors header's metadata
_MAX_NAME = 1000  # characters in the name of a class, a backbone or a package
_MAX_SPEC = 10_000  # characters in the text of a method or a head
_MAX_TEXT = 2**24  # bytes of the whole JSON text
NO_CHECKSUM = 64 * "0"  # stands in the text that the checksum is computed of

Name = Annotated[str, Field(max_length=_MAX_NAME)]
_Spec = Annotated[str, Field(max_length=_MAX_SPEC)]
_Count = Annotated[int, Field(ge=0)]
_Color = Annotated[str, Field(pattern=r"^[0-9a-f]{6}$")]
_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def _read_label_kind(values: Any) -> Any:
    return parse_label_kind(values) if isinstance(values, Mapping) else values


ParsedLabelKind = Annotated[InstanceOf[LabelKind], BeforeValidator(_read_label_kind)]


@dataclass(frozen=True)
class Header:
    """The description of a tuned file. `from_json` checks every type, length and count.

    Attributes:
        method: The method's text with every field.
        backbone: Name of the backbone.
        fingerprint: Fingerprint of its weights.
        preprocessing: The preprocessing of the images.
        num_classes: Number of classes.
        classes: Names of the classes, or None.
        save_dtype: Type of the tensors in the file: "fp32" or "fp16".
        checksum: SHA-256 over the header and the tensors, which reveals an altered file. In format 1 it covers the
            tensors alone.
        scores: Metrics measured when the file was made.
        versions: Versions of the software that made the file.
        format: Version of the file format.
        head: Text of the head; None for the default, a linear layer on the pooled feature.
        parameter_counts: Trained parameters of the head, its auxiliary heads (not in the file), and the method.
        split_options: Seed and fractions of the split of the data, and marks of some training images.
        label_kind: The kind of labels: one class for each image with the temperature of its probabilities, several
            with their thresholds, or a number with mean and standard deviation.
        protocol: The protocol of the training, such as "vtab-1k", or None.
        license: The license of the file, such as "CC-BY-4.0", or None.
        class_colors: Color of each class in pictures of masks, such as "0072b2", or None for those of `class_colors`.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    method: _Spec
    backbone: Name
    fingerprint: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
    preprocessing: Preprocessing
    num_classes: Annotated[int, Field(ge=1)]
    classes: tuple[Name, ...] | None
    save_dtype: Literal["fp32", "fp16"]
    checksum: _Sha256 = NO_CHECKSUM
    scores: Mapping[str, JsonValue] = field(default_factory=dict)
    versions: Mapping[Name, Name] = field(default_factory=dict)
    format: Literal[1, 2] = FORMAT
    head: _Spec | None = None
    parameter_counts: Mapping[Name, _Count] = field(default_factory=dict)
    split_options: Mapping[str, JsonValue] = field(default_factory=dict)
    label_kind: ParsedLabelKind = field(default_factory=SingleLabel)
    protocol: Name | None = None
    license: Name | None = None
    class_colors: tuple[_Color, ...] | None = None

    @property
    def is_dense(self) -> bool:
        """True if the file's model gives every pixel a class, False if it gives every image one."""
        from vpt.model.readout import parse_readout

        return parse_readout(self.head).is_dense

    def fingerprint_of(self, backbone: Backbone) -> str:
        """Return the fingerprint of a backbone by the rule of this file's format.

        Args:
            backbone: The backbone.

        Returns:
            The text that equals `fingerprint` where the file was made for this backbone.
        """
        return backbone.weights_digest() if self.format == header_v1.FORMAT else backbone.fingerprint()

    def to_json(self) -> str:
        """Return one line of JSON with every field, the checksum first. NaN and infinity become null.

        Returns:
            The text.

        Raises:
            SpecError: A score, or an option of the split, has no form in JSON.
        """
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        values |= {"preprocessing": self.preprocessing.to_dict(), "label_kind": self.label_kind.to_dict()}
        return to_plain_json({"checksum": values.pop("checksum"), **values}).decode()

    @classmethod
    def from_json(cls, text: str, path: Path) -> Self:
        """Return the header of its text, the inverse of `to_json`.

        Args:
            text: The text.
            path: The file, for errors.

        Returns:
            The header.

        Raises:
            TunedFileError: The text is no header, or has another format version.
        """
        try:
            if len(text) > _MAX_TEXT:
                raise ValueError(f"it has {len(text):,} characters, more than {_MAX_TEXT:,}")
            values = from_json(text)
            version = values["format"]
            if version == header_v1.FORMAT:
                return cls(**header_v1.read_values(values))
            if version != FORMAT:
                made_by = values.get("versions", {}).get("vpt", "unknown")
                raise TunedFileError(
                    f"{path} has format version {version}, this vpt ({__version__}) reads versions 1 and {FORMAT}; "
                    f"install the vpt that made it, or a newer one: {made_by}"
                )
            header: Self = _adapter().validate_json(text)
            if header.classes is not None and len(header.classes) != header.num_classes:
                raise ValueError(f"it has {len(header.classes)} names for {header.num_classes} classes")
            kind = header.label_kind
            if isinstance(kind, MultiLabel) and len(kind.thresholds) not in (0, header.num_classes):
                raise ValueError(f"it has {len(kind.thresholds)} thresholds for {header.num_classes} classes")
            if header.class_colors is not None and len(header.class_colors) != header.num_classes:
                raise ValueError(f"it has {len(header.class_colors)} colors for {header.num_classes} classes")
            return header
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(map(str, first["loc"]))
            raise TunedFileError(f"{path} has a damaged header ({place}: {first['msg']}); fetch it again") from error
        except (KeyError, TypeError, ValueError, AttributeError, SpecError) as error:
            raise TunedFileError(f"{path} has a damaged header ({error}); fetch the file again") from error


def to_plain_json(values: Mapping[str, Any], indent: int | None = None) -> bytes:
    """Return values as JSON. Tensors and arrays become numbers or lists of them, NaN and infinity null.

    Args:
        values: Values by name.
        indent: Spaces of a level. Default: all in one line.

    Returns:
        JSON text in UTF-8.

    Raises:
        SpecError: A value has no form in JSON.
    """
    try:
        return to_json(values, indent=indent, inf_nan_mode="null", fallback=_to_numbers)
    except (PydanticSerializationError, ValueError, TypeError, RuntimeError) as error:
        raise SpecError(
            f"scores or split_options cannot be written as JSON ({error}); give numbers, texts, None, and lists and "
            "mappings of these"
        ) from error


def _to_numbers(value: Any) -> Any:
    """Return a tensor or an array as a number or lists of numbers."""
    if not hasattr(value, "tolist"):
        raise TypeError(f"{value!r:.80} is of type {type(value).__name__}")
    return value.tolist()


def inspect(path: str | Path) -> Header:
    """Read the header of a tuned file, and nothing else.

    Args:
        path: The tuned file, or its address on the Hugging Face Hub, `hf://owner/name`.

    Returns:
        The header.

    Raises:
        TunedFileError: The path is a folder or does not exist, or the file is damaged or not a tuned file.
    """
    path = require_regular_file(local_path(path), "tuned file", "`vpt tune DATA --out FILE` makes one", TunedFileError)
    try:
        with safe_open(path, framework="np") as file:
            text = (file.metadata() or {}).get(KEY)
    except (SafetensorError, OSError, ValueError) as error:
        raise TunedFileError(f"{path} is damaged or no safetensors file ({error}); fetch it again") from error
    if text is None:
        raise TunedFileError(f"{path} is a safetensors file but not one of vpt's; `vpt tune DATA --out FILE` makes one")
    return Header.from_json(text, path)


def class_names(classes: Sequence[str], num_classes: int) -> tuple[str, ...]:
    """Return names of classes that a header can hold, before a model is trained.

    Args:
        classes: The names.
        num_classes: Number of classes.

    Returns:
        The names.

    Raises:
        SpecError: There are more or fewer names than classes, or one is no text or too long.
    """
    if len(classes) != num_classes:
        raise SpecError(f"{len(classes)} class names were given for {num_classes} classes; give one name each")
    for name in classes:
        if not isinstance(name, str) or len(name) > _MAX_NAME:
            raise SpecError(f"a class has the name {name!r}; give a text of at most {_MAX_NAME:,} characters")
    return tuple(classes)


def checksum_of(content: bytes | memoryview) -> str:
    """Return the SHA-256 over the header's text, with zeros for its own checksum, and over all tensors.

    Args:
        content: The whole file: a safetensors file whose text has a checksum.

    Returns:
        64 hexadecimal digits.
    """
    start = 8 + int.from_bytes(content[:8], "little")
    entries = from_json(bytes(content[8:start]))
    text = entries.pop("__metadata__")[KEY]
    digest = hashlib.sha256(text.replace(from_json(text)["checksum"], NO_CHECKSUM, 1).encode())
    for name, entry in sorted(entries.items()):
        first, last = entry["data_offsets"]
        digest.update(f"\n{name} {entry['dtype']} {','.join(map(str, entry['shape']))}\n".encode())
        digest.update(content[start + first : start + last])
    return digest.hexdigest()


def checksum_of_file(path: Path) -> str:
    """Return the checksum of a file, which is not read into memory.

    Args:
        path: The file.

    Returns:
        64 hexadecimal digits.
    """
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as mapped, memoryview(mapped) as content:
        return checksum_of(content)


def seal(content: bytes) -> bytes:
    """Return a tuned file with its checksum in place of the zeros.

    Args:
        content: The whole file, with the zeros of a new header.

    Returns:
        The file to be written, of the same length.
    """
    return content.replace(NO_CHECKSUM.encode(), checksum_of(content).encode(), 1)


@cache
def _adapter() -> TypeAdapter[Any]:
    """The schema, built when the first header is read."""
    return TypeAdapter(Header)
