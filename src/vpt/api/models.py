"""Arguments of the Python calls: their types, and what becomes of models, data and progress."""

import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypedDict

from vpt.api.progress import ConsoleCallback
from vpt.core.hub import local_path
from vpt.data.dataset import Dataset, Split
from vpt.data.folders.class_folders import has_split_folders
from vpt.data.memory.datasets import InMemoryData, dataset_from_memory, split_mapping
from vpt.data.memory.digest import digest_splits
from vpt.errors import DataError, SpecError
from vpt.model.load import load
from vpt.model.named_backbone import backbone_for
from vpt.model.tuned_file import read_header
from vpt.model.tuned_model import TunedModel
from vpt.tasks.base import Task
from vpt.tasks.registry import TASKS
from vpt.training import Callback, CallbackList, distributed

Model = str | Path | TunedModel
Data = str | Path | InMemoryData
SplitName = Literal["train", "val", "test"]
Device = Literal["auto", "cpu", "cuda", "mps"]


class TuneOptions(TypedDict, total=False):
    """Options of `tune` that are needed less often. None or a missing key leaves the default.

    Attributes:
        weights: File with local weights of the backbone (.safetensors, .pth, .npz). Default: timm's download.
        image_size: Side of the input in pixels. Default: that of the backbone.
        normalization: Mean and standard deviation of the input: those of the "backbone", of "imagenet" or of
            "inception" (0.5), or numbers such as "0.48,0.46,0.41/0.27,0.26,0.28". Default: "backbone".
        value_range: Values of black and white in images with more than 8 bits, such as "0,4095" for 12 bits in 16.
            Default: the range of their type.
        optimizer: "sgd" with momentum 0.9, or "adamw". Default: the method's; segmentation: "adamw".
        weight_decay: Default: the method's.
        decay: Tensors that weight decay is for: "matrices", "official" or "all". Default: "matrices".
        head_lr_scale: Learning rate of the head, relative to that of the rest. Default: 1; in classification with AdamW
            without `learning_rate`, what gives the head a peak of 0.005 at least.
        augment: "none", or terms joined by +: "flip", "vertical_flip", "random_crop", "random_resized_crop",
            "trivial_augment", "rand_augment(num_ops=2, magnitude=9)", "random_erasing(p=0.25)", "mixup(alpha=0.8)",
            "cutmix(alpha=1)"; segmentation: "full", "flip", "vertical_flip". Default: "none"; segmentation: "full".
        grad_accum_steps: Micro-batches of a step, to save memory. Default: 1.
        activation_checkpointing: True computes the activations of the blocks again in the backward pass: less memory, a
            third more time. Default: False.
        layer_decay: Learning rate of a layer of the backbone, relative to that of the next one. Default: 1.
        block_rates: Ranges of blocks, counted from 1, with the factor of their learning rate, such as
            "stem=0, 1-6=0, 7-12=0.1". Default: one rate.
        ema: Decay of an exponential moving average of the weights, which is scored and saved. Default: none.
        patience: Evaluations on val without a better metric after which training stops. Default: never.
        keep: "last" keeps the weights of the last epoch, "best" those of the best epoch on val. Default: "last".
        precision: "auto", "fp32" or "bf16". Default: "auto", which is bf16 on GPUs with hardware for it, and in a
            search on CPUs that are faster in it.
        train_on: "train" validates on val; "trainval" trains on both. Default: "train".
        val_fraction: Fraction of each class that is split off where val is missing. Default: 0.2.
        split_names: Names of the folders of splits, such as "train=Training,test=Testing"; "none" if all folders are
            classes. Default: recognized.
        split_seed: Seed of the splits. Default: `seed`.
        save_dtype: Type of the tensors in the tuned file, "fp32" or "fp16". Default: "fp32".
        warmup_epochs: Classification. Default: a tenth of the epochs, at most 10.
        probe_epochs: Classification: epochs in which the head trains alone first, on frozen features. Default: 0.
        probe_weight_decay: Classification: weight decay of those epochs. Default: 0.01.
        val_interval: Classification: epochs between two evaluations on val. Default: 1.
        test_fraction: Classification: fraction of each class that is split off where test is missing. Default: 0.2.
        folds: Classification: number of folds of a cross-validation, for data without a test split. Every image is
            scored by a model that did not train on it; the file is trained on all images. Default: none.
        calibrate: Classification: True scales the probabilities on val after training (temperature scaling). Default:
            False.
        init: Classification: tuned file that training continues from, with more images or new classes. Its method,
            backbone and preprocessing are kept, and the rows of its head by class name. Default: none.
        train_fraction: Classification: fraction of each class that trains. Default: 1.
        images_per_class: Classification: number of images of each class that train at most. Default: all.
        resize: Classification: "squash" the image to the square input, or "crop" its center. Default: "squash".
        crop_fraction: Classification: side of that crop, as a fraction of the image's short side. Default: the
            backbone's.
        interpolation: Classification: "nearest", "bilinear", "bicubic" or "lanczos". Default: the backbone's.
        cache: Classification: folder that keeps decoded images and frozen features. Default: none.
        skip_corrupt: True leaves unreadable images out. Default: False.
        loading: "cache" decodes every image once, "stream" whenever it is used. Default: "auto", which streams above
            4 GiB of decoded images.
        workers: Number of processes that decode a stream. Default: one a core, at most 8.
        ridge: Classification: penalty of a head that is solved by ridge regression; "auto" selects the one that
            predicts left-out training images best, and "none" adds no such head. With the method "linear", it replaces
            training; with others, its logits are averaged with those of the trained head. Default: "auto" for one class
            per image and a linear head of a method that trains more than it, unless a `head` of several blocks, `init`
            or class weights are given, and if it helps on left-out images.
        image_column: Classification: column of the paths of images, in tables of labels. Default: recognized.
        label_column: Classification: column of the labels, or columns of 0 and 1 joined by commas. Default: recognized.
        label_kind: Classification: "single_label", "multi_label" or "regression" in tables. Default: by the labels.
        split_column: Classification: column of train, val and test. Default: recognized.
        group_column: Classification: column of group ids, such as patients; splits and folds that vpt makes never
            divide a group. Default: "group", if there is one.
        eval_every: Segmentation: steps between evaluations on val. Default: 200.
        warmup_iterations: Segmentation. Default: 0.
        power: Segmentation: exponent of the learning rate schedule. Default: 0.9.
        loss: "ce" or "focal" for one class for each image, "bce" or "focal" for several, "l1" or "mse" for a number;
            segmentation: "ce", "dice" or "ce+dice". Default: "auto", the first of these.
        class_weights: "balanced" by the number of images, or a number for each class, such as "1,5"; segmentation:
            "none" or "balanced". Default: none.
        label_smoothing: Classification: label smoothing factor, as in `torch.nn.CrossEntropyLoss`. Default: 0.
        balanced_sampling: Classification: True samples all classes equally often, with replacement. Default: False.
        auxiliary_weight: Segmentation: weight of the loss of auxiliary heads. Default: 0.4.
        labels: Segmentation: "ade20k", "cityscapes", "voc", "camvid", "plain", ids such as "0,255", "colors" or "auto".
            Default: "auto", by layout.
        ignore_index: Segmentation: another id in masks that stands for no class. Default: none.
        reduce_zero_label: Segmentation: True if id 0 stands for no class and id 1 for the first. Default: False.
        images: Segmentation: name of the folder of images. Default: recognized.
        masks: Segmentation: name of the folder of masks. Default: recognized.
        mask_suffix: Segmentation: end of the name of a mask after that of its image, such as "_mask". Default:
            recognized.
        mask_orientation: Segmentation: orientation of masks for images with EXIF rotation: "upright" matches the
            rotated image, "stored" the stored pixels. Default: "auto", decided by the image sizes.
        val_as_test: Segmentation: True scores on val and splits another val off train. Default: False.
        lda: Segmentation: number of training images, or "all", whose linear discriminant a head `linear` becomes, in
            closed form: with the method `linear` instead of training, with others after it. Default: it is trained.
    """

    weights: str | Path | None
    image_size: int | None
    normalization: str | None
    value_range: str | None
    optimizer: Literal["sgd", "adamw"] | None
    weight_decay: float | None
    decay: Literal["matrices", "official", "all"] | None
    head_lr_scale: float | None
    augment: str | None
    grad_accum_steps: int | None
    activation_checkpointing: bool | None
    layer_decay: float | None
    block_rates: str | None
    ema: float | None
    patience: int | None
    keep: Literal["last", "best"] | None
    precision: Literal["auto", "fp32", "bf16"] | None
    train_on: Literal["train", "trainval"] | None
    val_fraction: float | None
    split_names: str | None
    split_seed: int | None
    save_dtype: Literal["fp32", "fp16"] | None
    warmup_epochs: float | None
    probe_epochs: int | None
    probe_weight_decay: float | None
    val_interval: int | None
    test_fraction: float | None
    folds: int | None
    calibrate: bool | None
    init: str | Path | None
    train_fraction: float | None
    images_per_class: int | None
    resize: Literal["squash", "crop"] | None
    crop_fraction: float | None
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] | None
    cache: str | Path | None
    skip_corrupt: bool | None
    loading: Literal["auto", "cache", "stream"] | None
    workers: int | None
    ridge: float | Literal["auto", "none"] | None
    image_column: str | None
    label_column: str | None
    label_kind: Literal["single_label", "multi_label", "regression"] | None
    split_column: str | None
    group_column: str | None
    eval_every: int | None
    warmup_iterations: int | None
    power: float | None
    loss: Literal["auto", "ce", "focal", "bce", "l1", "mse", "dice", "ce+dice"] | None
    class_weights: str | None
    label_smoothing: float | None
    balanced_sampling: bool | None
    auxiliary_weight: float | None
    labels: str | None
    ignore_index: int | None
    reduce_zero_label: bool | None
    images: str | None
    masks: str | None
    mask_suffix: str | None
    mask_orientation: Literal["auto", "upright", "stored"] | None
    val_as_test: bool | None
    lda: int | Literal["all"] | None


