"""Which method can be exported from which family of backbones, to which target.

    python benchmarks/export_matrix.py                     what results/export_matrix.json has not
    python benchmarks/export_matrix.py --methods vpt cross  these again

Backbones are small ones of timm with random weights. Each exported model answers a batch of another size than that of
the export, and its logits are compared with those of the tuned model, to 1e-4 of the largest, or of 1 if all are below.
"""

from __future__ import annotations

import argparse
import json
import re
import string
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor

from report import BENCHMARKS_DIR, RESULTS_DIR, write_between_marks, write_section
from vpt import TunedModel, attach, load_backbone
from vpt.backbones import Backbone
from vpt.errors import UnsupportedError
from vpt.export import export_backbone, export_task
from vpt.methods.registry import METHODS
from vpt.model import exporting
from vpt.runtime import SharedModel
from vpt.runtime.model import open_session

CLASSES, SIZE, TOLERANCE = 3, 32, 1e-4
VIT: dict[str, Any] = {"img_size": SIZE, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 2}
STAGES: dict[str, Any] = {"depths": (1, 1, 1, 1), "dims": (8, 8, 16, 32)}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "ViT": ("vit_base_patch16_224", VIT),
    "DeiT-3": ("deit3_small_patch16_224", VIT),
    "CLIP": ("vit_base_patch16_clip_quickgelu_224", VIT),
    "DINOv2, registers": ("vit_small_patch14_reg4_dinov2", VIT),
    "DINOv3": ("vit_small_patch16_dinov3", VIT),
    "EVA-02": ("eva02_tiny_patch14_224", VIT),
    "BEiT": ("beit_base_patch16_224", VIT),
    "SigLIP": ("vit_base_patch16_siglip_224", VIT),
    "Swin": (
        "swin_tiny_patch4_window7_224",
        {"img_size": SIZE, "embed_dim": 16, "depths": (2, 2), "num_heads": (2, 2), "window_size": 4},
    ),
    "ConvNeXt": ("convnext_atto", STAGES),
    "ResNet": ("resnet10t", {"layers": (1, 1, 1, 1), "channels": (8, 8, 16, 32)}),
}
NEEDED = {"sidetune": "sidetune(network=test_convnext)"}  # AlexNet cannot read images of 32 px
VARIANTS = (
    "vpt(depth=shallow)",
    "vpt(impl=concat)",
    "vpt(projection=4)",
    "vpt(rank=2)",
    "vpt(fourier=0.5)",
    "vpt(attention=zero_init)",
    "lora(targets=all)",
    "cross + bias",
    "vpt + lora",
)
TARGETS = ("onnx", "pt2", "plain", "shared")
PAGE = BENCHMARKS_DIR.parent / "docs" / "reference" / "export-targets.md"
Cell = dict[str, str]  # target -> "works", or the reason of a refusal


def make_backbone(family: str) -> Backbone:
    name, options = FAMILIES[family]
    torch.manual_seed(0)
    module = timm.create_model(name, num_classes=0, **options).eval()
    with torch.no_grad():
        for weight in module.parameters():  # biases of 0 and scales of 1e-5 would hide a fault
            if weight.dim() <= 1:
                weight.add_(0.1 * torch.randn_like(weight))
    backbone = load_backbone(module)
    return replace(backbone, preprocessing=replace(backbone.preprocessing, size=SIZE))


def try_method(method: str, family: str, folder: Path) -> Cell | str:
    """The outcome for each target, or why the backbone does not take the method."""
    backbone = make_backbone(family)
    try:
        model = attach(backbone, method, CLASSES)
    except UnsupportedError as error:
        return str(error)
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in model.trainable_parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    images = torch.randn(5, 3, SIZE, SIZE)
    with torch.no_grad():
        expected = model.eval()(images)
    with trace_once():
        cell = {target: try_target(RUN[target], model, images, expected, folder) for target in ("onnx", "pt2")}
    others = {
        target: try_target(RUN[target], model, images, expected, folder) for target in TARGETS if target not in cell
    }
    return cell | others


@contextmanager
def trace_once() -> Iterator[None]:
    """Let the ONNX graph and the program of a model share a trace, which takes a third of the time of both."""
    trace, traces = exporting._trace, []

    def keep(*arguments: Any) -> Any:
        traces.extend([] if traces else [trace(*arguments)])
        return traces[0]

    exporting._trace = keep
    try:
        yield
    finally:
        exporting._trace = trace


def try_target(
    run: Callable[[TunedModel, Tensor, Path], Tensor], model: TunedModel, images: Tensor, expected: Tensor, folder: Path
) -> str:
    try:
        with torch.no_grad():
            found = run(model, images, folder)
    except UnsupportedError as error:
        return str(error)
    except Exception as error:  # whatever it is, it is what this table looks for
        return f"crash: {type(error).__name__}: {str(error)[:200]}"
    off = float((found - expected).abs().max() / expected.abs().max().clamp(min=1))
    return "works" if off <= TOLERANCE else f"crash: other logits, by {off:.1e}"


