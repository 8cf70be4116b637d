"""Base of all methods: hyper-parameters, and a plan of the modules and weights that a method adds to a backbone.

A plan is data. The tuned model carries it out and trains exactly the tensors that do not belong to the backbone.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from vpt.attention.detection import Pool
from vpt.backbones.layout import BackboneLayout
from vpt.core.spec import Parsable
from vpt.errors import SpecError
from vpt.methods.init_inputs import InitInput, InitInputs

Wrapper = Callable[[nn.Module], nn.Module]
Penalty = Callable[[], Tensor]
BeforeStep = Callable[[float], None]
Optimizer = Literal["sgd", "adamw"]
NETWORK = ""  # the path of the whole: images in, features out


@dataclass(frozen=True)
class Injection:
    """The changes that a method makes to a trunk.

    Attributes:
        trainable: Paths of modules, or of single weights, that become trainable copies; "" is the whole trunk.
        modules: New modules by name, which several wrappers may share.
        wrappers: Path -> function from the module there to the one that replaces it. The path `NETWORK` is the network
            from images (batch, 3, size, size) to features (batch, d).
        pool: Pooling that replaces the backbone's own: final tokens (batch, tokens, d) -> (batch, d), or
            (batch, num_pooled, d).
        num_pooled: Number of features that `pool` returns for an image; the head is `num_pooled * d` wide.
        make_head: (d, classes) -> a head other than a linear layer.
        penalty: Function without arguments -> a scalar that is added to the training loss: a bound method of a module
            or a `functools.partial` over modules or weights, so that a deep copy of the model has one of its own.
        before_step: Function that training calls before each step of the optimizer, when the gradients of the batch are
            there, with the share of all steps that end with this one, above 0 and at most 1; made as `penalty` is.
        fixed_image_size: True if the modules fit images of the backbone's size alone, such as a prompt for each patch.
    """

    trainable: tuple[str, ...] = ()
    modules: Mapping[str, nn.Module] = field(default_factory=dict)
    wrappers: Mapping[str, Wrapper] = field(default_factory=dict)
    pool: Pool | None = None
    num_pooled: int = 1
    make_head: Callable[[int, int], nn.Module] | None = None
    penalty: Penalty | None = None
    before_step: BeforeStep | None = None
    fixed_image_size: bool = False


@dataclass(frozen=True)
class Method(Parsable, ABC):
    """Base of all methods: each is a frozen dataclass of hyper-parameters.

    A subclass gives these attributes in its class statement, such as `class Mine(Method, name="mine")`, or in its body.

    Attributes:
        name: The name in a method's text.
        optimizer: The optimizer that `vpt tune` starts from.
        learning_rate: The learning rate that `vpt tune` starts from, per 256 images, for batches of 64.
        weight_decay: The weight decay that `vpt tune` starts from.
        identity_at_init: True if the feature before training is the frozen backbone's own.
        wraps_last: True if its wrappers go around those of every other method of a sum.
    """

    optimizer: ClassVar[Optimizer] = "sgd"
    learning_rate: ClassVar[float] = 1.0
    weight_decay: ClassVar[float] = 1e-4
    identity_at_init: ClassVar[bool] = False
    wraps_last: ClassVar[bool] = False

    def __init_subclass__(
        cls,
        name: str | None = None,
        optimizer: Optimizer | None = None,
        learning_rate: float | None = None,
        weight_decay: float | None = None,
        identity_at_init: bool | None = None,
    ) -> None:
        given = {"name": name, "optimizer": optimizer, "learning_rate": learning_rate, "weight_decay": weight_decay}
        for key, value in (given | {"identity_at_init": identity_at_init}).items():
            if value is not None:
                setattr(cls, key, value)

    @abstractmethod
    def plan(self, trunk: nn.Module, layout: BackboneLayout) -> Injection:
        """Plan the changes to a trunk.

        Args:
            trunk: The trunk; it must not be changed.
            layout: Its layout.

        Returns:
            The changes.

        Raises:
            UnsupportedError: The backbone does not have what this method needs; the message says why.
        """

    @property
    def init_inputs(self) -> frozenset[InitInput]:
        """The properties of the training images that `initialize` needs; empty for a random start."""
        return frozenset()

    def initialize(self, inputs: InitInputs, modules: nn.ModuleDict) -> None:
        """Initialize from the training images instead of at random.

        Called once before training, without gradients, if `init_inputs` is not empty.

        Args:
            inputs: The properties named by `init_inputs`.
            modules: The modules of the injection, by name.

        Raises:
            NotImplementedError: The method has no such initialization.
        """
        raise NotImplementedError(f"{self} begins at random")

    def check_values(self, modules: nn.ModuleDict) -> None:
        """Check the values of a file that were copied into the modules of the injection.

        By default, all finite values are accepted. A method that reads some as indices raises a SpecError for others.

        Args:
            modules: The modules of the injection, by name.
        """

    def without_initial_weights(self) -> Self:
        """Return a variant that does not read initial weights, for loading trained weights.

        Returns:
            The method; by default, this one.
        """
        return self

    def __add__(self, other: "Method") -> "Sum":
        return Sum((self, other))


@dataclass(frozen=True)
class Sum(Method, name="sum"):
    """Several methods at once on one backbone, such as `vpt(length=50) + bias` (paper, section 4.3 and table 5).

    If two methods wrap the same module, the later one wraps the earlier; one that `wraps_last` wraps every other.
    Optimizer, learning rate and weight decay start from those of the first term.

    Args:
        terms: The methods, at least two.
    """

    terms: tuple[Method, ...]

    def __post_init__(self) -> None:
        flat = tuple(term for given in self.terms for term in (given.terms if isinstance(given, Sum) else (given,)))
        text, counts = " + ".join(map(str, flat)), Counter(term.name for term in flat)
        duplicates = [name for name, count in counts.items() if count > 1]
        if duplicates:
            raise SpecError(f"{text} names {duplicates[0]} twice; each method can stand in a sum once")
        if "linear" in counts:
            raise SpecError(f"{text}: linear adds nothing to a sum; every method has its head")
        object.__setattr__(self, "terms", flat)  # the dataclass is frozen; the rest shadows the class attributes
        for key in ("optimizer", "learning_rate", "weight_decay"):
            object.__setattr__(self, key, getattr(flat[0], key))
        object.__setattr__(self, "identity_at_init", all(term.identity_at_init for term in flat))

    def plan(self, trunk: nn.Module, layout: BackboneLayout) -> Injection:
        """Plan every term and join the plans.

        Args:
            trunk: The trunk; it must not be changed.
            layout: Its layout.

        Returns:
            The joint changes.

        Raises:
            SpecError: Two terms replace the pooling or the head, or name a module alike.
            UnsupportedError: The backbone does not have what a term needs.
        """
        injections = [term.plan(trunk, layout) for term in self.terms]
        names = dict.fromkeys(name for injection in injections for name in injection.modules)
        wrappers: dict[str, Wrapper] = {}
        for _, injection in sorted(zip(self.terms, injections, strict=True), key=lambda pair: pair[0].wraps_last):
            for path, wrapper in injection.wrappers.items():
                wrappers[path] = compose(wrappers[path], wrapper) if path in wrappers else wrapper
        penalties = [injection.penalty for injection in injections if injection.penalty is not None]
        before_steps = [injection.before_step for injection in injections if injection.before_step is not None]

        def at_most_one(values: Iterable[Any], what: str) -> Any:
            """Return the one value that is not None, or None."""
            given = [(term, value) for term, value in zip(self.terms, values, strict=True) if value is not None]
            if len(given) > 1:
                raise SpecError(f"{self}: more than one term {what} ({given[0][0]}, {given[1][0]}); keep one of them")
            return given[0][1] if given else None

        return Injection(
            trainable=_outermost(path for injection in injections for path in injection.trainable),
            modules={
                name: at_most_one((each.modules.get(name) for each in injections), f"adds a module named {name!r}")
                for name in names
            },
            wrappers=wrappers,
            pool=at_most_one((each.pool for each in injections), "pools the tokens in a way of its own"),
            num_pooled=max(each.num_pooled for each in injections),
            make_head=at_most_one((each.make_head for each in injections), "has a head of its own"),
            penalty=partial(_sum_penalties, penalties) if penalties else None,
            before_step=partial(_call_each, before_steps) if before_steps else None,
            fixed_image_size=any(each.fixed_image_size for each in injections),
        )

    @property
    def init_inputs(self) -> frozenset[InitInput]:
        """The properties of the training images that any term needs."""
        return frozenset[InitInput]().union(*(term.init_inputs for term in self.terms))

    def initialize(self, inputs: InitInputs, modules: nn.ModuleDict) -> None:
        """Initialize every term that needs the training images."""
        for term in self.terms:
            if term.init_inputs:
                term.initialize(inputs, modules)

    def check_values(self, modules: nn.ModuleDict) -> None:
        """Check the values of every term."""
        for term in self.terms:
            term.check_values(modules)

    def without_initial_weights(self) -> Self:
        """Return a sum whose terms do not read initial weights."""
        return replace(self, terms=tuple(term.without_initial_weights() for term in self.terms))

    def spec(self, *, full: bool = False) -> str:
        """Return the texts of the terms, joined by +; with `full`, every field is written out."""
        return " + ".join(term.spec(full=full) for term in self.terms)


def compose(*wrappers: Wrapper) -> Wrapper:
    """Return a wrapper that applies several.

    Args:
        *wrappers: The wrappers, the innermost first.

    Returns:
        The wrapper.
    """
    return lambda module: reduce(lambda inner, wrapper: wrapper(inner), wrappers, module)


def _sum_penalties(penalties: list[Penalty]) -> Tensor:
    return torch.stack([penalty() for penalty in penalties]).sum()


def _call_each(before_steps: list[BeforeStep], done: float) -> None:
    for before_step in before_steps:
        before_step(done)


def _outermost(paths: Iterable[str]) -> tuple[str, ...]:
    """Return the paths without those that lie inside another."""
    found = dict.fromkeys(paths)
    return tuple(
        path for path in found if not any(path != outer and path.startswith(f"{outer}.".lstrip(".")) for outer in found)
    )
