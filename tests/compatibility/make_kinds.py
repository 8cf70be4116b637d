"""How samples/kinds was made: a record, for the last commit that wrote format 1 of the tuned file, and no other.

    PYTHONPATH=src python tests/compatibility/make_kinds.py

from the root of the repository, where that commit is checked out. The files are those that format 1 had later than
0.1.0: kinds of labels, heads on several blocks, and the embedded backbone at another size and in bfloat16.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tiny
import torch

import vpt
from vpt.model.label_kinds import LabelKind, MultiLabel, Regression, SingleLabel

FOLDER = Path(__file__).parent / "samples" / "kinds"
KINDS: dict[str, tuple[dict[str, Any], dict[str, Any], LabelKind]] = {
    "multi_label": ({}, {"method": "linear", "num_classes": 3}, MultiLabel((0.25, 0.5, 0.75))),
    "regression": ({}, {"method": "bias", "num_classes": 1}, Regression(10.0, 2.0)),
    "multi_block": ({}, {"method": "linear", "num_classes": 2, "head": "multi_block(blocks=last4)"}, SingleLabel()),
    "larger": ({"image_size": 60}, {"method": "vpt(length=2)", "num_classes": 2}, SingleLabel()),
    "bfloat16": ({"dtype": torch.bfloat16}, {"method": "linear", "num_classes": 2}, SingleLabel()),
}

if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    expected = {}
    for seed, (name, (backbone, options, kind)) in enumerate(KINDS.items()):
        torch.manual_seed(seed)
        loaded = vpt.load_backbone(**backbone)
        model = vpt.attach(loaded, **options).eval()
        with torch.no_grad():
            for weight in model.trainable_parameters():
                weight.add_(torch.randn_like(weight), alpha=0.1)
        model.label_kind = kind
        vpt.save(model, FOLDER / f"{name}.safetensors")
        with torch.inference_mode():
            answers = kind.activate(model(tiny.images(2, loaded.preprocessing.size)))
        expected[name] = answers.tolist()
    (FOLDER / "expected.json").write_text(json.dumps(expected, indent=1) + "\n", encoding="utf-8")