def run_onnx(model: TunedModel, images: Tensor, folder: Path) -> Tensor:
    model.export(folder / "model.onnx")
    (logits,) = open_session(folder / "model.onnx", 1)[0].run(None, {"images": images.numpy()})
    return torch.from_numpy(logits)


def run_program(model: TunedModel, images: Tensor, folder: Path) -> Tensor:
    model.export(folder / "model.pt2")
    return torch.export.load(folder / "model.pt2").module()(images)  # type: ignore[no-any-return]


def run_plain(model: TunedModel, images: Tensor, folder: Path) -> Tensor:
    return model.plain()(images)


def run_shared(model: TunedModel, images: Tensor, folder: Path) -> Tensor:
    export_task(model, folder / "task.safetensors")
    graph = folder / f"{model.backbone.weights_digest()[:16]}.onnx"
    if not graph.exists():
        export_backbone(model.backbone, graph)
    engine = SharedModel(graph, threads=1)
    task = engine.load(folder / "task.safetensors")
    return torch.stack([torch.from_numpy(each) for each in engine.logits(images.numpy(), [task] * len(images))])


RUN = {"onnx": run_onnx, "pt2": run_program, "plain": run_plain, "shared": run_shared}


def write_table(rows: dict[str, dict[str, Cell | str]]) -> None:
    """Write what is known, and the table of the methods that are known on every family."""
    table = make_table({method: cells for method, cells in rows.items() if len(cells) == len(FAMILIES)})
    write_section("export_matrix", "matrix", rows, "python benchmarks/export_matrix.py", table)
    write_between_marks(PAGE, "export_matrix", table)


def make_table(rows: dict[str, dict[str, Cell | str]]) -> str:
    """Markdown: a method a row, a family a column; the reasons of refusals follow as letters."""
    reasons: dict[str, str] = {}
    lines = [f"| method | {' | '.join(FAMILIES)} |", f"|---|{':-:|' * len(FAMILIES)}"]
    for method, cells in rows.items():
        shown = [format_cell(cells[family], reasons) for family in FAMILIES]
        lines.append(f"| `{method}` | {' | '.join(shown)} |")
    notes = [f"| {letter} | {reason} |" for reason, letter in reasons.items()]
    return "\n".join([*lines, "", "| refused | because |", "|:-:|---|", *notes])


def format_cell(cell: Cell | str, reasons: dict[str, str]) -> str:
    def letter(reason: str) -> str:
        general = generalize(reason)
        return f"<sup>{reasons.setdefault(general, name_of(len(reasons)))}</sup>"

    if isinstance(cell, str):
        return f"–{letter(cell)}"
    crashes = [target for target, outcome in cell.items() if outcome.startswith("crash")]
    if crashes:
        return f"crash: {', '.join(crashes)}"
    refused = [target for target in TARGETS[:3] if cell[target] != "works"]
    main = "✓" if not refused else "".join(f"–{letter(cell[target])}" for target in refused)
    return f"{main} S" if cell["shared"] == "works" else main


def generalize(reason: str) -> str:
    """A reason without the names of method and backbone, which the row and the column have."""
    general = reason.partition(";")[0]
    names = {each for each, _ in FAMILIES.values()}
    if refused := re.match(r".* does not fit (\w+): (.*)", general):
        names, general = {*names, refused[1]}, refused[2]
    for name in sorted(names, key=len, reverse=True):
        general = re.sub(rf"\b{name}\b", "the backbone", general)
    return general


def name_of(index: int) -> str:
    """a to z, then aa, ab and so on."""
    letters = string.ascii_lowercase
    return letters[index] if index < 26 else letters[index // 26 - 1] + letters[index % 26]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", metavar="SPEC", default=[], help="these again")
    options = parser.parse_args()
    path = RESULTS_DIR / "export_matrix.json"
    stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    known: dict[str, dict[str, Cell | str]] = stored.get("matrix", {}).get("values", {})
    methods = (*(NEEDED.get(name, name) for name in METHODS), *VARIANTS)
    rows: dict[str, dict[str, Cell | str]] = {
        method: {} if method in options.methods else known.get(method, {}) for method in methods
    }
    with tempfile.TemporaryDirectory() as folder:
        for method, family in product(rows, FAMILIES):
            if family in rows[method]:
                continue
            rows[method][family] = try_method(method, family, Path(folder))
            print(method, family, format_cell(rows[method][family], {}), flush=True)
            write_table(rows)
    faults = [f"{method}, {family}" for method, cells in rows.items() for family, cell in cells.items()
              if not isinstance(cell, str) and any(each.startswith("crash") for each in cell.values())]  # fmt: skip
    print("\n".join([f"{len(rows)} methods, {len(FAMILIES)} families, {len(faults)} faults", *faults]))
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
