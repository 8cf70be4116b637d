"""Occlusion shows what the class depends on, on backbones without attention maps, too."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import vpt
from helpers.families import backbone_of
from vpt.analysis.occlusion import CELLS
from vpt.cli.explain import command

NOISE = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)


@pytest.mark.parametrize("look", [vpt.explain, vpt.occlude])
def test_folder_in_place_of_an_image_is_refused_with_the_command_for_folders(
    look: Callable[..., Any], tmp_path: Path
) -> None:
    model = vpt.attach("vit_nano_patch12_48", "linear", 2).eval()
    with pytest.raises(vpt.DataError, match="is a folder; pass one image; for a folder use `vpt explain`"):
        look(model, tmp_path)


@pytest.mark.parametrize("kind", ["resnet", "convnext", "swin", "vit"])
def test_occlude_equals_a_model_that_reads_covered_images(kind: str) -> None:
    torch.manual_seed(0)
    model = vpt.attach(backbone_of(kind), "linear", 3, classes=("a", "b", "c")).eval()
    found = vpt.occlude(model, NOISE)
    best = model.classes.index(found.prediction[0]) if model.classes else -1
    preprocessing = model.backbone.preprocessing
    inputs = preprocessing.normalize(torch.from_numpy(NOISE.transpose(2, 0, 1)[None].copy()))
    edges = [round(32 * i / CELLS) for i in range(CELLS + 1)]

    def probability(row: int, column: int) -> float:
        covered = inputs.clone()
        covered[..., edges[row] : edges[row + 2], edges[column] : edges[column + 2]] = 0
        with torch.no_grad():
            return float(model(covered).softmax(1)[0, best])

    assert found.square == edges[2] and found.drops.shape == (CELLS, CELLS)
    assert found.drops[0, 0] == pytest.approx(found.prediction[1] - probability(0, 0), abs=1e-5)  # one square covers it
    inside = [probability(row, column) for row in (4, 5) for column in (6, 7)]
    assert found.drops[5, 7] == pytest.approx(found.prediction[1] - np.mean(inside), abs=1e-5)


def test_occlude_of_a_model_that_sees_one_corner_finds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone: Any = backbone_of("resnet")
    model = vpt.attach(backbone, "linear", 2, classes=("dark", "bright")).eval()
    corner = NOISE // 8
    corner[:8, 24:] = 255

    class Corner(torch.nn.Module):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            bright = inputs[:, :, :8, 24:].mean((1, 2, 3))
            return torch.stack([torch.zeros_like(bright), bright], 1)

    monkeypatch.setattr("vpt.analysis.occlusion.structural_copy", lambda model, num_classes: Corner())
    found = vpt.occlude(model, corner)
    assert found.prediction[0] == "bright"
    row, column = np.unravel_index(found.drops.argmax(), found.drops.shape)
    assert row < 3 and column >= 9 and found.drops[row, column] > 0.1
    assert np.abs(found.drops[4:]).max() < 1e-6 and np.abs(found.drops[:, :8]).max() < 1e-6


def test_explain_command_of_several_images_draws_a_row_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "inbox").mkdir()
    for i in range(5):
        Image.fromarray(np.roll(NOISE, i, 0)).save(tmp_path / "inbox" / f"{i}.png")
    vpt.save(vpt.attach(vpt.load_backbone(), "vpt(length=2)", 2, classes=("a", "b")), "two.safetensors")
    run = CliRunner().invoke

    text = run(command, ["two.safetensors", "inbox", "--limit", "3"]).output
    assert "3 of 5 images; --limit takes more\npicture: two-explained.png" in text
    assert [name in text for name in ("0.png", "1.png", "2.png", "3.png", "4.png")] == [True, False, True, False, True]
    heights = {}
    for count in (1, 2):
        out = f"{count}.png"
        images = [f"inbox/{i}.png" for i in range(count)]
        answer = run(command, ["two.safetensors", *images, "--method", "occlusion", "--out", out, "--json"])
        lines = answer.output.splitlines() if count > 1 else [answer.output]
        assert [json.loads(line)["image"] for line in lines] == images
        assert np.shape(json.loads(lines[0])["drops"]) == (CELLS, CELLS)
        with Image.open(out) as drawn:
            heights[count] = drawn.height
    assert heights[2] > 1.7 * heights[1]

    for arguments, message in (
        (["--method", "occlusion", "--block", "2"], "--block 2: for attention, and this is occlusion; leave it out"),
        (["--out", "inbox/0.png"], "--out inbox/0.png would overwrite inbox/0.png, which is read"),
    ):
        failed = run(command, ["two.safetensors", "inbox", *arguments])
        assert failed.exit_code == 2 and message in failed.output
