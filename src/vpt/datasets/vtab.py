"""The 19 tasks of VTAB-1k: 800 images to train on, 200 to choose settings on, the whole test set.

After Zhai et al., A Large-scale Study of Representation Learning with the Visual Task Adaptation Benchmark
(arXiv 1910.04867), as its authors' task_adaptation defines the labels and the parts. Sizes and SHA-256 of files are
those that TensorFlow Datasets publishes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vpt.datasets.download_dir import Place
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
from vpt.datasets.prepared.records import Listing
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
from vpt.datasets.split_spec import Cut
from vpt.datasets.task import BenchmarkTask, Source

FIRST = (800, 200)
_NINETY = Cut("train[:90%]", "train[90%:]", "test", FIRST)
_EIGHTY = Cut("train[:80%]", "train[80%:]", "test", FIRST)
_GIVEN = Cut("train", "validation", "test", FIRST)
_SIXTY = Cut("train[:60%]", "train[60%:80%]", "train[80%:]", FIRST)
_CLEVR = Cut("train[:90%]", "train[90%:]", "validation", FIRST)
_SPRITES = Cut("train[:80%]", "train[80%:90%]", "train[90%:]", FIRST)
_NORB = Cut("train", "test[:50%]", "test[50%:]", FIRST)
_CLASS = "the class"


def _row(
    name: str,
    group: str,
    classes: int,
    published: dict[str, int | None],
    cut: Cut,
    rule: str,
    source: Source,
    read: Callable[[Place], Listing],
    **more: Any,
) -> BenchmarkTask:
    return BenchmarkTask(name, "vtab", group, classes, published, cut, rule, source, read, **more)


def _parts(train: int, validation: int | None = None, test: int | None = None) -> dict[str, int | None]:
    sizes = {"train": train, "validation": validation, "test": test}
    return {part: size for part, size in sizes.items() if size is not None}


VTAB = (
    _row(
        "cifar100", "Natural", 100, _parts(50_000, test=10_000), _NINETY, "the fine class", CIFAR, cifar.cifar100,
        names="cifar(num_classes=100)", community="cifar",
    ),
    _row(
        "caltech101", "Natural", 102, {"train": 3_060, "test": None}, _NINETY, "the class; background is one", CALTECH,
        folders.caltech101, community="caltech101",
        remark="the published train and test images were drawn by one machine and cannot be drawn again; 6,084 to test",
    ),
    _row(
        "dtd", "Natural", 47, _parts(1_880, 1_880, 1_880), _GIVEN, "the key attribute", DTD, textlists.dtd,
        names="dtd", community="dtd",
    ),
    _row(
        "flowers102", "Natural", 102, _parts(1_020, 1_020, 6_149), _GIVEN, _CLASS, FLOWERS, flowers.flowers,
        names="oxford_flowers102", community="oxford_flowers102",
    ),
    _row(
        "pets", "Natural", 37, _parts(3_680, test=3_669), _EIGHTY, "the breed", PETS, textlists.pets,
        names="oxford_iiit_pet", community="oxford_iiit_pet",
    ),
    _row(
        "svhn", "Natural", 10, _parts(73_257, test=26_032), _NINETY, "the digit; stored 10 is 0", SVHN, svhn.svhn,
        community="svhn",
    ),
    _row(
        "sun397", "Natural", 397, _parts(76_128, 10_875, 21_750), _GIVEN, "the scene", SUN, textlists.sun397,
        names="sun397", community="sun397",
        remark="published figures used images scaled to at most 120,000 pixels and stored as JPEG again",
    ),
    _row(
        "camelyon", "Specialized", 2, _parts(262_144, 32_768, 32_768), _GIVEN, "tumour in the centre, or not", CAMELYON,
        camelyon.camelyon, names="patch_camelyon", community="patch_camelyon",
    ),
    _row(
        "eurosat", "Specialized", 10, _parts(27_000), _SIXTY, _CLASS, EUROSAT, folders.eurosat,
        names="eurosat", community="eurosat",
    ),
    _row(
        "resisc45", "Specialized", 45, _parts(31_500), _SIXTY, _CLASS, RESISC, folders.resisc45,
        names="resisc45", community="resisc45",
    ),
    _row(
        "retinopathy", "Specialized", 5, _parts(35_126, 10_906, 42_670), _GIVEN, "the grade, 0 to 4", RETINOPATHY,
        retinopathy.retinopathy,
        names='diabetic_retinopathy(config="btgraham-300")', community="diabetic_retinopathy",
        remark="published figures used images scaled to an eye of 300 px radius, less their local average, as JPEG "
        "again (btgraham-300); these are the originals",
    ),
    _row(
        "clevr_count", "Structured", 8, _parts(70_000, 15_000), _CLEVR, "objects in the scene, 3 to 10", CLEVR,
        clevr.count, names='clevr(task="count_all")', community="clevr_count",
    ),
    _row(
        "clevr_dist", "Structured", 6, _parts(70_000, 15_000), _CLEVR,
        "depth of the closest object: up to 8, 8.5, 9, 9.5, 10, beyond", CLEVR, clevr.distance,
        names='clevr(task="closest_object_distance")', community="clevr_dist",
    ),
    _row(
        "dmlab", "Structured", 6, _parts(65_550, 22_628, 22_735), _GIVEN,
        "close, far or very far from an object of positive or negative reward", DMLAB, dmlab.dmlab,
        names="dmlab", community="dmlab",
    ),
    _row(
        "kitti", "Structured", 4, _parts(6_347, 423, 711), _GIVEN,
        "depth of the closest car, van or truck: up to 8 m, 20 m, beyond, none", KITTI, kitti.kitti,
        names='kitti(task="closest_vehicle_distance")', community="kitti",
    ),
    _row(
        "dsprites_loc", "Structured", 16, _parts(737_280), _SPRITES, "the x position (32 values), in 16 bins", DSPRITES,
        dsprites.location, community="dsprites_loc",
    ),
    _row(
        "dsprites_ori", "Structured", 16, _parts(737_280), _SPRITES, "the orientation (40 values), in 16 bins",
        DSPRITES, dsprites.orientation, community="dsprites_ori",
    ),
    _row(
        "snorb_azi", "Structured", 18, _parts(24_300, test=24_300), _NORB, "the azimuth, in steps of 20 degrees",
        SMALLNORB, smallnorb.azimuth, community="smallnorb_azi",
    ),
    _row(
        "snorb_ele", "Structured", 9, _parts(24_300, test=24_300), _NORB, "the elevation, in steps of 5 degrees",
        SMALLNORB, smallnorb.elevation, community="smallnorb_ele",
    ),
)  # fmt: skip
