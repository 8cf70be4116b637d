"""Kinds of labels that a model predicts, as its tuned file records them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from torch import Tensor

from vpt.data.label_kinds import KindName
from vpt.errors import SpecError


@dataclass(frozen=True)
class LabelKind(ABC):
    """The kind of labels that a model predicts.

    Attributes:
        name: Name of the kind.
    """

    name: ClassVar[KindName]

    @abstractmethod
    def activate(self, logits: Tensor) -> Tensor:
        """Return answers from the outputs of a model.

        Args:
            logits: Outputs (..., classes).

        Returns:
            Probabilities, or numbers in the unit of the labels (..., classes).
        """

    def to_dict(self) -> dict[str, Any]:
        """Return the kind as JSON values."""
        return {"name": self.name, **asdict(self)}


@dataclass(frozen=True)
class SingleLabel(LabelKind):
    """One class for each image, by softmax."""

    name: ClassVar[KindName] = "single_label"

    def activate(self, logits: Tensor) -> Tensor:  # noqa: D102
        return logits.softmax(-1)


@dataclass(frozen=True)
class MultiLabel(LabelKind):
    """Any number of classes for each image, by a sigmoid for each class.

    Attributes:
        thresholds: Probability from which an image has a class, one for each class; none stands for 0.5.
    """

    name: ClassVar[KindName] = "multi_label"

    thresholds: tuple[float, ...] = ()

    def activate(self, logits: Tensor) -> Tensor:  # noqa: D102
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
        std: Standard deviation of the training labels.
    """

    name: ClassVar[KindName] = "regression"

    mean: float = 0.0
    std: float = 1.0

    def activate(self, logits: Tensor) -> Tensor:  # noqa: D102
        return logits * self.std + self.mean

    def standardize(self, labels: Tensor) -> Tensor:
        """Return labels as the model predicts them.

        Args:
            labels: Labels, in their unit.

        Returns:
            The labels with mean 0 and standard deviation 1.
        """
        return (labels - self.mean) / self.std


_KINDS: dict[str, type[LabelKind]] = {kind.name: kind for kind in (SingleLabel, MultiLabel, Regression)}


def parse_label_kind(values: Mapping[str, Any]) -> LabelKind:
    """Return the kind that `to_dict` gave.

    Args:
        values: JSON values.

    Returns:
        The kind.

    Raises:
        SpecError: There is no such kind.
    """
    options = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    name = options.pop("name")
    if name not in _KINDS:
        raise SpecError(f"there is no kind of labels {name!r}; known are {', '.join(_KINDS)}")
    return _KINDS[name](**options)
