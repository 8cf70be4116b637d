"""Visual prompt tuning: adapt one frozen, pretrained vision backbone to any number of image tasks."""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

from vpt._version import __version__

if TYPE_CHECKING:
    from vpt.backbones import Backbone, load_backbone
    from vpt.errors import SpecError, UnsupportedError, VptError
    from vpt.methods import METHODS, VPT, Full, Injection, Linear, Method, parse_method
    from vpt.model.tuned_file import Header, inspect, load, save
    from vpt.model.tuned_model import Counts, TunedModel, attach
    from vpt.training.callbacks import Callback
    from vpt.training.job import RunResult
    from vpt.tuning import tune

__all__ = [
    "METHODS",
    "VPT",
    "Backbone",
    "Callback",
    "Counts",
    "UnsupportedError",
    "Full",
    "Header",
    "Linear",
    "Method",
    "Injection",
    "RunResult",
    "SpecError",
    "TunedModel",
    "VptError",
    "__version__",
    "attach",
    "inspect",
    "load",
    "load_backbone",
    "parse_method",
    "save",
    "tune",
]

# One face, and nothing heavy behind it until it is asked for: `vpt --help` must not wait for torch.
_HOMES = (
    "vpt.errors", "vpt.model.tuned_model", "vpt.model.tuned_file", "vpt.backbones", "vpt.methods",
    "vpt.training.callbacks", "vpt.training.job", "vpt.tuning",
)  # fmt: skip

# Documented submodules: `vpt.testing` works after `import vpt`.
_SUBMODULES = ("analysis", "backbones", "data", "errors", "heads", "methods", "model", "tasks", "testing", "training")

logging.getLogger("vpt").addHandler(logging.NullHandler())  # silent until the user configures logging


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"vpt.{name}")
    if name in __all__:
        for home in _HOMES:
            module = importlib.import_module(home)
            if hasattr(module, name):
                return getattr(module, name)
    raise AttributeError(f"module 'vpt' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *_SUBMODULES})
