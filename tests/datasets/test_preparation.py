"""From downloads to list files: lossless, verified, resumable; and checking what is there."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers import command_line
from helpers.miniatures import miniature, pack
from vpt.data.loading import load_dataset
from vpt.datasets.catalog import TASKS
from vpt.datasets.preparation import UNKNOWN_CHECKSUM, check_folder, instructions, prepare_task
from vpt.datasets.task import BenchmarkTask
from vpt.errors import DataError


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refusal(task: BenchmarkTask, root: Path, **options: Path) -> str:
    with pytest.raises(DataError) as caught:
        prepare_task(task, root / "out", root / "source", **options)
    return str(caught.value)


@pytest.mark.parametrize("name", TASKS)
def test_prepare_task_of_each_task_is_read_as_list_files(name: str, tmp_path: Path) -> None:
    task = miniature(name, tmp_path / "source")
    done = prepare_task(task, tmp_path / "out", tmp_path / "source")
    folder = tmp_path / "out" / name
    dataset = load_dataset(folder)
    for part, split in dataset.splits.items():
        assert len(split) == done["images"][part]
        assert task.sizes[part] in (len(split), None)
    assert len(dataset.classes) == task.classes
    assert dataset.notes[: len(done["notes"])] == tuple(done["notes"])
    assert sorted(path.name for path in folder.iterdir()) == sorted([*task.list_files, "images", "prepared.json"])
    check_folder(folder, task)
    # Nothing is lost: an image is the file of the source, or has the pixels of its array (tested with its layout).
    source = files_of(tmp_path / "source").values()
    for images in (split.images for split in dataset.splits.values()):
        for image in images[:3]:
            assert image.suffix == ".png" or any(image.read_bytes() in content for content in source)


def test_prepare_task_with_limits_selects_the_published_order(tmp_path: Path) -> None:
    task = miniature("cifar100", tmp_path / "source", limits=(8, 2))
    done = prepare_task(task, tmp_path / "out", tmp_path / "source")
    folder = tmp_path / "out" / "cifar100"
    ranks = sorted(range(30), key=lambda i: hashlib.md5(f"train{i}".encode()).hexdigest())
    chosen = {
        part: (folder / f"{part}.txt").read_text().split("\n")[:-1] for part in ("train8", "val2", "train8val2", "test")
    }
    assert sorted(int(line.split("_")[-1][:5]) for line in chosen["train8"]) == sorted(ranks[:8])
    assert sorted(int(line.split("_")[-1][:5]) for line in chosen["val2"]) == sorted(ranks[27:29])
    assert chosen["train8val2"] == chosen["train8"] + chosen["val2"]
    assert len(chosen["test"]) == 6
    assert "published order" in done["split"]
    path, label = chosen["test"][4].rsplit(" ", 1)
    assert (path, label) == ("images/test/aquarium_fish/test_00004.png", "1")
    row = np.fromfile(tmp_path / "source" / "cifar-100-binary" / "test.bin", dtype=np.uint8).reshape(-1, 3074)[4, 2:]
    assert (np.asarray(Image.open(folder / path)) == row.reshape(3, 32, 32).transpose(1, 2, 0)).all()


KILLED = """
import os, signal, sys, tempfile
from pathlib import Path
source, place, tests = sys.argv[1:]
sys.path.insert(0, tests)
from helpers.miniatures import miniature
from vpt.datasets.preparation import prepare_task
def progress(what, done, total):
    if what.startswith("writing") and done == 7:
        os.kill(os.getpid(), signal.SIGKILL)
