"""Export of a plain model: an ONNX graph, or a program of `torch.export`, with what is needed to use it.

The metadata are one JSON text: the graph's property "vpt" in ONNX, the extra file "vpt.json" in a program.
"""

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vpt.core.io import write_atomic, write_atomic_with
from vpt.core.optional import import_optional
from vpt.core.text import format_bytes
from vpt.data.preprocessing import Preprocessing
from vpt.errors import UnsupportedError

METADATA = "vpt"
_MAX_ONNX = 2**31 - 2**24  # bytes of weights; the graph itself needs some, too
ExportFormat = Literal["onnx", "torch"]


class PixelModel(nn.Module):
    """A model with the preprocessing in front: pixels of any size -> logits.

    Scaling is that of torch with antialiasing, within a gray level of Pillow's.

    Args:
        model: Normalized images (batch, channels, size, size) -> logits.
        preprocessing: The preprocessing, with bilinear or bicubic interpolation.

    Raises:
        UnsupportedError: No graph has the interpolation.
    """

    def __init__(self, model: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        if preprocessing.interpolation not in ("bilinear", "bicubic"):
            raise UnsupportedError(
                f"the interpolation is {preprocessing.interpolation}, which a graph does not have; leave the "
                "preprocessing outside"
            )
        self.model = model
        self.preprocessing = preprocessing

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the logits.

        Args:
            pixels: uint8 (batch, 3, height, width), images of one size.

        Returns:
            The logits of the model.
        """
        pre = self.preprocessing
        height, width = pixels.shape[-2:]
        size: list[Any]
        values = pixels.float()
        if pre.resize == "squash":
            size = [pre.size, pre.size]
        else:
            side = round(pre.size / pre.crop_fraction)
            short = torch.sym_min(height, width)
            size = [height * side // short, width * side // short]
        values = F.interpolate(values, size=size, mode=pre.interpolation, antialias=True)
        values = values.round().clamp(0, 255)  # as an image file has it
        if pre.resize == "crop":
            top, left = (_half(length - pre.size) for length in size)
            values = values[:, :, top : top + pre.size, left : left + pre.size]
        return self.model(pre.normalize(values))  # type: ignore[no-any-return]


def _half(difference: Any) -> Any:
    """Return half of a number, rounded as `round` does, which a symbol has not."""
    return difference // 2 + difference % 4 // 3


class HalfModel(nn.Module):
    """A model in float16 with inputs and outputs in float32.

    Args:
        model: The model, which is converted.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: nn.Module = model.half()

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits in float32.

        Args:
            images: Normalized images (batch, channels, size, size).

        Returns:
            The logits of the model.
        """
        return self.model(images.half()).float()  # type: ignore[no-any-return]


def export_model(
    model: nn.Module,
    out: Path,
    format_name: ExportFormat,
    preprocessing: Preprocessing,
    metadata: Mapping[str, Any],
    *,
    pixels: bool = False,
    half: bool = False,
) -> None:
    """Write a model as a graph with a dynamic batch size, and compare the graph with the model.

    Args:
        model: A plain model in eval mode on the CPU.
        out: The file to write.
        format_name: "onnx", or "torch" for a program of `torch.export` (.pt2).
        preprocessing: The preprocessing of the images.
        metadata: What else a user of the file needs, as JSON values.
        pixels: True puts the preprocessing into the graph, whose input then is uint8 pixels of any size. Default:
            False.
        half: True converts weights and computation to float16. Default: False.

    Raises:
        UnsupportedError: The model cannot be exported, or the graph gives other logits.
        VptError: A package that is needed is not installed.
    """
    network = HalfModel(model) if half else model
    dims: dict[int, Any] = {0: torch.export.Dim("batch", min=1)}
    if pixels:
        network = PixelModel(network, preprocessing)
        dims |= {2: torch.export.Dim("height", min=8), 3: torch.export.Dim("width", min=8)}
        size = (2, 3, preprocessing.size + 32, preprocessing.size + 48)
        example = torch.randint(256, size, dtype=torch.uint8)
    else:
        example = torch.rand(2, preprocessing.channels, preprocessing.size, preprocessing.size) * 4 - 2
    name = "pixels" if pixels else "images"
    described = {**metadata, "input": name, "preprocessing": preprocessing.to_dict()}
    tolerance = 5e-2 if half else 1e-4
    save_graph(network, (example,), [dims], out, format_name, (name,), ("logits",), described, tolerance=tolerance)


def save_graph(
    network: nn.Module,
    example: tuple[Tensor, ...],
    dims: Sequence[dict[int, Any]],
    out: Path,
    format_name: ExportFormat,
    inputs: Sequence[str],
    outputs: Sequence[str],
    metadata: Mapping[str, Any],
    *,
    tolerance: float = 1e-4,
) -> None:
    """Write a network as a graph, run the graph, and compare its outputs with those of the network.

    Args:
        network: The network, on the CPU.
        example: Its inputs, each with a batch of at least 2.
        dims: Dynamic dimensions of each input.
        out: The file to write.
        format_name: "onnx", or "torch" for a program of `torch.export`.
        inputs: Names of the inputs.
        outputs: Names of the outputs.
        metadata: What else a user of the file needs, as JSON values.
        tolerance: Largest difference from the network, relative to its largest output, or to 1. Default: 1e-4.

    Raises:
        UnsupportedError: The network cannot be exported, or the graph gives other outputs.
        VptError: A package that is needed is not installed.
    """
    text, program = json.dumps(metadata), _trace(network.eval(), example, dims)
    # A second batch size: a graph that has fixed the first one fails here, not with a user.
    others = tuple(torch.cat([each, each.flip(0)])[:3] for each in example)
    with torch.inference_mode():
        expected = network(*others)
    expected = expected if isinstance(expected, tuple) else (expected,)
    if format_name == "torch":
        found = program.module()(*others)
        _check_equal(found if isinstance(found, tuple) else (found,), expected, tolerance)
        write_atomic_with(out, lambda file: torch.export.save(program, file, extra_files={f"{METADATA}.json": text}))
        return
    content = _to_onnx(program, inputs, outputs, text)
    runtime = import_optional("onnxruntime", "export", "the check of the exported graph")
    session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    arrays = {name: tensor.numpy() for name, tensor in zip(inputs, others, strict=True)}
    _check_equal([torch.from_numpy(each) for each in session.run(None, arrays)], expected, tolerance)
    write_atomic(out, content)


def _trace(network: nn.Module, example: tuple[Tensor, ...], dims: Sequence[dict[int, Any]]) -> Any:
    try:
        with torch.no_grad():
            return torch.export.export(network, example, dynamic_shapes=tuple(dims), strict=False)
    except (RuntimeError, ValueError, TypeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UnsupportedError(f"torch.export cannot follow this model ({reason:.300})") from error


def _to_onnx(program: Any, inputs: Sequence[str], outputs: Sequence[str], metadata: str) -> bytes:
    import_optional("onnxscript", "export", "the export to ONNX")
    size = sum(tensor.numel() * tensor.element_size() for tensor in program.state_dict.values())
    if size > _MAX_ONNX:
        raise UnsupportedError(
            f"the weights take {format_bytes(size)}, and one ONNX file holds 2 GiB; convert to float16 (half), or "
            "write .pt2"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporter about itself
            graph: Any = torch.onnx.export(
                program, dynamo=True, input_names=list(inputs), output_names=list(outputs), verbose=False
            )
    except RuntimeError as error:
        reason = str(error).strip().rpartition("\n")[2]
        raise UnsupportedError(f"ONNX has no form for an operation of this model ({reason:.300})") from error
    graph.model.metadata_props[METADATA] = metadata
    content: bytes = graph.model_proto.SerializeToString()
    return content


def _check_equal(actual: Sequence[Tensor], expected: Sequence[Tensor], tolerance: float) -> None:
    for found, reference in zip(actual, expected, strict=True):
        difference = (found.float() - reference.float()).abs().max().item()
        if not difference <= tolerance * max(1.0, reference.abs().max().item()):
            raise UnsupportedError(
                f"the exported graph gives other logits, by up to {difference:.3g}; it was not written"
            )
