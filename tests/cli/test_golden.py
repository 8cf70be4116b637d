"""What every command prints, at 80 columns as in `golden/`, and at 40 and 200 without a line that is wider.

Numbers that vary are masked, and the comparison is of words, as a number's digits move what follows.
`VPT_UPDATE_GOLDEN=1 pytest tests/cli/test_golden.py` writes the files anew; read what changed.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from rich.console import Console

from helpers.command_line import SMALL, command_names, vpt
from helpers.forked_commands import CommandServer
from helpers.hub_server import TOKEN, Hub, serve_hub
from vpt import attach, load_backbone, save
from vpt.cli import COMMANDS
from vpt.experiments.planning.file import find_plan_file

GOLDEN = Path(__file__).with_name("golden")
FILE, IMAGE = "photos.safetensors", "photos/disc/0.png"
PLAN = """name = "small"
seeds = 1
tasks = [{ name = "photos", data = "photos" }]
methods = [
  { name = "Linear", spec = "linear", learning_rate = 0.5 },
  { name = "Bias", spec = "bias", learning_rate = 1e-9 },
]
[training]
epochs = 4
batch_size = 8
"""
CASES: dict[str, list[Any]] = {
    "demo": ["demo", "--draws", 2, "--workers", 1, "--out", "demo"],
    "tune": ["tune", "photos", "--out", FILE, *SMALL],
    "predict": ["predict", FILE, IMAGE, "photos/bars/0.png"],
    "predict-table": ["predict", FILE, "photos", "--out", "predictions.csv", "--overwrite"],
    "eval": ["eval", FILE, "photos", "--confusion", "counts"],
    "inspect": ["inspect", FILE],
    "export": ["export", FILE, "--out", "photos.task.safetensors"],
    "merge": ["merge", "lora.safetensors", "--out", "timm.safetensors"],
    "merge-refused": ["merge", FILE, "--out", "timm.safetensors"],
    "convert": ["convert", "lora.safetensors", "--out", "lora_folder"],
    "summary": ["summary", "vit_nano_patch12_48", "vpt(length=10)", "--classes", 6],
    "explain": ["explain", FILE, IMAGE],
    "explain-occlusion": ["explain", FILE, IMAGE, "--method", "occlusion"],
    "embed": ["embed", FILE, "photos", "--split", "train"],
    "embed-table": ["embed", FILE, "photos", "--out", "features.npz"],
    "list-methods": ["list", "methods"],
    "list-tasks": ["list", "tasks", "*count*"],
    "list-backbones": ["list", "backbones", "vit_base_patch16_224"],
    "schema": ["schema"],
    "data-list": ["data", "list", "fgvc"],
    "data-check": ["data", "check", "photos"],
    "bench-plan": ["bench", "plan", "plan.toml"],
    "bench-run": ["bench", "run", "plan.toml", "--out", "small"],
    "bench-status": ["bench", "status", "small"],
    "bench-query": ["bench", "query", "small", "SELECT method, top1 FROM runs"],
    "bench-report": ["bench", "report", "small"],
    "ablate": ["ablate"],
    "ablate-series": ["ablate", "init", "photos", "--seeds", 1, "--epochs", 1, "--batch-size", 8],
    "serve": ["serve", FILE, "--port", 0],
    "push": ["push", FILE, "owner/photos"],
    "unknown-command": ["tuen", "photos"],
    "unknown-option": ["predict", FILE, IMAGE, "--topp", 2],
    "absent-file": ["predict", "absent.safetensors", IMAGE],
}
APART = ("serve", "push")  # in processes of their own: the one waits for a signal, the other reads variables at imports
DATA = ("bench-query",)  # for programs: no line is broken
MASKS: tuple[tuple[str, Any], ...] = (
    (r"\b[0-9a-f]{16,}\b", "#"),
    (r"127\.0\.0\.1:\d+", lambda found: re.sub(r"\d", "#", found.group())),
    (r"\d+\.\d+\.\d+[\w.+]*", "#"),  # versions
    (r"\b(\d+ h )?(\d+ min )?\d+ (s|min)\b", "# s"),
    (r"(of the process)\s+[\d.]+ [MG]B", r"\1 # MB"),
    (r"row \d+ and column \d+", "row # and column #"),
    (r"\d+(?:\.\d+)? (kB|MB|GB)\b", r"# \1"),
    (r"[-+\N{MINUS SIGN}]?\d+\.\d+", lambda found: re.sub(r"\d", "#", found.group())),  # as wide as it is
)


@pytest.fixture(scope="module")
def folder(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("golden")
    shutil.copytree(photos, root / "photos")
    (root / "plan.toml").write_text(PLAN)
    shipped = find_plan_file("demo").read_text(encoding="utf-8")
    (root / "demo.toml").write_text("train_fraction = 0.1\n" + re.sub(r"epochs = \d+", "epochs = 1", shipped))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        vpt(*CASES["tune"])
        vpt(*CASES["bench-run"])
        patch.setattr("vpt.tuning.draw_run", lambda *_: None)
        patch.setattr("vpt.tuning.report_run", lambda *_: None)
        patch.setattr("vpt.experiments.demo.find_plan_file", lambda name: root / f"{name}.toml")
        vpt(*CASES["demo"])
        vpt(*CASES["ablate-series"])
        save(attach(load_backbone(), "lora(rank=2)", 2, classes=("bars", "disc")), "lora.safetensors")
    return root


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with serve_hub() as hub:
        yield hub


@pytest.fixture(scope="module")
def commands(folder: Path, hub: Hub) -> Iterator[CommandServer]:
    """Processes in the folder, for which a stand-in is the Hugging Face Hub."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, value in {"ENDPOINT": hub.url, "HOME": str(folder / "hub"), "TOKEN": TOKEN}.items():
            patch.setenv(f"HF_{name}", value)
        for name in ("XET", "PROGRESS_BARS"):  # a protocol that the stand-in lacks, and bars that are not ours
            patch.setenv(f"HF_HUB_DISABLE_{name}", "1")
        with CommandServer() as server:
            patch.undo()
            yield server


