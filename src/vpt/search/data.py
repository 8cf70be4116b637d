"""The images of a search: all of them, or a stratified sample where one pass over them does not fit the budget."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vpt.core.text import format_duration
from vpt.data.dataset import Dataset, Split
from vpt.data.decoding.arrays import decode
from vpt.data.loading import load_dataset
from vpt.data.splits import fill_missing_splits
from vpt.data.training_marks import make_marks
from vpt.search.budget import Costs, images_that_fit, measure
from vpt.search.context import SearchContext
from vpt.search.sampling import choose_subset, is_limited, labeled_images, limit_images, limits_of
from vpt.tasks.classification.config import ClassificationConfig, ClassificationOptions
from vpt.tasks.classification.label_checks import check_options_of_labels
from vpt.tasks.classification.prepared_data import ClassificationData
from vpt.tasks.classification.task import ClassificationTask
from vpt.training import DeviceDataset, Examples, parse_augmentation
from vpt.training.block_features import BlockFeatureNetwork, FeatureTable, compute_block_features
from vpt.training.job import Job
from vpt.training.run_directory import write_job

_TRIED = 8  # images that measure the cost of all
_STEP_PER_FORWARD = 3.0  # cost of a training step of prompts, of a frozen pass, before it is measured
_SPLITS = ("train", "val", "test")
_FEWEST_OF_EACH = 2  # images of a class that train, however little time there is
_FEWEST_TESTS = 10  # test images, however little time there is
_FEWEST_IMAGES = 960  # of an epoch that is worth its time where it decides on the sample


@dataclass(frozen=True)
class Pool:
    """The images that a search learns and chooses from, and those that only measure its result.

    Attributes:
        data: Prepared data: "train", "val" and "test", as far as they exist.
        options: Options of the job that select these images.
        train_on: Split that a job on all of them trains on.
        examples: The images that the probe learns from.
        num_train: Number of them that belong to train; the others are those of val.
        features: Their features, (n, width).
        val_features: Features of val where these images take no part, or None.
        table: Columns of the features.
        costs: Seconds of an image.
        device: Device of the models.
        marks: Marks of all images that the probe learns from, see `vpt.data.training_marks`.
    """

    data: ClassificationData
    options: dict[str, Any]
    train_on: str
    examples: Examples
    num_train: int
    features: NDArray[np.float16]
    val_features: NDArray[np.float16] | None
    table: FeatureTable
    costs: Costs
    device: torch.device
    marks: list[str]

    @property
    def labels(self) -> NDArray[Any]:
        """Labels of the images that the probe learns from (n, ...)."""
        return self.examples.labels

    @property
    def groups(self) -> NDArray[np.int64] | None:
        """Group of each of these images (n,), or None if every image is on its own."""
        return self.examples.groups

    @property
    def held_out(self) -> Examples | None:
        """The images of val, or None without any."""
        return self.data.decoded.get("val")

    @property
    def held_out_features(self) -> NDArray[np.float16]:
        """Features of the images of val."""
        return self.features[self.num_train :] if self.val_features is None else self.val_features

    @property
    def takes_all(self) -> bool:
        """True if the probe learns from train and val."""
        return self.val_features is None and self.held_out is not None

    def job_data(self, job: Job, train: Examples) -> ClassificationData:
        """Return the data of a job that trains on some of these images and is not validated while it trains.

        Args:
            job: The job.
            train: The images that train.

        Returns:
            The data, with the test images.
        """
        tests = {name: examples for name, examples in self.data.decoded.items() if name == "test"}
        decoded = {"train": train, **tests}
        sizes = {name: len(examples) for name, examples in decoded.items()}
        config, options = job.config, job.options
        assert isinstance(config, ClassificationConfig) and isinstance(options, ClassificationOptions)
        readout = ClassificationTask().make_readout(job.head, self.data.backbone)
        marks = self.data.trained_on if job.train_on == "train" else self.marks
        return replace(
            self.data, decoded=decoded, images=sizes, config=config, readout=readout, ridge=options.penalty,
            notes=list(self.data.notes), trained_on=marks,
        )  # fmt: skip

    def write_job(self, job: Job) -> None:
        """Write job.json and run.toml of a job on these images, in place of those of another one.

        Args:
            job: The job.
        """
        data = self.data if job.train_on == "train" else self.job_data(job, self.examples)
        (job.run_dir / "job.json").unlink(missing_ok=True)
        write_job(job, data.digest())


def list_images(job: Job) -> tuple[Dataset, dict[str, Any]]:
    """List images without decoding them. Where classes are too small for a split, it is left out.

    Args:
        job: A job on the data.

    Returns:
        The dataset, and the options of the job that make these splits.
    """
    assert isinstance(job.options, ClassificationOptions)
    seed, fractions = job.split_options["seed"], {"val_fraction": job.val_fraction}
    fractions["test_fraction"] = job.options.test_fraction
    dataset = load_dataset(job.data, **{**job.split_options, **dict.fromkeys(fractions, 0.0)})
    assert isinstance(job.config, ClassificationConfig)
    check_options_of_labels(dataset, job.config, job.options, job.method)
    counts = dataset.train.group_counts(len(dataset.classes))
    smallest, largest = int(counts[counts > 0].min()), int(counts.max())
    splits_test = not len(dataset.test) and fractions["test_fraction"] > 0
    if splits_test and (smallest < 2 or largest < 3):  # a second image of some class has to train
        splits_test, fractions["test_fraction"] = False, 0.0
    if not len(dataset.val) and smallest < (3 if splits_test else 2):  # test comes first: left-out images can choose
        fractions["val_fraction"] = 0.0
    return fill_missing_splits(dataset, seed=seed, **fractions), fractions


def load_pool(context: SearchContext, job: Job, dataset: Dataset, fractions: dict[str, Any]) -> Pool:
    """Decode the images that fit the budget, and compute the features of every block in one pass.

    Args:
        context: The search.
        job: A job on the data, with the backbone.
        dataset: The images of `list_images`.
        fractions: Its options.

    Returns:
        The images.
    """
    assert isinstance(job.options, ClassificationOptions)
    budget, callback, device = context.budget, context.callback, context.device
    task, seed = ClassificationTask(), job.config.training.seed
    backbone = task.load_backbone(job)
    network, bf16 = BlockFeatureNetwork(backbone, device), job.config.training.use_bf16(device)

    limited, whole = is_limited(job), dataset.trainval()
    if limited:  # no other labels take part in the choice
        dataset = replace(dataset, train=labeled_images(dataset, job), val=Split())

    def choose_sample() -> dict[str, Any]:
        tried = dataset.train.select(np.linspace(0, len(dataset.train) - 1, _TRIED).astype(np.int64))
        progress = partial(callback.on_data_progress, "measuring")
        with measure(budget.clock) as decoding:
            pixels = decode(tried, backbone.preprocessing, skip_corrupt=True, progress=progress)
        examples = DeviceDataset(Examples(pixels.images, pixels.labels), backbone.preprocessing, device)
        compute_block_features(network, examples, bf16=bf16)  # the first pass allocates memory
        with measure(budget.clock) as forward:
            compute_block_features(network, examples, bf16=bf16, on_batch=progress)
        per_forward = forward.seconds / len(pixels)
        costs = Costs(decoding.seconds / len(tried), per_forward, _STEP_PER_FORWARD * per_forward)
        total = len(dataset.train) + len(dataset.val)
        train, test = images_that_fit(budget.seconds, budget.elapsed, costs, total, len(dataset.test), _FEWEST_IMAGES)
        least = min(total, _FEWEST_OF_EACH * len(dataset.classes))
        test_share = max(test, min(len(dataset.test), _FEWEST_TESTS)) / max(1, len(dataset.test))
        return {"train": max(train, least) / total, "test": test_share, "costs": vars(costs), "scarce": train < least}

    sample = context.decisions.decide("sample", choose_sample)
    costs, fraction = Costs(**sample["costs"]), float(sample["train"])
    per_class = _FEWEST_OF_EACH if sample.get("scarce") and dataset.label_kind == "single_label" else None
    if sample.get("scarce") and not limited:  # so few that those of val have to train, too
        limited, dataset = True, replace(dataset, train=whole, val=Split())
    if sample["train"] < 1:
        total = len(dataset.train) + len(dataset.val)
        seconds = format_duration(total * (costs.decode + costs.forward))
        share = f"{_FEWEST_OF_EACH} images" if per_class else f"{100 * fraction:.0f} %"
        callback.on_note(
            f"{share} of each class train, as decoding and one pass over {total} training images take {seconds}, and "
            "an epoch of training about three times as long; a larger --minutes takes all"
        )
    if 0 < sample["test"] < 1:
        callback.on_note(f"{100 * sample['test']:.0f} % of the test images measure; a larger --minutes takes all")
    splits = {
        name: choose_subset(dataset, name, sample["test"] if name == "test" else fraction, seed) for name in _SPLITS
    }
    if limited:
        splits["train"] = limit_images(whole, dataset, job, fraction, per_class)
    listed = replace(dataset, train=splits["train"], val=splits["val"], test=splits["test"])
    plain = replace(job.options, test_fraction=0.0, train_fraction=1.0, images_per_class=None, loading="cache")
    prepared = task.prepare(replace(job, data=listed, val_fraction=0.0, train_on="train", options=plain), callback)
    prepared = replace(prepared, notes=list(dict.fromkeys(prepared.notes)))
    for note in prepared.notes:
        callback.on_note(note)

    context.check_images(job, prepared.digest())  # before features of earlier images can be taken for theirs
    examples, val = prepared.decoded["train"], prepared.decoded.get("val")
    crops = parse_augmentation(job.config.augment).crop is not None
    takes_all = val is not None and fraction == 1 and not crops and not isinstance(examples.pixels, np.memmap)
    num_train = len(examples)
    if takes_all and val is not None:
        pixels = np.concatenate([examples.pixels, val.pixels])
        both = examples.groups is not None and val.groups is not None
        groups = np.concatenate([examples.groups, val.groups]) if both else None
        examples = Examples(pixels, np.concatenate([examples.labels, val.labels]), groups=groups)
        kept = {  # which share the memory of the pixels
            "train": replace(prepared.decoded["train"], pixels=pixels[:num_train]),
            "val": replace(val, pixels=pixels[num_train:]),
        }
        prepared = replace(prepared, decoded={**prepared.decoded, **kept})
    folder = job.run_dir / "search"

    def features(name: str, given: Examples) -> NDArray[np.float16]:
        images = DeviceDataset(given, prepared.backbone.preprocessing, device)
        progress = partial(callback.on_data_progress, f"features of {name}")
        return compute_block_features(
            network, images, bf16=bf16, path=folder / f"features-{name}.npy", on_batch=progress
        )

    options = {**fractions, **limits_of(job, fraction, per_class)}
    val_features = None if takes_all or val is None else features("val", val)
    train_on = "trainval" if limited or takes_all else "train"
    marks = make_marks(listed.trainval().images) if takes_all else prepared.trained_on
    train_features = features("train", examples)
    return Pool(
        prepared,
        options,
        train_on,
        examples,
        num_train,
        train_features,
        val_features,
        network.table,
        costs,
        device,
        marks,
    )
