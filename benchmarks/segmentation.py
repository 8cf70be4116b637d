"""Segmentation of road scenes by five methods: DeiT-Tiny on CamVid, several seeds, one and several scales, one table.

    python benchmarks/segmentation.py --weights deit_tiny.safetensors --data camvid/

Each run is the same job that `vpt tune` does; killed, it goes on where it stopped. A run's record lies under --work;
the table, all figures and a picture of predictions under --results.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

# method -> its name in the paper's table, mIoU there (ADE20K, ViT-L, one scale), learning rate per 256 images
METHODS: dict[str, tuple[str, float, float]] = {
    "linear": ("head only", 35.12, 0.03),
    "bias": ("bias", 43.40, 0.03),
    "vpt(dropout=0)": ("VPT-deep", 42.11, 0.03),
    "vpt(dropout=0) + bias": ("VPT + bias", 44.04, 0.03),
    "full": ("full", 48.31, 0.003),
}


def run(spec: dict[str, Any], work_dir: Path) -> dict[str, Any]:
    """One run in a process of its own, so that its peak memory is its own. A finished one is only read."""
    name = "".join(c if c.isalnum() else "_" for c in f"{spec['method']} {spec['seed']}")
    record = work_dir / f"{name}.json"
    if record.exists():
        saved: dict[str, Any] = json.loads(record.read_text())
        if saved["spec"] != spec:
            raise SystemExit(f"{record} was made with other options; give another --work")
        return saved
    code = "import sys; sys.path.insert(0, sys.argv[1]); import segmentation; segmentation.run_job(*sys.argv[2:])"
    arguments = [str(Path(__file__).parent), json.dumps(spec), str(work_dir / f"{name}.safetensors"), str(record)]
    process = subprocess.run([sys.executable, "-c", code, *arguments], check=False)
    if process.returncode:
        raise SystemExit(f"{name} failed with exit code {process.returncode}")
    return json.loads(record.read_text())  # type: ignore[no-any-return]


def run_job(text: str, out: str, record: str) -> None:
    """The inside of that process."""
    from vpt import load
    from vpt.backbones import load_backbone
    from vpt.core.io import write_atomic
    from vpt.data.segmentation_folder import load_segmentation_dataset
    from vpt.methods import parse_method
    from vpt.tasks.segmentation.job import SegmentationJob, tune_segmentation
    from vpt.tasks.segmentation.prediction import evaluate_masks, predict_masks
    from vpt.tasks.segmentation.sliding_window import InferenceConfig
    from vpt.tasks.segmentation.training import Course

    spec = json.loads(text)
    course = Course.for_method(
        parse_method(spec["method"]),
        learning_rate=spec["learning_rate"],
        iterations=spec["iterations"],
        interval=max(1, spec["iterations"] // 4),
        batch_size=spec["batch_size"],
        seed=spec["seed"],
    )
    job = SegmentationJob(
        data=spec["data"],
        out=Path(out),
        config=course,
        method=spec["method"],
        backbone="deit_tiny_patch16_224",
        weights=Path(spec["weights"]),
        image_size=spec["image_size"],
        head=spec["head"],
    )
    result = tune_segmentation(job)
    backbone = load_backbone(job.backbone, weights=job.weights, image_size=job.image_size)
    model = load(out, backbone)
    dataset = load_segmentation_dataset(spec["data"], classes=model.classes)
    multi_scale = InferenceConfig(scales=tuple(spec["scales"]), flip=True)
    multi_scale_scores = evaluate_masks(model, dataset, result.eval_split, multi_scale)
    pairs = dataset.splits[result.eval_split]
    chosen = [pairs.images[i * len(pairs) // 3] for i in range(min(3, len(pairs)))]
    predict_masks(model, chosen, Path(out).with_suffix(".pictures"))
    values = {
        "spec": spec,
        "miou": result.miou,
        "multi_scale_miou": multi_scale_scores.miou,
        "pixel_accuracy": result.pixel_accuracy,
        "per_class": result.per_class,
        "trainable_parameters": result.trainable_parameters,
        "head_parameters": result.head_parameters,
        "seconds": result.seconds,
        "peak_memory_bytes": result.peak_memory_bytes,
        "eval_split": result.eval_split,
        "images": result.images,
        "history": result.history,
        "environment": result.environment,
        "pictures": [str(Path(out).with_suffix(".pictures") / f"{path.stem}.overlay.png") for path in chosen],
    }
    write_atomic(Path(record), json.dumps(values, indent=1).encode())
    print(f"{spec['method']:<24} seed {spec['seed']}  mIoU {100 * result.miou:.2f}, several scales "
          f"{100 * multi_scale_scores.miou:.2f}  {result.seconds:.0f} s", flush=True)  # fmt: skip


def table(records: list[dict[str, Any]], command: str) -> str:
    """Mean and spread by method, beside the paper's figures for another data set and a larger backbone."""
    lines = [
        "| method | trained | of which head | mIoU, one scale | mIoU, several | pixels | peak memory | paper, ADE20K |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for method in dict.fromkeys(record["spec"]["method"] for record in records):
        method_records = [record for record in records if record["spec"]["method"] == method]
        name, paper, _ = METHODS[method]
        cells = [
            mean_and_std([record[key] for record in method_records])
            for key in ("miou", "multi_scale_miou", "pixel_accuracy")
        ]
        peak = max(record["peak_memory_bytes"] for record in method_records) / 1e9
        lines.append(
            f"| {name} (`{method}`) | {method_records[0]['trainable_parameters']:,} | {method_records[0]['head_parameters']:,} | "
            f"{' | '.join(cells)} | {peak:.2f} GB | {paper} |"
        )
    sample, spec = records[0], records[0]["spec"]
    seeds = len({record["spec"]["seed"] for record in records})
    environment = sample["environment"]
    rates = ", ".join(f"{name} {rate:g}" for name, _, rate in METHODS.values())
    lines += [
        "",
        f"In %, mean ± standard deviation over n = {seeds} seeds; {sample['images'][sample['eval_split']]} "
        f"{sample['eval_split']} images at their original size, trained on {sample['images']['train']}.",
        f"{spec['iterations']} iterations of {spec['batch_size']} crops of {spec['image_size']} px, "
        f"head {spec['head']}, AdamW, learning rates per 256 images: {rates}; the head 0.03. "
        f"Several scales: {spec['scales']}, and flips.",
        "The paper's figures are of ADE20K, ViT-L/16 at 512 px and 160,000 iterations: only the order compares.",
        "",
        f"Hardware: {environment['processor']}, {environment['cores']} cores, GPUs: {', '.join(environment['gpus']) or 'none'}. "
        "Versions: " + ", ".join(f"{name} {version}" for name, version in environment["versions"].items()),
        f"Command: `{command}`",
        "",
        "![Predictions](segmentation.png)",
    ]
    return "\n".join(lines) + "\n"


def mean_and_std(values: list[float]) -> str:
    """Mean ± standard deviation, in %."""
    deviation = f" ± {100 * statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):.2f}{deviation}"


def draw_predictions(records: list[dict[str, Any]], path: Path) -> None:
    """Overlays of the first seed: a row for each method."""
    from PIL import Image, ImageDraw

    first = records[0]["spec"]["seed"]
    rows = [
        (r["spec"]["method"], [Image.open(p) for p in r["pictures"]]) for r in records if r["spec"]["seed"] == first
    ]
    width = max(image.width for _, images in rows for image in images)
    height = max(image.height for _, images in rows for image in images) + 16
    canvas = Image.new("RGB", (width * len(rows[0][1]), height * len(rows)), "white")
    draw = ImageDraw.Draw(canvas)
    for row, (method, images) in enumerate(rows):
        draw.text((4, row * height + 2), method, "black")
        for column, image in enumerate(images):
            canvas.paste(image, (column * width, row * height + 16))
    canvas.quantize(256).save(path, optimize=True)  # a third of the bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True, help="DeiT-Tiny, .safetensors or .pth")
    parser.add_argument("--image-size", type=int, default=480)
    parser.add_argument("--iterations", type=int, default=2000)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--head", default="setr_pup")
    parser.add_argument("--scales", type=float, nargs="+", default=[0.75, 1.0, 1.25])
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS), metavar="METHOD")
    parser.add_argument("--work", type=Path, default=Path("scratch/segmentation"))
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    shared_keys = ("image_size", "iterations", "batch_size", "head", "scales")
    shared = {key: getattr(options, key) for key in shared_keys} | {
        "data": str(options.data),
        "weights": str(options.weights),
    }
    specs = [
        {**shared, "method": method, "seed": seed, "learning_rate": METHODS[method][2]}
        for seed in range(options.seeds)
        for method in options.methods
    ]
    records = [run(spec, options.work) for spec in specs]
    options.results.mkdir(parents=True, exist_ok=True)
    draw_predictions(records, options.results / "segmentation.png")
    for record in records:  # places of one machine say nothing to others
        for key in ("data", "weights"):
            record["spec"].pop(key, None)
        record.pop("pictures")
    command = (
        f"python benchmarks/segmentation.py --weights WEIGHTS --data CAMVID --image-size {options.image_size} "
        f"--iterations {options.iterations} --batch-size {options.batch_size} "
        f"--seeds {options.seeds} --head '{options.head}'"
    )
    text = table(records, command)
    (options.results / "segmentation.md").write_text(f"# Segmentation of CamVid, DeiT-Tiny/16\n\n{text}")
    (options.results / "segmentation.json").write_text(json.dumps({"command": command, "runs": records}, indent=1))
    print(text)


if __name__ == "__main__":
    main()