@pytest.fixture
def terminal(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal without colors, in the folder; pictures are not drawn."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr("vpt.experiments.demo.find_plan_file", lambda name: folder / f"{name}.toml")
    monkeypatch.setattr("vpt.cli.console_table.Console", partial(Console, force_terminal=True, color_system=None))
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda *_, **__: None)


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize("name", CASES)
def test_output_of_each_command_is_the_golden_one(
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    def run(width: int) -> str:
        if name not in APART:
            return masked(*run_here(name, width, monkeypatch, capsys))
        request.getfixturevalue("hub").repos.clear()  # what is there already would not be written again
        return masked(*run_apart(name, width, request.getfixturevalue("commands"), tmp_path))

    text, file = run(80), GOLDEN / f"{name}.txt"
    if os.environ.get("VPT_UPDATE_GOLDEN"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
    assert words(text) == words(file.read_text(encoding="utf-8"))
    wide = {80: too_wide(text, 80)} | {width: too_wide(run(width), width) for width in (40, 200)}
    assert name in DATA or not any(wide.values()), wide


@pytest.mark.parametrize("width", [80, 200])  # click writes at least 50 columns, and an option with its choices whole
def test_help_of_each_command_fits_the_width(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    found = {}
    for names in command_names():
        vpt(*names, "--help")
        found[" ".join(names)] = too_wide(capsys.readouterr().out, width)
    assert {name: lines for name, lines in found.items() if lines} == {}


def test_every_command_has_a_golden_output() -> None:
    assert {str(line[0]) for line in CASES.values()} - {"tuen"} == set(COMMANDS)
    assert {file.stem for file in GOLDEN.iterdir()} == CASES.keys()


def run_here(
    name: str, width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[str, str]:
    """What a command answers, and what it tells on stderr."""
    monkeypatch.setenv("COLUMNS", str(width))
    capsys.readouterr()
    try:
        vpt(*CASES[name])
    except SystemExit as left:
        assert left.code
    return capsys.readouterr()


def run_apart(name: str, width: int, commands: CommandServer, folder: Path) -> tuple[str, str]:
    """As `run_here`, in a process of its own; a server is stopped once it answers."""
    streams = {stream: folder / f"{stream}.txt" for stream in ("stdout", "stderr")}
    handles = {stream: os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) for stream, path in streams.items()}
    command = commands.start(*CASES[name], **handles, env={"COLUMNS": str(width)})
    if name == "serve":
        deadline = time.monotonic() + 120
        while not (found := re.search(r"http://\S+/", streams["stdout"].read_text())):
            assert time.monotonic() < deadline, "no address in two minutes"
            time.sleep(0.05)
        urlopen(f"{found.group()}healthz").close()
        command.send_signal(signal.SIGINT)
    assert command.wait() == 0
    return streams["stdout"].read_text(), streams["stderr"].read_text()


def masked(out: str, err: str) -> str:
    text = out + ("--- stderr\n" + err if err else "")
    for pattern, replacement in MASKS:
        text = re.sub(pattern, replacement, text)
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def words(text: str) -> list[str]:
    """The words without frames; a masked number is one sign, and so is a bar."""
    text = re.sub("\N{FULL BLOCK}+", "\N{FULL BLOCK}", text)
    return re.sub(r"[-+\N{MINUS SIGN}]?#+(\.#+)?", "#", re.sub(r"[\u2500-\u257f]+", " ", text)).split()


def too_wide(text: str, width: int) -> list[str]:
    """Lines that could be broken and are not; a command to be copied and a word without a space cannot."""
    return [
        line
        for line in text.splitlines()
        if len(line) > width
        and not re.search(r"(^| )(vpt [a-z]+|timm\.create_model\() ?", line)
        and all(len(line) - len(line.lstrip()) + len(word) <= width for word in line.split())
    ]
