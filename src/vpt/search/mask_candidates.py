"""The candidates of a search in segmentation, what their steps cost, and equal times for all of them.

The head alone is first. Unless a head is asked for, it is a probe: a linear head on several maps, which is solved for
in closed form, as the heads of the others are after their training. Prompts always take part where they fit. The others
do where every candidate still gets a training that is long enough: prompts with the usual decoder instead, full
fine-tuning where its file is small enough, LoRA, prompts with biases, and prompts at other rates. With a method that is
asked for, it takes the place of all of them, and is tried at other rates.
"""

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from vpt.backbones import Backbone, load_backbone
from vpt.core.text import format_bytes
from vpt.data.segmentation_folder import SegmentationDataset
from vpt.errors import SpecError, TrainingError, UnsupportedError, is_out_of_memory
from vpt.heads.dense import LinearHead
from vpt.model.attach import attach
from vpt.model.tuned_model import TunedModel
from vpt.search.budget import measure
from vpt.search.candidates import RATE_FACTORS, Candidate, bytes_of, is_too_large
from vpt.search.context import SearchContext
from vpt.search.trials import NOT_BEGUN, OUT_OF_MEMORY, ImagesOnly, StepsOnly, StepTimer
from vpt.tasks.registry import TASKS
from vpt.tasks.segmentation.prediction import PixelScores, score_images
from vpt.tasks.segmentation.sliding_window import InferenceConfig
from vpt.tasks.segmentation.task import SegmentationData
from vpt.training import CallbackList
from vpt.training.job import Job
from vpt.tuning import train_model

HEAD_ALONE = Candidate("linear")
_OTHERS = ("vpt", "full", "lora", "vpt + bias")  # the most promising first
_MOST_LEVELS = 4  # maps that the probe reads
_MIN_ITERATIONS, _MAX_ITERATIONS, _CHECKPOINTS = 20, 2000, 10
_LONG_ENOUGH = 400  # iterations of every candidate, where there are more than two
_TEST_SHARE = 0.15  # of the budget at most, for the test images
_STEADY = 0.85  # of the time of a training is planned; where steps slow down, the rest keeps it from being lost
_MEASURED = 5  # images of which features are computed to measure it
_SOLVING_SHARE = 0.08  # of the budget at most, for one pass over training images whose features a head is solved on
END_SHARE = 0.02  # of the budget, for files and pictures
TOO_FEW = f"{NOT_BEGUN}too few iterations fit"
_RATES = {"full": 3e-3}  # per 256 images, where the default is too low: that of benchmarks/segmentation.toml


def find_linear_head(backbone: Backbone) -> str:
    """Return the linear dense head on as many maps of a backbone as there are, at most four.

    Args:
        backbone: The backbone, which needs no values.

    Returns:
        The text of the head, such as "linear(levels=4)".
    """
    for levels in range(_MOST_LEVELS, 1, -1):
        with suppress(SpecError, UnsupportedError):
            attach(backbone, HEAD_ALONE.method, 1, head=LinearHead(levels))
            return str(LinearHead(levels))
    return str(LinearHead())


