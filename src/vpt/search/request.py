"""Request of a search: data, a budget, and the options that it is not to decide."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from vpt.backbones import DEFAULT
from vpt.core.text import did_you_mean
from vpt.data.dataset import Dataset
from vpt.errors import SpecError
from vpt.methods.registry import parse_method
from vpt.tasks.classification.metrics import METRICS
from vpt.tasks.registry import find_task
from vpt.training.job import Job
from vpt.tuning import make_job

_FIXED_LENGTH = (
    "epochs",
    "iterations",
    "learning_rate",
    "ridge",
    "lda",
    "folds",
    "init",
)  # options that say how to train
_FORMAT = 2  # of the record of a search: another one cannot be resumed or read
_MORE_THAN_DEFAULTS = ("batch_size", "head_lr_scale", "probe_epochs", "ridge")  # replace recipes where they are given
_MINUTES, _MINUTES_ON_GPU = 10.0, 5.0


def wants_search(minutes: float | None, options: Mapping[str, Any], max_size: float | None = None) -> bool:
    """Return True if a search is to decide how to train.

    Args:
        minutes: The budget, or None.
        options: Options of the job by name; None for those that are not given.
        max_size: Largest tuned file in megabytes. Default: not given.

    Returns:
        True for a budget, and where none of `epochs`, `iterations`, `learning_rate`, `folds`, `init`, `lda` and
        `ridge` (a number or "auto") is given.

    Raises:
        SpecError: A budget, or `max_size`, is given together with one of these.
    """
    given = [name for name in _FIXED_LENGTH if options.get(name) is not None]
    if options.get("ridge") in ("default", "none"):  # which say nothing about the length
        given.remove("ridge")
    if minutes is not None and given:
        raise SpecError(
            f"minutes is {minutes:g} and {given[0]} is {options[given[0]]}: the budget finds what the other fixes; "
            "leave one of them out"
        )
    if max_size is not None and given:
        raise SpecError(
            f"max_size is {max_size:g} and {given[0]} is {options[given[0]]}: the size limits what a search tries, and "
            "the other trains without a search; leave one of them out"
        )
    return not given


@dataclass(frozen=True)
class SearchRequest:
    """A search, as it was asked for.

    Attributes:
        data: A folder, the name of a built-in task, or a dataset in memory.
        out: The tuned file, or None for the name of the data.
        task: Name of the task.
        minutes: The budget, from the start of the command to the written file.
        method: Text of the only method beside the probe, or None for all that fit.
        metric: What counts, a key of `vpt.tasks.classification.metrics.METRICS`, or "auto" for the first of the kind of
            the labels; mean IoU in segmentation.
        max_size: Largest tuned file in megabytes, of methods that the search chooses itself.
        backbones: Names of the backbones to choose from.
        options: Other options of `vpt.tuning.make_job`, which hold for every candidate.
    """

    data: str | Path | Dataset
    out: Path | None
    task: str
    minutes: float
    method: str | None = None
    metric: str = "auto"
    max_size: float = 10.0
    backbones: tuple[str, ...] = (DEFAULT,)
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def create(
        cls,
        data: str | Path | Dataset,
        out: str | Path | None,
        *,
        device: torch.device,
        task: str = "auto",
        minutes: float | None = None,
        method: str | None = None,
        metric: str | None = None,
        max_size: float | None = None,
        backbone: str | None = None,
        **options: Any,
    ) -> SearchRequest:
        """Return the request of options by name.

        Args:
            data: A folder, the name of a built-in task, or a dataset in memory.
            out: The tuned file, or None for the name of the data.
            device: Device of the models.
            task: "classification", "segmentation" or "auto". Default: "auto".
            minutes: The budget. Default: 10, on a GPU 5.
            method: Text of the only method beside the probe. Default: all that fit.
            metric: A key of `vpt.tasks.classification.metrics.METRICS`. Default: the first of the kind of the labels.
            max_size: Largest tuned file in megabytes. Default: 10.
            backbone: A timm name, or several with commas. Default: the embedded one.
            **options: Other options of `vpt.tuning.make_job`. None leaves the default.

        Returns:
            The request.

        Raises:
            SpecError: An option is unknown or out of range.
        """
        found = find_task(task, str(data), options)
        if minutes is None:
            minutes = _MINUTES if device.type == "cpu" else _MINUTES_ON_GPU
        if not 0 < minutes < float("inf"):
            raise SpecError(f"minutes is {minutes:g}; it must be above 0")
        if max_size is not None and not max_size > 0:
            raise SpecError(f"max_size is {max_size:g} MB; it must be above 0")
        metric = metric or "auto"
        if metric not in ("auto", *METRICS):
            raise SpecError(f"metric is {metric!r}; {did_you_mean(metric, METRICS)}")
        if found.name != "classification" and metric != "auto":
            raise SpecError(f"metric is {metric!r}, and {found.name} counts {next(iter(found.metrics))}; leave it out")
        for name in ("loss", "class_weights", "label_smoothing", "balanced_sampling"):
            is_none = name == "class_weights" and options.get(name) == "none" and found.name == "segmentation"
            if not is_none and options.get(name) not in (None, False, 0, "auto"):
                raise SpecError(
                    f"{name} is {options[name]!r}, and a search has no such option, as its baseline has none; give a "
                    "length such as epochs or iterations, or leave it out"
                )
        for name in ("patience", "keep", "batch_size", "calibrate", "optimizer"):
            if options.get(name) not in (None, False, "last") and (name != "batch_size" or options[name] == "auto"):
                raise SpecError(
                    f"{name} is {options[name]!r}, and a search itself finds how to train, and how long; give a length "
                    "such as epochs, or leave it out"
                )
        if options.get("loading") == "stream" and found.name == "classification":
            raise SpecError(
                "loading is 'stream', and a search reads decoded images many times; leave it out, or give epochs"
            )
        if options.get("train_on") not in (None, "train"):
            raise SpecError(
                f"train_on is {options['train_on']!r}, and a search itself decides which images train; give a length "
                "such as epochs, or leave it out"
            )
        names = tuple(dict.fromkeys(name.strip() for name in (backbone or DEFAULT).split(",")))
        if "" in names:
            raise SpecError(f"backbone is {backbone!r}, with a comma beside which there is no name; leave it out")
        if len(names) > 1 and options.get("weights") is not None:
            raise SpecError(f"weights belong to one backbone, and {len(names)} are given; leave them to be downloaded")
        given = {name: value for name, value in options.items() if value is not None and name != "train_on"}
        if given.get("ridge") == "default":
            del given["ridge"]  # the same request
        text = None if method is None else str(parse_method(method))
        path = None if out is None else Path(out)
        request = cls(
            data, path, found.name, minutes, text, metric, 10.0 if max_size is None else max_size, names,
            given,
        )  # fmt: skip
        request.job(names[0], "linear")  # names every fault of the other options
        return request

    def job(self, backbone: str, method: str, fixed: Mapping[str, Any] | None = None, **recipe: Any) -> Job:
        """Return the job of a candidate.

        Args:
            backbone: Name of the backbone.
            method: Text of the method.
            fixed: Options that the search has decided on. Default: none.
            **recipe: Options of the candidate. Options that were given replace them.

        Returns:
            The job.
        """
        without_ridge = {"ridge": "none"} if self.task == "classification" else {}
        options = {**without_ridge, **recipe, **self.options, **(fixed or {})}
        return make_job(self.data, self.out, task=self.task, method=method, backbone=backbone, **options)

    def to_dict(self) -> dict[str, Any]:
        """Return everything that was asked for as JSON values, options that are defaults included."""
        job = self.job(self.backbones[0], "linear").to_dict()
        options = {name: value for name, value in job.items() if name not in ("method", "backbone")}
        options["given"] = {name: self.options.get(name) for name in _MORE_THAN_DEFAULTS}
        as_json = {"data": str(self.data), "out": str(self.out), "backbones": list(self.backbones), "options": options}
        return {"format": _FORMAT, **vars(self), **as_json}
