"""One graph of a backbone for any number of tasks, whose images share a pass."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from vpt.core.input_files import require_regular_file
from vpt.core.prediction import Prediction
from vpt.data.preprocessing import Preprocessing
from vpt.errors import SpecError, TunedFileError
from vpt.runtime.metadata import read_metadata, read_preprocessing
from vpt.runtime.model import open_session, require_positive, require_several
from vpt.runtime.pixels import ImageSource, name_of, read_input
from vpt.runtime.predictions import to_prediction

_MASKED = -1e4  # added to the score of a missing prompt


class Task:
    """What a task adds to a backbone: keys and values of prompts, and a head."""

    def __init__(self, path: str | Path) -> None:
        """Read the file of a task.

        Args:
            path: The file, .safetensors, that `vpt export` wrote.

        Raises:
            TunedFileError: The file is missing, damaged, or not that of a task.
        """
        advice = "`vpt export FILE --out NAME.task.safetensors` makes one"
        require_regular_file(Path(path), "task", advice, TunedFileError)
        try:
            with safe_open(path, framework="np") as file:
                text = (file.metadata() or {}).get("vpt-task")
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        except (
            SafetensorError,
            OSError,
            ValueError,
            TypeError,
            AttributeError,
        ) as error:  # also of a type unknown to numpy
            raise TunedFileError(f"{path} is damaged ({error!s:.200}); export the task again") from error
        if text is None:
            raise TunedFileError(f"{path} is not the file of a task; {advice} of a tuned file")
        fault = _find_fault(tensors)
        if fault:
            raise TunedFileError(f"{path} is damaged: {fault}; export the task again")
        self.keys: NDArray[np.float32] = tensors["keys"]
        self.values: NDArray[np.float32] = tensors["values"]
        self.bias: NDArray[np.float32] = tensors["bias"]
        self.head: list[tuple[NDArray[np.float32], NDArray[np.float32]]] = [
            (tensors[f"head.{index}.weight"], tensors[f"head.{index}.bias"]) for index in range(_num_layers(tensors))
        ]
        num_outputs = len(self.head[-1][1])
        self.metadata: dict[str, Any] = read_metadata(text, path, is_model=True, num_outputs=num_outputs)
        self.preprocessing: Preprocessing = read_preprocessing(self.metadata["preprocessing"])

    def logits(self, feature: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits of an image.

        Args:
            feature: The feature of the backbone with the prompts of this task (d,).

        Returns:
            The logits (classes,).
        """
        *hidden, (weight, bias) = self.head
        for inner_weight, inner_bias in hidden:
            feature = np.maximum(inner_weight @ feature + inner_bias, 0)
        found: NDArray[np.float32] = weight @ feature + bias
        return found