@dataclass(frozen=True)
class MaskSearch(SearchContext):
    """A search in segmentation at work.

    Attributes:
        data: The images.
        backbone: Name of the backbone.
        costs: What `measure_costs` returns, as far as it is known.
    """

    data: SegmentationData
    backbone: str
    costs: dict[str, Any]

    @cached_property
    def solved_head(self) -> str | None:
        """Text of the linear head that is solved for, on as many maps as there are; None where a head is given.

        A search that an earlier version has begun goes on as it was begun.
        """
        is_earlier = bool(self.costs) and "features" not in self.costs
        return None if is_earlier or "head" in self.request.options else find_linear_head(self.bare_backbone)

    @property
    def solved_images(self) -> int | None:
        """Number of training images whose features a head is solved on; None where no head is solved for."""
        if "features" not in self.costs:
            return None
        seconds = _SOLVING_SHARE * self.budget.seconds - self.costs["solving"]
        fitting = int(seconds / max(1e-9, self.costs["features"]))
        return min(len(self.data.labeled), max(1, fitting))

    @property
    def solving_seconds(self) -> float:
        """Seconds in which a head is solved for."""
        if self.solved_images is None:
            return 0.0
        return float(self.costs["solving"] + self.solved_images * self.costs["features"])

    @property
    def rival(self) -> str:
        """What the candidates are compared with, in words."""
        return "the head alone" if self.solved_images is None else "the probe"

    @cached_property
    def candidates(self) -> dict[str, Candidate]:
        """The head alone and the others by name, in the order in which they are tried."""
        methods = (self.request.method,) if self.request.method else _OTHERS
        recipes = {method: {"learning_rate": _RATES[method]} if method in _RATES else {} for method in methods}
        found = [HEAD_ALONE, *(Candidate(method, recipes[method]) for method in methods if method != HEAD_ALONE.method)]
        if len(found) > 1:
            if self.solved_head is not None:
                decoder = TASKS["segmentation"].default_head(self.bare_backbone.module)
                found.insert(2, replace(found[1], recipe={**found[1].recipe, "head": decoder, "lda": None}))
            found += [self._at_other_rate(found[1], factor) for factor in RATE_FACTORS]
        return {candidate.name: candidate for candidate in found}

    def _at_other_rate(self, candidate: Candidate, factor: float) -> Candidate:
        """Return a candidate at another rate. Its head keeps its own."""
        training = self.job(candidate, 1).config.training
        recipe = {"learning_rate": training.learning_rate, "head_lr_scale": training.head_lr_scale / factor}
        return replace(candidate, recipe=recipe).with_factor(factor)

    @cached_property
    def bare_backbone(self) -> Backbone:
        """The backbone without values, by which parameters are counted."""
        return load_backbone(self.backbone, image_size=self.request.options.get("image_size"), device="meta")

    def job(self, candidate: Candidate, iterations: int, **recipe: Any) -> Job:
        """Return the job of a candidate.

        Args:
            candidate: The candidate.
            iterations: Length of its training; 0 where nothing is trained.
            **recipe: Options that replace those of the candidate, and those that were given.

        Returns:
            The job.
        """
        every = math.ceil(iterations / _CHECKPOINTS)
        fixed: dict[str, Any] = {"iterations": iterations, "eval_every": every} if iterations else {}
        solved = {} if self.solved_head is None else {"head": self.solved_head, "lda": self.solved_images}
        return self.request.job(self.backbone, candidate.method, {**fixed, **recipe}, **{**solved, **candidate.recipe})

    def training_data(self, job: Job) -> SegmentationData:
        """Return the data of a job without val, which it is not scored on while it trains."""
        splits = {name: pairs for name, pairs in self.data.dataset.splits.items() if name != "val"}
        config: Any = job.config
        options: Any = job.options
        return replace(self.data, dataset=replace(self.data.dataset, splits=splits), config=config, lda=options.lda)

    def score(self, model: TunedModel, dataset: SegmentationDataset, split: str) -> list[PixelScores]:
        """Score a model on each image of a split."""
        progress = partial(self.callback.on_data_progress, f"scoring {split}")
        model.eval()
        return list(score_images(model, dataset, split, InferenceConfig(), progress, self.data.reader))

    def seconds_of_tests(self) -> float:
        """Return the seconds in which two models score the test images, at most a share of the budget."""
        seconds = 2 * self.data.images.get("test", 0) * self.costs["score"]
        return float(min(seconds, _TEST_SHARE * self.budget.seconds))

    def measure_costs(self) -> dict[str, Any]:
        """Measure candidates one after the other, as long as there is time for one more.

        Returns:
            "steps", the seconds of an optimizer step by name of candidate, 0 where nothing is trained; "score", those
            of scoring an image; where a head is solved for, "features", those of an image that it is solved on, and
            "solving", those of the rest; "refused", the reasons of candidates that are not tried, by name.

        Raises:
            SpecError: The only method, or the head alone, cannot take an option.
            UnsupportedError: The only method does not fit the backbone.
        """
        costs: dict[str, Any] = {"steps": {}, "score": 0.0, "refused": {}}
        steps, refused = costs["steps"], costs["refused"]
        if self.solved_head is None:
            steps[HEAD_ALONE.name], model = self._measure_step(HEAD_ALONE)
        else:
            steps[HEAD_ALONE.name] = 0.0
            costs["features"], costs["solving"], model = self.measure_solving()
        costs["score"] = self.measure_scoring(model)
        for name, candidate in list(self.candidates.items())[1:] if "val" in self.data.images else ():
            several, first = len(steps) > 1, replace(candidate, factor=1.0).name
            if several and not self._fits(costs, {**steps, name: steps.get(first, list(steps.values())[1])}):
                if name == first:  # another rate is no method of its own
                    refused[name] = TOO_FEW  # though its steps take no longer than those of the first method
                continue
            if name != first:  # whose step takes as long at another rate
                if first in steps:
                    steps[name] = steps[first]
                continue
            try:
                if reason := self._refusal(candidate):
                    refused[name] = reason
                    continue
                seconds, _ = self._measure_step(candidate)
            except (SpecError, UnsupportedError) as error:
                if self.request.method:
                    raise
                refused[name] = f"{NOT_BEGUN}{error}"
            except (TrainingError, MemoryError, RuntimeError) as error:
                if not isinstance(error, TrainingError) and not is_out_of_memory(error):
                    raise
                refused[name] = f"diverged: {error}" if isinstance(error, TrainingError) else OUT_OF_MEMORY
            else:
                if several and not self._fits(costs, {**steps, name: seconds}):
                    refused[name] = TOO_FEW
                else:
                    steps[name] = seconds
        return costs

    def _measure_step(self, candidate: Candidate) -> tuple[float, TunedModel]:
        """Return the seconds of an optimizer step, by the second of two, and the model."""
        job, timer = self.job(candidate, 2, lda=None), StepTimer(self.budget)
        callbacks = CallbackList([StepsOnly(self.callback), timer])
        model, _ = train_model(job, self.training_data(job), callbacks, self.device)
        return timer.times[-1] - timer.times[0], model

    def measure_scoring(self, model: TunedModel) -> float:
        """Return the seconds in which a model scores an image."""
        pairs = self.data.dataset.splits["train"]
        one = replace(self.data.dataset, splits={"train": pairs.select(range(1))})
        with measure(self.budget.clock) as watch:
            self.score(model, one, "train")
        return watch.seconds

    def measure_solving(self) -> tuple[float, float, TunedModel]:
        """Measure what it takes to solve for a head.

        Returns:
            The seconds of an image, decoding included, those of the rest, and the model.
        """
        head, seconds = find_linear_head(self.bare_backbone), list[float]()
        few = min(_MEASURED, len(self.data.labeled))
        for count in (1, 1, few):  # the first allocates memory
            job = self.job(HEAD_ALONE, 0, head=head, lda=count)
            with measure(self.budget.clock) as watch:
                model, _ = train_model(job, self.training_data(job), ImagesOnly(self.callback), self.device)
            seconds.append(watch.seconds)
        _, first, last = seconds
        each = (last - first) / (few - 1) if few > 1 and last > first else first
        return each, max(0.0, first - each), model

    def _fits(self, costs: dict[str, Any], steps: Mapping[str, float]) -> bool:
        """Return whether each of these candidates, where there are more than two, gets a training long enough."""
        return min(self._lengths(costs, steps).values()) >= _LONG_ENOUGH

    def _refusal(self, candidate: Candidate) -> str | None:
        """Return why a candidate is not tried, if it adds more to the head than `max_size`; all have the head."""
        if self.request.method:
            return None
        task, backbone, classes = TASKS["segmentation"], self.bare_backbone, len(self.data.classes)
        model, alone = (
            attach(backbone, one.method, classes, head=task.make_readout(self.job(one, 1).head, backbone))
            for one in (candidate, HEAD_ALONE)
        )
        added = model.counts().trainable - alone.counts().trainable
        sized = replace(candidate, size=bytes_of(added, self.request.options.get("save_dtype", "fp32")))
        if not is_too_large(sized, self.request.max_size):
            return None
        words = f"it adds {format_bytes(sized.size)} to the file of the head"
        return f"{NOT_BEGUN}{words}, above --max-size {self.request.max_size:g}"

    def sample_test(self) -> SegmentationData:
        """Return the data with as many test images as fit.

        Returns:
            The data.
        """
        pairs = self.data.dataset.splits.get("test")
        if pairs is None:
            return self.data
        fitting = max(1, int(_TEST_SHARE * self.budget.seconds / max(1e-9, 2 * self.costs["score"])))
        if fitting >= len(pairs):
            return self.data
        rng = np.random.default_rng(self.data.config.training.seed)
        chosen = np.sort(rng.permutation(len(pairs))[:fitting]).tolist()
        self.callback.on_note(f"{fitting} of {len(pairs)} test images measure; a larger --minutes takes all")
        splits = {**self.data.dataset.splits, "test": pairs.select(chosen)}
        sizes = {**self.data.images, "test": fitting}
        return replace(self.data, dataset=replace(self.data.dataset, splits=splits), images=sizes)

    def _lengths(self, costs: dict[str, Any], steps: Mapping[Any, float]) -> dict[Any, int]:
        """Return the iterations that fit into equal times of all that train.

        Images of val are scored in that time, too, if there are any, and a head is solved for. The probe and the one
        that ships are solved for again at the end.
        """
        search = replace(self, costs=costs)
        each = search.solving_seconds + self.data.images.get("val", 0) * costs["score"]
        is_solved = search.solved_images is not None
        trained = {name: seconds for name, seconds in steps.items() if not (is_solved and name == HEAD_ALONE.name)}
        left = self.budget.remaining - search.seconds_of_tests() - END_SHARE * self.budget.seconds
        left -= 2 * search.solving_seconds + (len(steps) - len(trained)) * each
        share = _STEADY * (left / max(1, len(trained)) - each)
        return {
            name: min(_MAX_ITERATIONS, max(0, int(share / max(1e-9, seconds)))) for name, seconds in trained.items()
        }

    def plan_lengths(self) -> dict[str, int]:
        """Give each candidate as much time. Without val, the head alone trains, or is solved for.

        Returns:
            The iterations by name of those that were measured; 0 where too few fit, and where nothing is trained.
        """
        steps, none = list(self.costs["steps"].items()), dict.fromkeys(self.costs["steps"], 0)
        for count in range(len(steps), 1, -1) if "val" in self.data.images else ():
            found = self._lengths(self.costs, dict(steps[:count]))
            if min(found.values()) >= (_MIN_ITERATIONS if count == 2 else _LONG_ENOUGH):
                return none | found
        if self.solved_images is not None:
            return none
        images = {name: count for name, count in self.data.images.items() if name != "val"}
        (length,) = replace(self, data=replace(self.data, images=images))._lengths(self.costs, dict(steps[:1])).values()
        return none | {HEAD_ALONE.name: max(1, length)}
