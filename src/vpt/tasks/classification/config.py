"""Options of classification."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from vpt.data.label_kinds import KindName
from vpt.data.tables.columns import TableColumns
from vpt.errors import SpecError
from vpt.methods.base import Method
from vpt.tasks.classification.metrics import METRICS
from vpt.training.augmentation import parse_augmentation
from vpt.training.config import MAX_INT, TrainingConfig, check_options
from vpt.training.task_config import TaskConfig, TaskOptions

SMALL_BATCH = 16  # images per step, where steps decide

_HEAD_LEARNING_RATE = 0.02  # per 256 images for batches of 64, with AdamW

_PROBE: dict[str, Any] = {
    "optimizer": "sgd", "learning_rate": 0.2, "batch_size": 64, "grad_accum_steps": 1, "head_lr_scale": 1.0, "ema": 0.0,
    "patience": 0, "keep": "last", "layer_decay": 1.0, "block_rates": None, "metric": "auto",
}  # fmt: skip
_REGRESSION_LEARNING_RATE = 0.004  # per 256 images with AdamW: a step of 1e-3 at batch 64


def read_class_weights(text: str) -> list[float]:
    """Return the numbers of a text.

    Args:
        text: Numbers above 0, with commas.

    Returns:
        The numbers.

    Raises:
        SpecError: The text holds something else.
    """
    try:
        numbers = [float(number) for number in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or not all(0 < number < math.inf for number in numbers):
        raise SpecError(f"class_weights is {text!r}; write balanced, or a number above 0 for each class, such as 1,5")
    return numbers


@dataclass(frozen=True)
class ClassificationOptions(TaskOptions):
    """Options for data and model that only classification has.

    Attributes:
        test_fraction: Fraction of the images that is split off as test where test is missing.
        train_fraction: Fraction of each class that trains, as in the paper's data scaling; val and test stay whole.
        images_per_class: Number of images of each class that train at most, or None for all; val and test stay whole.
        resize: "squash" the image to the square input, as VTAB-1k, or "crop" its center.
        crop_fraction: Side of that crop, as a fraction of the image's short side, or None for that of the backbone.
        interpolation: "nearest", "bilinear" (VTAB-1k), "bicubic" or "lanczos", or None for that of the backbone.
        cache: Folder that keeps decoded images and frozen features for other jobs on the same images, or None.
        ridge: Penalty of a linear head that is solved for by ridge regression, or None or "none". "auto" takes the one
            with the lowest smoothed log loss on training images that are left out. With the method `linear`, the head
            is not trained. With others, the ridge head reads the features of `head` through the trained method, and the
            logits are the mean of its own and of those of the trained head, which reads the pooled feature. "default"
            is "auto" for one class an image where no `head` of several blocks, `init` or weights of classes are given,
            beside a linear head of a method that trains more than it, and if left-out images are predicted better than
            by the shares of the classes; else it is "none".
        image_column: Column of the paths of images, in tables of labels, or None where it is recognized.
        label_column: Column of the labels, or columns of 0 and 1 joined by commas, or None where it is recognized.
        label_kind: "single_label", "multi_label" or "regression" in tables, or None to tell by the labels.
        split_column: Column of the splits, or None where it is recognized.
        group_column: Column of groups of images that splits and folds keep whole, or None where it is recognized.
        folds: Number of folds of a cross-validation, for data without a test split, or None for none.
        calibrate: True scales the probabilities on val after training.
        init: Tuned file that training continues from, with more images or new classes, or None.
    """

    test_fraction: float = 0.2
    train_fraction: float = 1.0
    images_per_class: int | None = None
    resize: Literal["squash", "crop"] = "squash"
    crop_fraction: float | None = None
    interpolation: str | None = None
    cache: Path | None = None
    ridge: float | Literal["auto", "default", "none"] | None = None
    image_column: str | None = None
    label_column: str | None = None
    label_kind: KindName | None = None
    split_column: str | None = None
    group_column: str | None = None
    folds: int | None = None
    calibrate: bool = False
    init: Path | None = None

    @property
    def reading(self) -> dict[str, Any]:  # noqa: D102
        return dict(TableColumns.of(vars(self)).given)

    def __post_init__(self) -> None:
        """Check the values. A SpecError is raised for a value out of range."""
        super().__post_init__()
        for name in ("cache", "init"):
            if (given := getattr(self, name)) is not None:
                object.__setattr__(self, name, Path(given))

    @property
    def penalty(self) -> float | Literal["auto"] | None:
        """Penalty of a ridge head that was asked for, or None."""
        return None if self.ridge == "default" or self.ridge == "none" else self.ridge


def refuse_ineffective_crop(options: Mapping[str, Any]) -> None:
    """Refuse the side of a crop where images are not cropped.

    Plans may have such options together, as some of their tasks crop.

    Args:
        options: Options that a user gives, by name.

    Raises:
        SpecError: There is a side, and images are squashed.
    """
    fraction = options.get("crop_fraction")
    if fraction is not None and options.get("resize", ClassificationOptions.resize) != "crop":
        raise SpecError(
            f"crop_fraction is {fraction}, and images are squashed, not cropped; set resize to crop, or leave it out"
        )


def default_steps(method: Method, given: Mapping[str, Any], *, fresh_head: bool = True) -> dict[str, Any]:
    """Return options of a training with the batch size and the rates that `vpt tune` has by default.

    Methods that train with AdamW take small batches, and so many steps: with few images, steps decide how much a method
    learns. The peak rate is the one that the method has at the usual batch size, whatever the batch size is, as Adam
    does not follow the linear rule. A head that starts at random learns at the rate of prompts at least: the gradients
    of the backbone are of no use before it has learned something.

    Args:
        method: The method.
        given: Options by name, which stay as they are.
        fresh_head: The head starts at random, unless `probe_epochs` are given. Default: True.

    Returns:
        `given`, with a rate, and with a batch size and a rate of the head where none are given; alone if a rate or
        another optimizer is given, or if the method trains with SGD.
    """
    is_adamw = method.optimizer == given.get("optimizer", "adamw") == "adamw"
    if not is_adamw or "learning_rate" in given:
        return dict(given)
    micro_batches = given.get("grad_accum_steps", 1)
    least = micro_batches if isinstance(micro_batches, Integral) else 1
    batch_size = given.get("batch_size", max(SMALL_BATCH, int(least)))
    if not (isinstance(batch_size, Integral) and 1 <= int(batch_size) <= MAX_INT):
        return dict(given)  # and is refused
    rate = method.learning_rate * TrainingConfig.batch_size / int(batch_size)
    head: dict[str, Any] = {}
    if fresh_head and not given.get("probe_epochs"):
        head = {"head_lr_scale": max(1.0, _HEAD_LEARNING_RATE / method.learning_rate)}
    return {**head, **given, "batch_size": batch_size, "learning_rate": rate}


@dataclass(frozen=True)
class ClassificationConfig(TaskConfig):
    """Training configuration of classification (paper, section 4 and appendix A).

    The learning rate rises linearly in the warm-up and then decays as a cosine to 0. It changes with every step.

    Attributes:
        training: Options that every task has.
        epochs: Passes over the training images.
        warmup_epochs: Length of the warm-up in epochs.
        augment: "none" (VTAB-1k), or terms of `vpt.training.augmentation` joined by +: "flip"; "vertical_flip";
            "random_crop" and flip (FGVC); "random_resized_crop" and flip, which is usual for linear probes;
            "trivial_augment"; "rand_augment"; "random_erasing"; "mixup"; "cutmix". If only the head trains, the
            features of sixteen random resized crops of each image are computed once; each epoch takes one, or the whole
            image. The probe of `probe_epochs` does the same if it reads the feature that the backbone's own head reads.
        probe_epochs: Epochs in which the head trains alone first (linear probing, then tuning: Kumar et al., ICLR
            2022), with SGD on features that are computed once. 0 is the protocol of the paper.
        probe_weight_decay: Weight decay of those epochs.
        val_interval: Epochs between two evaluations on val. The last epoch always has one. Where training images are
            few and val is not, a larger value saves most of the time.
        loss: "ce" (one class for each image), "bce" (several), "focal" (either), "l1" or "mse" (a number), or "auto"
            for "ce", "bce" or "l1".
        class_weights: "balanced" by the number of images; a number for each class, such as "1,5"; or None.
        label_smoothing: Fraction of the target that is spread over all classes.
        balanced_sampling: True draws the images of an epoch with replacement, each class as often.
        metric: Metric on val, which `keep` and `patience` follow, and the main one of the result: "top1", "macro_f1",
            "balanced_accuracy"; for several labels "map"; for numbers "r2" or "mae"; or "auto" for the first of these.
    """

    epochs: int = 100
    warmup_epochs: float = 10
    augment: str = "none"
    probe_epochs: int = 0
    probe_weight_decay: float = 0.01
    val_interval: int = 1
    loss: Literal["auto", "ce", "bce", "focal", "l1", "mse"] = "auto"
    class_weights: str | None = None
    label_smoothing: float = 0.0
    balanced_sampling: bool = False
    metric: Literal["auto", "top1", "macro_f1", "balanced_accuracy", "map", "r2", "mae"] = "auto"

    task: ClassVar[str] = "classification"
    options_class: ClassVar[type[TaskOptions]] = ClassificationOptions

    def __post_init__(self) -> None:
        """Check the values. A SpecError is raised for a value out of range."""
        minimums = {"epochs": 1, "val_interval": 1, "warmup_epochs": 0, "probe_epochs": 0, "probe_weight_decay": 0}
        check_options(self, **minimums, label_smoothing=0)
        object.__setattr__(self, "augment", str(parse_augmentation(self.augment, self.task)))
        if self.label_smoothing >= 1:
            raise SpecError(f"label_smoothing is {self.label_smoothing}; it must be below 1")
        if self.label_smoothing and self.loss == "focal":
            raise SpecError(
                f"label_smoothing is {self.label_smoothing}, for the loss ce, and loss is focal; leave it out"
            )
        if self.class_weights not in (None, "balanced"):
            read_class_weights(self.class_weights)

    @classmethod
    def for_method(cls, method: Method, *, label_kind: KindName = "single_label", **options: Any) -> Self:
        """Return the default configuration of a method, with a tenth of the epochs as warm-up.

        The rates of SGD suit losses of classes. To predict a number, AdamW replaces it.

        Args:
            method: The method.
            label_kind: Kind of the labels. Default: "single_label".
            **options: Options by name that replace the defaults. None leaves the default.

        Returns:
            The configuration.
        """
        given = {name: value for name, value in options.items() if value is not None}
        defaults = {name: getattr(method, name) for name in ("optimizer", "learning_rate", "weight_decay")}
        if label_kind == "regression" and method.optimizer == "sgd" and given.get("optimizer", "adamw") == "adamw":
            defaults |= {"optimizer": "adamw", "learning_rate": _REGRESSION_LEARNING_RATE}
        config = cls.from_dict({**defaults, **given})
        return config if "warmup_epochs" in given else config.replace(warmup_epochs=min(10.0, config.epochs / 10))

    @property
    def num_epochs(self) -> int:
        """Number of passes over the training images."""
        return self.epochs

    @property
    def metric_sign(self) -> int:  # noqa: D102
        return 1 if self.metric == "auto" else METRICS[self.metric].sign

    def validates_after(self, epoch: int) -> bool:  # noqa: D102
        return (epoch + 1) % self.val_interval == 0 or epoch + 1 == self.epochs

    def lr_at(self, step: int, num_steps: int, steps_per_epoch: int) -> float:  # noqa: D102
        peak = self.training.peak_lr
        warmup = min(round(self.warmup_epochs * steps_per_epoch), num_steps - 1)
        if step < warmup:
            return peak * (step + 1) / (warmup + 1)
        return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (num_steps - warmup)))

    def probe_config(self) -> Self:
        """Return the configuration in which the head trains alone, on features that are computed once."""
        return self.replace(
            **_PROBE,
            weight_decay=self.probe_weight_decay,
            epochs=self.probe_epochs,
            warmup_epochs=self.probe_epochs / 10,
            probe_epochs=0,
            augment="random_resized_crop" if "random_resized_crop" in self.augment else "none",
        )
