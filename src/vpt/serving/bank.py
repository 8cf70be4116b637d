"""A bank of tuned files on shared backbones, with predictions for batches that mix tasks."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from vpt.backbones import Backbone, load_backbone
from vpt.core.text import bullets, did_you_mean, pluralize
from vpt.errors import DataError, SpecError, TunedFileError, VptError
from vpt.model.tuned_file import Header, backbone_for, inspect, load
from vpt.model.tuned_model import TunedModel
from vpt.serving.multi_task import MultiTaskBackbone, TaskAdapter
from vpt.tasks.segmentation.sliding_window import InferenceConfig, predict_classes

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
    """The classification of an image.

    Args:
        task: Name of the task.
        ranking: (class, probability) of all classes, most likely first.
    """

    task: str
    ranking: tuple[tuple[str, float], ...]


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
        # By fingerprint and image size: weights without positions have one fingerprint at every size.
        self._backbones: dict[tuple[str, int], Backbone] = {}
        self._multi_task: dict[tuple[str, int], MultiTaskBackbone] = {}
        self._models: OrderedDict[str, TaskAdapter | TunedModel] = OrderedDict()
        self.tasks: dict[str, Header]
        self._files, self.tasks = _read_headers(paths)
        by_kind: dict[tuple[str, int], tuple[str, Backbone] | VptError] = {}
        faults = []
        for name, header in self.tasks.items():
            kind = (header.backbone, header.preprocessing.size)
            if kind not in by_kind:
                by_kind[kind] = _load_for(self._files[name], header, backbone, weights)
            found = by_kind[kind]
            if isinstance(found, VptError):
                faults.append(f"{self._files[name]}: {found}")
            elif found[0] != header.fingerprint:
                faults.append(
                    f"{self._files[name]}: made for {header.backbone} with {header.fingerprint[:19]}..., but the "
                    f"backbone is {found[1].name} with {found[0][:19]}...; weights, dtype and image size "
                    f"({header.preprocessing.size} px) must be equal"
                )
            else:
                self._backbones[_backbone_key(header)] = found[1]
        if faults:
            raise TunedFileError(f"{pluralize(len(faults), 'file')} cannot be used:{bullets(faults)}")
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
            prediction: The first error of a request.
        """
        predictions = dict(self.iter_predictions(requests))
        for prediction in predictions.values():
            if isinstance(prediction, Exception):
                raise prediction
        return [cast(Prediction, predictions[index]) for index in range(len(requests))]

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
        multi_task: defaultdict[tuple[str, int], list[int]] = defaultdict(list)
        by_task: defaultdict[str, list[int]] = defaultdict(list)
        segmentation_indices = []
        for index, request in enumerate(requests):
            try:
                model = models[request.task] = self._load(request.task)
            except VptError as error:
                yield index, error
                continue
            if isinstance(model, TunedModel) and model.is_dense:
                segmentation_indices.append(index)
            elif isinstance(model, TunedModel):
                by_task[request.task].append(index)
            else:
                multi_task[_backbone_key(self.tasks[request.task])].append(index)
        for indices in (*multi_task.values(), *by_task.values()):
            batch = [requests[index] for index in indices]
            for index, logits in zip(indices, self._logits(batch, [models[one.task] for one in batch]), strict=True):
                probabilities = logits.softmax(0).sort(descending=True, stable=True)
                names = self.class_names(requests[index].task)
                ranking = zip(probabilities.indices.tolist(), probabilities.values.tolist(), strict=True)
                yield (
                    index,
                    ClassPrediction(requests[index].task, tuple((names[k], probability) for k, probability in ranking)),
                )
        for index in segmentation_indices:
            yield index, self._predict_mask(requests[index], cast(TunedModel, models[requests[index].task]))

    def _logits(
        self, requests: list[PredictionRequest], models: Sequence[TaskAdapter | TunedModel]
    ) -> Sequence[Tensor]:
        """Return the logits of requests that share a forward pass."""
        header = self.tasks[requests[0].task]
        device = next(self._backbones[_backbone_key(header)].module.parameters()).device
        images = torch.cat(
            [self.tasks[one.task].preprocessing.normalize(one.pixels[None].to(device)) for one in requests]
        )
        if isinstance(models[0], TunedModel):
            return list(models[0](images).float())
        if _backbone_key(header) not in self._multi_task:
            self._multi_task[_backbone_key(header)] = MultiTaskBackbone(self._backbones[_backbone_key(header)])
        return self._multi_task[_backbone_key(header)](
            images, [model for model in models if isinstance(model, TaskAdapter)]
        )

    def _predict_mask(self, request: PredictionRequest, model: TunedModel) -> MaskPrediction:
        mask = predict_classes(model, request.pixels, InferenceConfig()).numpy().astype(np.uint16)
        names = self.class_names(request.task)
        fractions = np.bincount(mask.flatten(), minlength=len(names)) / mask.size
        order = np.argsort(-fractions, kind="stable")
        present = tuple((names[k], float(fractions[k])) for k in order if fractions[k] > 0)
        return MaskPrediction(request.task, present, mask)

    def _load(self, task: str) -> TaskAdapter | TunedModel:
        """Return the model of a task from memory or from its file. A full cache drops the least recently used model."""
        if task not in self._models:
            header = self.header(task)
            path = self._files[task]
            if inspect(path).to_json() != header.to_json():  # clients have the old class names
                raise TunedFileError(f"{path} has changed since its header was read; restart the server")
            with torch.inference_mode(False):  # injection is verified with gradients
                model = load(path, self._backbones[_backbone_key(header)], known_fingerprint=header.fingerprint)
            self._models[task] = TaskAdapter.from_model(model) or model
            if len(self._models) > self._cache_size:
                self._models.popitem(last=False)
        self._models.move_to_end(task)
        return self._models[task]


def _backbone_key(header: Header) -> tuple[str, int]:
    return header.fingerprint, header.preprocessing.size


def _read_headers(paths: Iterable[Path]) -> tuple[dict[str, Path], dict[str, Header]]:
    """Return files and headers by name. TunedFileError names every file without a header or with an existing name."""
    files: dict[str, Path] = {}
    headers: dict[str, Header] = {}
    faults = []
    for given in paths:
        found = sorted(given.glob("*.safetensors")) if given.is_dir() else [given]
        if not found:
            faults.append(f"{given}: a folder without *.safetensors files")
        for path in found:
            if path.stem in files:
                faults.append(f"{path}: {files[path.stem]} is also named {path.stem}; rename one of them")
                continue
            try:
                headers[path.stem] = inspect(path)
                files[path.stem] = path
            except TunedFileError as error:
                faults.append(str(error))
    if faults:
        raise TunedFileError(f"{pluralize(len(faults), 'file')} cannot be used:{bullets(faults)}")
    if not files:
        raise TunedFileError("no tuned file was given; create one with `vpt tune DATA --out FILE`")
    return files, headers


def _load_for(
    path: Path, header: Header, backbone: str | nn.Module | Backbone | None, weights: Path | None
) -> tuple[str, Backbone] | VptError:
    """Return the fingerprint and the backbone for a file, or the error."""
    try:
        if backbone is None or isinstance(backbone, str):
            found = backbone_for(path, header, name=backbone, weights=weights)
        else:
            found = load_backbone(backbone, weights=weights)
        return found.fingerprint(), found
    except VptError as error:
        return error
