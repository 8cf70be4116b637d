"""A job and its result, for every task."""

import json
import math
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, Self

from vpt.backbones import DEFAULT
from vpt.core.text import did_you_mean
from vpt.data.dataset import Dataset
from vpt.data.images.value_range import parse_value_range
from vpt.data.preprocessing import Preprocessing, read_normalization
from vpt.errors import SpecError
from vpt.methods.registry import parse_method
from vpt.training.config import check_options
from vpt.training.task_config import TaskConfig, TaskOptions


@dataclass(frozen=True)
class Job:
    """Everything that decides the result of a run.

    Attributes:
        data: A folder, tables of labels, the name of a built-in task, or a dataset in memory.
        out: The tuned file.
        config: Training configuration of the task.
        options: Options for data and model that only this task has.
        method: Text of the method.
        backbone: Name of a timm model.
        weights: File with local weights of the backbone, or None.
        image_size: Side of the input in pixels, or None for that of the backbone.
        normalization: Mean and standard deviation of the input: those of the "backbone", of "imagenet" or of
            "inception" (0.5), or numbers such as "0.48,0.46,0.41/0.27,0.26,0.28".
        value_range: Values of black and white in images with more than 8 bits, such as "0,4095", or None for the range
            of their type.
        head: Text of the head, such as "multi_block(blocks=last4)" or "fpn", or None for the default of the task.
        train_on: "train" validates on val; "trainval" trains on both, as the last step of VTAB-1k.
        val_fraction: Fraction of the training images that is split off where val is missing.
        split_names: Names of the folders of splits, such as "train=Training,test=Testing"; "none" if all folders are
            classes; None where they are recognized.
        split_seed: Seed of that split and of the images of a built-in task, or None for the training seed.
        test: False leaves the test split unopened.
        save_dtype: Data type of the tensors in the tuned file.
        activation_checkpointing: True computes the activations of the blocks again in the backward pass: less memory, a
            third more time.
    """

    data: str | Dataset
    out: Path
    config: TaskConfig
    options: TaskOptions
    method: str = "vpt"
    backbone: str = DEFAULT
    weights: Path | None = None
    image_size: int | None = None
    normalization: str = "backbone"
    value_range: str | None = None
    head: str | None = None
    train_on: Literal["train", "trainval"] = "train"
    val_fraction: float = 0.2
    split_names: str | None = None
    split_seed: int | None = None
    test: bool = True
    save_dtype: Literal["fp32", "fp16"] = "fp32"
    activation_checkpointing: bool = False

    def __post_init__(self) -> None:
        """Check the options before images are read and weights are downloaded."""
        check_options(self)
        if self.weights is not None:
            object.__setattr__(self, "weights", Path(self.weights))
        read_normalization(self.normalization)
        if self.value_range is not None:
            parse_value_range(self.value_range)

    @classmethod
    def create(cls, data: str | Path | Dataset, out: str | Path, config: TaskConfig, **options: Any) -> Self:
        """Return a job.

        Args:
            data: A folder, the name of a built-in task, or a dataset in memory.
            out: The tuned file.
            config: Training configuration of the task.
            **options: Attributes of `Job` and options of the task by name. Missing ones have their defaults.

        Returns:
            The job.

        Raises:
            SpecError: An option is unknown, or one of another task.
        """
        task_names = {option.name for option in fields(config.options_class)}
        job_names = {option.name for option in fields(cls)} - {"data", "out", "config", "options"}
        unknown = next((name for name in options if name not in task_names | job_names), None)
        if unknown is not None:
            known = task_names | job_names | config.option_names()
            raise SpecError(f"{unknown} is no option of {config.task}; {did_you_mean(unknown, known)}")
        own = config.options_class(**{name: options.pop(name) for name in task_names & options.keys()})
        return cls(data if isinstance(data, Dataset) else str(data), Path(out), config, own, **options)

    @property
    def run_dir(self) -> Path:
        """The run directory, beside the tuned file."""
        return self.out.with_suffix(".run")

    @property
    def checkpoint(self) -> Path:
        """The file that an interrupted run resumes from."""
        return self.run_dir / "checkpoint.safetensors"

    @property
    def split_options(self) -> dict[str, Any]:
        """Options of the split into train, val and test, for data without splits of their own."""
        seed = self.config.training.seed if self.split_seed is None else self.split_seed
        fractions = {"val_fraction": self.val_fraction}
        if hasattr(self.options, "test_fraction"):
            fractions["test_fraction"] = self.options.test_fraction
        names = {} if self.split_names is None else {"split_names": self.split_names}
        return {"seed": seed, **fractions, **names, **self.options.reading}

    def preprocess(self, backbone: Preprocessing) -> Preprocessing:
        """Return the preprocessing with the options that every task has.

        Args:
            backbone: The preprocessing of the backbone.

        Returns:
            The preprocessing of the job.
        """
        value_range = None if self.value_range is None else parse_value_range(self.value_range)
        return replace(backbone.with_normalization(self.normalization), value_range=value_range)

    def to_dict(self) -> dict[str, Any]:
        """Return everything that decides the result as JSON values."""
        values = vars(self) | {"config": self.config.to_dict(), "method": str(parse_method(self.method))}
        values |= asdict(values.pop("options"))
        values.pop("workers", None)  # no result depends on it
        return json.loads(json.dumps(values, default=str))  # type: ignore[no-any-return]

    def default_dict(self) -> dict[str, Any]:
        """Return the defaults of all optional values of `to_dict`."""
        defaults = {option.name: option.default for option in fields(self)}
        return {**defaults, **asdict(self.config.options_class()), "config": type(self.config)().to_dict()}


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """Result of a run.

    Attributes:
        task: Name of the task, such as "classification".
        data: Name of the data.
        method: Text of the method.
        backbone: Name of the backbone.
        head: Text of the head, or None for the default head of classification.
        eval_split: Split that is scored: test, or val where there is no test, or train where there is neither.
        metric: Name of the main metric in `metrics`, such as "test_top1".
        metrics: Metrics by name, such as "test_top1" or "test_miou": fractions, except r2 and mae. NaN is undefined.
        per_class: Recall or IoU by class name, between 0 and 1; None for a class that does not occur.
        images: Number of images of each split.
        total_parameters: Number of all parameters.
        trainable_parameters: Number of trainable parameters.
        head_parameters: Number of parameters of the head, or None for results of earlier versions.
        file: The tuned file.
        run_dir: The run directory.
        file_bytes: Size of the tuned file.
        seconds: Wall time of training, over all interruptions.
        peak_memory_bytes: Peak memory of the process, or of its GPU, in training.
        notes: Messages about the data and the backbone that the user should read.
        history: Metrics of each epoch.
        job: The job as JSON values.
        environment: Hardware and versions.
        status: "done".
        search: The search that chose the job: its candidates, its comparison and the time it took; None without one.
        folds: The main metric of each fold of a cross-validation, its mean and its 95 % interval; None without one.
        init: The tuned file that training continued from, and the top-1 of its classes before and after training; None
            without one.
    """

    task: str
    data: str
    method: str
    backbone: str
    head: str | None
    eval_split: str
    metric: str
    metrics: dict[str, float]
    per_class: dict[str, float | None]
    images: dict[str, int]
    total_parameters: int
    trainable_parameters: int
    head_parameters: int | None
    file: str
    run_dir: str
    file_bytes: int
    seconds: float
    peak_memory_bytes: int
    notes: list[str]
    history: list[dict[str, Any]]
    job: dict[str, Any]
    environment: dict[str, Any]
    status: Literal["done"] = "done"
    search: dict[str, Any] | None = None
    folds: dict[str, Any] | None = None
    init: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        """Make metrics NaN that are null in JSON, which has no NaN."""
        metrics = {name: math.nan if value is None else value for name, value in self.metrics.items()}
        object.__setattr__(self, "metrics", metrics)

    @property
    def score(self) -> float:
        """The main metric: a fraction, except r2 and mae."""
        return self.metrics[self.metric]

    @property
    def eval_metrics(self) -> dict[str, float]:
        """Metrics of the scored split, without its name: "top1" instead of "test_top1"."""
        return {name.removeprefix(f"{self.eval_split}_"): value for name, value in self.metrics.items()}

    @property
    def trainable_fraction(self) -> float:
        """Trainable parameters as a fraction of all."""
        return self.trainable_parameters / self.total_parameters