task = miniature("eurosat", Path(tempfile.mkdtemp(dir=place)))  # for the row alone
prepare_task(task, Path(place) / "out", Path(source), progress=progress)
"""


def test_prepare_task_resumed_after_kill_is_byte_identical(tmp_path: Path) -> None:
    source, place = tmp_path / "source", tmp_path / "killed"
    task = miniature("eurosat", source)
    place.mkdir()
    ended = subprocess.run([sys.executable, "-c", KILLED, str(source), str(place), str(Path(__file__).parents[1])])
    assert ended.returncode == -signal.SIGKILL
    half = place / "out" / "eurosat"
    kept = {path: path.stat().st_mtime_ns for path in half.rglob("*.jpg")}
    assert len(kept) == 7
    for reader in (load_dataset, check_folder):
        with pytest.raises(DataError, match="is not complete"):
            reader(half)
    prepare_task(task, place / "out", source)
    assert all(path.stat().st_mtime_ns == when for path, when in kept.items())  # what was there is not made again
    prepare_task(task, tmp_path / "unbroken", source)
    assert files_of(half) == files_of(tmp_path / "unbroken" / "eurosat")
    assert len(list(half.rglob("*.jpg"))) == 20


def test_prepare_task_of_finished_task_does_nothing(tmp_path: Path) -> None:
    task = miniature("pets", tmp_path / "source")
    first = prepare_task(task, tmp_path / "out", tmp_path / "source")
    assert prepare_task(task, tmp_path / "out", tmp_path / "nowhere") == first


def test_prepare_task_of_shared_archive_extracts_it_once(tmp_path: Path) -> None:
    source = tmp_path / "source"
    task = miniature("clevr_count", source)
    pack(source, task.source.files[0], "CLEVR_v1.0")
    (source / "CLEVR_v1.0").rename(tmp_path / "away")
    done = prepare_task(task, tmp_path / "out", source)
    assert done["checksums"] == {"CLEVR_v1.0.zip": UNKNOWN_CHECKSUM}
    other = replace(
        TASKS["clevr_dist"], published_sizes=task.published_sizes, split_spec=task.split_spec, source=task.source
    )
    (source / "CLEVR_v1.0.zip").unlink()
    done = prepare_task(other, tmp_path / "out", source)
    assert done["checksums"] == {"CLEVR_v1.0.zip": "not needed: already extracted"}
    assert not list((tmp_path / "out" / ".unpacked" / "clevr").glob(".*"))


def test_prepare_task_of_two_archives_extracts_both(tmp_path: Path) -> None:
    source = tmp_path / "source"
    task = miniature("pets", source)
    pack(source, task.source.files[0], "images")
    pack(source, task.source.files[1], "annotations")
    for name in ("images", "annotations"):
        (source / name).rename(tmp_path / name)
    assert prepare_task(task, tmp_path / "out", source)["images"] == {"train": 16, "val": 4, "test": 6}


def test_prepare_task_with_wrong_checksum_or_size_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "source"
    task = miniature("clevr_count", source)
    pack(source, task.source.files[0], "CLEVR_v1.0")
    (source / "CLEVR_v1.0").rename(tmp_path / "away")
    archive = source / "CLEVR_v1.0.zip"
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()

    def expecting(**known: object) -> BenchmarkTask:
        return replace(task, source=replace(task.source, files=(replace(task.source.files[0], **known),)))

    assert "published is 00" in refusal(expecting(sha256="00" * 32), tmp_path)
    assert "published are 19,021,600,724" in refusal(expecting(size=19_021_600_724), tmp_path)
    done = prepare_task(expecting(sha256=digest, size=archive.stat().st_size), tmp_path / "other", source)
    assert done["checksums"] == {"CLEVR_v1.0.zip": f"SHA-256 {digest}"}
    archive.write_bytes(archive.read_bytes()[:200])
    assert "cannot be extracted" in refusal(task, tmp_path)
    assert not list((tmp_path / "out" / ".unpacked" / "clevr").iterdir())


def test_prepare_task_without_source_names_the_downloads(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    text = refusal(TASKS["kitti"], tmp_path)
    for part in (
        "training/image_2",
        "mapping/train_rand.txt",
        "https://s3.eu-central-1.amazonaws.com/avg-kitti/data_object_image_2.zip",
        "351c5a2aa0cd9238b50174a3a62b846bc5855da256b82a196431d60ff8d43617",
        "12,569,945,557 bytes",
        "CC BY-NC-SA 3.0",
        "vpt data prepare kitti --from DOWNLOADS",
    ):
        assert part in text
    assert UNKNOWN_CHECKSUM in instructions(TASKS["nabirds"])
    with pytest.raises(DataError, match="is not a folder"):
        prepare_task(TASKS["kitti"], tmp_path, tmp_path / "nowhere")


def test_prepare_task_with_wrong_counts_names_all(tmp_path: Path) -> None:
    task = miniature("dtd", tmp_path / "source")
    text = refusal(replace(task, classes=1, published_sizes={"train": 9, "validation": 4, "test": 7}), tmp_path)
    for fault in ("2 classes, published are 1", "train: 8 images, published are 9", "test: 6 images, published are 7",
                  "train: 4 labels outside 0 to 0, such as 1"):  # fmt: skip
        assert fault in text
    assert "validation: 4 images" not in text
    assert not (tmp_path / "out" / "dtd").exists()


def test_prepare_task_onto_a_foreign_folder_is_refused(tmp_path: Path) -> None:
    task = miniature("dtd", tmp_path / "source")
    (tmp_path / "out" / "dtd").mkdir(parents=True)
    (tmp_path / "out" / "dtd" / "mine.txt").write_text("mine")
    assert "was not made by" in refusal(task, tmp_path)


def test_prepare_task_with_published_names_selects_them(tmp_path: Path) -> None:
    task = miniature("resisc45", tmp_path / "source", limits=(3, 2))
    names = {"train": ["airplane_002.jpg", "tennis_court_001.jpg", "airplane_010.jpg"],
             "val": ["airplane_001.jpg", "tennis_court_009.jpg"]}  # fmt: skip
    file = tmp_path / "names.json"
    file.write_text(json.dumps({"resisc45": names}))
    done = prepare_task(task, tmp_path / "out", tmp_path / "source", file)
    found = load_dataset(tmp_path / "out" / "resisc45")
    assert [Path(name).name for name in found.train.names] == names["train"]
    assert [Path(name).name for name in found.val.names] == names["val"]
    assert done["split"] == "published names in names.json"
    file.write_text(json.dumps({"resisc45": {**names, "val": ["airplane_099.jpg", "ship_1.jpg"]}}))
    text = refusal(replace(task, name="again"), tmp_path, split_files=file)
    assert "2 images missing from the source:\n  airplane_099.jpg\n  ship_1.jpg" in text
    other = miniature("svhn", tmp_path / "svhn" / "source")
    assert "has no entry for svhn" in refusal(other, tmp_path / "svhn", split_files=file)


def test_prepare_task_again_with_another_split_is_refused(tmp_path: Path) -> None:
    task, file = miniature("resisc45", tmp_path / "source", limits=(3, 2)), tmp_path / "names.json"
    done = prepare_task(task, tmp_path / "out", tmp_path / "source")
    with pytest.raises(
        DataError, match=r"resisc45 was made with the split 'train.*, not 'published names in names\.json'"
    ):
        prepare_task(task, tmp_path / "out", tmp_path / "source", file)
    assert prepare_task(task, tmp_path / "out", tmp_path / "source") == done


def write_bird_lists(folder: Path) -> None:
    """Lists as the paper's authors publish them, with class names in place of numbers."""

    def rows(numbers: range) -> dict[str, str]:
        return {f"{k + 1:03d}.Bird/{k}{i}.jpg": f"{k + 1:03d}.Bird" for k in range(2) for i in numbers}

    folder.mkdir(parents=True, exist_ok=True)
    for part, numbers in (("train", range(4)), ("val", range(4, 6)), ("test", range(6, 10))):
        (folder / f"{part}.json").write_text(json.dumps(rows(numbers)))


