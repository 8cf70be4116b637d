"""Features before and after tuning, laid out in the plane."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vpt import SpecError, TunedModel, attach, load_backbone, save
from vpt.analysis.embedding_page import write_page
from vpt.analysis.embeddings import embed, knn_top1
from vpt.cli.embed import command
from vpt.data.loading import load_dataset
from vpt.errors import DataError
from vpt.model.label_kinds import Regression
from vpt.plots import figures


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight dark and eight light images of noise."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for name, low in (("dark", 0), ("light", 200)):
        (root / "test" / name).mkdir(parents=True)
        (root / "train" / name).mkdir(parents=True)
        for i in range(8):
            for part in ("train", "test"):
                pixels = rng.integers(low, low + 50, (24, 24, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def model() -> TunedModel:
    return attach(load_backbone(), "vpt(length=2)", 2, classes=("dark", "light"))


def test_knn_top1_of_random_features_equals_manual_count() -> None:
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(40, 3)).astype(np.float32), rng.integers(0, 3, 40)
    features += labels[:, None]
    right = 0
    for i in range(40):
        near = sorted((j for j in range(40) if j != i), key=lambda j: np.linalg.norm(features[i] - features[j]))[:5]
        votes = [int(sum(labels[j] == c for j in near)) for c in range(3)]
        right += votes.index(max(votes)) == labels[i]
    assert knn_top1(features, labels) == pytest.approx(right / 40)
    assert 0.4 < right / 40 < 1


def test_embed_with_the_same_seed_gives_the_same_points(photos: Path, model: TunedModel) -> None:
    data = load_dataset(photos)
    first, second = (embed(model, data) for _ in range(2))
    for side, again in ((first.before, second.before), (first.after, second.after)):
        np.testing.assert_array_equal(side.points, again.points)
    assert first.before.points.shape == (16, 2)
    assert first.before.top1 == 1.0  # light from dark is no feat
    assert not np.array_equal(first.before.points, first.after.points)
    fewer = embed(model, data, limit=5, seed=1)
    assert len(fewer.names) == 5
    assert set(fewer.names) < set(first.names)


def test_embed_of_linear_model_gives_equal_points_before_and_after(photos: Path) -> None:
    found = embed(attach(load_backbone(), "linear", 2), load_dataset(photos))
    np.testing.assert_array_equal(found.before.points, found.after.points)
    assert set(found.predicted) <= {"dark", "light"} and found.predicts_classes  # of the data, as the model has none


def test_page_of_answers_that_are_no_classes_counts_no_other_class(
    photos: Path, tmp_path: Path, model: TunedModel
) -> None:
    other, regressor = attach(load_backbone(), "linear", 3), attach(load_backbone(), "linear", 1)
    regressor.label_kind = Regression(20.0, 5.0)
    for candidate in (model, other, regressor):
        found = embed(candidate, load_dataset(photos), limit=5, thumbnails=True)
        write_page(found, tmp_path / "page.html")
        has_count = "another class" in (tmp_path / "page.html").read_text()
        assert has_count is found.predicts_classes is (candidate is model)
        assert candidate is model or np.isfinite(list(map(float, found.predicted))).all()


def test_embed_of_too_few_images_is_refused(photos: Path, model: TunedModel) -> None:
    data = load_dataset(photos)
    with pytest.raises(DataError, match="needs 5"):
        embed(model, data, limit=4)
    with pytest.raises(DataError, match="choose another split"):
        embed(model, load_dataset(photos, val_fraction=0), "val")


def test_embed_command_writes_image_and_csv(
    photos: Path,
    model: TunedModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = save(model, tmp_path / "tuned.safetensors")
    monkeypatch.chdir(tmp_path)
    run(file, photos)
    with Image.open("tuned-test.png") as drawn:
        assert drawn.width > drawn.height > 300
    with Path("tuned-test.csv").open(newline="") as table:
        rows = list(csv.DictReader(table))
    assert [row["class"] for row in rows] == ["dark"] * 8 + ["light"] * 8
    assert {"image", "before_x", "before_y", "after_x", "after_y"} < rows[0].keys()
    assert "before tuning  100.0 %" in capsys.readouterr().out
    with pytest.raises(SpecError, match=r"is not the name of a picture; end it in \.html, \.png or \.svg"):
        run(file, photos, "--out", "points.pdf")
    run(file, photos, "--limit", 6, "--out", "few.svg", "--json")
    assert "<svg" in Path("few.svg").read_text() and len(Path("few.csv").read_text().splitlines()) == 7
    found = json.loads(capsys.readouterr().out)
    assert (found["picture"], found["table"], found["images"]) == ("few.svg", "few.csv", 6)


@pytest.mark.parametrize("classes", [3, 15, 30])
def test_scatter_of_many_classes_omits_the_legend(classes: int, tmp_path: Path) -> None:
    labels = np.arange(60) % classes
    points = np.random.default_rng(0).normal(size=(60, 2))
    names = [f"class {i}" for i in range(classes)]
    figures.scatter(tmp_path / "points.svg", {"before": points, "after": points}, labels, names, "t-SNE")
    assert ("class 2" in (tmp_path / "points.svg").read_text()) == (classes <= 20)  # in a comment beside the outlines


def run(*args: object) -> None:
    command.main([str(arg) for arg in args], standalone_mode=False)
