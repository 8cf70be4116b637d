"""The tables and keys of a plan file as pydantic models."""

from collections.abc import Callable, Collection
from dataclasses import fields
from functools import cache, partial
from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_type_hints

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WrapValidator,
    create_model,
)
from pydantic_core import PydanticCustomError

from vpt.data.images.value_range import parse_value_range
from vpt.data.preprocessing import Preprocessing, read_normalization
from vpt.errors import VptError
from vpt.experiments.design import CLASSIFICATION_ONLY, Protocol, SegmentationOptions
from vpt.methods.registry import parse_method
from vpt.tasks.classification.config import ClassificationConfig
from vpt.tasks.segmentation.config import SegmentationConfig
from vpt.training import TaskConfig, TrainingConfig, parse_augmentation

T = TypeVar("T")
SEARCHED_KEYS = ("learning_rate", "weight_decay")  # keys of a training table that take a list of choices
# Keys of a method that replace those of the plan.
JOB_KEYS = ("backbone", "image_size", "head", "split_seed", "train_fraction", "images_per_class", "ridge", "lda")


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _own_seed(value: Any) -> Any:
    return None if value == "run" else value


def _from_text(row: Any) -> Any:
    return {"spec": row} if isinstance(row, str) else row


def _readable_by(read: Callable[[str], object]) -> AfterValidator:
    """Return the validator of a text that a function reads."""

    def check(text: str) -> str:
        try:
            read(text)
        except VptError as error:
            raise PydanticCustomError("vpt", "{reason}", {"reason": str(error)}) from error
        return text

    return AfterValidator(check)


def _described(text: str) -> WrapValidator:
    """Return the validator that names what a key of several types takes, in one error."""

    def check(value: Any, handler: Callable[[Any], Any]) -> Any:
        try:
            return handler(value)
        except ValidationError as error:
            raise PydanticCustomError("described", "Input should be {text}", {"text": text}) from error

    return WrapValidator(check)


def _check_interpolation(name: str) -> None:
    Preprocessing(interpolation=name)


def _keep_whole(value: Any, handler: Callable[[Any], Any]) -> Any:
    return value if type(value) is int else handler(value)


# A whole number stays one: the id of a run is a hash of its values, and JSON tells 1 from 1.0.
Number = Annotated[float, WrapValidator(_keep_whole)]
Choices = Annotated[list[T], BeforeValidator(_as_list), Field(min_length=1)]
Spec = Annotated[str, _readable_by(parse_method)]
CropFraction = Annotated[float, Field(gt=0, le=1)]
TrainFraction = Annotated[Number, Field(gt=0, le=1)]
SplitSeed = Annotated[
    Annotated[int, Field(ge=0)] | None, BeforeValidator(_own_seed), _described('a whole number from 0, or "run"')
]
RidgePenalty = Annotated[
    Annotated[Number, Field(gt=0)] | Literal["auto"] | None, _described('a number above 0, or "auto"')
]
LdaImages = Annotated[
    Annotated[int, Field(ge=1)] | Literal["all"] | None, _described('a whole number from 1, or "all"')
]

# Keys of the protocol whose values have to be more than of the right type. "run" in the file is None here: the split
# has the seed of each run.
_PROTOCOL_TYPES: dict[str, Any] = {
    "seeds": Annotated[int, Field(ge=1, le=10_000)],
    "first_seed": Annotated[int, Field(ge=0)],
    "images_per_class": Annotated[int, Field(ge=1)] | None,
    "split_seed": SplitSeed,
    "train_fraction": TrainFraction,
    "crop_fraction": CropFraction | None,
    "normalization": Annotated[str, _readable_by(read_normalization)],
    "value_range": Annotated[str, _readable_by(parse_value_range)] | None,
    "interpolation": Annotated[str, _readable_by(_check_interpolation)] | None,
}