class PredictOptions(TypedDict, total=False):
    """Options of `predict`, which describes them."""

    top: int | None
    min_confidence: float | None
    skip_corrupt: bool | None
    scales: Sequence[float] | None
    flip: bool | None
    out: str | Path | None
    backbone: str | None
    weights: str | Path | None
    device: Device
    progress: bool
    callback: Callback | None


@contextmanager
def show_progress(shown: bool, callback: Callback | None) -> Iterator[Callback]:
    """Yield a callback, together with progress on the console if it is wanted and there is one.

    Args:
        shown: True shows progress.
        callback: Receiver of events, or None.

    Yields:
        The receiver of all events.
    """
    has_console = (sys.stderr.isatty() or "ipykernel" in sys.modules) and distributed.rank() == 0
    with ConsoleCallback() if shown and has_console else nullcontext() as console:
        yield CallbackList([receiver for receiver in (console, callback) if receiver is not None])


def open_model(model: Model, backbone: str | None, weights: str | Path | None, device: str) -> TunedModel:
    """Return the model of a tuned file, or the given model, on a device.

    Args:
        model: The tuned file, or a model.
        backbone: Name of the backbone of the file, or None.
        weights: File with local weights of the backbone of the file, or None.
        device: Name of a device; "auto" leaves a given model where it is.

    Returns:
        The model.

    Raises:
        SpecError: `backbone` or `weights` comes with a model.
    """
    if isinstance(model, TunedModel):
        if backbone is not None or weights is not None:
            raise SpecError("backbone and weights belong to a tuned file, and a model is given, which has both")
        changed = model.backbone.changed_weights()
        if changed:
            warnings.warn(model.backbone.describe_change(changed), stacklevel=3)
        return model if device == "auto" else model.to(distributed.resolve_device(device))
    target, local = distributed.resolve_device(device), None if weights is None else Path(weights)
    file = local_path(model)
    return load(file, backbone_for(file, read_header(file), backbone, local)).to(target)


