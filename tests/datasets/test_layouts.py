"""Every layout of VTAB-1k and FGVC, on miniatures: counts, labels, names and pixels as they are in the source."""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat

from helpers.miniatures import miniature
from helpers.publishers import BUILD, KITTI_DEPTHS, cifar100, dsprites, put, record, smallnorb
from vpt.datasets.catalog import TASKS
from vpt.datasets.download_dir import DownloadDir, extract_archive
from vpt.datasets.layouts.arrays import read_norb_matrix
from vpt.datasets.layouts.object_lists import CLEVR_EDGES, KITTI_EDGES, bin_index
from vpt.datasets.layouts.tfrecord import iter_records, parse_example
from vpt.datasets.prepared import SourceData
from vpt.datasets.split_spec import SplitSpec, published_order
from vpt.errors import DataError


def read(name: str, root: Path) -> SourceData:
    """The miniature of a task, as its layout reads it; what is gzipped is unpacked before."""
    task = miniature(name, root)
    for file in list(root.glob("*.gz")):
        extract_archive(file, root / "unpacked")
    return task.read_source(DownloadDir(root, root / "unpacked"))


def decoded(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)))


@pytest.mark.parametrize("name", TASKS)
def test_read_source_of_each_task_matches_the_published_sizes(name: str, tmp_path: Path) -> None:
    task = miniature(name, tmp_path / "counted")
    source_data = read(name, tmp_path / "source")
    for part, count in task.published_sizes.items():
        assert count is None or len(source_data.splits[part]) == count
    assert set(source_data.splits) == set(task.published_sizes)
    assert len(source_data.classes) == task.classes == len(set(source_data.classes))
    labels = np.concatenate([part.labels for part in source_data.splits.values()])
    assert set(labels.tolist()) == set(range(task.classes))
    for part in source_data.splits.values():
        assert len(set(zip(part.names, part.labels.tolist(), strict=True))) == len(part)
        image = part.encoded(len(part) - 1)
        assert decoded(image).ndim in (2, 3)
        assert part.names[0].endswith((".png", ".jpg", ".jpeg"))


def test_bin_index_at_an_edge_is_the_lower_bin() -> None:
    assert [bin_index(depth, CLEVR_EDGES) for depth in (0.1, 8.0, 8.01, 8.5, 9, 9.5, 10, 10.1, 500)] == [
        *(0, 0, 1, 1, 2, 3, 4, 5, 5)
    ]
    assert [bin_index(depth, KITTI_EDGES) for depth in (-3, 8, 8.01, 20, 20.01, 999, 1000)] == [0, 0, 1, 1, 2, 2, 3]
    with pytest.raises(DataError, match="is below 0"):
        bin_index(0.0, CLEVR_EDGES)


def test_read_source_of_clevr_labels_depths_and_counts(tmp_path: Path) -> None:
    depths, counts = read("clevr_dist", tmp_path / "a"), read("clevr_count", tmp_path / "b")
    assert depths.splits["train"].labels.tolist()[:8] == [0, 0, 1, 1, 2, 3, 4, 5]
    assert counts.splits["validation"].labels.tolist() == list(range(8))
    assert counts.classes[0] == "3_objects"
    assert depths.splits["train"].names[1] == "CLEVR_train_000001.png"


