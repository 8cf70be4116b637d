"""A bank of tuned files on shared backbones, with predictions for batches that mix tasks."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from vpt.backbones import Backbone
from vpt.core.hub import task_name
from vpt.errors import BackboneError, DataError, SpecError, TunedFileError, VptError
from vpt.model.label_kinds import SingleLabel
from vpt.model.tuned_file import Header
from vpt.model.tuned_model import TunedModel
from vpt.serving.adapter_reader import AdapterReader
from vpt.serving.model_cache import Model, ModelCache
from vpt.serving.multi_task import MultiTaskBackbone, TaskAdapter
from vpt.serving.predictions import ClassPrediction, MaskPrediction, Prediction, PredictionRequest
from vpt.serving.task_files import TaskFiles
from vpt.serving.tuned_files import BackboneKey, TunedFile, backbone_key, load_backbones
from vpt.tasks.classification.labels import label_task
from vpt.tasks.classification.rejection import check_rejection
from vpt.tasks.segmentation.prediction import predict_mask
from vpt.tasks.segmentation.sliding_window import InferenceConfig, refuse_strip


class Bank:
    """Tuned files by name. Each backbone is in memory once per image size, for any number of files.

    Headers are read at construction. Weights are read when a task is first used, or by `preload`. While one thread
    predicts, others may make requests and change `files`.

    Attributes:
        files: The tuned files by name, which may come and go.
    """

    def __init__(
        self,
        paths: Iterable[Path],
        *,
        backbone: str | nn.Module | Backbone | None = None,
        weights: Path | None = None,
        device: torch.device | str | None = None,
        cache_size: int = 1000,
        min_confidence: Mapping[str, float] | None = None,
    ) -> None:
        """Read the headers of all files and load their backbones.

        Args:
            paths: Tuned files, and folders of them. The name of a task is that of its file, without suffix.
            backbone: A backbone or its name. Default: that of the files.
            weights: Local weights of the backbone. Default: those that timm downloads.
            device: Device of the backbones. Default: unchanged.
            cache_size: Maximum number of tasks with weights in memory, the most recently used. Default: 1000.
            min_confidence: Least probability of the most likely class, by name of the task; "" stands for all other
                tasks of one class for each image. Default: 0.

        Raises:
            TunedFileError: Files have no header, equal names, or another backbone. The message names every such file.
            SpecError: `cache_size` is less than 1, or `min_confidence` is below 0, or for a task that is unknown or
                predicts something else than one class for each image.
        """
        if cache_size < 1:
            raise SpecError(f"cache_size is {cache_size}; it must be at least 1")
        self._cache_size = cache_size
        self.files: TaskFiles = TaskFiles(paths, accept=self._accept, forget=lambda file: self._models.discard(file))
        self._min_confidence = self._check_thresholds(min_confidence or {})
        self._backbones = load_backbones(self.files.current, backbone, weights)
        self._multi_task: dict[tuple[BackboneKey, bool], MultiTaskBackbone] = {}
        self._reader = AdapterReader(cache_size)
        self._models = ModelCache(cache_size, self._read_model)
        if device is not None:
            for shared in self._backbones.values():
                shared.module.to(device)

    def preload(self, on_progress: Callable[[int, int], None] | None = None) -> None:
        """Read the weights of as many tasks as the cache holds.

        Args:
            on_progress: Called as (done, total) after each task.
        """
        files = list(self.files.current.values())[: self._cache_size]
        for done, file in enumerate(files, start=1):
            self._models.get(file)
            if on_progress is not None:
                on_progress(done, len(files))

    @property
    def tasks(self) -> dict[str, Header]:
        """Headers of the files by name of the task."""
        return {name: file.header for name, file in self.files.current.items()}

    def header(self, task: str) -> Header:
        """Return the header of the file of a task.

        Args:
            task: Name of the task.

        Returns:
            The header. An unknown task raises SpecError.
        """
        return self.files[task].header

    def make_request(self, task: str, image: Image.Image) -> PredictionRequest:
        """Prepare an image for `predict`. This method is thread-safe.

        An unknown task raises SpecError.

        Args:
            task: Name of the task.
            image: An RGB image of any size.

        Returns:
            The request.

        Raises:
            DataError: The image is no RGB image, or too long and narrow to be segmented.
        """
        file = self.files[task]
        kind = f"of mode {image.mode}" if isinstance(image, Image.Image) else f"a value of type {type(image).__name__}"
        if kind != "of mode RGB" or 0 in image.size:
            raise DataError(f"the image is {kind}; give an image of Pillow with pixels, of mode RGB")
        if not file.header.is_dense:
            return PredictionRequest(task, torch.from_numpy(file.header.preprocessing.resize_image(image)), file)
        refuse_strip(image.size)
        return PredictionRequest(task, torch.from_numpy(np.asarray(image).transpose(2, 0, 1).copy()), file)

    def predict(self, requests: Sequence[PredictionRequest]) -> list[Prediction]:
        """Return one prediction per request.

        Args:
            requests: Requests of any tasks.

        Returns:
            The predictions, in the same order.

        Raises:
            VptError: The error of the first request that fails.
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

        Prompts, parts of blocks and heads on one backbone run in one pass, and in a second one those whose heads read
        several blocks. Other classification tasks follow, one pass per task, then segmentations one by one.

        Args:
            requests: Requests of any tasks.

        Yields:
            Index of the request, and its prediction or error.
        """
        models: dict[TunedFile, Model] = {}
        groups: defaultdict[tuple[Any, ...], list[int]] = defaultdict(list)  # indices of requests that run together
        for index, request in enumerate(requests):
            try:
                model = models[request.file] = self._models.get(request.file)
            except VptError as error:
                yield index, error
                continue
            if isinstance(model, TaskAdapter):
                groups[0, model.blocks is not None, *backbone_key(request.file.header)].append(index)
            else:
                groups[(2, index) if model.is_dense else (1, id(request.file))].append(index)
        for _, indices in sorted(groups.items()):
            batch = [requests[index] for index in indices]
            yield from zip(indices, self._predict_batch(batch, [models[one.file] for one in batch]), strict=True)

    def _predict_batch(self, requests: Sequence[PredictionRequest], models: Sequence[Model]) -> Iterator[Prediction]:
        """Yield the predictions of requests that share a forward pass."""
        key, model = backbone_key(requests[0].file.header), models[0]
        self._require_unchanged(requests[0].file)
        if isinstance(model, TunedModel) and model.is_dense:
            mask, fractions = predict_mask(model, requests[0].pixels, InferenceConfig())
            yield MaskPrediction(requests[0].task, fractions, mask)
            return
        device = next(self._backbones[key].module.parameters()).device
        images = torch.cat([one.file.header.preprocessing.normalize(one.pixels[None].to(device)) for one in requests])
        logits: Iterable[Tensor]
        if isinstance(model, TunedModel):
            logits = model(images).float()
        else:
            pass_key = key, model.blocks is not None
            if pass_key not in self._multi_task:
                self._multi_task[pass_key] = MultiTaskBackbone(self._backbones[key], reads_blocks=pass_key[1])
            logits = self._multi_task[pass_key](images, [one for one in models if isinstance(one, TaskAdapter)])
        for request, row in zip(requests, logits, strict=True):
            kind, names = request.file.header.label_kind, class_names(request.file.header)
            found = label_task(kind).predict("", kind.activate(row.cpu()), names, len(names))
            default = self._min_confidence.get("") if kind.name == "single_label" else None
            least = self._min_confidence.get(request.task, default)
            rejected = least is not None and found.probability < least
            yield ClassPrediction(request.task, found.top, found.labels, found.value, rejected)

    def _accept(self, task: str, file: TunedFile) -> None:
        """Read the weights of a file that comes or changes, or raise VptError."""
        if backbone_key(file.header) not in self._backbones:
            raise TunedFileError(
                f"{file.path} was made for {file.header.backbone} with {file.header.fingerprint[:19]}... at "
                f"{file.header.preprocessing.size} px, which is not in memory; start again with the file"
            )
        if task in self._min_confidence:
            check_rejection(file.header.label_kind, self._min_confidence[task])
        self._models.get(file)

    def _require_unchanged(self, file: TunedFile) -> None:
        """Raise BackboneError if a program has written other values to the weights that a task shares with it."""
        key = backbone_key(file.header)
        shared = self._backbones[key]
        if not (changed := shared.changed_weights()):
            return
        if file.header.fingerprint_of(shared) != file.header.fingerprint:
            raise BackboneError(f"{task_name(file.path)} cannot be predicted: {shared.describe_change(changed)}")
        self._backbones[key] = replace(shared, versions=None)  # the values are the same

    def _check_thresholds(self, given: Mapping[str, float]) -> Mapping[str, float]:
        """Return the least probabilities by name of the task, if they can be asked for."""
        for name, least in given.items():
            if name and self.header(name).is_dense:
                raise SpecError(f"min_confidence is {least:g} for {name}, which segments; leave it out")
            check_rejection(self.header(name).label_kind if name else SingleLabel(), least)
        return given

    def _read_model(self, file: TunedFile) -> Model:
        self.files.check(file)
        try:
            model = self._reader.read(file, self._backbones[backbone_key(file.header)])
        except VptError:
            file.check()  # if it was replaced while it was read, that is the reason
            raise
        file.check()
        return model


def class_names(header: Header) -> tuple[str, ...]:
    """Return the names of the classes of a tuned file, or their numbers.

    Args:
        header: Header of the file.

    Returns:
        One name per class.
    """
    return header.classes or tuple(str(index) for index in range(header.num_classes))
