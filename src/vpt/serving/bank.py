"""A bank of tuned files on shared backbones, with predictions for batches that mix tasks."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from vpt.backbones import Backbone
from vpt.core.text import did_you_mean
from vpt.errors import DataError, SpecError, TunedFileError, VptError
from vpt.model.tuned_file import Header, inspect, load
from vpt.model.tuned_model import TunedModel
from vpt.serving.multi_task import MultiTaskBackbone, TaskAdapter
from vpt.serving.tuned_files import BackboneKey, backbone_key, load_backbones, read_headers
from vpt.tasks.classification.labels import label_task
from vpt.tasks.segmentation.prediction import predict_mask
from vpt.tasks.segmentation.sliding_window import InferenceConfig

_MAX_ASPECT_RATIO = 16  # the short side is scaled to the input size, so a long strip would become very large


@dataclass(frozen=True)
class PredictionRequest:
    """An image for a task, prepared by `Bank.make_request`.

    Args:
        task: Name of the task.
        pixels: uint8 (3, size, size), the input size of the backbone. For segmentation (3, height, width), the original
            size.
    """

    task: str
    pixels: Tensor


@dataclass(frozen=True)
class ClassPrediction:
    """The class, the labels or the number of an image.

    Args:
        task: Name of the task.
        ranking: (class, probability) of all classes, most likely first; none where a number is predicted.
        labels: (class, probability) of the classes that the image has, where it may have several; else None.
        value: The predicted number; None where classes are predicted.
    """

    task: str
    ranking: tuple[tuple[str, float], ...]
    labels: tuple[tuple[str, float], ...] | None = None
    value: float | None = None


@dataclass(frozen=True, eq=False)
class MaskPrediction:
    """The segmentation of an image.

    Args:
        task: Name of the task.
        class_fractions: (class, fraction of the image) of the classes in the mask, largest first.
        mask: Class of each pixel, (height, width).
    """

    task: str
    class_fractions: tuple[tuple[str, float], ...]
    mask: NDArray[np.uint16]


Prediction = ClassPrediction | MaskPrediction


class Bank:
    """Tuned files by name. Each backbone is in memory once per image size, for any number of files.

    Headers are read at construction. Weights are read when a task is first used, or by `preload`. A bank is not
    thread-safe, except for `make_request`.
    """

    def __init__(
        self,
        paths: Iterable[Path],
        *,
        backbone: str | nn.Module | Backbone | None = None,
        weights: Path | None = None,
        device: torch.device | str | None = None,
        cache_size: int = 1000,
    ) -> None:
        """Read the headers of all files and load their backbones.

        Args:
            paths: Tuned files, and folders of them. The name of a task is that of its file, without suffix.
            backbone: A backbone or its name. Default: that of the files.
            weights: Local weights of the backbone. Default: those that timm downloads.
            device: Device of the backbones. Default: unchanged.
            cache_size: Maximum number of tasks with weights in memory, the most recently used. Default: 1000.

        Raises:
            TunedFileError: Files have no header, equal names, or another backbone. The message names every such file.
            SpecError: `cache_size` is less than 1.
        """
        if cache_size < 1:
            raise SpecError(f"cache_size is {cache_size}; it must be at least 1")
        self._cache_size = cache_size
        self._files, headers = read_headers(paths)
        self.tasks: dict[str, Header] = headers
        self._backbones = load_backbones(self._files, headers, backbone, weights)
        self._multi_task: dict[BackboneKey, MultiTaskBackbone] = {}
        self._load = lru_cache(maxsize=cache_size)(self._read_model)
        if device is not None:
            for shared in self._backbones.values():
                shared.module.to(device)

    def preload(self, on_progress: Callable[[int, int], None] | None = None) -> None:
        """Read the weights of as many tasks as the cache holds.

        Args:
            on_progress: Called as (done, total) after each task.
        """
        names = list(self.tasks)[: self._cache_size]
        for done, name in enumerate(names, start=1):
            self._load(name)
            if on_progress is not None:
                on_progress(done, len(names))

    def header(self, task: str) -> Header:
        """Return the header of the file of a task.

        Args:
            task: Name of the task.

        Returns:
            The header.

        Raises:
            SpecError: The task is unknown.
        """
        if task not in self.tasks:
            raise SpecError(f"there is no task {task!r}; {did_you_mean(task, self.tasks)}")
        return self.tasks[task]

    def class_names(self, task: str) -> tuple[str, ...]:
        """Return the class names of a task, or their numbers.

        Args:
            task: Name of the task.

        Returns:
            One name per class.
        """
        header = self.header(task)
        return header.classes or tuple(str(index) for index in range(header.num_classes))

    def make_request(self, task: str, image: Image.Image) -> PredictionRequest:
        """Prepare an image for `predict`. This method is thread-safe.

        An unknown task raises SpecError.

        Args:
            task: Name of the task.
            image: An RGB image of any size.

        Returns:
            The request.

        Raises:
            DataError: The image is too long and narrow to be segmented.
        """
        header = self.header(task)
        if not header.is_dense:
            return PredictionRequest(task, torch.from_numpy(header.preprocessing.resize_image(image)))
        if max(image.size) > _MAX_ASPECT_RATIO * min(image.size):
            raise DataError(
                f"the image is {image.width} x {image.height} px; for segmentation, the long side must be at most "
                f"{_MAX_ASPECT_RATIO} times the short side; crop it"
            )
        return PredictionRequest(task, torch.from_numpy(np.asarray(image).transpose(2, 0, 1).copy()))

    def predict(self, requests: Sequence[PredictionRequest]) -> list[Prediction]:
        """Return one prediction per request.

        Args:
            requests: Requests of any tasks.

        Returns:
            The predictions, in the same order.

        Raises:
            VptError: The error of the first request that cannot be answered.
        """
        predictions: list[Prediction] = []
        for _, prediction in sorted(self.iter_predictions(requests), key=itemgetter(0)):
            if isinstance(prediction, Exception):
                raise prediction
            predictions.append(prediction)
        return predictions

    @torch.inference_mode()
    def iter_predictions(self, requests: Sequence[PredictionRequest]) -> Iterator[tuple[int, Prediction | Exception]]:
        """Iterate over predictions as they become available.

        Prompts and heads on one backbone run in one pass. Other classification tasks follow, one pass per task, then
        segmentations one by one.

        Args:
            requests: Requests of any tasks.

        Yields:
            Index of the request, and its prediction or error.
        """
        models: dict[str, TaskAdapter | TunedModel] = {}
        groups: defaultdict[tuple[Any, ...], list[int]] = defaultdict(list)  # indices of requests that run together
        for index, request in enumerate(requests):
            try:
                model = models[request.task] = self._load(request.task)
            except VptError as error:
                yield index, error
                continue
            if isinstance(model, TaskAdapter):
                groups[0, *backbone_key(self.tasks[request.task])].append(index)
            else:
                groups[(2, index) if model.is_dense else (1, request.task)].append(index)
        for _, indices in sorted(groups.items()):
            batch = [requests[index] for index in indices]
            yield from zip(indices, self._predict_batch(batch, [models[one.task] for one in batch]), strict=True)

    def _predict_batch(
        self, requests: Sequence[PredictionRequest], models: Sequence[TaskAdapter | TunedModel]
    ) -> Iterator[Prediction]:
        """Yield the predictions of requests that share a forward pass."""
        key, model = backbone_key(self.tasks[requests[0].task]), models[0]
        if isinstance(model, TunedModel) and model.is_dense:
            mask, fractions = predict_mask(model, requests[0].pixels, InferenceConfig())
            yield MaskPrediction(requests[0].task, fractions, mask)
            return
        device = next(self._backbones[key].module.parameters()).device
        images = torch.cat(
            [self.tasks[one.task].preprocessing.normalize(one.pixels[None].to(device)) for one in requests]
        )
        logits: Iterable[Tensor]
        if isinstance(model, TunedModel):
            logits = model(images).float()
        else:
            if key not in self._multi_task:
                self._multi_task[key] = MultiTaskBackbone(self._backbones[key])
            logits = self._multi_task[key](images, [one for one in models if isinstance(one, TaskAdapter)])
        for request, row in zip(requests, logits, strict=True):
            kind, names = self.header(request.task).label_kind, self.class_names(request.task)
            found = label_task(kind).predict("", kind.activate(row).cpu(), names, len(names))
            yield ClassPrediction(request.task, found.top, found.labels, found.value)

    def _read_model(self, task: str) -> TaskAdapter | TunedModel:
        header, path = self.header(task), self._files[task]
        if inspect(path).to_json() != header.to_json():  # clients have the old class names
            raise TunedFileError(f"{path} has changed since its header was read; restart the server")
        with torch.inference_mode(False):  # injection is verified with gradients
            model = load(path, self._backbones[backbone_key(header)], known_fingerprint=header.fingerprint)
        return TaskAdapter.from_model(model) or model
