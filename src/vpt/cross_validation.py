"""k-fold cross-validation: each image is scored by a model that did not train on it, then one model trains on all.

The model of each fold lies in the run directory of the job (`pets.run/fold-1.safetensors`), as a job of its own, so
that an interrupted cross-validation goes on where it was.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import vstack

from vpt.data.dataset import Dataset, Split
from vpt.data.folds import assign_folds
from vpt.data.loading import load_dataset
from vpt.errors import DataError, SpecError
from vpt.model import tuned_file
from vpt.model.load import load
from vpt.model.named_backbone import backbone_for
from vpt.tasks.classification.config import ClassificationOptions
from vpt.tasks.classification.continuation import class_names, join_classes
from vpt.tasks.classification.earlier_defaults import as_begun
from vpt.tasks.classification.prediction import evaluate
from vpt.tasks.evaluation import OUT_OF_FOLD, make_evaluation
from vpt.training import Callback, Scores, distributed
from vpt.training.job import Job, RunResult
from vpt.training.output_lock import lock_run
from vpt.training.run_directory import files_may_differ, open_run, write_result
from vpt.training.run_inputs import stamp_data
from vpt.tuning import run_job

# Of options that folds decide on.
_DEFAULTS: dict[str, Any] = {
    "val_fraction": Job.val_fraction,
    "train_on": Job.train_on,
    "test_fraction": ClassificationOptions.test_fraction,
}
# Of options that need val images.
_DEFAULTS_WITHOUT_VAL = {"patience": 0, "keep": "last", "calibrate": False}


def cross_validate(
    job: Job,
    callback: Callback | None = None,
    *,
    overwrite: bool = False,
    device: str = "auto",
    auto_batch_size: bool = False,
) -> RunResult:
    """Run a job of classification with folds (`job.options.folds`), resume it, or read its result.

    Args:
        job: The job.
        callback: Receiver of progress. Default: none.
        overwrite: True begins anew; the tuned file stays until another one replaces it. Default: False.
        device: "auto", "cpu", "cuda" or "mps". Default: "auto".
        auto_batch_size: True is refused, as each fold would find a batch size of its own. Default: False.

    Returns:
        The result of the model that trained on all images. Its metrics are those of the images out of their folds, and
        `folds` has the main metric of each fold, its mean and its 95 % interval.

    Raises:
        SpecError: The batch size is to be found, or options split images off or need val images.
        DataError: The data have a test split, or a class with too few images.
    """
    if auto_batch_size:
        raise SpecError("batch_size is 'auto', and each fold would find one of its own; give a number with folds")
    receiver, options = callback or Callback(), job.options
    assert isinstance(options, ClassificationOptions) and options.folds is not None
    whole = replace(job, val_fraction=0.0, train_on="trainval", options=replace(options, test_fraction=0.0))
    asked, used = job.to_dict(), whole.to_dict()
    for name, default in _DEFAULTS.items():
        if asked[name] not in (default, used[name]):
            raise SpecError(f"{name} is {asked[name]!r}, and folds test every image and train on all; leave it out")
    for name, default in _DEFAULTS_WITHOUT_VAL.items():
        value = (asked | asked["config"])[name]
        if value != default:
            raise SpecError(f"{name} is {value!r}, and --folds leaves no val images for it; leave one of them out")
    with lock_run(whole):
        return _cross_validate(whole, options, receiver, overwrite, device)


def _cross_validate(
    job: Job, options: ClassificationOptions, receiver: Callback, overwrite: bool, device: str
) -> RunResult:
    assert options.folds is not None
    if not overwrite:
        job = as_begun(job)
    finished = open_run(job, receiver, overwrite=overwrite)
    if finished is not None and finished.folds is not None and not files_may_differ(job):
        return finished
    dataset = load_dataset(job.data, **job.split_options)
    if len(dataset.test):
        raise DataError(
            f"{dataset.name} has {len(dataset.test)} test images, which score a model without cross-validation; leave "
            "--folds out, or give a folder without a test split"
        )
    if dataset.label_kind != "single_label":
        raise SpecError(
            f"folds is {options.folds}, and the labels are {dataset.label_kind}; folds need one class an image"
        )
    if options.init is not None:
        dataset = join_classes(dataset, class_names(options.init))  # the order of the classes of each fold's model
    config: Any = job.config
    if config.metric != "auto":
        raise SpecError(
            f"metric is {config.metric}, and folds are scored by the main metric of their labels; leave it out"
        )
    images = dataset.trainval()
    assigned = assign_folds(images, dataset.classes, options.folds, job.split_options["seed"])
    scores = []
    for fold in range(options.folds):
        receiver.on_note(f"fold {fold + 1} of {options.folds}")
        scores.append(_score_fold(job, dataset, images, assigned == fold, fold, receiver, device))
    receiver.on_note("all images")
    pooled = _pool(scores)
    evaluation = make_evaluation(OUT_OF_FOLD, int(pooled.confusion.sum()), pooled, dataset.classes)
    result = run_job(job, receiver, device=device, evaluation=evaluation, lock=False)
    if result.folds is None:
        metric, values = next(iter(evaluation.metrics)), [next(iter(each.metrics.values())) for each in scores]
        found = {
            "metric": metric,
            "scores": values,
            "mean": float(np.mean(values)),
            "confidence_interval": list(evaluation.intervals[metric]),
        }
        result = replace(result, folds=found)
        if distributed.rank() == 0:
            write_result(job, result)
    return result


def _score_fold(
    job: Job, dataset: Dataset, images: Split, held_out: NDArray[np.bool_], fold: int, callback: Callback, device: str
) -> Scores:
    """Train on all images but those of a fold, and return the scores of these."""
    train, test = (images.select(np.flatnonzero(chosen)) for chosen in (~held_out, held_out))
    digest = hashlib.sha256(stamp_data(job).encode() + images.labels.tobytes() + held_out.tobytes())
    digest.update("\0".join(images.names).encode("utf-8", "surrogateescape"))
    name = f"{dataset.name}, fold {fold + 1}"
    data = Dataset(name, dataset.classes, train, Split(), test, dataset.source, digest=digest.hexdigest())
    out = job.run_dir / f"fold-{fold + 1}.safetensors"
    assert isinstance(job.options, ClassificationOptions)
    fold_job = replace(job, data=data, out=out, train_on="train", options=replace(job.options, folds=None))
    run_job(fold_job, callback, device=device, draw=False, lock=False)
    backbone = backbone_for(out, tuned_file.read_header(out), job.backbone, job.weights)
    model = load(out, backbone).to(distributed.resolve_device(device))
    skip_corrupt = fold_job.to_dict()["skip_corrupt"]
    return evaluate(model, data, "test", callback, skip_corrupt=skip_corrupt)


def _pool(scores: Sequence[Scores]) -> Scores:
    """Return the scores of all folds together."""
    sizes = np.array([each.counts.shape[0] for each in scores])
    groups = None
    if all(each.groups is not None for each in scores):
        groups = np.concatenate([each.groups for each in scores if each.groups is not None])
    return Scores(
        confusion=np.sum([each.confusion for each in scores], axis=0),
        loss=float(np.average([each.loss for each in scores], weights=sizes)),
        bins=np.sum([each.bins for each in scores if each.bins is not None], axis=0),
        counts=vstack([each.counts for each in scores], format="csr"),
        groups=groups,
    )