@pytest.mark.parametrize("beside", [True, False])
def test_prepare_task_with_published_fgvc_lists_uses_them(beside: bool, tmp_path: Path) -> None:
    task = replace(miniature("cub", tmp_path / "source"), split_spec=TASKS["cub"].split_spec)
    task = replace(task, split_spec=replace(task.split_spec, train="train[4:]", val="train[:4]"))
    write_bird_lists(tmp_path / "source" / "CUB_200_2011" if beside else tmp_path / "lists")
    done = prepare_task(task, tmp_path / "out", tmp_path / "source", None if beside else tmp_path / "lists")
    found = load_dataset(tmp_path / "out" / "cub")
    assert done["split"] == "lists train.json, val.json, test.json"
    assert prepare_task(task, tmp_path / "out", tmp_path / "source", tmp_path / "lists") == done
    assert {Path(name).name for name in found.val.names} == {"04.jpg", "05.jpg", "14.jpg", "15.jpg"}
    assert {part: len(split) for part, split in found.splits.items()} == {"train": 8, "val": 4, "test": 8}


def test_prepare_task_with_lists_of_other_data_is_refused(tmp_path: Path) -> None:
    task = miniature("cub", tmp_path / "source")
    write_bird_lists(tmp_path / "lists")
    rows = json.loads((tmp_path / "lists" / "val.json").read_text())
    (tmp_path / "lists" / "val.json").write_text(json.dumps(dict.fromkeys(rows, "001.Bird")))
    assert "covers two classes of the source" in refusal(task, tmp_path, split_files=tmp_path / "lists")
    assert "does not contain train.json" in refusal(task, tmp_path, split_files=tmp_path)


