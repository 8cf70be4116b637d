"""The backbones with published weights, from a list in the package: timm itself takes seconds to import.

`scripts/list_backbones.py` writes the list.
"""

import json
from importlib.resources import files
from typing import Any


def read_backbones() -> tuple[dict[str, dict[str, Any]], str]:
    """Read the list.

    Returns:
        Name to "parameters", their number without a classifier; "image_size", the side of the input in pixels, None
        where it is not square; "license", None where timm states none; and "embedded", True for the first, whose
        weights are in the package. The others are in timm's order. Also the version of timm that has these.
    """
    found = json.loads(files("vpt").joinpath("backbones", "published.json").read_text(encoding="utf-8"))
    rows = {
        name: {"parameters": parameters, "image_size": size, "license": terms, "embedded": number == 0}
        for number, (name, (parameters, size, terms)) in enumerate(found["backbones"].items())
    }
    return rows, found["timm"]
