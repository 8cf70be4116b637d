"""Visual prompt tuning: adapt one frozen, pretrained vision backbone to any number of image tasks."""

import importlib
import logging
from typing import TYPE_CHECKING, Any

from vpt._version import __version__ as __version__

if TYPE_CHECKING:
    from vpt import analysis as analysis
    from vpt import backbones as backbones
    from vpt import conversion as conversion
    from vpt import data as data
    from vpt import datasets as datasets
    from vpt import errors as errors
    from vpt import export as export
    from vpt import heads as heads
    from vpt import methods as methods
    from vpt import model as model
    from vpt import runtime as runtime
    from vpt import schemas as schemas
    from vpt import serving as serving
    from vpt import tasks as tasks
    from vpt import testing as testing
    from vpt import training as training
    from vpt import tuning as tuning
    from vpt.analysis.attention_maps import Explanation as Explanation
    from vpt.analysis.embeddings import Embedding as Embedding
    from vpt.analysis.features import FeatureFile as FeatureFile
    from vpt.analysis.occlusion import Occlusion as Occlusion
    from vpt.api.analyzing import embed as embed
    from vpt.api.analyzing import embed_to_file as embed_to_file
    from vpt.api.analyzing import explain as explain
    from vpt.api.analyzing import occlude as occlude
    from vpt.api.evaluating import evaluate as evaluate
    from vpt.api.models import PredictOptions as PredictOptions
    from vpt.api.models import TuneOptions as TuneOptions
    from vpt.api.predicting import predict as predict
    from vpt.api.predicting import predict_to_file as predict_to_file
    from vpt.api.training import tune as tune
    from vpt.backbones import Backbone as Backbone
    from vpt.backbones import list_backbones as list_backbones
    from vpt.backbones import load_backbone as load_backbone
    from vpt.core.prediction import Prediction as Prediction
    from vpt.errors import BackboneError as BackboneError
    from vpt.errors import DataError as DataError
    from vpt.errors import ExitCode as ExitCode
    from vpt.errors import SpecError as SpecError
    from vpt.errors import StorageError as StorageError
    from vpt.errors import TrainingError as TrainingError
    from vpt.errors import TunedFileError as TunedFileError
    from vpt.errors import UnsupportedError as UnsupportedError
    from vpt.errors import VptError as VptError
    from vpt.methods import METHODS as METHODS
    from vpt.methods import VPT as VPT
    from vpt.methods import Full as Full
    from vpt.methods import Injection as Injection
    from vpt.methods import Linear as Linear
    from vpt.methods import Method as Method
    from vpt.methods import parse_method as parse_method
    from vpt.model.attach import attach as attach
    from vpt.model.header import Header as Header
    from vpt.model.header import inspect as inspect
    from vpt.model.load import load as load
    from vpt.model.trainable_state import Counts as Counts
    from vpt.model.tuned_file import save as save
    from vpt.model.tuned_model import TunedModel as TunedModel
    from vpt.tasks.classification.prediction_file import PredictionFile as PredictionFile
    from vpt.tasks.evaluation import Evaluation as Evaluation
    from vpt.training import Callback as Callback
    from vpt.training.job import RunResult as RunResult

# Module -> its names here. They are imported when they are used first, because torch takes seconds.
_MODULES = {
    "vpt.errors": (
        "BackboneError DataError ExitCode SpecError StorageError TrainingError TunedFileError UnsupportedError VptError"
    ),
    "vpt.backbones": "Backbone list_backbones load_backbone",
    "vpt.methods": "METHODS VPT Full Injection Linear Method parse_method",
    "vpt.model.attach": "attach",
    "vpt.model.trainable_state": "Counts",
    "vpt.model.tuned_model": "TunedModel",
    "vpt.model.header": "Header inspect",
    "vpt.model.load": "load",
    "vpt.model.tuned_file": "save",
    "vpt.tasks.evaluation": "Evaluation",
    "vpt.core.prediction": "Prediction",
    "vpt.training": "Callback",
    "vpt.training.job": "RunResult",
    "vpt.analysis.attention_maps": "Explanation",
    "vpt.analysis.embeddings": "Embedding",
    "vpt.analysis.features": "FeatureFile",
    "vpt.analysis.occlusion": "Occlusion",
    "vpt.tasks.classification.prediction_file": "PredictionFile",
    "vpt.api.analyzing": "embed embed_to_file explain occlude",
    "vpt.api.models": "PredictOptions TuneOptions",
    "vpt.api.evaluating": "evaluate",
    "vpt.api.predicting": "predict predict_to_file",
    "vpt.api.training": "tune",
}
# Documented submodules: `vpt.testing` works after `import vpt`.
_SUBMODULES = (
    "analysis", "backbones", "conversion", "data", "datasets", "errors", "export", "heads", "methods", "model",
    "runtime", "schemas", "serving", "tasks", "testing", "training", "tuning",
)  # fmt: skip
_HOMES = {name: module for module, names in _MODULES.items() for name in names.split()}
__all__ = sorted(["__version__", *_HOMES])

logging.getLogger("vpt").addHandler(logging.NullHandler())  # silent until the user configures logging


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"vpt.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'vpt' has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, *_SUBMODULES])
