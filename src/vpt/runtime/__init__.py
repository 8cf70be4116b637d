"""Answers from exported graphs without torch: numpy, Pillow, onnxruntime and safetensors are all that this needs."""

from vpt.runtime.answers import Answer
from vpt.runtime.model import ExportedModel
from vpt.runtime.shared import SharedModel, Task

__all__ = ["Answer", "ExportedModel", "SharedModel", "Task"]
