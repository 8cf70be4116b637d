"""Options of semantic segmentation."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

from vpt.errors import SpecError
from vpt.methods.base import Method
from vpt.training.augmentation import parse_augmentation
from vpt.training.config import check_options
from vpt.training.task_config import TaskConfig, TaskOptions

_HEAD_LEARNING_RATE = 0.03  # per 256 images with AdamW: a step of 1e-3 at batch 8, for a head that starts from nothing


@dataclass(frozen=True)
class SegmentationOptions(TaskOptions):
    """Options for data and model that only segmentation has.

    Attributes:
        labels: Scheme of the mask ids, a row of `vpt.data.masks.schemes.LABEL_SCHEMES`, ids such as "0,255", or
            "colors"; "auto" follows the layout.
        ignore_index: Another id in masks that stands for no class, or None.
        reduce_zero_label: True if id 0 stands for no class and id 1 for the first.
        images: Name of the folder of images, or None where it is recognized.
        masks: Name of the folder of masks, or None where it is recognized.
        mask_suffix: End of the name of a mask after that of its image, such as "_mask", or None.
        mask_orientation: Masks of images that EXIF data turn are drawn on the "upright" image or on its pixels as
            "stored"; "auto" for what the sizes prove.
        val_as_test: True scores on the published val, and splits another val off train.
        lda: Number of training images, or "all", whose linear discriminant a head `linear` becomes, in closed form, see
            `vpt.tasks.segmentation.discriminant`. With the method `linear` nothing is trained; with others, this
            follows the training. None leaves the head as it is trained.
    """

    labels: str = "auto"
    ignore_index: int | None = None
    reduce_zero_label: bool = False
    images: str | None = None
    masks: str | None = None
    mask_suffix: str | None = None
    mask_orientation: Literal["auto", "upright", "stored"] = "auto"
    val_as_test: bool = False
    lda: int | Literal["all"] | None = None

    def __post_init__(self) -> None:
        """Check the values. A SpecError is raised for a value out of range."""
        super().__post_init__()
        if isinstance(self.lda, int) and self.lda < 1:
            raise SpecError(f'lda is {self.lda}; give the number of training images, at least 1, or "all"')

    @property
    def reading(self) -> dict[str, Any]:  # noqa: D102
        names = (
            "ignore_index", "reduce_zero_label", "images", "masks", "mask_suffix", "mask_orientation", "val_as_test",
        )  # fmt: skip
        return {name: getattr(self, name) for name in names if getattr(self, name) != getattr(type(self), name)}


@dataclass(frozen=True)
class SegmentationConfig(TaskConfig):
    """Training configuration of segmentation. It counts iterations, that is optimizer steps.

    After a linear warm-up the learning rate is peak * (1 - iteration / iterations) ** power.

    Attributes:
        training: Options that every task has.
        iterations: Number of iterations.
        eval_every: Iterations between two evaluations on val; each writes a checkpoint.
        power: Exponent of the learning rate schedule.
        warmup_iterations: Length of the warm-up in iterations.
        loss: "ce" for cross-entropy, "dice", or "ce+dice" for their sum.
        class_weights: "balanced" weights a class in cross-entropy, see `median_frequency_weights`.
        auxiliary_weight: Weight of the loss of each auxiliary head.
        augment: "full" scales by 0.5 to 2, crops, flips and jitters colors; "flip"; "vertical_flip"; terms joined by +;
            or "none", a crop at scale 1.
    """

    iterations: int = 2000
    eval_every: int = 200
    power: float = 0.9
    warmup_iterations: int = 0
    loss: Literal["ce", "dice", "ce+dice"] = "ce"
    class_weights: Literal["none", "balanced"] = "none"
    auxiliary_weight: float = 0.4
    augment: str = "full"

    task: ClassVar[str] = "segmentation"
    options_class: ClassVar[type[TaskOptions]] = SegmentationOptions
    crop_version: ClassVar[int] = 3  # 3: a crop without a labeled pixel is drawn again

    def __post_init__(self) -> None:
        """Check the values. A SpecError is raised for a value out of range."""
        check_options(self, iterations=1, eval_every=1)
        object.__setattr__(self, "augment", str(parse_augmentation(self.augment, self.task)))

    @classmethod
    def for_method(cls, method: Method, **options: Any) -> Self:
        """Return the default configuration of a method: AdamW, and a learning rate of its own for the head.

        Args:
            method: The method.
            **options: Options by name that replace the defaults. None leaves the default.

        Returns:
            The configuration.
        """
        given = {name: value for name, value in options.items() if value is not None}
        learning_rate = method.learning_rate if method.optimizer == "adamw" else _HEAD_LEARNING_RATE
        defaults = {"optimizer": "adamw", "learning_rate": learning_rate, "weight_decay": method.weight_decay}
        config = cls.from_dict({**defaults, "batch_size": 8, **given})
        if "head_lr_scale" in given or config.training.optimizer != "adamw":
            return config
        return config.replace(head_lr_scale=_HEAD_LEARNING_RATE / config.training.learning_rate)

    @property
    def num_epochs(self) -> int:
        """Number of evaluation intervals."""
        return math.ceil(self.iterations / self.eval_every)

    def lr_at(self, step: int, num_steps: int, steps_per_epoch: int) -> float:  # noqa: D102
        warmup_factor = min(1.0, (step + 1) / (self.warmup_iterations + 1))
        return float(self.training.peak_lr * warmup_factor * (1 - step / self.iterations) ** self.power)


def refuse_ineffective_weights(options: Mapping[str, Any]) -> None:
    """Refuse weights of classes where the loss has no term that they weigh.

    Plans may have such options together, as some of their rows have another loss.

    Args:
        options: Options that a user gives, by name.

    Raises:
        SpecError: There are weights, and the loss is Dice alone.
    """
    weights, loss = options.get("class_weights", "none"), options.get("loss", SegmentationConfig.loss)
    if weights != "none" and "ce" not in str(loss).split("+"):
        raise SpecError(
            f"class_weights is {weights}, which belongs to cross-entropy, and loss is {loss}; give the loss ce or "
            "ce+dice, or leave class_weights out"
        )
