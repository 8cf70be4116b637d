"""Classes, kind of labels and preprocessing of a model, in a file of their own beside those of another library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ConfigDict, JsonValue, TypeAdapter, ValidationError

from vpt.core.input_files import require_regular_file
from vpt.data.preprocessing import Preprocessing
from vpt.errors import SpecError, TunedFileError
from vpt.model.header import Name, ParsedLabelKind, to_plain_json
from vpt.model.tuned_model import TunedModel

SETTINGS = "vpt.json"


@dataclass(frozen=True)
class Settings:
    """The parts of a tuned model that a file of another library has no place for.

    Attributes:
        preprocessing: The preprocessing of the images.
        classes: Names of the classes, or None.
        label_kind: The kind of labels.
        fingerprint: Fingerprint of the backbone's weights, or None.
        scores: Metrics measured when the model was made.
        split_options: Seed and fractions of the split of the data.
        protocol: The protocol of the training, or None.
        license: The license, or None.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    preprocessing: Preprocessing
    classes: tuple[Name, ...] | None
    label_kind: ParsedLabelKind
    fingerprint: Name | None = None
    scores: Mapping[str, JsonValue] = field(default_factory=dict)
    split_options: Mapping[str, JsonValue] = field(default_factory=dict)
    protocol: Name | None = None
    license: Name | None = None

    def record(self) -> dict[str, Any]:
        """Return the options of `vpt.save` that say how the model was made."""
        return {name: getattr(self, name) for name in ("scores", "split_options", "protocol", "license")}


def settings_json(model: TunedModel, **record: Any) -> bytes:
    """Return the settings of a model as the content of a file.

    Args:
        model: The tuned model.
        **record: `scores`, `split_options`, `protocol` and `license`, as `vpt.save` takes them.

    Returns:
        JSON text in UTF-8.
    """
    preprocessing, kind = model.backbone.preprocessing.to_dict(), model.label_kind.to_dict()
    values = {"preprocessing": preprocessing, "classes": model.classes, "label_kind": kind}
    return to_plain_json({**values, "fingerprint": model.backbone.fingerprint(), **record}, indent=2)


def read_settings(folder: Path) -> Settings | None:
    """Read the settings in a folder.

    Args:
        folder: The folder.

    Returns:
        The settings, or None where the folder has no such file.

    Raises:
        TunedFileError: The file is damaged.
    """
    path = folder / SETTINGS
    if not path.exists():
        return None
    try:
        content = require_regular_file(path, "file of settings", "write the folder again", TunedFileError).read_bytes()
        settings: Settings = TypeAdapter(Settings).validate_json(content)
        return settings
    except (OSError, ValidationError, SpecError) as error:
        raise TunedFileError(f"{path} is damaged ({error}); write the folder again, or delete this file") from error
