"""The 19 tasks of VTAB-1k: 800 images for training, 200 for selecting settings, and the whole test set.

Zhai et al., A Large-scale Study of Representation Learning with the Visual Task Adaptation Benchmark (arXiv
1910.04867). Labels and splits follow the authors' task_adaptation. Sizes and SHA-256 are those of TensorFlow Datasets.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vpt.datasets.download_dir import DownloadDir
from vpt.datasets.layouts import (
    camelyon,
    cifar,
    clevr,
    dmlab,
    dsprites,
    flowers,
    folders,
    kitti,
    retinopathy,
    smallnorb,
    svhn,
    textlists,
)
from vpt.datasets.prepared.records import SourceData
from vpt.datasets.sources import (
    CALTECH,
    CAMELYON,
    CIFAR,
    CLEVR,
    DMLAB,
    DSPRITES,
    DTD,
    EUROSAT,
    FLOWERS,
    KITTI,
    PETS,
    RESISC,
    RETINOPATHY,
    SMALLNORB,
    SUN,
    SVHN,
)
from vpt.datasets.split_spec import SplitSpec
from vpt.datasets.task import BenchmarkTask, DataSource

LIMITS = (800, 200)
_TRAIN_90 = SplitSpec("train[:90%]", "train[90%:]", "test", LIMITS)
_TRAIN_80 = SplitSpec("train[:80%]", "train[80%:]", "test", LIMITS)
_PUBLISHED = SplitSpec("train", "validation", "test", LIMITS)
_TRAIN_60 = SplitSpec("train[:60%]", "train[60%:80%]", "train[80%:]", LIMITS)
_CLEVR = SplitSpec("train[:90%]", "train[90%:]", "validation", LIMITS)
_SPRITES = SplitSpec("train[:80%]", "train[80%:90%]", "train[90%:]", LIMITS)
_NORB = SplitSpec("train", "test[:50%]", "test[50%:]", LIMITS)
_CLASS = "the class"


def _benchmark_task(
    name: str,
    group: str,
    classes: int,
    published_sizes: dict[str, int | None],
    split_spec: SplitSpec,
    label_description: str,
    source: DataSource,
    read_source: Callable[[DownloadDir], SourceData],
    **options: Any,
) -> BenchmarkTask:
    return BenchmarkTask(
        name, "vtab", group, classes, published_sizes, split_spec, label_description, source, read_source, **options
    )


def _sizes(train: int, validation: int | None = None, test: int | None = None) -> dict[str, int | None]:
    sizes = {"train": train, "validation": validation, "test": test}
    return {split_name: size for split_name, size in sizes.items() if size is not None}


VTAB = (
    _benchmark_task(
        "cifar100", "Natural", 100, _sizes(50_000, test=10_000), _TRAIN_90, "the fine class", CIFAR, cifar.cifar100,
        published_names_key="cifar(num_classes=100)", community_name="cifar",
    ),
    _benchmark_task(
        "caltech101", "Natural", 102, {"train": 3_060, "test": None}, _TRAIN_90, "the class, including background",
        CALTECH, folders.caltech101, community_name="caltech101",
        remark="the published train and test images were drawn at random and cannot be reproduced; 6,084 for test",
    ),
    _benchmark_task(
        "dtd", "Natural", 47, _sizes(1_880, 1_880, 1_880), _PUBLISHED, "the key attribute", DTD, textlists.dtd,
        published_names_key="dtd", community_name="dtd",
    ),
    _benchmark_task(
        "flowers102", "Natural", 102, _sizes(1_020, 1_020, 6_149), _PUBLISHED, _CLASS, FLOWERS, flowers.flowers,
        published_names_key="oxford_flowers102", community_name="oxford_flowers102",
    ),
    _benchmark_task(
        "pets", "Natural", 37, _sizes(3_680, test=3_669), _TRAIN_80, "the breed", PETS, textlists.pets,
        published_names_key="oxford_iiit_pet", community_name="oxford_iiit_pet",
    ),
    _benchmark_task(
        "svhn", "Natural", 10, _sizes(73_257, test=26_032), _TRAIN_90, "the digit; stored 10 is 0", SVHN, svhn.svhn,
        community_name="svhn",
    ),
    _benchmark_task(
        "sun397", "Natural", 397, _sizes(76_128, 10_875, 21_750), _PUBLISHED, "the scene", SUN, textlists.sun397,
        published_names_key="sun397", community_name="sun397",
        remark="published results used images scaled to at most 120,000 pixels and stored as JPEG again",
    ),
    _benchmark_task(
        "camelyon", "Specialized", 2, _sizes(262_144, 32_768, 32_768), _PUBLISHED, "tumor in the center, or not",
        CAMELYON, camelyon.camelyon, published_names_key="patch_camelyon", community_name="patch_camelyon",
    ),
    _benchmark_task(
        "eurosat", "Specialized", 10, _sizes(27_000), _TRAIN_60, _CLASS, EUROSAT, folders.eurosat,
        published_names_key="eurosat", community_name="eurosat",
    ),
    _benchmark_task(
        "resisc45", "Specialized", 45, _sizes(31_500), _TRAIN_60, _CLASS, RESISC, folders.resisc45,
        published_names_key="resisc45", community_name="resisc45",
    ),
    _benchmark_task(
        "retinopathy", "Specialized", 5, _sizes(35_126, 10_906, 42_670), _PUBLISHED, "the grade, 0 to 4", RETINOPATHY,
        retinopathy.retinopathy,
        published_names_key='diabetic_retinopathy(config="btgraham-300")', community_name="diabetic_retinopathy",
        remark="published results used images scaled to a radius of 300 px, minus the local average, stored as JPEG "
        "(btgraham-300); these are the original images",
    ),
    _benchmark_task(
        "clevr_count", "Structured", 8, _sizes(70_000, 15_000), _CLEVR, "objects in the scene, 3 to 10", CLEVR,
        clevr.count, published_names_key='clevr(task="count_all")', community_name="clevr_count",
    ),
    _benchmark_task(
        "clevr_dist", "Structured", 6, _sizes(70_000, 15_000), _CLEVR,
        "depth of the closest object: up to 8, 8.5, 9, 9.5, 10, beyond", CLEVR, clevr.distance,
        published_names_key='clevr(task="closest_object_distance")', community_name="clevr_dist",
    ),
    _benchmark_task(
        "dmlab", "Structured", 6, _sizes(65_550, 22_628, 22_735), _PUBLISHED,
        "close, far or very far from an object of positive or negative reward", DMLAB, dmlab.dmlab,
        published_names_key="dmlab", community_name="dmlab",
    ),
    _benchmark_task(
        "kitti", "Structured", 4, _sizes(6_347, 423, 711), _PUBLISHED,
        "depth of the closest car, van or truck: up to 8 m, 20 m, beyond, none", KITTI, kitti.kitti,
        published_names_key='kitti(task="closest_vehicle_distance")', community_name="kitti",
    ),
    _benchmark_task(
        "dsprites_loc", "Structured", 16, _sizes(737_280), _SPRITES, "the x position (32 values), in 16 bins", DSPRITES,
        dsprites.location, community_name="dsprites_loc",
    ),
    _benchmark_task(
        "dsprites_ori", "Structured", 16, _sizes(737_280), _SPRITES, "the orientation (40 values), in 16 bins",
        DSPRITES, dsprites.orientation, community_name="dsprites_ori",
    ),
    _benchmark_task(
        "snorb_azi", "Structured", 18, _sizes(24_300, test=24_300), _NORB, "the azimuth, in steps of 20 degrees",
        SMALLNORB, smallnorb.azimuth, community_name="smallnorb_azi",
    ),
    _benchmark_task(
        "snorb_ele", "Structured", 9, _sizes(24_300, test=24_300), _NORB, "the elevation, in steps of 5 degrees",
        SMALLNORB, smallnorb.elevation, community_name="smallnorb_ele",
    ),
)  # fmt: skip
