"""A bank: tuned files by name, on backbones that they share, answered in batches that mix tasks."""

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
from vpt.core.text import lines, number
from vpt.errors import ArtifactError, DataError, SpecError, VptError, nearest
from vpt.model.tuned_file import Header, backbone_for, inspect, load
from vpt.model.tuned_model import TunedModel
from vpt.serving.multi_task import Learned, Mixed
from vpt.tasks.segmentation.sliding_window import Inference, classes_of

_LONGEST = 16  # times the short side, which is scaled to the model's input: a strip of pixels would become a wall


@dataclass(frozen=True)
class Request:
    """An image for a task, made ready by `Bank.request`.

    pixels: uint8 (3, size, size), as the backbone takes it; of a segmentation (3, height, width), at its own size.
    """

    task: str
    pixels: Tensor


@dataclass(frozen=True)
class Classified:
    """top: (class, probability) of all classes, the most likely first."""

    task: str
    top: tuple[tuple[str, float], ...]


@dataclass(frozen=True, eq=False)
class Segmented:
    """found: (class, share of the picture), the largest first, without absent ones. mask: classes (height, width)."""

    task: str
    found: tuple[tuple[str, float], ...]
    mask: NDArray[np.uint16]


Answer = Classified | Segmented


class Bank:
    """Tuned files, by name. Each backbone is in memory once for each image size, whatever the number of files.

    places: tuned files, and folders of them. A task's name is its file's without the suffix.
    backbone: the one at hand, or its name, if that is not to be taken from the files. weights: local ones, if timm is
        not to fetch them. device: None is where the backbone is.
    capacity: tasks whose weights stay in memory, those used last.
    Headers are read now, and weights when a task is first asked for, or by `preload`. Not for several threads at once.
    Raises ArtifactError naming every file that has no header, no name of its own, or another backbone.
    """

    def __init__(
        self,
        places: Iterable[Path],
        *,
        backbone: str | nn.Module | Backbone | None = None,
        weights: Path | None = None,
        device: torch.device | str | None = None,
        capacity: int = 1000,
    ) -> None:
        if capacity < 1:
            raise SpecError(f"capacity is {capacity}; at least one task must fit in memory")
        self._capacity = capacity
        # By fingerprint and image size: weights without positions have one fingerprint at every size.
        self._backbones: dict[tuple[str, int], Backbone] = {}
        self._mixed: dict[tuple[str, int], Mixed] = {}
        self._loaded: OrderedDict[str, Learned | TunedModel] = OrderedDict()
        self._files, self.tasks = _headers(places)
        made: dict[tuple[str, int], tuple[str, Backbone] | VptError] = {}
        faults = []
        for name, header in self.tasks.items():
            kind = (header.backbone, header.preprocessing.size)
            if kind not in made:
                made[kind] = _made(self._files[name], header, backbone, weights)
            found = made[kind]
            if isinstance(found, VptError):
                faults.append(f"{self._files[name]}: {found}")
            elif found[0] != header.fingerprint:
                faults.append(
                    f"{self._files[name]}: made for {header.backbone} with {header.fingerprint[:19]}..., and this is "
                    f"{found[1].name} with {found[0][:19]}...; the weights, their type and the image size "
                    f"({header.preprocessing.size} px) must be the same"
                )
            else:
                self._backbones[_key(header)] = found[1]
        if faults:
            raise ArtifactError(f"{number(len(faults), 'file')} cannot be used:{lines(faults)}")
        if device is not None:
            for shared in self._backbones.values():
                shared.module.to(device)

    def preload(self, on_task: Callable[[int, int], None] | None = None) -> None:
        """Read the weights of as many tasks as stay in memory. on_task: hears (done, total)."""
        names = list(self.tasks)[: self._capacity]
        for done, name in enumerate(names, start=1):
            self._load(name)
            if on_task is not None:
                on_task(done, len(names))

    def header(self, task: str) -> Header:
        """What the file of a task says of itself. Raises SpecError, with the nearest name, where there is none."""
        if task not in self.tasks:
            raise SpecError(f"there is no task {task!r}; {nearest(task, self.tasks)}")
        return self.tasks[task]

    def classes(self, task: str) -> tuple[str, ...]:
        """Names of a task's classes, or their numbers."""
        header = self.header(task)
        return header.classes or tuple(str(index) for index in range(header.num_classes))

    def request(self, task: str, image: Image.Image) -> Request:
        """An RGB image of any size, made ready; from any thread.

        Raises SpecError where there is no such task, DataError where an image to be segmented is too long a strip.
        """
        header = self.header(task)
        if header.head is None:
            return Request(task, torch.from_numpy(header.preprocessing.fit(image)))
        if max(image.size) > _LONGEST * min(image.size):
            raise DataError(
                f"the image is {image.width} x {image.height} px; to be segmented, its long side may be "
                f"{_LONGEST} times the short one at most; cut it"
            )
        return Request(task, torch.from_numpy(np.asarray(image).transpose(2, 0, 1).copy()))

    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        """Answers, in the order of the requests. Raises the first error there is."""
        found = dict(self.answers(requests))
        for answer in found.values():
            if isinstance(answer, Exception):
                raise answer
        return [cast(Answer, found[index]) for index in range(len(requests))]

    @torch.inference_mode()
    def answers(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer | Exception]]:
        """(position, answer or error) of each request, as soon as it is there.

        Tasks of prompts and heads on one backbone answer in one pass; then other tasks, one after the other, the images
        of each in one pass; then segmentations, one by one.
        """
        loaded: dict[str, Learned | TunedModel] = {}
        mixed: defaultdict[tuple[str, int], list[int]] = defaultdict(list)
        alone: defaultdict[str, list[int]] = defaultdict(list)
        scenes = []
        for index, request in enumerate(requests):
            try:
                model = loaded[request.task] = self._load(request.task)
            except VptError as error:
                yield index, error
                continue
            if isinstance(model, TunedModel) and model.dense is not None:
                scenes.append(index)
            elif isinstance(model, TunedModel):
                alone[request.task].append(index)
            else:
                mixed[_key(self.tasks[request.task])].append(index)
        for indices in (*mixed.values(), *alone.values()):
            some = [requests[index] for index in indices]
            for index, logits in zip(indices, self._logits(some, [loaded[one.task] for one in some]), strict=True):
                best = logits.softmax(0).sort(descending=True, stable=True)
                names = self.classes(requests[index].task)
                top = zip(best.indices.tolist(), best.values.tolist(), strict=True)
                yield index, Classified(requests[index].task, tuple((names[k], share) for k, share in top))
        for index in scenes:
            yield index, self._segmented(requests[index], cast(TunedModel, loaded[requests[index].task]))

    def _logits(self, requests: list[Request], models: Sequence[Learned | TunedModel]) -> Sequence[Tensor]:
        """Of requests that one pass can answer."""
        header = self.tasks[requests[0].task]
        device = next(self._backbones[_key(header)].module.parameters()).device
        images = torch.cat(
            [self.tasks[one.task].preprocessing.normalise(one.pixels[None].to(device)) for one in requests]
        )
        if isinstance(models[0], TunedModel):
            return list(models[0](images).float())
        if _key(header) not in self._mixed:
            self._mixed[_key(header)] = Mixed(self._backbones[_key(header)])
        return self._mixed[_key(header)](images, [model for model in models if isinstance(model, Learned)])

    def _segmented(self, request: Request, model: TunedModel) -> Segmented:
        mask = classes_of(model, request.pixels, Inference()).numpy().astype(np.uint16)
        names = self.classes(request.task)
        parts = np.bincount(mask.flatten(), minlength=len(names)) / mask.size
        found = tuple((names[k], float(parts[k])) for k in np.argsort(-parts, kind="stable") if parts[k] > 0)
        return Segmented(request.task, found, mask)

    def _load(self, task: str) -> Learned | TunedModel:
        """What a task has learned, from memory or from its file; the one unused for longest makes room."""
        if task not in self._loaded:
            header = self.header(task)
            path = self._files[task]
            if inspect(path).to_json() != header.to_json():  # others were told of these classes
                raise ArtifactError(f"{path} is another file than when it was first read; start again")
            with torch.inference_mode(False):  # hanging is tried with gradients
                model = load(path, self._backbones[_key(header)], known_fingerprint=header.fingerprint)
            self._loaded[task] = Learned.of(model) or model
            if len(self._loaded) > self._capacity:
                self._loaded.popitem(last=False)
        self._loaded.move_to_end(task)
        return self._loaded[task]


