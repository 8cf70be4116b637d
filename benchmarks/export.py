"""Exported graphs in onnxruntime: deep prompts against the frozen backbone, one graph for many tasks, and accuracy.

    python benchmarks/export.py time
    python benchmarks/export.py tasks
    python benchmarks/export.py shared
    python benchmarks/export.py accuracy --data FOLDER --weights FILE

`time` compares graphs of one thread: timm's own model with a linear head on the class token, exported as it is, and
VPT-deep. `tasks` compares one session whose prompts are inputs with a session for each task: the memory of the process
beside that of an empty one, and images a second of batches that mix all tasks. `shared` compares such a batch with the
model of each task alone, on three kinds of backbones. Weights are random in all of these. `accuracy` trains deep
prompts on a folder with train/ and test/, and answers its test images by each form of the graph.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image

from measure import format_quartiles, quartiles, summarize, time_paired
from report import write_section
from vpt import TunedModel, attach, load_backbone, tune
from vpt.api.models import open_model
from vpt.export import export_backbone, export_task
from vpt.model.exporting import save_graph
from vpt.runtime import SharedModel
from vpt.runtime.model import open_session
from vpt.runtime.pixels import read_image, to_input

CLASSES = 100
SHARED = ("deit_tiny_patch16_224", "vit_small_patch14_reg4_dinov2", "eva02_tiny_patch14_224")
SHARED_METHODS = ("vpt(length=50)", "vpt(length=10, projection=8)", "prefix(length=5)", "linear", "mlp")


def export_frozen(name: str, out: Path) -> None:
    """Timm's model, every token of every block."""
    model = timm.create_model(name, num_classes=CLASSES).eval()
    dims: list[dict[int, Any]] = [{0: torch.export.Dim("batch", min=1)}]
    save_graph(model, (torch.randn(2, 3, 224, 224),), dims, out, "onnx", ("images",), ("logits",), {})


def measure_time(options: argparse.Namespace, folder: Path) -> None:
    """Seconds of a batch, and times the frozen backbone in the same round."""
    values, rows = {}, []
    for name in options.models:
        frozen, prompted = folder / "frozen.onnx", folder / "vpt.onnx"
        export_frozen(name, frozen)
        model = attach(load_backbone(timm.create_model(name)), f"vpt(length={options.length})", CLASSES)
        model.export(prompted)
        images = np.random.default_rng(0).standard_normal((options.batch, 3, 224, 224), np.float32)
        sessions = {path.stem: open_session(path, 1)[0] for path in (frozen, prompted)}
        variants = {form: partial(session.run, None, {"images": images}) for form, session in sessions.items()}
        values[name] = summarize(time_paired(variants, options.rounds), "frozen")
        found = values[name]
        rows.append(
            f"| {name} | {format_quartiles(found['frozen']['seconds'])} | {format_quartiles(found['vpt']['seconds'])} "
            f"| {format_quartiles(found['vpt']['times_reference'])} |"
        )
    table = "\n".join(
        [
            f"**Exported graphs**: seconds of a batch of {options.batch} at 224 px in onnxruntime, one thread, "
            f"{options.length} prompts in each block; median and quartiles of {options.rounds} rounds.",
            "",
            "| model | frozen, linear head | VPT-deep | times frozen |",
            "|---|---:|---:|---:|",
            *rows,
        ]
    )
    command = (
        f"python benchmarks/export.py time --length {options.length} --batch {options.batch} --rounds {options.rounds}"
    )
    write_section("export", "time", values, command, table)
    print(table)