class PlanTable(BaseModel):
    """Base of all tables: unknown keys and values of another type are errors."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    def given(self) -> dict[str, Any]:
        """Return the keys that the file gives, with their values."""
        return self.model_dump(exclude_unset=True)


class TaskTable(PlanTable):
    """A row of [[tasks]].

    Attributes:
        name: Name in all tables.
        data: Folder, relative to the plan, or a built-in task; None takes the name.
        group: Tasks of a group are averaged.
    """

    name: str
    data: str | None = None
    group: str = ""


class BenchmarkKeys(PlanTable):
    """The keys that the tasks of a benchmark share, and that may replace those of the plan."""

    resize: Literal["squash", "crop"] | None = None
    crop_fraction: CropFraction | None = None
    augment: Literal["none", "flip", "random_crop", "random_resized_crop"] | None = None
    train_on: Literal["train", "trainval"] | None = None


class ClassificationTaskTable(TaskTable, BenchmarkKeys):
    """A row of [[tasks]] of a plan of classification tasks, with preprocessing of its own.

    Attributes:
        images_per_class: Number of training images of each class at most; None takes that of the plan.
        epochs: Epochs of all methods on this task; None takes those of each method.
        settings_from: Task of the plan whose selected settings this one takes; None selects its own.
    """

    images_per_class: Annotated[int, Field(ge=1)] | None = None
    epochs: Annotated[int, Field(ge=1)] | None = None
    settings_from: str | None = None


class SegmentationTaskTable(TaskTable):
    """A row of [[tasks]] of a plan of segmentation tasks; the keys say how its masks are read."""

    labels: str = "auto"
    ignore_index: int | None = None
    reduce_zero_label: bool = False
    val_as_test: bool = False


class MethodTable(PlanTable):
    """A row of `methods`. It also takes the keys of [training].

    Attributes:
        name: Name in all tables; None takes the text of the method.
        spec: Text of the method, or several to choose from.
        variants: Tables, each with `spec` and training keys for these texts alone, instead of `spec`.
        grid: Name of the table of [grids] with the keys of the row.
        task: Task -> keys of [training] that the row has on this task only.
        ensemble_of: Name of the row whose final runs are scored together as one model, instead of `spec`.
        backbone: Backbone of this row; so image_size, split_seed, train_fraction and images_per_class.
        head: Head of this row.
        ridge: Penalty of a linear head that is solved for by ridge regression, or "auto": instead of the trained head
            of `linear`, beside that of other methods. None trains the head alone.
        lda: Number of training images, or "all", whose linear discriminant a head `linear` of segmentation becomes:
            instead of training with the method `linear`, after the training of others. None keeps the trained head.
    """

    name: str | None = None
    spec: Choices[Spec] | None = None
    variants: list[Any] = []
    grid: str | None = None
    task: dict[str, Any] = {}
    ensemble_of: str | None = None
    backbone: str | None = None
    image_size: int | None = None
    head: str | None = None
    split_seed: SplitSeed = None
    train_fraction: TrainFraction | None = None
    images_per_class: Annotated[int, Field(ge=1)] | None = None
    ridge: RidgePenalty = None
    lda: LdaImages = None


class PlanTables(PlanTable):
    """All tables of a plan file; the keys of the protocol are those of `Protocol`.

    Attributes:
        protocol: Protocol that the other keys were merged with; None for a plan without one.
        unsupported: "error" refuses a plan with a method that its backbone does not support; "report" leaves the
            method out and gives the reason in the report.
    """

    config_class: ClassVar[type[TaskConfig]]
    kind: ClassVar[str]

    name: str | None = None
    protocol: str | None = None
    backbone: str | None = None
    weights: str | None = None
    baseline: str | None = None
    keep_tuned: bool = True
    unsupported: Literal["error", "report"] = "error"
    tasks: list[Any] = []
    training: Any = None
    grids: dict[str, Any] = {}
    methods: list[Any] = []


class _ClassificationKeys(PlanTables):
    """The keys of a plan of classification tasks."""

    config_class = ClassificationConfig
    kind = "a plan"

    benchmark: Choices[str] = []
    benchmarks: dict[str, BenchmarkKeys] = {}
    data: str | None = None


class _SegmentationKeys(PlanTables):
    """The keys of a plan of segmentation tasks."""

    config_class = SegmentationConfig
    kind = "a plan with [segmentation]"

    segmentation: Any


class BenchmarkTables(PlanTable):
    """A file of tasks that plans refer to by `benchmark`."""

    name: str | None = None
    tasks: list[ClassificationTaskTable] = []


@cache
def plan_model(*, segmentation: bool) -> type[PlanTables]:
    """Return the model of a plan file.

    Args:
        segmentation: The tasks are folders of images and masks.

    Returns:
        The model of a plan file.
    """
    keys: type[PlanTables] = _SegmentationKeys if segmentation else _ClassificationKeys
    training: Any = _training_model(keys.config_class)
    variant: Any = create_model("Variant", __base__=training, spec=(Choices[Spec], ...))
    more_keys: dict[str, Any] = {"task": (dict[str, training], {}), "variants": (list[variant], [])}
    method: Any = create_model("MethodRow", __base__=(MethodTable, training), **more_keys)
    row: Any = Annotated[method, BeforeValidator(_from_text)]
    task: Any = SegmentationTaskTable if segmentation else ClassificationTaskTable
    tables: dict[str, Any] = {
        **_keys(Protocol, without=CLASSIFICATION_ONLY if segmentation else ()),
        "tasks": (list[task], []),
        "training": (training, training()),
        "grids": (dict[str, training], {}),
        "methods": (list[row], []),
    }
    if segmentation:
        options: Any = create_model("Segmentation", __base__=PlanTable, **_keys(SegmentationOptions))
        tables["segmentation"] = (options, options())
    return create_model("Plan", __base__=keys, **tables)


def _keys(table: type, without: Collection[str] = ()) -> dict[str, Any]:
    """Return the fields of a dataclass, as `create_model` takes them."""
    types = {name: Number if kind is float else kind for name, kind in get_type_hints(table).items()} | _PROTOCOL_TYPES
    return {field.name: (types[field.name], field.default) for field in fields(table) if field.name not in without}


def _training_model(config_class: type[TaskConfig]) -> type[PlanTable]:
    """Return the model of [training]: the fields of a configuration except its seed."""
    hints = get_type_hints(TrainingConfig) | get_type_hints(config_class)
    keys: dict[str, Any] = {}
    for name in sorted(config_class.option_names() - {"seed"}):
        kind: Any = Number if hints[name] is float else hints[name]
        if name == "augment":
            kind = Annotated[str, _readable_by(partial(parse_augmentation, task=config_class.task))]
        keys[name] = ((Choices[kind] if name in SEARCHED_KEYS else kind) | None, None)
    return create_model("Training", __base__=PlanTable, **keys)
