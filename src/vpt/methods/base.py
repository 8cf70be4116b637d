"""What a method is: hyper-parameters, and a plan of what it hangs where and which weights it takes over.

A plan is data. The tuned model carries it out, and owns whatever is then in the tree and not the backbone's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from vpt.attention.detection import Pool
from vpt.backbones.layout import Sites
from vpt.core import spec
from vpt.errors import SpecError

Wrap = Callable[[nn.Module], nn.Module]
WHOLE = ""  # the path of the whole: images in, features out


@dataclass(frozen=True)
class Plan:
    """What a method does to a trunk.

    trains: paths of modules, or of single weights, that become owned copies and train ("" is the whole trunk).
    adds: new modules by name; what several wraps share lives here.
    wraps: path -> function from the module there to the one that takes its place; WHOLE is the network from images
        (batch, 3, size, size) to features (batch, d).
    pool: what the head reads, where that is not the backbone's choice: final tokens (batch, tokens, d) -> (batch, d),
        or (batch, features, d). features: how many it reads side by side; the head is features * d wide.
    head: (d, classes) -> a head other than a linear layer.
    """

    trains: tuple[str, ...] = ()
    adds: Mapping[str, nn.Module] = field(default_factory=dict)
    wraps: Mapping[str, Wrap] = field(default_factory=dict)
    pool: Pool | None = None
    features: int = 1
    head: Callable[[int, int], nn.Module] | None = None


@dataclass(frozen=True)
class Method(ABC):
    """Base of all methods: each is a frozen dataclass of hyper-parameters.

    optimizer, learning_rate, weight_decay: what `vpt tune` starts from; the learning rate is per 256 images.
    neutral: before training the feature is the frozen backbone's own.
    """

    name: ClassVar[str]
    optimizer: ClassVar[Literal["sgd", "adamw"]] = "sgd"
    learning_rate: ClassVar[float] = 1.0
    weight_decay: ClassVar[float] = 1e-4
    neutral: ClassVar[bool] = False

    @abstractmethod
    def plan(self, trunk: nn.Module, sites: Sites) -> Plan:
        """What to hang on `trunk`. Raises FitError, with the reason, where this method finds no place."""

    @property
    def needs_prototypes(self) -> bool:
        """Whether `begin_at` wants to be called before training."""
        return False

    def begin_at(self, prototypes: Tensor, added: nn.ModuleDict) -> None:
        """Start from the mean feature of each class, (classes, d), instead of at random. `added`: the plan's `adds`."""
        raise NotImplementedError(f"{self} begins at random")

    def spec(self, *, full: bool = False) -> str:
        """The text of this method; with `full`, every field is written out."""
        return spec.show(self, self.name, full=full)

    def __str__(self) -> str:
        return self.spec()

    def __add__(self, other: Method) -> Sum:
        return Sum((self, other))


@dataclass(frozen=True)
class Sum(Method):
    """Several methods at once on one backbone, such as `vpt(length=50) + bias` (paper, section 4.3 and table 5).

    Where two hang at one place, the later stands around the earlier.

    Optimizer, learning rate and weight decay start from those of the first part.
    """

    name: ClassVar[str] = "sum"

    parts: tuple[Method, ...]

    def __post_init__(self) -> None:
        flat = tuple(part for term in self.parts for part in (term.parts if isinstance(term, Sum) else (term,)))
        twice = [name for name, count in Counter(part.name for part in flat).items() if count > 1]
        if twice:
            raise SpecError(f"{' + '.join(map(str, flat))} names {twice[0]} twice; each method can stand in a sum once")
        idle = [part.name for part in flat if part.name == "linear"]
        if idle:
            raise SpecError(f"{' + '.join(map(str, flat))}: linear adds nothing to a sum; every method has its head")
        first = flat[0]
        object.__setattr__(self, "parts", flat)  # the dataclass is frozen; the rest shadows what the class says
        for key in ("optimizer", "learning_rate", "weight_decay"):
            object.__setattr__(self, key, getattr(first, key))
        object.__setattr__(self, "neutral", all(part.neutral for part in flat))

    def plan(self, trunk: nn.Module, sites: Sites) -> Plan:
        plans = [part.plan(trunk, sites) for part in self.parts]
        wraps: dict[str, Wrap] = {}
        for plan in plans:
            for path, wrap in plan.wraps.items():
                wraps[path] = _after(wraps[path], wrap) if path in wraps else wrap
        return Plan(
            trains=_outermost(path for plan in plans for path in plan.trains),
            adds={name: module for plan in plans for name, module in plan.adds.items()},
            wraps=wraps,
            pool=self._only([plan.pool for plan in plans], "pools the tokens in a way of its own"),
            features=max(plan.features for plan in plans),
            head=self._only([plan.head for plan in plans], "has a head of its own"),
        )

    @property
    def needs_prototypes(self) -> bool:
        return any(part.needs_prototypes for part in self.parts)

    def begin_at(self, prototypes: Tensor, added: nn.ModuleDict) -> None:
        for part in self.parts:
            if part.needs_prototypes:
                part.begin_at(prototypes, added)

    def spec(self, *, full: bool = False) -> str:
        return " + ".join(part.spec(full=full) for part in self.parts)

    def _only(self, given: list[Any], what: str) -> Any:
        """The one that is there, or None."""
        having = [part for part, value in zip(self.parts, given, strict=True) if value is not None]
        if len(having) > 1:
            raise SpecError(f"{self}: more than one part {what} ({having[0]}, {having[1]}); keep one of them")
        return next((value for value in given if value is not None), None)


def _after(inner: Wrap, outer: Wrap) -> Callable[[nn.Module], nn.Module]:
    return lambda module: outer(inner(module))


def _outermost(paths: Iterable[str]) -> tuple[str, ...]:
    """Without what lies inside another."""
    found = tuple(dict.fromkeys(paths))
    return tuple(
        path
        for path in found
        if not any(other != path and (other == "" or path.startswith(f"{other}.")) for other in found)
    )
