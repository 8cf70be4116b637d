"""Visual prompt tuning: adapt one frozen, pretrained vision backbone to any number of image tasks."""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

from vpt._version import __version__

if TYPE_CHECKING:
    from vpt import analysis as analysis
    from vpt import backbones as backbones
    from vpt import data as data
    from vpt import errors as errors
    from vpt import heads as heads
    from vpt import methods as methods
    from vpt import model as model
    from vpt import serving as serving
    from vpt import tasks as tasks
    from vpt import testing as testing
    from vpt import training as training
    from vpt import tuning as tuning
    from vpt.analysis.attention_maps import Explanation
    from vpt.analysis.embeddings import Embedding
    from vpt.api import PredictOptions, TuneOptions, embed, evaluate, explain, predict, tune
    from vpt.backbones import Backbone, list_backbones, load_backbone
    from vpt.errors import (
        BackboneError,
        DataError,
        ExitCode,
        SpecError,
        StorageError,
        TrainingError,
        TunedFileError,
        UnsupportedError,
        VptError,
    )
    from vpt.methods import METHODS, VPT, Full, Injection, Linear, Method, parse_method
    from vpt.model.attach import attach
    from vpt.model.tuned_file import Header, inspect, load, save
    from vpt.model.tuned_model import Counts, TunedModel
    from vpt.tasks.base import Evaluation, Prediction
    from vpt.training import Callback
    from vpt.training.job import RunResult

__all__ = [
    "METHODS",
    "VPT",
    "Backbone",
    "BackboneError",
    "Callback",
    "Counts",
    "DataError",
    "Embedding",
    "Evaluation",
    "ExitCode",
    "Explanation",
    "Full",
    "Header",
    "Injection",
    "Linear",
    "Method",
    "PredictOptions",
    "Prediction",
    "RunResult",
    "SpecError",
    "StorageError",
    "TrainingError",
    "TuneOptions",
    "TunedFileError",
    "TunedModel",
    "UnsupportedError",
    "VptError",
    "__version__",
    "attach",
    "embed",
    "evaluate",
    "explain",
    "inspect",
    "list_backbones",
    "load",
    "load_backbone",
    "parse_method",
    "predict",
    "save",
    "tune",
]

# Module -> its names here. They are imported when they are used first, because torch takes seconds.
_MODULES = {
    "vpt.errors": (
        "BackboneError DataError ExitCode SpecError StorageError TrainingError TunedFileError UnsupportedError VptError"
    ),
    "vpt.backbones": "Backbone list_backbones load_backbone",
    "vpt.methods": "METHODS VPT Full Injection Linear Method parse_method",
    "vpt.model.attach": "attach",
    "vpt.model.tuned_model": "Counts TunedModel",
    "vpt.model.tuned_file": "Header inspect load save",
    "vpt.tasks.base": "Evaluation Prediction",
    "vpt.training": "Callback",
    "vpt.training.job": "RunResult",
    "vpt.analysis.attention_maps": "Explanation",
    "vpt.analysis.embeddings": "Embedding",
    "vpt.api": "PredictOptions TuneOptions embed evaluate explain predict tune",
}
# Documented submodules: `vpt.testing` works after `import vpt`.
_SUBMODULES = (
    "analysis", "backbones", "data", "errors", "heads", "methods", "model", "serving", "tasks", "testing", "training",
    "tuning",
)  # fmt: skip
_HOMES = {name: module for module, names in _MODULES.items() for name in names.split()}

logging.getLogger("vpt").addHandler(logging.NullHandler())  # silent until the user configures logging


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
        globals()[name] = value
        return value
    if name in _SUBMODULES:
        return importlib.import_module(f"vpt.{name}")
    raise AttributeError(f"module 'vpt' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_SUBMODULES])