def memory() -> int:
    """Bytes that this process has of its own."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss_Anon")) * 1024


def run_shared(folder: Path, count: int, batch: int, results: Any) -> None:
    """Answer batches of mixed tasks with one session."""
    before = memory()
    engine = SharedModel(folder / "backbone.onnx", threads=1)
    tasks = [engine.load(folder / f"{index}.safetensors") for index in range(count)]
    images = np.random.default_rng(0).standard_normal((batch, 3, 224, 224), np.float32)

    def answer(start: int) -> None:
        engine.logits(images, [tasks[(start + offset) % count] for offset in range(batch)])

    results.put((memory() - before, rate(answer, count, batch)))


def run_sessions(folder: Path, count: int, batch: int, results: Any) -> None:
    """Answer the same images with a session for each task, one image at a time, as each belongs to another task."""
    before = memory()
    sessions = [open_session(folder / f"{index}.onnx", 1)[0] for index in range(count)]
    images = np.random.default_rng(0).standard_normal((batch, 3, 224, 224), np.float32)

    def answer(start: int) -> None:
        for offset in range(batch):
            sessions[(start + offset) % count].run(None, {"images": images[offset : offset + 1]})

    results.put((memory() - before, rate(answer, count, batch)))


def rate(answer: Any, count: int, batch: int, rounds: int = 8) -> list[float]:
    """Images a second of each round."""
    answer(0)
    found = []
    for index in range(rounds):
        start = time.perf_counter()
        answer(index * batch % count)
        found.append(batch / (time.perf_counter() - start))
    return found


def measure_tasks(options: argparse.Namespace, folder: Path) -> None:
    """Memory and throughput of one session for all tasks, and of a session for each."""
    backbone = load_backbone(timm.create_model(options.models[0]))
    export_backbone(backbone, folder / "backbone.onnx")
    model = attach(backbone, f"vpt(length={options.length})", CLASSES)
    model.export(folder / "0.onnx")
    for index in range(options.tasks):
        with torch.no_grad():
            for weight in model.trainable_parameters():
                weight.add_(0.01 * torch.randn_like(weight))
        export_task(model, folder / f"{index}.safetensors")
        if index:
            (folder / f"{index}.onnx").hardlink_to(folder / "0.onnx")  # the size counts, not the values
    context = multiprocessing.get_context("spawn")
    values: dict[str, Any] = {}
    for name, target in (("one graph", run_shared), ("a graph for each task", run_sessions)):
        results = context.Queue()
        process = context.Process(target=target, args=(folder, options.tasks, options.batch, results))
        process.start()
        used, rates = results.get()
        process.join()
        values[name] = {"bytes": used, "images_per_second": quartiles(rates)}
    rows = [
        f"| {name} | {each['bytes'] / 1e6:.0f} MB | {format_quartiles(each['images_per_second'], 1)} |"
        for name, each in values.items()
    ]
    task_bytes = (folder / "0.safetensors").stat().st_size
    table = "\n".join(
        [
            f"**{options.tasks} tasks in onnxruntime**: {options.models[0]}, {options.length} prompts in each block, "
            f"one thread, batches of {options.batch} images, each of another task; a file of a task has "
            f"{task_bytes / 1e6:.2f} MB.",
            "",
            "| sessions | memory | images/s |",
            "|---|---:|---:|",
            *rows,
        ]
    )
    command = f"python benchmarks/export.py tasks --tasks {options.tasks} --length {options.length}"
    write_section("export", "tasks", {**values, "task_bytes": task_bytes}, command, table)
    print(table)


@torch.no_grad()
def measure_shared(options: argparse.Namespace, folder: Path) -> None:
    """Logits of a batch of one session, an image of each task, against those of the model of each task alone."""
    values = {}
    for name in SHARED:
        module = timm.create_model(name, img_size=224)
        for weight in module.parameters():  # biases of 0 and scales of 1e-5 would hide a fault
            if weight.dim() <= 1:
                weight.add_(0.1 * torch.randn_like(weight))
        backbone = load_backbone(module)
        export_backbone(backbone, folder / f"{name}.onnx")
        engine, expected, tasks = SharedModel(folder / f"{name}.onnx", threads=1), [], []
        images = torch.randn(len(SHARED_METHODS), 3, 224, 224)
        for index, method in enumerate(SHARED_METHODS):
            model = attach(backbone, method, 2 + index).eval()
            for weight in model.trainable_parameters():
                weight.add_(0.1 * torch.randn_like(weight))
            path = folder / f"{name}-{index}.safetensors"
            export_task(model, path)
            tasks.append(engine.load(path))
            expected.append(model(images[index : index + 1])[0].numpy())
        found = engine.logits(images.numpy(), tasks)
        differences = [np.abs(a - b).max() / max(1, np.abs(b).max()) for a, b in zip(found, expected, strict=True)]
        values[name] = dict(zip(SHARED_METHODS, map(float, differences), strict=True))
    rows = [f"| {name} | {' | '.join(f'{one:.1e}' for one in found.values())} |" for name, found in values.items()]
    methods = " | ".join(f"`{method}`" for method in SHARED_METHODS)
    table = "\n".join(
        [
            f"**{len(SHARED_METHODS)} tasks in one pass of one graph** at 224 px: largest difference from the logits "
            "of the model of a task alone, relative to its largest logit, or to 1 if all are below.",
            "",
            f"| backbone | {methods} |",
            f"|---|{'---:|' * len(SHARED_METHODS)}",
            *rows,
        ]
    )
    write_section("export", "shared", values, "python benchmarks/export.py shared", table)
    print(table)


def measure_accuracy(options: argparse.Namespace, folder: Path) -> None:
    """Top-1 of each form on real images, and how many answers are those of the model."""
    name = options.models[0]
    tune(
        options.data, folder / "tuned.safetensors", backbone=name, weights=options.weights, epochs=options.epochs,
        images_per_class=options.images_per_class, batch_size=16, method=f"vpt(length={options.length})",
    )  # fmt: skip
    model = open_model(folder / "tuned.safetensors", None, options.weights, "cpu").eval()
    assert model.classes is not None
    paths = [(path, index) for index, each in enumerate(model.classes)
             for path in sorted((options.data / "test" / each).iterdir())]  # fmt: skip
    labels = np.array([index for _, index in paths])
    answers = {"the model in torch": np.array([predict_class(model, path) for path, _ in paths])}
    for form, given in (("graph", {}), ("graph, float16", {"half": True}), ("graph, pixels inside", {"pixels": True})):
        model.export(folder / "model.onnx", **given)
        run = partial(open_session(folder / "model.onnx", options.threads)[0].run, None)
        answers[form] = np.array([answer_class(run, path, model, "pixels" in given) for path, _ in paths])
    reference = answers["the model in torch"]
    values = {
        form: {"top1": float((found == labels).mean()), "agreement": float((found == reference).mean())}
        for form, found in answers.items()
    }
    rows = [f"| {form} | {100 * one['top1']:.1f} | {100 * one['agreement']:.1f} |" for form, one in values.items()]
    table = "\n".join(
        [
            f"**Accuracy of exported graphs**: {name}, {options.length} prompts in each block, trained for "
            f"{options.epochs} epochs on {options.images_per_class} images a class of {options.data.name}; its "
            f"{len(paths)} test images.",
            "",
            "| form | top-1, % | same answer, % |",
            "|---|---:|---:|",
            *rows,
        ]
    )
    command = (
        f"python benchmarks/export.py accuracy --models {name} --weights {options.weights.name} --data "
        f"{options.data.name} --images-per-class {options.images_per_class} --epochs {options.epochs}"
    )
    write_section("export", "accuracy", {**values, "images": len(paths)}, command, table)
    print(table)


@torch.no_grad()
def predict_class(model: TunedModel, path: Path) -> int:
    """The class that the model gives to an image, prepared as `backbone.transform` prepares it."""
    with Image.open(path) as image:
        return int(model(model.backbone.transform()(image.convert("RGB"))[None]).argmax())


def answer_class(run: Any, path: Path, model: TunedModel, pixels: bool) -> int:
    """The class that a graph gives to an image: to its pixels, or as the runtime without torch prepares it."""
    image = read_image(path)
    if pixels:
        inputs = {"pixels": np.asarray(image).transpose(2, 0, 1)[None]}
    else:
        inputs = {"images": to_input(image, model.layout.preprocessing)[None]}
    return int(run(inputs)[0].argmax())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("time", "tasks", "shared", "accuracy"))
    parser.add_argument("--models", nargs="+", default=["deit_tiny_patch16_224", "vit_small_patch16_224"])
    parser.add_argument("--length", type=int, default=50)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--tasks", type=int, default=100)
    parser.add_argument("--data", type=Path, help="a folder with train/ and test/")
    parser.add_argument("--weights", type=Path, help="weights of the first model")
    parser.add_argument("--images-per-class", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        parts = {"time": measure_time, "tasks": measure_tasks, "shared": measure_shared, "accuracy": measure_accuracy}
        parts[options.part](options, Path(name))


if __name__ == "__main__":
    main()
