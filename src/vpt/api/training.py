"""The call that trains."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Unpack

from vpt.api.models import Data, Device, TuneOptions, show_progress
from vpt.cross_validation import cross_validate
from vpt.data.dataset import Dataset
from vpt.data.label_kinds import KindName
from vpt.data.memory.datasets import InMemoryData, dataset_from_memory, split_mapping
from vpt.errors import SpecError
from vpt.search import SearchRequest, run_search, wants_search
from vpt.training import Callback
from vpt.training.distributed import resolve_device
from vpt.training.job import RunResult
from vpt.tuning import make_job, run_job


def tune(
    data: Data,
    out: str | Path | None = None,
    *,
    val: InMemoryData | None = None,
    test: InMemoryData | None = None,
    classes: Sequence[str] | None = None,
    task: Literal["auto", "classification", "segmentation"] = "auto",
    minutes: float | None = None,
    method: str | None = None,
    metric: Literal["auto", "top1", "macro_f1", "balanced_accuracy", "map", "r2", "mae"] | None = None,
    max_size: float | None = None,
    backbone: str | None = None,
    epochs: int | None = None,
    iterations: int | None = None,
    head: str | None = None,
    batch_size: int | Literal["auto"] | None = None,
    learning_rate: float | None = None,
    seed: int | None = None,
    device: Device = "auto",
    progress: bool = True,
    callback: Callback | None = None,
    overwrite: bool = False,
    **options: Unpack[TuneOptions],
) -> RunResult:
    """Adapt a frozen backbone to data and write one small file.

    Without `epochs`, `iterations`, `learning_rate`, `folds`, `init`, `lda` and `ridge` (a number or "auto"), search for
    the best model within `minutes`: first a probe of the frozen backbone, then prompts and other methods. The `search`
    of the result lists what was tried.

    The same call again resumes an interrupted run, and reads the result of a finished one. Next to the tuned file
    (pets.safetensors), a run directory (pets.run/) has the metrics, the curve, the confusion matrix and the result.

    Args:
        data: A folder with one folder of images per class, with or without train/, val/ and test/; tables of labels,
            such as "labels.csv" or "train.csv,test.csv", also JSON Lines and Parquet; a folder of images and masks; the
            name of a built-in task, such as "digits"; `(images, labels)` or `(images, labels, groups)` with images as a
            uint8 array (n, height, width, 3) or a list of paths, Pillow images, arrays or tensors; a torch `Dataset` of
            (image, label); a Hugging Face `Dataset` with the columns image, label and perhaps group; or a mapping of
            split names to these. Labels are integers from 0, or names of classes; 0 and 1 for each class (n, classes),
            which are single labels if each image has exactly one class (`label_kind="multi_label"` keeps them); or
            floats (n,), numbers to predict. Groups, texts or integers such as patients, stay whole in splits, folds and
            intervals.
        out: The tuned file, required for data in memory. Default: the name of the folder or task with the suffix
            ".safetensors".
        val: Validation images in memory. Default: a fraction of each class of `data`, see `val_fraction`.
        test: Test images in memory. Default: a fraction of each class of `data`, see `test_fraction`.
        classes: Names of the classes of data in memory, or of the number. Default: those of the data, or the labels
            themselves.
        task: "classification", "segmentation", or "auto" for segmentation of folders with masks. Default: "auto".
        minutes: Time of a search, from the call to the written file. Default: 10, on a GPU 5; no search if `epochs`,
            `iterations`, `learning_rate`, `folds`, `init`, `lda` or `ridge` (a number or "auto") is given.
        method: Text of a method, such as "vpt(length=10)" or "lora(rank=4)". Default: "vpt"; in a search, all that fit.
        metric: Classification: what a search counts, or, with a length, val for `keep` and `patience`: "top1",
            "macro_f1" or "balanced_accuracy"; several labels: "map"; numbers: "r2" or "mae". Default: the first.
        max_size: Largest tuned file of a search, in megabytes. Default: 10.
        backbone: A timm name, such as "vit_base_patch16_224.augreg_in21k", or several with commas, from which a search
            chooses. Default: the small embedded one, which needs no download and is meant for trying out.
        epochs: Passes over the training images, in classification. Default: a search; 100 without a search.
        iterations: Optimizer steps, in segmentation. Default: a search; 2000 without a search.
        head: Text of the head: "linear" or "multi_block(blocks=last4, features=cls+mean)"; in segmentation "setr_pup",
            "linear" or "fpn". Default: "linear"; segmentation: by backbone.
        batch_size: Images per step, or "auto" for the largest batch that fits into memory. Default: 16 for methods
            whose default optimizer is AdamW, 64 for others and with `learning_rate`; segmentation: 8.
        learning_rate: Learning rate per 256 images; the peak is learning_rate * batch_size / 256. Default: the
            method's; in classification with `epochs` and AdamW, its peak at 64 images for every batch size.
        seed: Seed of initialization, order, augmentation, and of missing splits. Default: 0.
        device: "auto" for the GPU if there is one, "cpu", "cuda" or "mps". Default: "auto".
        progress: True shows progress in a terminal or a notebook; False prints nothing. Default: True.
        callback: Receiver of events. Default: none.
        overwrite: True discards an earlier run; its tuned file stays until a new one replaces it. Default: False.
        **options: Options that are needed less often, see `vpt.TuneOptions`.

    Returns:
        The result, with metrics between 0 and 1 and paths of the files.

    Raises:
        SpecError: An option is unknown or out of range, or `out` belongs to a run with other settings.
        DataError: Images or labels cannot be used; the message names all of them.
        BackboneError: The backbone is unknown, or its weights cannot be loaded.
        UnsupportedError: The method does not fit the backbone.
        TrainingError: The loss diverged.
        StorageError: A file cannot be written.
    """
    started, source = time.monotonic(), _training_data(data, val, test, classes, options.get("label_kind"))
    given: dict[str, Any] = {
        "task": task, "backbone": backbone, "epochs": epochs, "iterations": iterations, "head": head,
        "batch_size": batch_size, "learning_rate": learning_rate, "seed": seed, **options,
    }  # fmt: skip
    with show_progress(progress, callback) as receiver:
        if not wants_search(minutes, given, max_size):
            is_auto = batch_size == "auto"
            job = make_job(source, out, method=method, metric=metric, **given)
            run = run_job if options.get("folds") is None else cross_validate
            return run(job, receiver, overwrite=overwrite, device=device, auto_batch_size=is_auto)
        request = SearchRequest.create(
            source, out, device=resolve_device(device), minutes=minutes, method=method, metric=metric,
            max_size=max_size, **given,
        )  # fmt: skip
        return run_search(request, receiver, overwrite=overwrite, device=device, started=started)


def _training_data(
    data: Any,
    val: InMemoryData | None,
    test: InMemoryData | None,
    classes: Sequence[str] | None,
    label_kind: KindName | None,
) -> str | Path | Dataset:
    """Return a folder or the name of a task as it is, and data in memory as a dataset."""
    if isinstance(data, str | Path | Dataset):
        if val is None and test is None and classes is None:
            return data
        raise SpecError(
            f"val, test and classes belong to data in memory, and {str(data)!r} is a folder or a built-in task; put "
            "folders train, val and test into the folder"
        )
    separate = {name: given for name, given in {"val": val, "test": test}.items() if given is not None}
    splits = split_mapping(data) if isinstance(data, Mapping) else {"train": data}
    for name in separate.keys() & splits.keys():
        raise SpecError(f"{name} is given twice, in the data and as {name}=; leave one of them out")
    if "train" not in splits:
        raise SpecError(f"the data have the splits {', '.join(splits)}, but no train; name the training images train")
    dataset = dataset_from_memory(splits | separate, classes, label_kind=label_kind)
    if label_kind not in (None, dataset.label_kind):
        raise SpecError(
            f"label_kind is {label_kind!r}, and the labels in memory are {dataset.label_kind}; leave it out"
        )
    return dataset
