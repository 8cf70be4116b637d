"""Table and picture of a segmentation benchmark, from the runs of segmentation.toml or segmentation_solved.toml.

python benchmarks/segmentation.py FOLDER
python benchmarks/segmentation.py FOLDER --one-scale

The results have the name of the plan. `--one-scale` leaves out the scores over several scales, which take long.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw

from vpt.backbones import load_backbone
from vpt.data.masks.dataset import load_segmentation_dataset
from vpt.experiments.reports.report import provenance
from vpt.experiments.reports.table import Table, format_mean_std, markdown_rows
from vpt.experiments.results import Cell, load_results
from vpt.experiments.significance import std
from vpt.experiments.store import Store
from vpt.model.load import load
from vpt.tasks.segmentation.prediction import predict_masks, score_split
from vpt.tasks.segmentation.sliding_window import InferenceConfig

SCALES = (0.75, 1.0, 1.25)
PAPER = {"head only": 35.12, "bias": 43.40, "VPT-deep": 42.11, "VPT + bias": 44.04, "full": 48.31}  # ADE20K, ViT-L
SEVERAL = f"Several scales: {SCALES}, and flips.\n"
NOTE = """In %, mean ± standard deviation over the seeds, on test images of their original size.
{scales}The paper's figures are of ADE20K, ViT-L/16 at 512 px and 160,000 iterations: only the order compares.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of the runs")
    parser.add_argument("--one-scale", action="store_true", help="no scores over several scales")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    store = Store(options.folder)
    results = load_results(store)
    experiment, (task,) = results.experiment, results.experiment.tasks
    backbone = load_backbone(experiment.backbone, weights=experiment.weights, image_size=experiment.protocol.image_size)
    rows, pictures = list[tuple[str, ...]](), list[tuple[str, list[Image.Image]]]()
    for cell in results.cells.values():
        models = [load(store.tuned_path(record.id), backbone) for record in cell.final_records]
        dataset = load_segmentation_dataset(task.data, classes=models[0].classes, **task.mask_options)
        test = InferenceConfig(scales=SCALES, flip=True)
        scored = [] if options.one_scale else models
        several = [score_split(model, dataset, "test", test).metrics["miou"] for model in scored]
        head_parameters = sum(weight.numel() for weight in models[0].head.parameters())
        rows.append(table_row(cell, head_parameters, several))
        images = dataset.splits["test"].images
        with tempfile.TemporaryDirectory() as folder:
            predict_masks(models[0], [images[i * len(images) // 3] for i in range(3)], Path(folder), InferenceConfig())
            pictures.append((cell.method, [Image.open(path).copy() for path in Path(folder).glob("*.overlay.png")]))
    several_header = () if options.one_scale else ("mIoU, several",)
    header = (
        "method", "trained", "of which head", "mIoU, one scale", *several_header, "pixels", "peak memory",
        "paper, ADE20K",
    )  # fmt: skip
    facts = "".join(f"- {name}: {value}\n" for name, value in provenance(results))
    table, name = markdown_rows(Table("segmentation", "", header, tuple(rows))), experiment.name
    note = NOTE.format(scales="" if options.one_scale else SEVERAL)
    options.results.mkdir(parents=True, exist_ok=True)
    text = f"# Segmentation of CamVid, DeiT-Tiny/16\n\n{table}\n{note}\n{facts}\n![Predictions]({name}.png)\n"
    (options.results / f"{name}.md").write_text(text)
    figures = {
        "command": f"vpt bench run benchmarks/{name}.toml --out FOLDER && python benchmarks/segmentation.py FOLDER",
        "facts": [list(fact) for fact in provenance(results)],
        "methods": {cell.method: {"miou": cell.scores} for cell in results.cells.values()},
    }
    (options.results / f"{name}_scores.json").write_text(json.dumps(figures, indent=1) + "\n")
    draw_predictions(pictures, options.results / f"{name}.png")
    print(text)


def table_row(cell: Cell, head_parameters: int, several_scales: list[float]) -> tuple[str, ...]:
    """Return the row of a method: scores, memory and the paper's figure."""
    accuracies = [record.scores["pixel_accuracy"] for record in cell.final_records]
    return (
        cell.method,
        f"{cell.trainable_parameters:,}",
        f"{head_parameters:,}",
        format_mean_std(cell.mean, cell.std),
        *([format_mean_std(statistics.fmean(several_scales), std(several_scales))] if several_scales else []),
        format_mean_std(statistics.fmean(accuracies), std(accuracies)),
        f"{max(record.cost['peak_memory_bytes'] for record in cell.final_records) / 1e9:.2f} GB",
        f"{PAPER[cell.method]:.2f}",
    )


def draw_predictions(rows: list[tuple[str, list[Image.Image]]], path: Path) -> None:
    """Draw the overlays of the first seed, a row for each method."""
    width = max(image.width for _, images in rows for image in images)
    height = max(image.height for _, images in rows for image in images) + 16
    canvas = Image.new("RGB", (width * len(rows[0][1]), height * len(rows)), "white")
    draw = ImageDraw.Draw(canvas)
    for row, (method, images) in enumerate(rows):
        draw.text((4, row * height + 2), method, "black")
        for column, image in enumerate(images):
            canvas.paste(image, (column * width, row * height + 16))
    canvas.quantize(256).save(path, optimize=True)  # a third of the bytes


if __name__ == "__main__":
    main()