def test_prepare_task_without_published_val_states_its_own_split(tmp_path: Path) -> None:
    done = prepare_task(miniature("dogs", tmp_path / "source"), tmp_path / "out", tmp_path / "source")
    assert "val is drawn by vpt, train[:3]" in done["split"]
    assert done["images"] == {"train": 17, "val": 3, "test": 6}


def test_check_folder_of_faulty_data_names_all_faults(tmp_path: Path) -> None:
    task = miniature("eurosat", tmp_path / "source")
    prepare_task(task, tmp_path / "out", tmp_path / "source")
    folder = tmp_path / "out" / "eurosat"
    images = sorted((folder / "images" / "test").rglob("*.jpg"))
    images[0].write_bytes(b"no image")
    images[1].write_bytes(images[1].read_bytes()[:10])
    lines = (folder / "train1000.txt").read_text().splitlines()
    (folder / "train1000val1000.txt").unlink()
    (folder / "train1000.txt").write_text("\n".join(lines[1:]))
    with pytest.raises(DataError) as caught:
        check_folder(folder, task)
    text = str(caught.value)
    assert "3 faults" in text
    assert "train: 11 images, eurosat has 12" in text
    assert f"{images[0].relative_to(folder).as_posix()}: cannot be read as an image" in text
    assert "vpt data prepare eurosat" in text
    images[2].unlink()
    with pytest.raises(DataError, match="no such image"):
        check_folder(folder, task)
    with pytest.raises(DataError, match="does not exist"):
        check_folder(tmp_path / "out" / "dtd", TASKS["dtd"])


def vpt(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "vpt", "data", *args], capture_output=True, text=True)


def test_data_commands_without_downloads_print_instructions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "downloads").mkdir()
    shown = vpt("prepare", "flowers", "cub")
    assert (shown.returncode, shown.stdout.count("then: vpt data prepare")) == (0, 2)
    command_line.vpt("data", "prepare", "flowers", "cub", "--json")
    listed = json.loads(capsys.readouterr().out)
    assert {name: task["files"][0]["url"] for name, task in listed.items()} == {
        name: TASKS[name].source.files[0].url for name in ("flowers", "cub")
    }
    lacking = vpt("prepare", "flowers", "cub", "--from", str(tmp_path / "downloads"), "--out", str(tmp_path))
    assert lacking.returncode == 3
    assert "102flowers.tgz" in lacking.stderr and "CUB_200_2011.tgz" in lacking.stderr
    wrong = vpt("check", "fgvc", "--data", str(tmp_path))
    assert (wrong.returncode, " ".join(wrong.stderr.split()).count("does not exist")) == (3, 5)  # whatever wraps