class SharedModel:
    """A backbone for any number of tasks."""

    def __init__(self, path: str | Path, *, threads: int | None = None) -> None:
        """Open the graph of a backbone.

        Args:
            path: The file, .onnx, that `vpt export --shared` wrote.
            threads: Threads of an operation. Default: those of onnxruntime.

        Raises:
            TunedFileError: The file is missing, damaged, or not the graph of a backbone.
            VptError: onnxruntime is not installed.
        """
        self._session, text = open_session(path, threads, source="BACKBONE --shared")
        self._shapes = {each.name: each.shape for each in self._session.get_inputs()}
        if not self._shapes.keys() >= {"images", "keys", "weight"}:
            raise TunedFileError(
                f"{path} is the graph of one task; `vpt export BACKBONE --shared --out backbone.onnx` makes one for all"
            )
        self.metadata: dict[str, Any] = read_metadata(text, path, is_model=False)

    def load(self, path: str | Path) -> Task:
        """Read the file of a task of this backbone.

        Args:
            path: The file, .safetensors.

        Returns:
            The task.

        Raises:
            TunedFileError: The file cannot be read, or belongs to another backbone.
        """
        task = Task(path)
        if task.metadata["fingerprint"] != self.metadata["fingerprint"]:
            raise TunedFileError(
                f"{path} was made for {task.metadata['backbone']} with {task.metadata['fingerprint'][:19]}..., and the "
                f"graph is {self.metadata['backbone']} with {self.metadata['fingerprint'][:19]}...; export both from "
                "the same weights"
            )
        sizes = [one.metadata["preprocessing"]["size"] for one in (task, self)]
        if sizes[0] != sizes[1]:
            raise TunedFileError(
                f"{path} was made for images of {sizes[0]} px, and the graph for {sizes[1]} px; export the graph with "
                f"--image-size {sizes[0]}"
            )
        for name, shape in (("keys", task.keys.shape), ("weight", task.head[0][0].shape)):
            wanted = self._shapes[name][1:]
            pairs = zip(wanted, shape, strict=False)
            # A size that may be any is a text or None.
            if len(wanted) != len(shape) or any(isinstance(size, int) and size != own for size, own in pairs):
                raise TunedFileError(
                    f"{path} has {name} of shape {shape}, and the graph takes {tuple(wanted)}; export both from the "
                    "same weights"
                )
        return task

    def predict(
        self, images: Iterable[ImageSource], tasks: Iterable[Task], *, top: int = 3, batch_size: int = 32
    ) -> list[Prediction]:
        """Classify images of different tasks.

        Args:
            images: Paths of images, or Pillow images.
            tasks: Task of each image.
            top: Number of classes to name. Default: 3.
            batch_size: Images in one pass. Default: 32.

        Returns:
            A prediction for each image, in order.

        Raises:
            DataError: An image cannot be used.
            SpecError: `top` or `batch_size` is below 1, a single image or task is given, or there is not one task for
                each image.
            TrainingError: Outputs of a model are NaN or infinite.
        """
        require_positive(top=top, batch_size=batch_size)
        require_several(images)
        if isinstance(tasks, Task):
            raise SpecError("tasks is one task; give a list with the task of each image")
        images, tasks = list(images), list(tasks)
        if len(images) != len(tasks):
            raise SpecError(f"there are {len(images)} images and {len(tasks)} tasks; give the task of each image")
        predictions = []
        for start in range(0, len(images), batch_size):
            part = list(zip(images[start : start + batch_size], tasks[start : start + batch_size], strict=True))
            inputs = np.stack([read_input(image, task.preprocessing) for image, task in part])
            every = self.logits(inputs, [task for _, task in part])
            for index, ((image, task), logits) in enumerate(zip(part, every, strict=True), start):
                name = name_of(image, index)
                found = to_prediction(name, logits, task.metadata["classes"], task.metadata["label_kind"], top)
                predictions.append(found)
        return predictions

    def logits(self, images: NDArray[np.float32], tasks: Sequence[Task]) -> list[NDArray[np.float32]]:
        """Return the logits of normalized images of different tasks, in one pass.

        Args:
            images: Normalized images (batch, channels, size, size).
            tasks: Task of each image.

        Returns:
            The logits (classes,) of each image.
        """
        length = max(task.keys.shape[2] for task in tasks)
        classes = max(len(task.head[-1][1]) for task in tasks)
        width = tasks[0].head[0][0].shape[1]
        keys, values, bias = [], [], []
        weight = np.zeros((len(tasks), classes, width), np.float32)
        head_bias = np.zeros((len(tasks), classes), np.float32)
        for index, task in enumerate(tasks):
            missing = length - task.keys.shape[2]
            keys.append(np.pad(task.keys, ((0, 0), (0, 0), (0, missing), (0, 0))))
            values.append(np.pad(task.values, ((0, 0), (0, 0), (0, missing), (0, 0))))
            bias.append(np.pad(task.bias, ((0, 0), (0, missing)), constant_values=_MASKED))
            if len(task.head) == 1:
                ((own_weight, own_bias),) = task.head
                weight[index, : len(own_weight)], head_bias[index, : len(own_bias)] = own_weight, own_bias
        inputs = {
            "images": images, "keys": np.stack(keys), "values": np.stack(values), "bias": np.stack(bias),
            "weight": weight, "head_bias": head_bias,
        }  # fmt: skip
        logits, features = self._session.run(None, inputs)
        return [
            row[: len(task.head[0][1])] if len(task.head) == 1 else task.logits(feature)
            for task, row, feature in zip(tasks, logits, features, strict=True)
        ]


def _num_layers(tensors: Mapping[str, NDArray[Any]]) -> int:
    return sum(name.startswith("head.") for name in tensors) // 2


def _find_fault(tensors: Mapping[str, NDArray[Any]]) -> str | None:
    """Return what is wrong with the tensors of a task, in words."""
    layers = range(_num_layers(tensors))
    head = [f"head.{index}.{name}" for index in layers for name in ("weight", "bias")]
    if tensors.keys() != {"keys", "values", "bias", *head} or not head:
        return (
            f"its tensors are {', '.join(sorted(tensors))[:80]}, and keys, values, bias, head.0.weight ... are needed"
        )
    for name, tensor in tensors.items():
        if tensor.dtype != np.float32 or not np.isfinite(tensor).all():
            return f"the tensor {name} is not of finite float32 numbers"
    keys = tensors["keys"].shape
    widths = [tensors[f"head.{index}.weight"].shape for index in layers]
    fits = [
        len(keys) == 4 and 0 not in keys and tensors["values"].shape == keys,
        tensors["bias"].shape == (keys[0], keys[2]) if len(keys) == 4 else False,
        all(len(shape) == 2 and 0 not in shape for shape in widths),
        all(tensors[f"head.{index}.bias"].shape == widths[index][:1] for index in layers),
        all(inner[:1] == outer[1:] for inner, outer in pairwise(widths)),
    ]
    return None if all(fits) else "the shapes of its tensors do not fit one another"
