"""A finished run is reused only while its images, and the files that training begins with, are the same."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

from vpt import DataError, SpecError, cross_validation, load_backbone, tune
from vpt.core.input_files import OUTSIDE_VARIABLE


def write(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for k, name in enumerate(("a", "b")):
        for i in range(5):
            write(tmp_path / "photos" / name / f"{i}.png", 10 * k + i)
    return tmp_path / "photos"


def run(photos: Path, **options: object) -> float:
    out = photos.parent / "photos.safetensors"
    result = tune(photos, out, method="linear", epochs=1, progress=False, **options)
    return Path(result.file).stat().st_mtime_ns


def test_tune_of_changed_images_is_refused(photos):
    run(photos)
    for change in (
        lambda: write(photos / "a/0.png", 99),
        lambda: write(photos / "a/new.png", 98),
        lambda: (photos / "b/1.png").unlink(),
        lambda: (photos / "b/2.png").rename(photos / "a/moved.png"),
    ):
        change()
        with pytest.raises(DataError, match=r"images of .* have changed"):
            run(photos)
        run(photos, overwrite=True)


def test_tune_of_files_written_again_reuses_the_result(photos):
    before = run(photos)
    for path in photos.rglob("*.png"):
        os.utime(path, (1, 1))
    assert run(photos) == before
    (photos / "README.md").write_text("not an image")
    assert run(photos) == before


def test_tune_of_a_table_with_changed_images_or_labels_is_refused(photos, monkeypatch):
    monkeypatch.setenv(OUTSIDE_VARIABLE, "1")
    names = [path.relative_to(photos).as_posix() for path in sorted(photos.rglob("*.png"))]
    table = photos.parent / "tables" / "labels.csv"
    table.parent.mkdir()
    lines = [f"../photos/{name},{name[0]}\n" for name in names]
    table.write_text("image,label\n" + "".join(lines))
    run(table)
    before = run(table)
    assert run(table) == before
    write(photos / "a/0.png", 99)
    with pytest.raises(DataError, match=r"images of .* have changed"):
        run(table)
    run(table, overwrite=True)
    table.write_text("image,label\n" + "".join([lines[0].replace(",a", ",b"), *lines[1:]]))
    with pytest.raises(DataError, match=r"images of .* have changed"):
        run(table)


def test_tune_from_another_file_of_the_same_name_is_refused(photos, tmp_path):
    init, other = (tmp_path / f"{name}.safetensors" for name in ("init", "other"))
    for seed, out in enumerate((init, other)):
        tune(photos, out, method="linear", epochs=1, seed=seed, progress=False)
    options = {"init": init, "epochs": 1, "progress": False}
    for further in ({}, {"folds": 2}):
        out = tmp_path / f"photos{len(further)}.safetensors"
        init.write_bytes(init.read_bytes())
        before = Path(tune(photos, out, **options, **further).file).stat().st_mtime_ns
        assert Path(tune(photos, out, **options, **further).file).stat().st_mtime_ns == before
        content = init.read_bytes()
        init.write_bytes(other.read_bytes())
        with pytest.raises(DataError, match=r"the file .*init\.safetensors \(init\) has changed since"):
            tune(photos, out, **options, **further)
        init.write_bytes(content)


def test_tune_with_other_weights_of_the_same_name_is_refused(photos, tmp_path):
    backbone = load_backbone()
    weights = tmp_path / "weights.safetensors"
    save_file(backbone.module.state_dict(), weights)
    before = run(photos, weights=weights)
    assert run(photos, weights=weights) == before
    save_file({name: 2 * tensor for name, tensor in backbone.module.state_dict().items()}, weights)
    with pytest.raises(DataError, match=r"the file .*weights\.safetensors \(weights\) has changed since"):
        run(photos, weights=weights)


def test_folds_of_a_table_with_changed_images_are_trained_again(photos, tmp_path, monkeypatch):
    names = [path.relative_to(tmp_path).as_posix() for path in sorted(photos.rglob("*.png"))]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label", *(f"{name},{name.split('/')[1]}" for name in names)]))

    def stop(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cross_validation, "evaluate", stop)  # of the first fold, which is trained by then
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "labels.csv", folds=2)
    write(photos / "a/0.png", 99)
    with pytest.raises(SpecError, match="holds a run with other settings"):
        run(tmp_path / "labels.csv", folds=2)
