"""The choice among candidates: which are tried within the time left, how they do against the probe, which one ships."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpt.backbones import load_backbone
from vpt.core.array_file import read_array, write_array
from vpt.core.text import file_stem, format_bytes, format_duration, pluralize
from vpt.errors import SpecError, TrainingError, UnsupportedError
from vpt.search.candidates import (
    RATE_FACTORS,
    Candidate,
    epochs_that_fit,
    full_epochs,
    is_too_large,
    least_epochs,
    list_candidates,
    probe_seconds,
)
from vpt.search.comparison import Comparison, compare
from vpt.search.context import SearchContext
from vpt.search.data import Pool
from vpt.search.metrics import make_statistic
from vpt.search.probe import Features, held_out_outputs
from vpt.search.rows import best_row, describe_row, row_to_refit
from vpt.search.status import KILLED, SLOWER_THAN_PLANNED, Status, end, or_out_of_memory
from vpt.search.trials import (
    Deadline,
    Fold,
    OutOfTimeError,
    halves,
    held_out_fold,
    measure_step,
    run_trial,
)
from vpt.tasks.classification.config import SMALL_BATCH, ClassificationConfig
from vpt.training import CallbackList
from vpt.training.job import Job
from vpt.training.ridge import log_loss

_ONE_OF_EACH = "each half has one image of each class, which is too few to learn from"
_ONE_GROUP = "the images are one group, of which none can be left out"
_ENOUGH_HELD_OUT = 100  # images of val that can tell two models apart; with fewer, every image is predicted
_WORTH_OTHER_RATES = -1.0  # gain in standard errors against the probe from which on other rates may win
_HOPELESS = -2.0  # gain in standard errors against the best so far at which a trial is dropped after one fold
_PASSES_OF_RIDGE = 2  # over the training images: trained and frozen features
_END_SHARE = 0.02  # of the budget, for files and pictures


@dataclass(frozen=True)
class Selection(SearchContext):
    """A search among candidates beside a probe that is chosen already.

    Attributes:
        backbone: Name of the backbone.
        pool: The images.
        features: Features of the images that the probe learns from.
        head: Head of the probe.
        penalty: Its penalty.
        ridge_seconds: Seconds that the regression of this head took.
        folder: Folder of checkpoints and predictions.
    """

    backbone: str
    pool: Pool
    features: Features
    head: str
    penalty: float
    ridge_seconds: float
    folder: Path

    @cached_property
    def halves(self) -> list[Fold]:
        """Two halves of the pool, each predicted by what the other trains."""
        return halves(self.pool, self.features.groups, int(self.pool.data.config.training.seed))

    @property
    def _can_halve(self) -> bool:
        """True unless the images are a single group."""
        return all(len(half.rows) for half in self.halves)

    @property
    def end_seconds(self) -> float:
        """Seconds that the end takes: two models score the test images, and files are written."""
        tests = self.pool.data.images.get("test", 0)
        return 2 * tests * self.pool.costs.forward + _END_SHARE * self.budget.seconds

    def job(self, candidate: Candidate, epochs: int, train_on: str) -> Job:
        """Return the job of a candidate."""
        fixed = {**self.pool.options, "epochs": epochs, "train_on": train_on}
        return self.request.job(self.backbone, candidate.method, fixed, **candidate.recipe)

    def try_all(self) -> list[dict[str, Any]]:
        """Try the candidates that fit the time left.

        Returns:
            A row for each candidate, as JSON values.
        """
        rows: list[dict[str, Any]] = []
        request, classes, held_out = self.request, len(self.pool.data.classes), self.pool.held_out
        if held_out is not None and not self.pool.takes_all and len(held_out) < _ENOUGH_HELD_OUT and self._can_halve:
            self.callback.on_note(
                f"{pluralize(len(held_out), 'image')} of val take no part: {_ENOUGH_HELD_OUT} or more can tell models "
                "apart, and with a sample of the images or random crops, images of val do not train"
            )
        bare = load_backbone(self.backbone, image_size=request.options.get("image_size"), device="meta")
        kind, micro_batches = self.pool.data.labels.kind.name, request.options.get("grad_accum_steps") or 1
        given: dict[str, Any] = {
            "joins": request.options.get("ridge") != "none",
            "batch_size": request.options.get("batch_size") or max(SMALL_BATCH, micro_batches),
            "save_dtype": request.options.get("save_dtype", "fp32"),
        }
        for candidate in list_candidates(bare, classes, request.method, request.max_size, self.head, kind, **given):
            rows.append(self._try(candidate, rows))
            if len(rows) == 1 and self._needs_other_start(rows[0]):
                rows.append(self._try(candidate.from_probe(len(self.pool.examples)), rows))
        best = best_row(rows)
        if best is not None and Comparison(**best["comparison"]).gain_in_errors >= _WORTH_OTHER_RATES:
            for factor in RATE_FACTORS:
                rows.append(self._try(self.candidate(best).with_factor(factor), rows))
        return rows

    def _needs_other_start(self, row: dict[str, Any]) -> bool:
        """Return whether a candidate that was tried is not above the probe, so that it may start too far from it."""
        given = self.request.options.keys() & {"head", "probe_epochs"}
        if given or "ridge" not in row["recipe"] or self.pool.data.labels.kind.name != "single_label":
            return False
        if row["status"] == Status.TRIED:
            return not Comparison(**row["comparison"]).convinces
        return bool(row["status"] == Status.DROPPED)

    def candidate(self, row: dict[str, Any]) -> Candidate:
        """Return the candidate of a row."""
        return Candidate(row["method"], row["recipe"], row["factor"])

    def _try(self, candidate: Candidate, rows: list[dict[str, Any]]) -> dict[str, Any]:
        plan: dict[str, Any] = self.decisions.decide_or_give_up(
            f"plan {candidate.name}",
            lambda: or_out_of_memory(lambda: self._plan_or_refuse(candidate, rows), {"epochs": 0}),
            {"epochs": 0, **KILLED},
        )
        start = {"start": candidate.start} if candidate.start else {}
        known = {"method": candidate.method, "recipe": dict(candidate.recipe), "factor": candidate.factor, **start,
                 **plan}  # fmt: skip
        if not plan["epochs"]:
            return known
        trial = f"trial {candidate.name}"
        if not self.decisions.has(trial):
            folds = "two halves" if plan["folds"] == 2 else "train"
            self.callback.on_note(f"{candidate.name}: {pluralize(plan['epochs'], 'epoch')} on {folds}")
        row = self.decisions.decide_or_give_up(
            trial, lambda: or_out_of_memory(lambda: self._carry_out(candidate, known, rows), known), {**known, **KILLED}
        )
        self.callback.on_note(f"{candidate.name}: {describe_row(row)}")
        return row

    def _plan_or_refuse(self, candidate: Candidate, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the plan of a trial. An option that a method cannot take leaves it out, unless it was asked for."""
        if self.request.method is None and is_too_large(candidate, self.request.max_size):
            size = f"its file has {format_bytes(candidate.size)}"
            return {"epochs": 0, **end(Status.SKIPPED, f"{size}, above --max-size {self.request.max_size:g}")}
        try:
            return self._plan(candidate, rows)
        except (SpecError, UnsupportedError) as error:
            if self.request.method is not None:
                raise
            return {"epochs": 0, **end(Status.SKIPPED, str(error))}
        except TrainingError as error:  # in the steps that are measured
            return {"epochs": 0, **end(Status.DIVERGED, str(error))}

    def _plan(self, candidate: Candidate, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the folds and the length of a trial, or the reason why it is not begun.

        Both are those of the row that is to be trained on all images so far. Without one, other lengths may do better.
        """
        pool, best, short_job = self.pool, row_to_refit(rows), self.job(candidate, 1, "train")
        config, forward = short_job.config, pool.costs.forward
        assert isinstance(config, ClassificationConfig)
        batch = config.training.batch_size
        least = 4 * batch * pool.costs.step if best is None else best["refit"]
        if self.budget.remaining - self.end_seconds < least:
            return {"epochs": 0, **end(Status.NO_TIME, "nothing is left")}
        steps = [row["step"] for row in rows if row["method"] == candidate.method and "step" in row]  # at other rates
        step = steps[0] if steps else measure_step(pool, short_job, self.budget, self.callback)
        left, count, num_train = self.budget.remaining - self.end_seconds, len(pool.examples), pool.num_train
        held_out = 0 if pool.held_out is None else len(pool.held_out)
        short = left < 2 * full_epochs(count, batch) * count * step
        one_fold = held_out >= _ENOUGH_HELD_OUT and (short or not pool.takes_all)
        can_halve = self._can_halve
        folds = best["folds"] if best is not None else 1 if one_fold or (held_out and not can_halve) else 2
        if folds == 2 and not can_halve:
            return {"epochs": 0, "step": step, **end(Status.SKIPPED, _ONE_GROUP)}
        if folds == 2 and all(self.features.select(half.train).one_of_each_class for half in self.halves):
            return {"epochs": 0, "step": step, **end(Status.SKIPPED, _ONE_OF_EACH)}
        trained, predicted = (count, count) if folds == 2 else (num_train, held_out)
        joins = "ridge" in candidate.recipe
        joining = _PASSES_OF_RIDGE * trained * forward + self.ridge_seconds if joins else 0.0
        joining += trained * forward + probe_seconds(config.probe_epochs, trained) if config.probe_epochs else 0.0
        beside = predicted * forward + 2 * joining  # the second one for the final model
        seconds = (left - beside) / folds  # of two folds, the final training takes as long
        epochs = int(best["epochs"]) if best is not None else epochs_that_fit(seconds, trained, batch, step)
        training = epochs * trained * step + joining
        trial, refit = training + predicted * forward, training if folds == 2 else joining
        needed = trial + max(refit, best["refit"] if best is not None else 0.0)
        if epochs and needed <= left:
            return {"epochs": epochs, "folds": folds, "step": step, "refit": refit, "status": Status.PLANNED.value}
        needed = needed if epochs else beside + folds * least_epochs(trained, batch) * trained * step
        reason = f"needs {format_duration(needed)}, {format_duration(max(0.0, left))} are left"
        return {"epochs": 0, "step": step, **end(Status.NO_TIME, reason)}

    def folds(self, count: int) -> list[Fold]:
        """Return the folds of a trial: two halves of the pool, or train against val."""
        return self.halves if count == 2 else held_out_fold(self.pool)

    def labels(self, row: dict[str, Any]) -> NDArray[Any]:
        """Return the labels of the images that a trial predicts."""
        return np.concatenate([fold.labels for fold in self.folds(row["folds"])])

    def groups(self, row: dict[str, Any]) -> NDArray[np.int64] | None:
        """Return the groups of the images that a trial predicts, or None without groups."""
        found = [fold.groups for fold in self.folds(row["folds"])]
        return np.concatenate([groups for groups in found if groups is not None]) if found[0] is not None else None

    def probe_outputs(self, count: int) -> NDArray[np.float64]:
        """Return the outputs of the probe for the images that a trial predicts, from the same folds."""
        return np.concatenate([self._outputs_of_probe(count, index) for index in range(count)])

    def _outputs_of_probe(self, count: int, index: int) -> NDArray[np.float64]:
        """Return the outputs of the probe for the images of one fold, fitted once to the others.

        A candidate of one fold ships as it was trained, on train alone. The probe that it would replace learns from
        val, too, so each image of val is left out with its group in val: the candidate learns from all of train.
        """
        if (count, index) not in self._fitted:
            fold = self.folds(count)[index]
            if count == 1 and self.pool.takes_all:
                groups, num_train = self.features.groups.copy(), self.pool.num_train
                groups[:num_train] = groups.max() + 1 + np.arange(num_train)
                left_out = self.features.ridge(self.head).leave_out(self.penalty, groups)
                self._fitted[count, index] = left_out.logits[num_train:]
            else:
                train = self.features.select(fold.train)
                self._fitted[count, index] = held_out_outputs(train, fold.features, self.head, self.penalty)
        return self._fitted[count, index]

    @cached_property
    def _fitted(self) -> dict[tuple[int, int], NDArray[np.float64]]:
        return {}

    def _is_hopeless(self, outputs: NDArray[np.float64], fold: Fold, best: dict[str, Any] | None) -> bool:
        """Return whether the first of two folds shows that a trial cannot win, against the probe or the best so far."""
        rivals = [self._outputs_of_probe(2, 0)]
        if best is not None and best["folds"] == 2:
            rivals.append(self.outputs(best)[: len(outputs)])
        metric = self.request.metric
        gains = (compare(outputs, rival, fold.labels, metric, fold.groups).gain_in_errors for rival in rivals)
        return min(gains) < _HOPELESS

    def outputs(self, row: dict[str, Any]) -> NDArray[np.float64]:
        """Return the outputs that a trial has left."""
        path = self._file(self.candidate(row), ".npy")
        return np.array(read_array(path, "file of predictions", "--overwrite begins the search anew"))

    def checkpoint(self, candidate: Candidate, fold: int) -> Path:
        """Return the checkpoint of a trial on a fold."""
        return self._file(candidate, f"-{fold}.safetensors")

    def _file(self, candidate: Candidate, suffix: str) -> Path:
        return self.folder / f"{file_stem(candidate.name)}{suffix}"

    def _carry_out(self, candidate: Candidate, row: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Train and predict on each fold, and compare the predictions with those of the probe."""
        best, to_refit = best_row(rows), row_to_refit(rows)
        start, folds = self.budget.elapsed, self.folds(row["folds"])
        job = self.job(candidate, row["epochs"], "train")
        refit = max(row["refit"], to_refit["refit"] if to_refit else 0.0)
        deadline = Deadline(self.budget, self.budget.seconds - self.end_seconds - refit)
        found: list[NDArray[np.float64]] = []
        try:
            for index, fold in enumerate(folds):
                receiver = CallbackList([self.callback, deadline])
                found.append(run_trial(self.pool, job, fold, self.checkpoint(candidate, index), receiver))
                if index == 0 and len(folds) > 1 and self._is_hopeless(found[0], fold, best):
                    dropped = end(Status.DROPPED, "too far behind after one fold")
                    return {**row, **dropped, "seconds": self.budget.elapsed - start}
        except OutOfTimeError:
            return {**row, **SLOWER_THAN_PLANNED, "seconds": self.budget.elapsed - start}
        except TrainingError as error:
            return {**row, **end(Status.DIVERGED, str(error)), "seconds": self.budget.elapsed - start}
        outputs, labels = np.concatenate(found), self.labels(row)
        write_array(self._file(candidate, ".npy"), outputs)
        baseline, metric = self.probe_outputs(row["folds"]), self.request.metric
        against_probe = compare(outputs, baseline, labels, metric, self.groups(row))
        value = make_statistic(outputs, labels, metric)(None)
        return {
            **row, "status": Status.TRIED.value, "score": value, "log_loss": log_loss(outputs, labels),
            "images": len(labels), "comparison": against_probe.to_dict(), "seconds": self.budget.elapsed - start,
        }  # fmt: skip
