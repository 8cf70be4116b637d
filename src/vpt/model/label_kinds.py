"""Kinds of labels that a model predicts, as its tuned file records them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic_core import to_json

from vpt.data.label_kinds import KindName
from vpt.errors import SpecError, TrainingError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class LabelKind(ABC):
    """The kind of labels that a model predicts.

    Attributes:
        name: Name of the kind.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    name: ClassVar[KindName]

    def scale(self, logits: Tensor) -> Tensor:
        """Return calibrated logits.

        Args:
            logits: Outputs (..., classes).

        Returns:
            The outputs that a softmax, if there is one, turns into probabilities (..., classes).
        """
        return logits

    def activate(self, logits: Tensor) -> Tensor:
        """Return predictions from the outputs of a model.

        Args:
            logits: Outputs (..., classes).

        Returns:
            Probabilities, or numbers in the unit of the labels, float64 (..., classes). A TrainingError is raised for
            outputs that are NaN or infinite.
        """
        return require_finite(self._activate(require_finite(logits)))

    @abstractmethod
    def _activate(self, logits: Tensor) -> Tensor: ...

    def to_dict(self) -> dict[str, Any]:
        """Return the kind as JSON values."""
        return {"name": self.name, **asdict(self)}


@dataclass(frozen=True)
class SingleLabel(LabelKind):
    """One class for each image, by softmax.

    Attributes:
        temperature: The number that logits are divided by before the softmax, above 0; 1 without calibration.
    """

    name: ClassVar[KindName] = "single_label"

    temperature: float = 1.0

    def __post_init__(self) -> None:
        """Check the temperature. A SpecError is raised if it is out of range."""
        if not 0 < self.temperature < float("inf"):
            raise SpecError(f"temperature is {self.temperature}; it must be above 0 and finite")

    def scale(self, logits: Tensor) -> Tensor:  # noqa: D102
        return logits / self.temperature

    def _activate(self, logits: Tensor) -> Tensor:
        return self.scale(logits).softmax(-1)


@dataclass(frozen=True)
class MultiLabel(LabelKind):
    """Any number of classes for each image, by a sigmoid for each class.

    Attributes:
        thresholds: Probability from which an image has a class, one for each class; none stands for 0.5.
    """

    name: ClassVar[KindName] = "multi_label"

    thresholds: tuple[float, ...] = ()

    def _activate(self, logits: Tensor) -> Tensor:
        return logits.sigmoid()

    def decide(self, probabilities: Tensor) -> Tensor:
        """Return the classes that images have.

        Args:
            probabilities: Probabilities (..., classes).

        Returns:
            True for each class of an image (..., classes).
        """
        return probabilities >= (probabilities.new_tensor(self.thresholds) if self.thresholds else 0.5)


@dataclass(frozen=True)
class Regression(LabelKind):
    """A number for each image. The model predicts it standardized.

    Attributes:
        mean: Mean of the training labels.
        std: Standard deviation of the training labels, above 0.
    """

    name: ClassVar[KindName] = "regression"

    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        """Check the numbers. A SpecError is raised if one is out of range."""
        if not abs(self.mean) < float("inf"):
            raise SpecError(f"mean is {self.mean}; it must be finite")
        if not 0 < self.std < float("inf"):
            raise SpecError(f"std is {self.std}; it must be above 0 and finite")

    def _activate(self, logits: Tensor) -> Tensor:
        return logits.double() * self.std + self.mean

    def standardize(self, labels: Tensor) -> Tensor:
        """Return labels as the model predicts them.

        Args:
            labels: Labels, in their unit.

        Returns:
            float32, with mean 0 and standard deviation 1.
        """
        return ((labels.double() - self.mean) / self.std).float()


_KINDS: dict[str, type[LabelKind]] = {kind.name: kind for kind in (SingleLabel, MultiLabel, Regression)}
_SCHEMAS: dict[str, TypeAdapter[Any]] = {name: TypeAdapter(kind) for name, kind in _KINDS.items()}


def require_finite(outputs: Tensor) -> Tensor:
    """Return outputs of a model, if they are finite.

    Args:
        outputs: Probabilities, logits or numbers of any shape.

    Returns:
        The same.

    Raises:
        TrainingError: A value is NaN or infinite.
    """
    if not bool(outputs.isfinite().all()):
        raise TrainingError(
            "outputs of the model are NaN or infinite, so there is no prediction: its weights, or those of its "
            "backbone, are too large; train it again with a smaller learning rate, or load the backbone in float32"
        )
    return outputs


def parse_label_kind(values: Mapping[str, Any]) -> LabelKind:
    """Return the kind that `to_dict` gave.

    Args:
        values: JSON values.

    Returns:
        The kind.

    Raises:
        SpecError: There is no such kind, or a value is of another type or not finite.
    """
    name = values.get("name")
    if not isinstance(name, str) or name not in _KINDS:
        raise SpecError(f"there is no kind of labels {name!r}; known are {', '.join(_KINDS)}")
    try:
        kind: LabelKind = _SCHEMAS[name].validate_json(to_json({key: values[key] for key in values.keys() - {"name"}}))
        return kind
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, (name, *first["loc"])))
        raise SpecError(f"{place} is {first['input']!r}: {first['msg']}") from error
