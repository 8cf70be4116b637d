"""How long the command line takes to say anything, against an empty Python; and a prediction, stage by stage.

Graphs of onnxruntime are the embedded backbone, and DeiT-Tiny with random weights at 224 px, both with deep prompts.

    python benchmarks/start.py

Every command is a process of its own; the forms take turns, every second round backwards. Modules are compiled once,
as by pip, also where the environment forbids that.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from functools import partial
from os import environ
from pathlib import Path

import timm
from PIL import Image

import vpt
from measure import format_quartiles, quartiles, summarize, time_paired
from report import write_section
from vpt.data.synthetic.tasks import generate

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "python -c 'import click'": ["-c", "import click"],
    "vpt --version": ["-m", "vpt", "--version"],
    "vpt --help": ["-m", "vpt", "--help"],
    "vpt list methods": ["-m", "vpt", "list", "methods"],
    "vpt list tasks": ["-m", "vpt", "list", "tasks"],
    "vpt list backbones": ["-m", "vpt", "list", "backbones"],
    "vpt schema": ["-m", "vpt", "schema"],
    "vpt inspect": ["-m", "vpt", "inspect", "FILE"],
    "vpt predict model.onnx": ["-m", "vpt", "predict", "GRAPH", "IMAGE"],
    "vpt predict model.onnx, DeiT-Tiny": ["-m", "vpt", "predict", "GRAPH_224", "IMAGE"],
    "vpt predict": ["-m", "vpt", "predict", "FILE", "IMAGE"],
    "vpt summary vit_base_patch16_224": ["-m", "vpt", "summary", "vit_base_patch16_224", "--classes", "10"],
    "python -c 'import torch'": ["-c", "import torch"],
    "python -c 'import torch, timm'": ["-c", "import torch, timm"],
}

# What `vpt predict` does, in its order; each line of text is the name of the stage that ends there.
STAGES = """
import atexit, gc, json, sys, time
atexit.register(gc.freeze)
times = {"start of Python": time.time()}
import torch
times["import torch"] = time.time()
import timm
times["import timm"] = time.time()
from vpt.api.predicting import predict
from vpt.api.progress import ConsoleCallback
from vpt.model.load import load
from vpt.tasks.registry import task_of_file
times["import vpt"] = time.time()
model = load(sys.argv[1])
times["read backbone and file"] = time.time()
predict(model, [sys.argv[2]])
times["read image and predict"] = time.time()
print(json.dumps(times))
"""


ENVIRONMENT = {name: value for name, value in environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def time_stages(file: Path, image: Path) -> dict[str, float]:
    """Seconds of each stage in a process of its own."""
    start = time.time()
    command = [sys.executable, "-c", STAGES, file, image]
    ran = subprocess.run(command, check=True, capture_output=True, text=True, env=ENVIRONMENT)
    times = {**json.loads(ran.stdout), "end of Python": time.time()}
    starts = [start, *times.values()]
    return {name: ended - before for (name, ended), before in zip(times.items(), starts, strict=False)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    command = f"python benchmarks/start.py --rounds {options.rounds}"
    run = partial(subprocess.run, check=True, capture_output=True, env=ENVIRONMENT)
    with tempfile.TemporaryDirectory() as folder:
        file, image = Path(folder) / "tuned.safetensors", Path(folder) / "image.png"
        model = vpt.attach(vpt.load_backbone(), "vpt", 2)
        vpt.save(model, file)
        Image.fromarray(generate("count", 1, 0)[0][0]).save(image)
        paths = {"FILE": str(file), "IMAGE": str(image), "GRAPH": str(model.export(file.with_suffix(".onnx")))}
        large = vpt.attach(vpt.load_backbone(timm.create_model("deit_tiny_patch16_224")), "vpt(length=50)", 2)
        paths["GRAPH_224"] = str(large.export(Path(folder) / "large.onnx"))
        variants = {
            name: partial(run, [sys.executable, *(paths.get(word, word) for word in arguments)])
            for name, arguments in COMMANDS.items()
        }
        figures = summarize(time_paired(variants, options.rounds), "python -c pass")
        rounds = [time_stages(file, image) for _ in range(options.rounds + 1)][1:]  # the first fills the disk cache
    stages = {name: quartiles([seconds[name] for seconds in rounds]) for name in rounds[0]}
    table = "\n".join(
        [
            f"**Start**: seconds, and times an empty Python; median and quartiles of {options.rounds} rounds.",
            "",
            "| command | seconds | times `python -c pass` |",
            "|---|---:|---:|",
            *(
                f"| `{name}` | {format_quartiles(f['seconds'])} | {format_quartiles(f['times_reference'], 1)} |"
                for name, f in figures.items()
            ),
        ]
    )
    write_section("start", "start", figures, command, table)
    stage_table = "\n".join(
        [
            f"**A prediction by stage**, embedded backbone, one image: seconds; median and quartiles of {len(rounds)}.",
            "",
            "| stage | seconds |",
            "|---|---:|",
            *(f"| {name} | {format_quartiles(seconds)} |" for name, seconds in stages.items()),
        ]
    )
    write_section("start", "stages", stages, command, stage_table)
    print(f"{table}\n\n{stage_table}")


if __name__ == "__main__":
    main()
