"""The call that scores."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from vpt.api.models import Data, Device, Model, SplitName, open_model, scored_data, show_progress, task_and_options
from vpt.data.tables.columns import TableColumns
from vpt.tasks.evaluation import Evaluation
from vpt.training import Callback


def evaluate(
    model: Model,
    data: Data,
    *,
    split: SplitName = "test",
    classes: Sequence[str] | None = None,
    split_seed: int | None = None,
    min_confidence: float | None = None,
    foreign: str | Path | None = None,
    false_accept: float | None = None,
    skip_corrupt: bool | None = None,
    loading: Literal["auto", "cache", "stream"] | None = None,
    workers: int | None = None,
    scales: Sequence[float] | None = None,
    flip: bool | None = None,
    labels: str | None = None,
    ignore_index: int | None = None,
    reduce_zero_label: bool | None = None,
    images: str | None = None,
    masks: str | None = None,
    mask_suffix: str | None = None,
    mask_orientation: Literal["auto", "upright", "stored"] | None = None,
    split_names: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    label_kind: Literal["single_label", "multi_label", "regression"] | None = None,
    split_column: str | None = None,
    group_column: str | None = None,
    pictures: bool = False,
    backbone: str | None = None,
    weights: str | Path | None = None,
    device: Device = "auto",
    progress: bool = False,
    callback: Callback | None = None,
) -> Evaluation:
    """Measure a tuned file on labeled images.

    Args:
        model: The tuned file, or a model that `vpt.load` or `vpt.attach` returned.
        data: As for `tune`. A folder without the split is measured whole; if it holds images that the file was trained
            on, it is split as in training instead, so that no training image is measured. So are the data in memory of
            the training, given in the same form. Other data in memory are measured whole, and of a mapping of split
            names to data, the split.
        split: "train", "val" or "test". Default: "test".
        classes: Names of the classes of data in memory. Default: those of the data, or those of the model.
        split_seed: Seed of missing splits. Default: the one that the file names, also of a loaded model; else 0.
        min_confidence: Least probability of the most likely class, in classification; `rejection` says how many images
            reach it. Default: none, or the one that `false_accept` gives.
        foreign: Folder of images of none of the classes, in classification, whose acceptance is measured. Default:
            none.
        false_accept: Share of the foreign images that may be accepted, in classification. Default: 0.05.
        skip_corrupt: True leaves unreadable images out. Default: False.
        loading: "cache" decodes the images before the model runs, "stream" while it runs, in classification. Default:
            "auto", which streams above 4 GiB of decoded images.
        workers: Number of processes that decode a stream, in classification. Default: one a core, at most 8.
        scales: Scales of the image whose probabilities are averaged, in segmentation. Default: (1.0,).
        flip: True averages with the mirrored image, in segmentation. Default: False.
        labels: Scheme of the mask ids, in segmentation: "ade20k", "cityscapes", "voc", "camvid", "plain", "auto", ids
            such as "0,255", or "colors". Default: that of the training, else "auto", by layout.
        ignore_index: Another id in masks that stands for no class, in segmentation. Default: that of the training.
        reduce_zero_label: True if id 0 stands for no class and id 1 for the first, in segmentation. Default: that of
            the training.
        images: Name of the folder of images, in segmentation. Default: that of the training, else recognized.
        masks: Name of the folder of masks, in segmentation. Default: that of the training, else recognized.
        mask_suffix: End of the name of a mask after that of its image, in segmentation. Default: that of the training,
            else recognized.
        mask_orientation: Masks of images that EXIF data turn, in segmentation: drawn on the "upright" image or on its
            pixels as "stored". Default: that of the training, else "auto", what the sizes prove.
        split_names: Names of the folders of splits, such as "train=Training,test=Testing", or "none". Default:
            those of the training, else recognized.
        image_column: Column of the paths of images, in tables of labels. Default: that of the training, else
            recognized.
        label_column: Column of the labels. Default: that of the training, else recognized.
        label_kind: Kind of the labels of tables. Default: that of the training.
        split_column: Column of train, val and test. Default: that of the training, else recognized.
        group_column: Column of groups of images that splits keep whole. Default: that of the training, else "group".
        pictures: True lets `Evaluation.pictures` return pictures of predictions; the scores then hold the model and the
            images in memory. Default: False.
        backbone: Name of the backbone. Default: the one that the file names.
        weights: File with local weights of the backbone. Default: timm's download.
        device: "auto" for the GPU if there is one, "cpu", "cuda" or "mps". A given model stays where it is with "auto".
            Default: "auto".
        progress: True shows progress in a terminal or a notebook. Default: False.
        callback: Receiver of events. Default: none.

    Returns:
        The scores, between 0 and 1: `metrics["top1"]`, `metrics["map"]` of several labels, `metrics["r2"]` of numbers
        (and `metrics["mae"]` in their unit), or `metrics["miou"]` in segmentation.

    Raises:
        SpecError: An option belongs to the other task.
        DataError: Images cannot be used, or the split is empty, has a class that the model does not know, or has images
            that the file was trained on, as the images or the seed changed since.
        TunedFileError: The tuned file is damaged, or made for another backbone.
        BackboneError: The backbone cannot be loaded.
    """
    tuned = open_model(model, backbone, weights, device)
    of_masks = {
        "scales": scales, "flip": flip, "labels": labels, "ignore_index": ignore_index,
        "reduce_zero_label": reduce_zero_label, "images": images, "masks": masks, "mask_suffix": mask_suffix,
        "mask_orientation": mask_orientation,
    }  # fmt: skip
    of_classes = {
        "loading": loading, "workers": workers, "min_confidence": min_confidence, "foreign": foreign,
        "false_accept": false_accept, "image_column": image_column, "label_column": label_column,
        "label_kind": label_kind, "split_column": split_column, "group_column": group_column,
    }  # fmt: skip
    task, options = task_and_options(tuned, classification=of_classes, segmentation=of_masks)
    options |= {} if skip_corrupt is None else {"skip_corrupt": skip_corrupt}
    source, split_options = scored_data(model, tuned, data, split, classes)
    given = {"seed": split_seed, "split_names": split_names}
    split_options |= {name: value for name, value in given.items() if value is not None}
    if labels is not None:  # which say anew what the ids stand for
        split_options.pop("ignore_index", None)
        split_options.pop("reduce_zero_label", None)
    if task.name == "classification":
        options["given_columns"] = tuple(TableColumns.of(options).given)
    with show_progress(progress, callback) as receiver:
        evaluation = task.evaluate(tuned, source, split, split_options | options, receiver)
    return evaluation if pictures else replace(evaluation, pictures=list)
