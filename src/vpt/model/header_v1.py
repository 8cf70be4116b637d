"""Format version 1 of the tuned file, which is read for good and no longer written.

Its header has no schema: keys of earlier versions are renamed, and later fields are missing. Its checksum covers the
tensors alone, and its fingerprint the weights as they are in memory, resized and cast.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from vpt.core.legacy_keys import upgrade
from vpt.data.preprocessing import Preprocessing
from vpt.model.label_kinds import parse_label_kind

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1


def read_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a header.

    Args:
        values: Its JSON values.

    Returns:
        Arguments of `Header`. A faulty value raises the error of its type.
    """
    fields = upgrade("tuned_file", values)
    fields["preprocessing"] = Preprocessing.from_dict(fields["preprocessing"])
    fields["classes"] = None if fields["classes"] is None else tuple(map(str, fields["classes"]))
    for name, kind in (("num_classes", int), ("method", str), ("fingerprint", str), ("head", str | None)):
        if not isinstance(fields.get(name), kind):
            raise TypeError(f"{name} is {fields.get(name)!r}")
    if "label_kind" in fields:
        fields["label_kind"] = parse_label_kind(fields["label_kind"])
    return fields


def checksum_of(tensors: Iterable[tuple[str, "Tensor"]]) -> str:
    """Return the checksum of a file.

    Args:
        tensors: Its tensors by name.

    Returns:
        64 hexadecimal digits.
    """
    from vpt.backbones.backbone import digest_tensors

    return digest_tensors(tensors)