def _key(header: Header) -> tuple[str, int]:
    return header.fingerprint, header.preprocessing.size


def _headers(places: Iterable[Path]) -> tuple[dict[str, Path], dict[str, Header]]:
    """Files and their headers by name. Raises ArtifactError naming every file that has none, or no name of its own."""
    files: dict[str, Path] = {}
    headers: dict[str, Header] = {}
    faults = []
    for place in places:
        found = sorted(place.glob("*.safetensors")) if place.is_dir() else [place]
        if not found:
            faults.append(f"{place}: a folder without *.safetensors")
        for path in found:
            if path.stem in files:
                faults.append(f"{path}: {files[path.stem]} is also named {path.stem}; rename one of them")
                continue
            try:
                headers[path.stem] = inspect(path)
                files[path.stem] = path
            except ArtifactError as error:
                faults.append(str(error))
    if faults:
        raise ArtifactError(f"{number(len(faults), 'file')} cannot be used:{lines(faults)}")
    if not files:
        raise ArtifactError("no tuned file was given; `vpt tune DATA --out FILE` makes one")
    return files, headers


def _made(
    path: Path, header: Header, backbone: str | nn.Module | Backbone | None, weights: Path | None
) -> tuple[str, Backbone] | VptError:
    """Fingerprint and backbone for files like this one, or why there is none."""
    try:
        if backbone is None or isinstance(backbone, str):
            found = backbone_for(path, header, name=backbone, weights=weights)
        else:
            found = load_backbone(backbone, weights=weights)
        return found.fingerprint(), found
    except VptError as error:
        return error
