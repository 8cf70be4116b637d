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
from vpt.backbones.layout import BackboneLayout
from vpt.core import spec
from vpt.errors import SpecError

Wrapper = Callable[[nn.Module], nn.Module]
NETWORK = ""  # the path of the whole: images in, features out


@dataclass(frozen=True)
class Injection:
    """What a method does to a trunk.

    trainable: paths of modules, or of single weights, that become owned copies and train ("" is the whole trunk).
    modules: new modules by name; what several wrappers share lives here.
    wrappers: path -> function from the module there to the one that takes its place; NETWORK is the network from images
        (batch, 3, size, size) to features (batch, d).
    pool: what the head reads, where that is not the backbone's choice: final tokens (batch, tokens, d) -> (batch, d),
        or (batch, num_pooled, d). num_pooled: how many it reads side by side; the head is num_pooled * d wide.
    make_head: (d, classes) -> a head other than a linear layer.
    """

    trainable: tuple[str, ...] = ()
    modules: Mapping[str, nn.Module] = field(default_factory=dict)
    wrappers: Mapping[str, Wrapper] = field(default_factory=dict)
    pool: Pool | None = None
    num_pooled: int = 1
    make_head: Callable[[int, int], nn.Module] | None = None


@dataclass(frozen=True)
class Method(ABC):
    """Base of all methods: each is a frozen dataclass of hyper-parameters.

    optimizer, learning_rate, weight_decay: what `vpt tune` starts from; the learning rate is per 256 images.
    identity_at_init: before training the feature is the frozen backbone's own.
    """

    name: ClassVar[str]
    optimizer: ClassVar[Literal["sgd", "adamw"]] = "sgd"
    learning_rate: ClassVar[float] = 1.0
    weight_decay: ClassVar[float] = 1e-4
    identity_at_init: ClassVar[bool] = False

    @abstractmethod
    def plan(self, trunk: nn.Module, layout: BackboneLayout) -> Injection:
        """What to hang on `trunk`. Raises UnsupportedError, with the reason, where this method finds no place."""

    @property
    def needs_prototypes(self) -> bool:
        """Whether `init_from_prototypes` wants to be called before training."""
        return False

    def init_from_prototypes(self, prototypes: Tensor, added_modules: nn.ModuleDict) -> None:
        """Start from the mean feature of each class, (classes, d), instead of at random. `added_modules`: the injection's `modules`."""
        raise NotImplementedError(f"{self} begins at random")

    def spec(self, *, full: bool = False) -> str:
        """The text of this method; with `full`, every field is written out."""
        return spec.format_spec(self, self.name, full=full)

    def __str__(self) -> str:
        return self.spec()

    def __add__(self, other: Method) -> Sum:
        return Sum((self, other))


@dataclass(frozen=True)
class Sum(Method):
    """Several methods at once on one backbone, such as `vpt(length=50) + bias` (paper, section 4.3 and table 5).

    Where two hang at one place, the later stands around the earlier.

    Optimizer, learning rate and weight decay start from those of the first term.
    """

    name: ClassVar[str] = "sum"

    terms: tuple[Method, ...]

    def __post_init__(self) -> None:
        flat = tuple(term for given in self.terms for term in (given.terms if isinstance(given, Sum) else (given,)))
        duplicates = [name for name, count in Counter(term.name for term in flat).items() if count > 1]
        if duplicates:
            raise SpecError(
                f"{' + '.join(map(str, flat))} names {duplicates[0]} twice; each method can stand in a sum once"
            )
        redundant = [term.name for term in flat if term.name == "linear"]
        if redundant:
            raise SpecError(f"{' + '.join(map(str, flat))}: linear adds nothing to a sum; every method has its head")
        first = flat[0]
        object.__setattr__(self, "terms", flat)  # the dataclass is frozen; the rest shadows what the class says
        for key in ("optimizer", "learning_rate", "weight_decay"):
            object.__setattr__(self, key, getattr(first, key))
        object.__setattr__(self, "identity_at_init", all(term.identity_at_init for term in flat))

    def plan(self, trunk: nn.Module, layout: BackboneLayout) -> Injection:
        injections = [term.plan(trunk, layout) for term in self.terms]
        wrappers: dict[str, Wrapper] = {}
        for injection in injections:
            for path, wrapper in injection.wrappers.items():
                wrappers[path] = _compose(wrappers[path], wrapper) if path in wrappers else wrapper
        return Injection(
            trainable=_outermost(path for injection in injections for path in injection.trainable),
            modules={name: module for injection in injections for name, module in injection.modules.items()},
            wrappers=wrappers,
            pool=self._at_most_one(
                [injection.pool for injection in injections], "pools the tokens in a way of its own"
            ),
            num_pooled=max(injection.num_pooled for injection in injections),
            make_head=self._at_most_one([injection.make_head for injection in injections], "has a head of its own"),
        )

    @property
    def needs_prototypes(self) -> bool:
        return any(term.needs_prototypes for term in self.terms)

    def init_from_prototypes(self, prototypes: Tensor, added_modules: nn.ModuleDict) -> None:
        for term in self.terms:
            if term.needs_prototypes:
                term.init_from_prototypes(prototypes, added_modules)

    def spec(self, *, full: bool = False) -> str:
        return " + ".join(term.spec(full=full) for term in self.terms)

    def _at_most_one(self, values: list[Any], what: str) -> Any:
        """The one that is there, or None."""
        owners = [term for term, value in zip(self.terms, values, strict=True) if value is not None]
        if len(owners) > 1:
            raise SpecError(f"{self}: more than one term {what} ({owners[0]}, {owners[1]}); keep one of them")
        return next((value for value in values if value is not None), None)


def _compose(inner: Wrapper, outer: Wrapper) -> Callable[[nn.Module], nn.Module]:
    return lambda module: outer(inner(module))


def _outermost(paths: Iterable[str]) -> tuple[str, ...]:
    """Without what lies inside another."""
    found = tuple(dict.fromkeys(paths))
    return tuple(
        path
        for path in found
        if not any(other != path and (other == "" or path.startswith(f"{other}.")) for other in found)
    )
