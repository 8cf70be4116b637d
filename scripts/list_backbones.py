"""Write the list of backbones that `vpt list backbones` prints, from the installed timm.

    python scripts/list_backbones.py

Each architecture is made once, without memory for its weights. That takes some minutes.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import timm

from vpt.backbones import DEFAULT, list_backbones, load_backbone
from vpt.backbones.meta_device import meta_device

LIST = Path(__file__).parents[1] / "src" / "vpt" / "backbones" / "published.json"


@cache
def count_parameters(architecture: str) -> int:
    with meta_device():
        model = timm.create_model(architecture, pretrained=False, num_classes=0)
    return sum(parameter.numel() for parameter in model.parameters())


def describe(name: str) -> list[object]:
    """Number of parameters, side of the input (None where it is not square) and license."""
    config = timm.get_pretrained_cfg(name)
    height, width = config.input_size[-2:]
    return [count_parameters(name.partition(".")[0]), width if height == width else None, config.license]


def main() -> None:
    embedded = load_backbone(DEFAULT, device="meta")
    parameters = sum(parameter.numel() for parameter in embedded.module.parameters())
    rows = {DEFAULT: [parameters, embedded.preprocessing.size, "apache-2.0"]}
    rows |= {name: describe(name) for name in list_backbones() if name != DEFAULT}
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(row)}" for name, row in rows.items())
    LIST.write_text(f'{{"timm": "{timm.__version__}", "backbones": {{\n{lines}\n}}}}\n', encoding="utf-8")
    print(f"{len(rows)} backbones of timm {timm.__version__}: {LIST}")


if __name__ == "__main__":
    main()