def scored_data(
    model: Model, tuned: TunedModel, data: Any, split: str, classes: Sequence[str] | None
) -> tuple[str | Dataset, dict[str, Any]]:
    """Return data to be scored, and options of the splits that they lack.

    Data in memory are of the split, unless they are those of the training, which are split as they were then.

    Args:
        model: The tuned file, which knows the split of its training, or a model.
        tuned: The model of the file.
        data: A folder, the name of a built-in task, or data in memory.
        split: Name of the split, or "all".
        classes: Names of the classes of data in memory, or None.

    Returns:
        A folder, a name or a dataset, and the arguments of `load_dataset`.

    Raises:
        SpecError: `classes` comes with a folder.
        DataError: Data in memory lack the split, or cannot be read.
    """
    options = dict(tuned.split_options)
    digest = options.pop("digest", None)  # of training data in memory
    if not isinstance(data, str | Path | Dataset):
        name = "test" if split == "all" else split
        splits = split_mapping(data) if isinstance(data, Mapping) else {name: data}
        if name not in splits and split != "all":
            raise DataError(f"the data have no split {split}; they have {', '.join(splits)}")
        chosen = splits if split == "all" else {name: splits[name]}
        dataset = dataset_from_memory(chosen, classes, tuned.classes, tuned.label_kind.name)
        images = dataset.splits[name]
        may_be_training = digest is not None and not isinstance(data, Mapping)
        if may_be_training and digest_splits({"train": images}, dataset.classes) == digest:
            return replace(dataset, train=images, val=Split(), test=Split()), options
        return dataset, {"val_fraction": 0.0, "test_fraction": 0.0}
    if classes is not None:
        raise SpecError(f"classes belongs to data in memory, and {str(data)!r} is a folder or a built-in task")
    if not isinstance(data, Dataset) and not has_split_folders(Path(str(data)), options.get("split_names")):
        del options["split_names"]  # those of the training, which other data need not have
    return (data if isinstance(data, Dataset) else str(data)), options


def task_and_options(model: TunedModel, **options: dict[str, Any]) -> tuple[Task, dict[str, Any]]:
    """Return the task of a model, and its options that are given.

    Args:
        model: The model.
        **options: Options by the name of their task; None stands for one that is not given.

    Returns:
        The task, and values by the name of the option.

    Raises:
        SpecError: An option of another task is given.
    """
    task = TASKS["segmentation" if model.is_dense else "classification"]
    given = {name: {key: value for key, value in known.items() if value is not None} for name, known in options.items()}
    for other, values in given.items():
        if other != task.name and values:
            raise SpecError(f"{', '.join(values)}: for {other}, and the model is for {task.name}; leave it out")
    return task, given[task.name]
