"""The ways of a tuned model into other programs: a timm state dict, a plain module tree, an exported graph."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vpt.attention.detection import compute_dtype
from vpt.core.environment import versions
from vpt.errors import SpecError
from vpt.model.exporting import ExportFormat, export_model
from vpt.model.merging import merge
from vpt.model.plain import PlainModel, fold_constants
from vpt.model.readout import Readout
from vpt.model.timm_protocol import TimmProtocol
from vpt.model.trainable_state import TrainableState

_FORMATS: dict[str, ExportFormat] = {".onnx": "onnx", ".pt2": "torch"}


class Portable(TimmProtocol, TrainableState):
    """Base of a tuned model that can leave this library."""

    readout: Readout
    reads_backbone_feature: bool
    split_options: dict[str, Any]
    _original_modules: dict[str, nn.Module]
    _wrappers: dict[str, nn.Module]

    def merge(self) -> dict[str, Tensor]:
        """Return the tuned model as a plain timm state dict.

        The injected modules are merged into the weights and the head takes the classifier's name.
        `timm.create_model(name, num_classes=n).load_state_dict(...)` then gives the same logits without vpt.

        Returns:
            The state dict; its tensors are copies.

        Raises:
            UnsupportedError: The method is no linear change of weights, or timm has no such head.
        """
        head, training = self.head if self.reads_backbone_feature else None, self.training
        self.eval()
        try:
            return merge(self.method, self.backbone, self._original_modules, self._wrappers, head, self.network)
        finally:
            self.train(training)

    def plain(self) -> PlainModel:
        """Return an ordinary module tree with weights of its own and the same logits, for tools that take models apart.

        Prompts are constant keys and values, changes of weights are merged, and every block computes every token, so
        that Grad-CAM, captum and quantizers find what they find in a timm model.

        Returns:
            The model in eval mode. No weight requires a gradient.
        """
        return self._fold(all_tokens=True)

    def export(self, out: str | Path, *, pixels: bool = False, half: bool = False) -> Path:
        """Write the model as one graph with a dynamic batch size, which runs without this library.

        The graph is run and compared with the model before it is written.

        Args:
            out: The file: .onnx, or .pt2 for a program of `torch.export`.
            pixels: True puts the preprocessing into the graph, whose input then is uint8 pixels (batch, 3, height,
                width) of any size. Default: normalized images (batch, 3, size, size).
            half: True converts weights and computation to float16. Default: float32.

        Returns:
            The path.

        Raises:
            SpecError: The file has another suffix.
            UnsupportedError: The graph cannot be made, or gives other logits.
            VptError: A package that is needed is not installed.
        """
        out = Path(out)
        suffix = out.suffix.casefold()
        if suffix not in _FORMATS:
            raise SpecError(f"{out} has the suffix {out.suffix!r}; write .onnx or .pt2")
        metadata: dict[str, Any] = {
            "format": 1,
            "backbone": self.backbone.name,
            "fingerprint": self.backbone.weights_digest(),
            "method": self.method.spec(full=True),
            "head": self.readout.spec(full=True),
            "classes": self.classes,
            "label_kind": self.label_kind.to_dict(),
            "versions": versions(),
        }
        model = self._fold(all_tokens=False).to("cpu", torch.float32)
        images = self.layout.preprocessing
        export_model(model, out, _FORMATS[suffix], images, metadata, pixels=pixels, half=half)
        return out

    def _fold(self, *, all_tokens: bool) -> PlainModel:
        training = self.training
        self.eval()
        try:
            return fold_constants(
                self.network,
                self.head,
                self.readout,
                self._original_modules,
                self._wrappers,
                dtype=compute_dtype(self.trunk),
                all_tokens=all_tokens,
            )
        finally:
            self.train(training)
