"""The five FGVC tasks: fine-grained classes with complete training sets.

Except for Flowers, the publishers provide no validation split. The paper uses a tenth of train (section 4.1), defined
by its authors' lists (train.json, val.json, test.json). These lists are used if they are next to the data; otherwise
vpt draws a validation split of the same size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from vpt.datasets.download_dir import DownloadDir, RemoteFile
from vpt.datasets.layouts import birds, flowers, stanford
from vpt.datasets.prepared.records import SourceData
from vpt.datasets.sources import FLOWERS
from vpt.datasets.split_spec import SplitSpec
from vpt.datasets.task import BenchmarkTask, DataSource

CUB = DataSource(
    "cub",
    "https://data.caltech.edu/records/65de6-vp158",
    (
        RemoteFile(
            "CUB_200_2011.tgz",
            "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
            "0c685df5597a8b24909f6a7c9db6d11e008733779a671760afef78feb49bf081",
            1_150_585_339,
        ),
    ),
    "non-commercial research and education",
    "Wah et al., The Caltech-UCSD Birds-200-2011 Dataset, 2011",
)
NABIRDS = DataSource(
    "nabirds",
    "https://dl.allaboutbirds.org/nabirds",
    (RemoteFile("nabirds.tar.gz", "https://dl.allaboutbirds.org/nabirds"),),
    "non-commercial research; terms of use to be accepted",
    "Van Horn et al., Building a Bird Recognition App and Large Scale Dataset with Citizen Scientists, CVPR 2015",
    "accept the terms of use on that page to get the link",
)
DOGS = DataSource(
    "dogs",
    "http://vision.stanford.edu/aditya86/ImageNetDogs/",
    (
        RemoteFile(
            "images.tar",
            "http://vision.stanford.edu/aditya86/ImageNetDogs/images.tar",
            "a443fc2f9a851aa1a7b8e4fa4af94b8459fce2c9f5a2f4dd4669cf9673a4ec58",
            793_579_520,
        ),
        RemoteFile(
            "lists.tar",
            "http://vision.stanford.edu/aditya86/ImageNetDogs/lists.tar",
            "34b47cacd9a98b5d150e084f24d29391c084c55272295ec65c85651bc35f4d6c",
            481_280,
        ),
    ),
    "none stated; images are of ImageNet: non-commercial research",
    "Khosla et al., Novel Dataset for Fine-Grained Image Categorization, CVPR Workshop 2011",
)
CARS = DataSource(
    "cars",
    "https://ai.stanford.edu/~jkrause/cars/car_dataset.html",
    (
        RemoteFile(
            "cars_train.tgz",
            "http://ai.stanford.edu/~jkrause/car196/cars_train.tgz",
            "512b227b30e2f0a8aab9e09485786ab4479582073a144998da74d64b801fd288",
            979_269_282,
        ),
        RemoteFile(
            "cars_test.tgz",
            "http://ai.stanford.edu/~jkrause/car196/cars_test.tgz",
            "bffea656d6f425cba3c91c6d83336e4c5f86c6cffd8975b0f375d3a10da8e243",
            977_350_468,
        ),
        RemoteFile(
            "car_devkit.tgz",
            "https://ai.stanford.edu/~jkrause/cars/car_devkit.tgz",
            "b97deb463af7d58b6bfaa18b2a4de9829f0f79e8ce663dfa9261bf7810e9accd",
            330_960,
        ),
        RemoteFile(
            "cars_test_annos_withlabels.mat",
            "http://ai.stanford.edu/~jkrause/car196/cars_test_annos_withlabels.mat",
            "790f75be8ea34eeded134cc559332baf23e30e91367e9ddca97d26ed9b895f05",
            185_758,
        ),
    ),
    "none stated; for research",
    "Krause et al., 3D Object Representations for Fine-Grained Categorization, ICCV Workshop 2013",
    "the original addresses are often unavailable; use any mirror with these checksums",
)
_SPECIES = "the species"


def _benchmark_task(
    name: str,
    classes: int,
    published_sizes: dict[str, int | None],
    split_spec: SplitSpec,
    label_description: str,
    source: DataSource,
    read_source: Callable[[DownloadDir], SourceData],
) -> BenchmarkTask:
    task = BenchmarkTask(
        name, "fgvc", "FGVC", classes, published_sizes, split_spec, label_description, source, read_source
    )
    return replace(task, resize="crop", augment="random_crop")


def _val_tenth(val: int) -> SplitSpec:
    return SplitSpec(f"train[{val}:]", f"train[:{val}]", "test")


FGVC = (
    _benchmark_task("cub", 200, {"train": 5_994, "test": 5_794}, _val_tenth(600), _SPECIES, CUB, birds.cub),
    _benchmark_task(
        "nabirds", 555, {"train": 23_929, "test": 24_633}, _val_tenth(2_393), "the species and plumage",
        NABIRDS, birds.nabirds,
    ),
    _benchmark_task(
        "flowers", 102, {"train": 1_020, "validation": 1_020, "test": 6_149},
        SplitSpec("train", "validation", "test"), _SPECIES, FLOWERS, flowers.flowers,
    ),
    _benchmark_task("dogs", 120, {"train": 12_000, "test": 8_580}, _val_tenth(1_200), "the breed", DOGS, stanford.dogs),
    _benchmark_task(
        "cars", 196, {"train": 8_144, "test": 8_041}, _val_tenth(815), "make, model and year", CARS, stanford.cars,
    ),
)  # fmt: skip
