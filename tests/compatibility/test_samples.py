"""Files that version 0.1.0 wrote load, and finished work is not repeated. samples/README.md describes each file."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import vpt

sys.path.insert(0, str(Path(__file__).parent))
import tiny

SAMPLES = Path(__file__).parent / "samples"
EXPECTED: dict[str, Any] = json.loads((SAMPLES / "tuned" / "expected.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", sorted(EXPECTED["files"]))
def test_tuned_file_of_version_1_gives_its_logits(name: str) -> None:
    entry, path = EXPECTED["files"][name], SAMPLES / "tuned" / name
    module = tiny.build(entry["backbone"]["name"], entry["backbone"]["options"], entry["backbone"]["seed"])
    model = vpt.load(path, module)
    with torch.inference_mode():
        logits = model(tiny.images(**EXPECTED["images"]))
    if logits.dim() == 4:
        step = EXPECTED["dense_step"]
        logits = logits[..., ::step, ::step]
    expected = torch.tensor(entry["logits"]).reshape(entry["logits_shape"])
    torch.testing.assert_close(logits, expected, rtol=0, atol=EXPECTED["tolerance"])
    assert list(model.classes or []) == list(entry["classes"] or [])


def _copy(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / kind
    shutil.copytree(SAMPLES / kind, folder)
    monkeypatch.chdir(folder)
    return folder


def _vpt(*args: str) -> None:
    from vpt.cli import main

    main(args)  # raises SystemExit for every exit code but 0


@pytest.mark.parametrize(
    ("args", "metric"),
    [
        (("numerals", "--method", "linear", "--epochs", "3", "--out", "numerals.safetensors"), "top1"),
        (
            ("squares", "--method", "vpt(length=2)", "--head", "linear", "--iterations", "8", "--eval-every", "4",
             "--batch-size", "2", "--out", "squares.safetensors"),
            "miou",
        ),
    ],
)  # fmt: skip
def test_finished_run_of_version_1_is_reused(
    args: tuple[str, ...],
    metric: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    folder = _copy(tmp_path, "runs", monkeypatch)
    old = json.loads((folder / f"{args[0]}.run" / "result.json").read_text())
    monkeypatch.setattr("vpt.training.loop.fit", None)  # nothing is trained a second time
    _vpt("tune", *args, "--json")
    answer = json.loads(capfd.readouterr().out)
    found = {key: value for key, value in answer.get("metrics", answer).items() if key.endswith(metric)}
    assert list(found.values()) == [old[metric]]
    assert json.loads((folder / f"{args[0]}.run" / "result.json").read_text()) == old


def test_run_of_version_1_with_another_weight_decay_rule_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """It decayed all tensors. Finished, it answers today's default too; unfinished, it goes on by its own rule."""
    folder = _copy(tmp_path, "runs", monkeypatch)
    args = ("tune", "numerals", "--method", "linear", "--epochs", "3", "--out", "numerals.safetensors")
    _vpt(*args, "--decay", "all")
    assert "--overwrite does it again" in capfd.readouterr().err
    with pytest.raises(SystemExit):
        _vpt(*args, "--decay", "official")
    assert "config.decay: all then, official now" in capfd.readouterr().err
    (folder / "numerals.run" / "result.json").unlink()
    with pytest.raises(SystemExit):
        _vpt(*args)
    assert "config.decay: all then, matrices now" in capfd.readouterr().err
    _vpt(*args, "--decay", "all")
    assert json.loads((folder / "numerals.run" / "result.json").read_text())["job"]["config"]["decay"] == "all"


@pytest.mark.parametrize(("plan", "store", "runs"), [("plan", "plan", 12), ("squares", "squares-plan", 6)])
def test_finished_comparison_of_version_1_has_nothing_left(
    plan: str,
    store: str,
    runs: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    folder = _copy(tmp_path, "bench", monkeypatch)
    records = {path.name: path.read_bytes() for path in (folder / store / "runs").glob("*.json")}
    assert len(records) == runs
    _vpt("bench", "run", f"{plan}.toml", "--out", store)
    assert {path.name: path.read_bytes() for path in (folder / store / "runs").glob("*.json")} == records
    capfd.readouterr()
    _vpt("bench", "status", store)
    assert f"{runs}" in capfd.readouterr().out
    _vpt("bench", "report", store)
    assert (folder / store / "report" / "report.html").stat().st_size > 1000


def test_finished_ablation_of_version_1_trains_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = _copy(tmp_path, "bench", monkeypatch)
    files = {path.name: path.read_bytes() for path in (folder / "numerals-init").glob("*.safetensors")}
    old = json.loads((folder / "numerals-init" / "results.json").read_text())
    monkeypatch.setattr(
        "vpt.experiments.running.worker.run_job", lambda *_, **__: pytest.fail("a finished run was done again")
    )
    _vpt(
        "ablate", "init", "numerals", "--method", "vpt(depth=shallow)", "--seeds", "2", "--epochs", "1",
        "--train-fraction", "0.2", "--out", "numerals-init",
    )  # fmt: skip
    new = json.loads((folder / "numerals-init" / "results.json").read_text())
    assert [point["top1"] for point in new["points"]] == [point["top1"] for point in old["points"]]
    assert {path.name: path.read_bytes() for path in (folder / "numerals-init").glob("*.safetensors")} == files


@pytest.mark.parametrize("name", sorted(json.loads((SAMPLES / "kinds" / "expected.json").read_text(encoding="utf-8"))))
def test_file_of_format_1_of_a_later_kind_gives_its_answers(name: str) -> None:
    path, dtype = SAMPLES / "kinds" / f"{name}.safetensors", torch.bfloat16 if name == "bfloat16" else torch.float32
    header = vpt.inspect(path)
    assert header.format == 1
    backbone = vpt.load_backbone(image_size=header.preprocessing.size, dtype=dtype)
    model = vpt.load(path, backbone)
    with torch.inference_mode():
        answers = model.label_kind.activate(model(tiny.images(2, header.preprocessing.size)))
    expected = json.loads((SAMPLES / "kinds" / "expected.json").read_text(encoding="utf-8"))[name]
    reference = torch.tensor(expected, dtype=answers.dtype)  # numbers are float64
    torch.testing.assert_close(answers, reference, rtol=0, atol=2e-2 if name == "bfloat16" else 1e-5)


@pytest.mark.parametrize("name", ["larger", "bfloat16"])
def test_file_of_format_1_on_the_same_weights_in_another_form_is_refused(name: str) -> None:
    """The fingerprint of format 1 is that of the weights as they were in memory."""
    with pytest.raises(vpt.TunedFileError, match="load the same weights, of the same type and image size"):
        vpt.load(SAMPLES / "kinds" / f"{name}.safetensors", vpt.load_backbone())


def test_bank_of_files_of_both_formats_shares_one_backbone(tmp_path: Path) -> None:
    from vpt.serving.bank import Bank

    old = SAMPLES / "kinds" / "multi_label.safetensors"
    new = vpt.save(vpt.load(old), tmp_path / "new.safetensors")
    assert (vpt.inspect(old).format, vpt.inspect(new).format) == (1, 2)
    bank = Bank([old, new])
    bank.preload()
    assert len({id(backbone.module) for backbone in bank._backbones.values()}) == 1