def test_read_source_of_kitti_keeps_videos_in_one_split(tmp_path: Path) -> None:
    source_data = read("kitti", tmp_path)
    everything = {
        name: label for part in source_data.splits.values() for name, label in zip(part.names, part.labels, strict=True)
    }
    assert len(everything) == 80
    assert all(label == int(name[:6]) % len(KITTI_DEPTHS) for name, label in everything.items())
    videos = [{int(name[:6]) // 4 for name in part.names} for part in source_data.splits.values()]
    assert [len(found) for found in videos] == [16, 2, 2]  # whole videos
    assert not videos[0] & videos[1] | videos[0] & videos[2] | videos[1] & videos[2]


def test_read_source_of_dsprites_labels_position_and_orientation(tmp_path: Path) -> None:
    position, orientation = read("dsprites_loc", tmp_path), TASKS["dsprites_ori"].read_source(DownloadDir(tmp_path))
    values = np.arange(320)
    assert position.splits["train"].labels.tolist() == [x // 2 for x in values % 32]
    assert orientation.splits["train"].labels.tolist() == [int(np.floor(x / 2.5)) for x in values % 40]
    with np.load(tmp_path / "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz") as stored:
        images = stored["imgs"]
    for i in (7, 300, 3):  # backwards, too
        assert (decoded(position.splits["train"].encoded(i)) == images[i] * 255).all()


def test_read_source_of_smallnorb_labels_azimuth_and_elevation(tmp_path: Path) -> None:
    azimuth = read("snorb_azi", tmp_path)
    elevation = TASKS["snorb_ele"].read_source(DownloadDir(tmp_path, tmp_path / "unpacked"))
    assert azimuth.splits["train"].labels.tolist() == [i % 18 for i in range(72)]
    assert elevation.splits["test"].labels.tolist() == [i % 9 for i in range(72)]
    assert (azimuth.classes[17], elevation.classes[0]) == ("azimuth_340", "elevation_30")
    (dat,) = DownloadDir(tmp_path / "unpacked").find("smallnorb-5x01235x9x18x6x2x96x96-testing-dat.mat")
    assert (decoded(azimuth.splits["test"].encoded(5)) == read_norb_matrix(dat)[5, 0]).all()
    dat.write_bytes(dat.read_bytes()[:-1])
    with pytest.raises(DataError, match="do not fit its shape"):
        read_norb_matrix(dat)
    dat.write_bytes(b"MATLAB 5.0 MAT-file, Platform: none")
    with pytest.raises(DataError, match="is not a smallNORB matrix"):
        read_norb_matrix(dat)


def test_read_source_of_cifar100_uses_fine_labels(tmp_path: Path) -> None:
    cifar100(tmp_path)
    part = TASKS["cifar100"].read_source(DownloadDir(tmp_path)).splits["train"]
    rows = np.fromfile(tmp_path / "cifar-100-binary" / "train.bin", dtype=np.uint8).reshape(-1, 3074)
    assert part.labels.tolist() == rows[:, 1].tolist()  # the fine label, not the coarse one
    assert decoded(part.encoded(4))[3, 5].tolist() == [rows[4, 2 + plane * 1024 + 3 * 32 + 5] for plane in range(3)]
    (tmp_path / "cifar-100-binary" / "train.bin").write_bytes(b"\0" * 3000)
    with pytest.raises(DataError, match="not a multiple of 3074"):
        TASKS["cifar100"].read_source(DownloadDir(tmp_path))


def test_read_source_of_svhn_maps_label_10_to_0(tmp_path: Path) -> None:
    part = read("svhn", tmp_path).splits["test"]
    stored = loadmat(tmp_path / "test_32x32.mat")
    assert part.labels.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2]
    assert (decoded(part.encoded(9)) == stored["X"][..., 9]).all()


def test_read_source_of_dmlab_keeps_stored_jpegs(tmp_path: Path) -> None:
    part = read("dmlab", tmp_path).splits["train"]
    assert part.names[7:9] == ("video_1_train_0.jpg", "video_1_train_1.jpg")  # of the second file
    assert part.labels.tolist() == [0, 1, 2, 3, 4, 5, 0, 0, 1, 2, 3, 4]
    assert part.encoded(8)[:2] == b"\xff\xd8"  # the JPEG as it is stored
    file = tmp_path / "dmlab-test.tfrecord-00000-of-00001"
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(DataError, match="is truncated in the record"):
        list(iter_records(file))


def test_parse_example_of_200_kilobytes_returns_its_fields() -> None:
    image = bytes(range(256)) * 800
    framed = record("video_1_2_3.jpg", 5, image)
    assert parse_example(framed[12:-4]) == {"image": image, "filename": b"video_1_2_3.jpg", "label": 5}
    with pytest.raises(DataError, match=r"not a tf\.train\.Example"):
        parse_example(b"\xff\xff\xff")


def test_read_source_of_retinopathy_validates_on_the_public_half(tmp_path: Path) -> None:
    parts = read("retinopathy", tmp_path).splits
    assert parts["validation"].keys == tuple(f"{i}_right" for i in range(10, 15))  # the public half
    assert parts["test"].labels.tolist() == [i % 5 for i in range(15, 22)]


def test_read_source_of_one_based_labels_starts_them_at_zero(tmp_path: Path) -> None:
    flowers = read("flowers", tmp_path / "flowers").splits
    assert flowers["test"].names == tuple(f"image_{i:05d}.jpg" for i in (10, 9, 8, 7))
    assert flowers["validation"].labels.tolist() == [2, 1, 0]
    pets = read("pets", tmp_path / "pets")
    assert (pets.classes, set(pets.splits["train"].labels)) == (("Abyssinian", "great_pyrenees"), {0, 1})
    cars = read("cars", tmp_path / "cars")
    assert cars.classes[1] == "Ram C/V Cargo Van"
    assert cars.splits["test"].names[1] == "cars_test/00002.jpg"
    assert cars.splits["test"].labels.tolist() == [0, 1] * 3


def test_read_source_of_nabirds_names_missing_images(tmp_path: Path) -> None:
    source_data = read("nabirds", tmp_path)
    assert source_data.classes == ("Bird number 295", "Bird number 1010")  # those with images, in the order of numbers
    assert source_data.splits["train"].labels.tolist() == [0] * 6 + [1] * 6
    (tmp_path / "nabirds" / "images" / "295.Bird" / "03.jpg").unlink()
    with pytest.raises(DataError, match=r"1 listed image missing:\n  295\.Bird/03\.jpg"):
        TASKS["nabirds"].read_source(DownloadDir(tmp_path))


def test_read_source_of_caltech101_selects_30_images_per_class(tmp_path: Path) -> None:
    source_data = read("caltech101", tmp_path)
    assert Counter(source_data.splits["train"].labels.tolist()) == {0: 30, 1: 30}
    assert len(source_data.splits["test"]) == 4  # the file that is no image is none of them
    assert "not comparable" in source_data.notes[0]


def test_read_source_of_sun397_names_nested_classes(tmp_path: Path) -> None:
    source_data = read("sun397", tmp_path)
    assert source_data.classes == ("abbey", "church/indoor", "church/outdoor")
    assert source_data.splits["train"].keys[0] == "/a/abbey/sun_a.jpg"


def test_read_source_of_resisc45_keeps_published_names(tmp_path: Path) -> None:
    part = read("resisc45", tmp_path).splits["train"]
    assert (part.names[10], part.keys[10]) == ("tennis_court_001.jpg", "tennis_court_tennis_court_001.jpg")


def test_read_source_of_pickle_files_opens_none(tmp_path: Path) -> None:
    put(tmp_path / "cifar-100-python" / "train", b"\x80\x04.")
    with pytest.raises(DataError, match=r"cifar-100-binary/train\.bin"):
        TASKS["cifar100"].read_source(DownloadDir(tmp_path))
    dsprites(tmp_path)  # with a pickle beside the arrays that are read
    assert len(TASKS["dsprites_loc"].read_source(DownloadDir(tmp_path)).splits["train"]) == 320


def test_split_spec_of_slices_gives_their_sizes() -> None:
    split_spec = SplitSpec("train[:60%]", "train[60%:80%]", "train[80%:]", (800, 200))
    assert split_spec.sizes({"train": 27_000}) == {"train": 800, "val": 200, "test": 5_400}
    assert SplitSpec("train[600:]", "train[:600]", "test").sizes({"train": 5_994, "test": 9})["train"] == 5_394
    with pytest.raises(DataError, match="cannot be read"):
        SplitSpec("train[-1:]", "train", "test").sizes({"train": 10, "test": 1})


def test_published_order_of_keys_equals_md5_order() -> None:
    keys = [str(i) for i in range(100)]
    assert published_order(keys, "train").tolist() == sorted(
        range(100), key=lambda i: hashlib.md5(f"train{i}".encode()).hexdigest()
    )


EUROSAT = {
    "AnnualCrop": 3000, "Forest": 3000, "HerbaceousVegetation": 3000, "Highway": 2500, "Industrial": 2500,
    "Pasture": 2000, "PermanentCrop": 2500, "Residential": 3000, "River": 2500, "SeaLake": 3000,
}  # fmt: skip


@pytest.mark.parametrize(
    ("task", "names", "keys"),
    [
        ("cifar100", [f"train_{i:05d}" for i in range(50_000)], [str(i) for i in range(50_000)]),
        ("clevr_count", [f"CLEVR_train_{i:06d}.png" for i in range(70_000)], None),
        (
            "eurosat",
            [f"{name}_{i}.jpg" for name, n in EUROSAT.items() for i in range(1, n + 1)],
            [f"{name}_{name}_{i}.jpg" for name, n in EUROSAT.items() for i in range(1, n + 1)],
        ),
    ],
)
def test_published_order_of_known_names_gives_the_published_splits(
    task: str, names: list[str], keys: list[str] | None, shared: Path
) -> None:
    """The 800 and 200 file names that were published are the first ones of our order, without any image."""
    published = json.loads((shared / "paper" / "vtab_trainval_splits.json").read_text())[
        TASKS[task].published_names_key
    ]
    order = [names[i] for i in published_order(keys or names, "train")]
    fraction = {"cifar100": 0.9, "clevr_count": 0.9, "eurosat": 0.6}[task]
    start = round(fraction * len(names))
    assert set(order[:800]) == set(published["train"])
    assert set(order[start : start + 200]) == set(published["val"])


@pytest.mark.parametrize("task", ["dmlab", "kitti", "retinopathy", "dtd", "flowers102", "sun397"])
def test_published_names_of_other_tasks_have_the_lowest_md5_ranks(task: str, shared: Path) -> None:
    """Where other names are not known: 800 lowest ranks of n lie below 800 / n, but for chance."""
    published = json.loads((shared / "paper" / "vtab_trainval_splits.json").read_text())[
        TASKS[task].published_names_key
    ]
    for part, own in (("train", "train"), ("val", "validation")):
        ranks = [int(hashlib.md5((own + name).encode()).hexdigest(), 16) / 2**128 for name in published[part]]
        fraction = len(ranks) / TASKS[task].published_sizes[own]
        assert fraction * 0.8 < max(ranks) < fraction * 1.2


def test_read_source_of_missing_smallnorb_files_names_them(tmp_path: Path) -> None:
    smallnorb(tmp_path)
    with pytest.raises(DataError, match=r"training-dat\.mat\n.*training-info\.mat\n.*testing-dat\.mat\n.*testing-info"):
        TASKS["snorb_azi"].read_source(DownloadDir(tmp_path))


TORCHVISION = {
    "caltech101": "caltech101", "dtd": "dtd", "flowers102": "flowers-102", "pets": "oxford-iiit-pet", "svhn": "",
    "sun397": "", "camelyon": "pcam", "eurosat": "eurosat", "clevr_count": "clevr", "cars": "stanford_cars",
}  # fmt: skip


@pytest.mark.parametrize(("name", "folder"), TORCHVISION.items())
def test_read_source_of_torchvision_folders_finds_them(name: str, folder: str, tmp_path: Path) -> None:
    """All of them below one root, beside other data."""
    for other in ("cifar100", "cub"):
        BUILD[other](tmp_path)
    task = miniature(name, tmp_path / folder if folder else tmp_path)
    assert {part: len(records) for part, records in task.read_source(DownloadDir(tmp_path)).splits.items()} == {
        part: count or 4 for part, count in task.published_sizes.items()
    }
