"""The candidates of a search in segmentation, and their jobs.

The head alone is first. Unless a head is asked for, it is a probe: a linear head on several maps, which is solved for
in closed form, as the heads of the others are after their training. Prompts always take part where they fit. The others
do where every candidate still gets a training that is long enough: prompts with the usual decoder instead, full
fine-tuning where its file is small enough, LoRA, prompts with biases, and prompts at other rates. With a method that is
asked for, it takes the place of all of them, and is tried at other rates.
"""

import math
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

from vpt.backbones import Backbone, load_backbone
from vpt.data.masks.dataset import SegmentationDataset
from vpt.errors import SpecError, UnsupportedError
from vpt.heads.dense import LinearHead
from vpt.model.attach import attach
from vpt.model.tuned_model import TunedModel
from vpt.search.candidates import RATE_FACTORS, Candidate
from vpt.search.context import SearchContext
from vpt.tasks.registry import TASKS
from vpt.tasks.segmentation.prediction import PixelScores, score_images
from vpt.tasks.segmentation.sliding_window import InferenceConfig
from vpt.tasks.segmentation.task import SegmentationData
from vpt.training.job import Job

HEAD_ALONE = Candidate("linear")
_OTHERS = ("vpt", "full", "lora", "vpt + bias")  # the most promising first
_MOST_LEVELS = 4  # maps that the probe reads
_CHECKPOINTS = 10
_SOLVING_SHARE = 0.08  # of the budget at most, for one pass over training images whose features a head is solved on
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
        costs: What `vpt.search.segmentation.costs.measure_costs` returns, as far as it is known.
    """

    data: SegmentationData
    backbone: str
    costs: dict[str, Any]

    @cached_property
    def solved_head(self) -> str | None:
        """Text of the linear head that is solved for, on as many maps as there are; None where a head is given."""
        return None if "head" in self.request.options else find_linear_head(self.bare_backbone)

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
