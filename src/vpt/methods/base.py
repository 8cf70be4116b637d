"""What a method is: hyper-parameters, and a plan of what it hangs where and which weights it takes over.

A plan is data. The tuned model carries it out, and owns whatever is then in the tree and not the backbone's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from torch import nn

from vpt import spec
from vpt.backbone.sites import Sites


@dataclass(frozen=True)
class Plan:
    """What a method does to a trunk.

    trains: paths of modules whose weights become owned copies that train ("" is the whole trunk).
    adds: new modules by name; what several wraps share lives here.
    wraps: path -> function from the module there to the one that takes its place.
    """

    trains: tuple[str, ...] = ()
    adds: Mapping[str, nn.Module] = field(default_factory=dict)
    wraps: Mapping[str, Callable[[nn.Module], nn.Module]] = field(default_factory=dict)


@dataclass(frozen=True)
class Method(ABC):
    """Base of all methods: each is a frozen dataclass of hyper-parameters.

    optimizer, learning_rate, weight_decay: what `vpt tune` starts from; the learning rate is per 256 images.
    """

    name: ClassVar[str]
    optimizer: ClassVar[Literal["sgd", "adamw"]] = "sgd"
    learning_rate: ClassVar[float] = 1.0
    weight_decay: ClassVar[float] = 1e-4

    @abstractmethod
    def plan(self, trunk: nn.Module, sites: Sites) -> Plan:
        """What to hang on `trunk`. Raises FitError, with the reason, where this method finds no place."""

    def __str__(self) -> str:
        return spec.show(self, self.name)
