"""One graph of a backbone for any number of tasks, whose images share a pass."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from vpt.errors import TunedFileError
from vpt.runtime.answers import Answer, answer
from vpt.runtime.model import ImageSource, open_session
from vpt.runtime.pixels import read_image, to_input

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
        try:
            with safe_open(path, framework="np") as file:
                text = (file.metadata() or {}).get("vpt-task")
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        except (SafetensorError, OSError, ValueError) as error:
            raise TunedFileError(f"{path} is missing or damaged ({error}); export the task again") from error
        if text is None:
            raise TunedFileError(
                f"{path} is not the file of a task; `vpt export FILE --out task.safetensors` makes one of a tuned file"
            )
        self.metadata: dict[str, Any] = json.loads(text)
        self.keys: NDArray[np.float32] = tensors["keys"]
        self.values: NDArray[np.float32] = tensors["values"]
        self.bias: NDArray[np.float32] = tensors["bias"]
        layers = range(sum(name.startswith("head.") for name in tensors) // 2)
        self.head: list[tuple[NDArray[np.float32], NDArray[np.float32]]] = [
            (tensors[f"head.{index}.weight"], tensors[f"head.{index}.bias"]) for index in layers
        ]

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
        self.metadata: dict[str, Any]
        self._session, self.metadata = open_session(path, threads)
        if [each.name for each in self._session.get_inputs()][:2] != ["images", "keys"]:
            raise TunedFileError(f"{path} is the graph of one task; `vpt export --shared BACKBONE` makes one for all")

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
        return task

    def predict(
        self, images: Sequence[ImageSource], tasks: Sequence[Task], *, top: int = 3, batch_size: int = 32
    ) -> list[Answer]:
        """Classify images of different tasks.

        Args:
            images: Paths of images, or Pillow images.
            tasks: Task of each image.
            top: Number of classes to name. Default: 3.
            batch_size: Images in one pass. Default: 32.

        Returns:
            An answer for each image, in order.

        Raises:
            DataError: An image cannot be used.
        """
        answers = []
        for start in range(0, len(images), batch_size):
            part = list(zip(images[start : start + batch_size], tasks[start : start + batch_size], strict=True))
            inputs = np.stack([to_input(read_image(image), task.metadata["preprocessing"]) for image, task in part])
            for (_, task), logits in zip(part, self.logits(inputs, [task for _, task in part]), strict=True):
                answers.append(answer(logits, task.metadata["classes"], task.metadata["label_kind"], top))
        return answers

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
