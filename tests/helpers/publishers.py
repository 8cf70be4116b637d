"""Miniature copies of what the publishers of VTAB-1k and FGVC ship: the same layouts and names, a few tiny images."""

from __future__ import annotations

import gzip
import io
import json
import struct
from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

_fresh = count(1)


def jpeg() -> bytes:
    """A tiny JPEG file with bytes of its own."""
    number = next(_fresh)
    buffer = io.BytesIO()
    Image.new("RGB", (9, 8), (number % 251, number // 251 % 256, 90)).save(buffer, "JPEG", comment=str(number))
    return buffer.getvalue()


def put(path: Path, content: bytes | str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = jpeg() if content is None else content
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def pixels(n: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(n).integers(0, 256, (n, *shape), dtype=np.uint8)


def cifar100(root: Path) -> dict[str, int]:
    folder = root / "cifar-100-binary"
    put(folder / "fine_label_names.txt", "apple\naquarium_fish\nbaby\n")
    for split_name, n in (("train", 30), ("test", 6)):
        rows = pixels(n, 3074)
        rows[:, 0], rows[:, 1] = 19, np.arange(n) % 3  # coarse, fine
        put(folder / f"{split_name}.bin", rows.tobytes())
    return {"train": 30, "test": 6}


def caltech101(root: Path) -> dict[str, int | None]:
    for name, n in (("accordion", 33), ("BACKGROUND_Google", 31)):
        for i in range(n):
            put(root / "101_ObjectCategories" / name / f"image_{i + 1:04d}.jpg")
    put(root / "101_ObjectCategories" / "BACKGROUND_Google" / "tmp", "no image")
    return {"train": 60, "test": None}


def dtd(root: Path) -> dict[str, int]:
    for split_name, numbers in (("train1", range(4)), ("val1", range(4, 6)), ("test1", range(6, 9))):
        names = [f"{kind}/{kind}_{i:04d}.jpg" for kind in ("banded", "zigzagged") for i in numbers]
        put(root / "dtd" / "labels" / f"{split_name}.txt", "\n".join(names) + "\n")
        for name in names:
            put(root / "dtd" / "images" / name)
    return {"train": 8, "validation": 4, "test": 6}


def flowers(root: Path) -> dict[str, int]:
    labels = np.array([[3, 1, 2, 1, 2, 3, 1, 2, 3, 3]])
    for i in range(1, 11):
        put(root / "jpg" / f"image_{i:05d}.jpg")
    savemat(root / "imagelabels.mat", {"labels": labels})
    savemat(root / "setid.mat", {"trnid": [[1, 2, 3]], "valid": [[6, 5, 4]], "tstid": [[10, 9, 8, 7]]})
    return {"train": 3, "validation": 3, "test": 4}


def pets(root: Path) -> dict[str, int]:
    for split_name, numbers in (("trainval", range(10)), ("test", range(10, 13))):
        rows = [(f"{breed}_{i}", label) for label, breed in ((1, "Abyssinian"), (2, "great_pyrenees")) for i in numbers]
        put(root / "annotations" / f"{split_name}.txt", "".join(f"{name} {label} 1 1\n" for name, label in rows))
        for name, _ in rows:
            put(root / "images" / f"{name}.jpg")
    return {"train": 20, "test": 6}


def svhn(root: Path) -> dict[str, int]:
    root.mkdir(parents=True, exist_ok=True)
    for split_name, n in (("train", 30), ("test", 12)):
        labels = (np.arange(n) % 10 + 1).reshape(-1, 1)
        savemat(root / f"{split_name}_32x32.mat", {"X": np.moveaxis(pixels(n, 32, 32, 3), 0, -1), "y": labels})
    return {"train": 30, "test": 12}


def sun397(root: Path) -> dict[str, int]:
    places = ("/a/abbey", "/c/church/indoor", "/c/church/outdoor")
    for split_name, numbers in (("tr", range(4)), ("va", range(4, 6)), ("te", range(6, 9))):
        names = [f"{place}/sun_{'abcdefghi'[i]}.jpg" for place in places for i in numbers]
        put(root / f"sun397_tfds_{split_name}.txt", "\n".join(names))
        for name in names:
            put(root / "SUN397" / name[1:])
    return {"train": 12, "validation": 6, "test": 9}


def camelyon(root: Path) -> dict[str, int]:
    import h5py

    root.mkdir(parents=True, exist_ok=True)
    for split_name, n in (("train", 6), ("valid", 3), ("test", 4)):
        with h5py.File(root / f"camelyonpatch_level_2_split_{split_name}_x.h5", "w") as file:
            file["x"] = pixels(n, 96, 96, 3)
        with h5py.File(root / f"camelyonpatch_level_2_split_{split_name}_y.h5", "w") as file:
            file["y"] = (np.arange(n) % 2).astype(np.uint8).reshape(n, 1, 1, 1)
    return {"train": 6, "validation": 3, "test": 4}


def eurosat(root: Path) -> dict[str, int]:
    for name in ("AnnualCrop", "SeaLake"):
        for i in range(1, 11):
            put(root / "2750" / name / f"{name}_{i}.jpg")
    return {"train": 20}


def resisc45(root: Path) -> dict[str, int]:
    for name in ("airplane", "tennis_court"):
        for i in range(1, 11):
            put(root / "NWPU-RESISC45" / name / f"{name}_{i:03d}.jpg")
    return {"train": 20}


def retinopathy(root: Path) -> dict[str, int]:
    put(root / "trainLabels.csv", "image,level\n" + "".join(f"{i}_left,{i % 5}\n" for i in range(10)))
    usage = [("Public", i) for i in range(10, 15)] + [("Private", i) for i in range(15, 22)]
    rows = "".join(f"{i}_right,{i % 5},{kind}\n" for kind, i in usage)
    put(root / "retinopathy_solution.csv", "image,level,Usage\n" + rows)
    for i in range(22):
        put(root / ("train" if i < 10 else "test") / f"{i}_{'left' if i < 10 else 'right'}.jpeg")
    return {"train": 10, "validation": 5, "test": 7}


DEPTHS = (7.5, 8.0, 8.1, 8.5, 9.0, 9.5, 10.0, 10.5)  # of the closest object of CLEVR's scenes with 3, 4, ... 10 objects


def clevr(root: Path) -> dict[str, int]:
    folder = root / "CLEVR_v1.0"
    for split_name, n in (("train", 40), ("val", 8)):
        scenes = []
        for i in range(n):
            things = [{"pixel_coords": [1, 2, DEPTHS[i % 8] + k]} for k in range(3 + i % 8)][::-1]
            scenes.append({"image_filename": f"CLEVR_{split_name}_{i:06d}.png", "objects": things})
            put(folder / "images" / split_name / f"CLEVR_{split_name}_{i:06d}.png")
        put(folder / "scenes" / f"CLEVR_{split_name}_scenes.json", json.dumps({"scenes": scenes}))
    return {"train": 40, "validation": 8}


def dmlab(root: Path) -> dict[str, int]:
    for split_name, shards in (("train", (7, 5)), ("validation", (6,)), ("test", (6,))):
        for shard, n in enumerate(shards):
            records = [record(f"video_{shard}_{split_name}_{i}.jpg", i % 6) for i in range(n)]
            put(root / f"dmlab-{split_name}.tfrecord-{shard:05d}-of-{len(shards):05d}", b"".join(records))
    return {"train": 12, "validation": 6, "test": 6}


def record(name: str, label: int, image: bytes | None = None) -> bytes:
    """A tf.train.Example in a TFRecord frame; its integers are packed, as TensorFlow packs them."""

    def field(number: int, data: bytes) -> bytes:
        size, head = len(data), b""
        while size >= 0x80:
            head, size = head + bytes([size & 0x7F | 0x80]), size >> 7
        return bytes([number << 3 | 2]) + head + bytes([size]) + data

    def feature(key: str, value: bytes) -> bytes:
        return field(1, field(1, key.encode()) + field(2, value))

    features = feature("image", field(1, field(1, image or jpeg())))
    features += feature("filename", field(1, field(1, name.encode()))) + feature(
        "label", field(3, field(1, bytes([label])))
    )
    data = field(1, features)
    return struct.pack("<Q", len(data)) + b"sum1" + data + b"sum2"


KITTI_DEPTHS = {
    0: [(8.0, "Car")],
    1: [(8.01, "Van"), (30, "Car"), (2, "Pedestrian")],
    2: [(20.01, "Truck")],
    3: [(1, "Tram")],
}


def kitti(root: Path) -> dict[str, int]:
    lines, n = [], 80
    for i in range(n):
        rows = "".join(f"{kind} 0.00 0 -0.2 1 2 3 4 1.9 0.5 1.2 1.8 1.5 {z} 0.01\n" for z, kind in KITTI_DEPTHS[i % 4])
        put(
            root / "training" / "label_2" / f"{i:06d}.txt",
            rows + "DontCare -1 -1 -10 1 2 3 4 -1 -1 -1 -1000 -1000 -1000 -10\n",
        )
        put(root / "training" / "image_2" / f"{i:06d}.png")
        lines.append(f"2011_09_26 2011_09_26_drive_{i // 4:04d}_sync {i % 4:010d}")
    put(root / "mapping" / "train_rand.txt", ",".join(str(i + 1) for i in range(n)))
    put(root / "mapping" / "train_mapping.txt", "\n".join(lines))
    return {"train": 64, "validation": 8, "test": 8}  # 20 videos of 4 frames


def dsprites(root: Path) -> dict[str, int]:
    n = 320
    latents = np.zeros((n, 6), dtype=np.int64)
    latents[:, 3], latents[:, 4] = np.arange(n) % 40, np.arange(n) % 32
    metadata = np.array({"title": "a pickle"}, dtype=object)
    root.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        root / "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz",
        metadata=metadata, imgs=pixels(n, 64, 64) % 2, latents_classes=latents,
    )  # fmt: skip
    return {"train": n}


def smallnorb(root: Path) -> dict[str, int]:
    n = 72
    for split_name, inner in (("training", "5x46789"), ("testing", "5x01235")):
        info = np.zeros((n, 4), dtype="<i4")
        info[:, 1], info[:, 2] = np.arange(n) % 9, np.arange(n) % 18 * 2
        for kind, magic, array in (("dat", 0x1E3D4C55, pixels(n, 2, 96, 96)), ("info", 0x1E3D4C54, info)):
            dims = (*array.shape, 1)[: max(3, array.ndim)]  # at least three sizes are stored
            head = struct.pack(f"<ii{len(dims)}i", magic, array.ndim, *dims)
            name = f"smallnorb-{inner}x9x18x6x2x96x96-{split_name}-{kind}.mat.gz"
            put(root / name, gzip.compress(head + array.tobytes(), 1))
    return {"train": n, "test": n}


def birds(root: Path, folder: str, numbers: tuple[int, ...]) -> dict[str, int]:
    rows = [(f"{k}{i}", number, i < 6) for k, number in enumerate(numbers) for i in range(10)]
    files = {
        "images.txt": [f"{image} {number:03d}.Bird/{image}.jpg" for image, number, _ in rows],
        "image_class_labels.txt": [f"{image} {number}" for image, number, _ in rows],
        "train_test_split.txt": [f"{image} {int(train)}" for image, _, train in rows],
        "classes.txt": [f"{number} {number:03d}.Bird number {number}" for number in (*numbers, 999)],
    }
    for name, lines in files.items():
        put(root / folder / name, "\n".join(lines) + "\n")
    for image, number, _ in rows:
        put(root / folder / "images" / f"{number:03d}.Bird" / f"{image}.jpg")
    return {"train": 12, "test": 8}


def cub(root: Path) -> dict[str, int]:
    return birds(root, "CUB_200_2011", (1, 2))


def nabirds(root: Path) -> dict[str, int]:
    return birds(root, "nabirds", (295, 1010))


def cells(texts: list[str]) -> np.ndarray:
    """A column of MATLAB cells."""
    array = np.empty((len(texts), 1), dtype=object)
    array[:, 0] = texts
    return array


def dogs(root: Path) -> dict[str, int]:
    breeds = ("n02085620-Chihuahua", "n02085782-Japanese_spaniel")
    root.mkdir(parents=True, exist_ok=True)
    for split_name, numbers in (("train", range(10)), ("test", range(10, 13))):
        names = [f"{breed}/{breed.split('-')[0]}_{i}.jpg" for breed in breeds for i in numbers]
        labels = np.array([[1 + (name.split("/")[0] == breeds[1])] for name in names])
        savemat(root / f"{split_name}_list.mat", {"file_list": cells(names), "labels": labels})
        for name in names:
            put(root / "Images" / name)
    return {"train": 20, "test": 6}


def cars(root: Path) -> dict[str, int]:
    (root / "devkit").mkdir(parents=True)
    savemat(
        root / "devkit" / "cars_meta.mat", {"class_names": cells(["AM General Hummer SUV 2000", "Ram C/V Cargo Van"]).T}
    )
    for split_name, n, place in (("train", 20, "devkit/cars_train_annos"), ("test", 6, "cars_test_annos_withlabels")):
        kinds = [(key, object) for key in ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname")]
        rows = np.array([[(1, 1, 2, 2, i % 2 + 1, f"{i + 1:05d}.jpg") for i in range(n)]], dtype=kinds)
        savemat(root / f"{place}.mat", {"annotations": rows})
        for i in range(n):
            put(root / f"cars_{split_name}" / f"{i + 1:05d}.jpg")
    return {"train": 20, "test": 6}


BUILD: dict[str, Callable[[Path], dict]] = {
    "cifar100": cifar100, "caltech101": caltech101, "dtd": dtd, "flowers102": flowers, "pets": pets, "svhn": svhn,
    "sun397": sun397, "camelyon": camelyon, "eurosat": eurosat, "resisc45": resisc45, "retinopathy": retinopathy,
    "clevr_count": clevr, "clevr_dist": clevr, "dmlab": dmlab, "kitti": kitti, "dsprites_loc": dsprites,
    "dsprites_ori": dsprites, "snorb_azi": smallnorb, "snorb_ele": smallnorb, "cub": cub, "nabirds": nabirds,
    "flowers": flowers, "dogs": dogs, "cars": cars,
}  # fmt: skip


CLASSES = {
    "cifar100": 3, "caltech101": 2, "dtd": 2, "flowers102": 3, "pets": 2, "sun397": 3, "eurosat": 2, "resisc45": 2,
    "cub": 2, "nabirds": 2, "flowers": 3, "dogs": 2, "cars": 2,
}  # fmt: skip
