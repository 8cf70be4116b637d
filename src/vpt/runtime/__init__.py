"""Predictions of exported graphs without torch: numpy, Pillow, onnxruntime and safetensors are all that this needs."""

from vpt.core.prediction import Prediction
from vpt.runtime.model import ExportedModel
from vpt.runtime.shared import SharedModel, Task

__all__ = ["ExportedModel", "Prediction", "SharedModel", "Task"]
