"""Options that do not go with the kind of the labels, or with a head in closed form."""

import torch

from vpt.data.dataset import Dataset
from vpt.errors import SpecError
from vpt.methods.registry import parse_method
from vpt.tasks.classification.config import ClassificationConfig, ClassificationOptions
from vpt.tasks.classification.labels import fit_label_kind, label_task
from vpt.tasks.classification.ridge_head import check_penalty, trains_first

# Options of training, which ridge regression does not have.
_WEIGHTS_OF_CLASSES = ("class_weights", "balanced_sampling")  # which a head beside a trained one would not have
NOT_FOR_RIDGE = (
    *_WEIGHTS_OF_CLASSES, "loss", "label_smoothing", "augment", "probe_epochs", "ema", "patience", "keep",
    "layer_decay", "block_rates", "metric",
)  # fmt: skip


def check_options_of_labels(
    dataset: Dataset, config: ClassificationConfig, options: ClassificationOptions, method: str
) -> None:
    """Refuse options that the kind of the labels, or ridge regression, does not have.

    Args:
        dataset: The data.
        config: Configuration of the training.
        options: Other options of the job.
        method: Text of the method.

    Raises:
        SpecError: An option has no meaning there.
    """
    labels = label_task(fit_label_kind(dataset.train.labels))
    labels.check(config)
    for name in ("init", "calibrate"):
        value = getattr(options, name)
        if dataset.label_kind != "single_label" and value:
            raise SpecError(f"{name} is {value}, and the labels are {dataset.label_kind}; it needs one class an image")
    labels.make_loss(config, torch.from_numpy(dataset.train.labels), len(dataset.classes))
    if dataset.label_kind != "single_label" and options.images_per_class is not None:
        raise SpecError(
            f"images_per_class is {options.images_per_class}, and the labels are {dataset.label_kind}; write "
            "train_fraction instead"
        )
    penalty = options.penalty
    if penalty is not None:
        check_penalty(penalty)
    chosen, defaults = config.to_dict(), ClassificationConfig().to_dict()
    refused: tuple[str, ...] = ()
    if penalty is not None:
        refused = _WEIGHTS_OF_CLASSES if trains_first(parse_method(method), penalty) else NOT_FOR_RIDGE
    for name in refused:
        value = chosen[name]
        if value != defaults[name]:
            raise SpecError(f"{name} is {value} and ridge is {options.ridge}, which has no such option; leave one out")


def joins_by_default(dataset: Dataset, config: ClassificationConfig, options: ClassificationOptions) -> bool:
    """Return whether a ridge head may join the trained one although nobody asked for it.

    Args:
        dataset: The data.
        config: Configuration of the training.
        options: Other options of the job.

    Returns:
        True by default for one class an image without weights of classes, unless training goes on from a tuned file.
    """
    has_weights = any(getattr(config, name) for name in _WEIGHTS_OF_CLASSES)
    return (
        options.ridge == "default"
        and dataset.label_kind == "single_label"
        and options.init is None
        and not has_weights
    )  # fmt: skip
