"""What too few images, groups or resamples can say: intervals with a width, and choices that wait for evidence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from simulation import SimulatedClock, write_images
from sklearn import metrics as reference

import vpt
from vpt.core.intervals import wilson
from vpt.errors import SpecError, TrainingError
from vpt.search import SearchRequest, finish, run_search
from vpt.search.comparison import Comparison, compare, interval
from vpt.search.metrics import score
from vpt.search.segmentation.comparison import describe_masks
from vpt.search.status import NOT_BEGUN
from vpt.search.trials import OutOfTimeError
from vpt.training import loggers
from vpt.training.evaluation import score_logits
from vpt.training.ridge import near_copies

Search = Callable[..., tuple[vpt.RunResult, SimulatedClock]]


def logits(predicted: np.ndarray[Any, Any], classes: int = 3) -> np.ndarray[Any, Any]:
    return np.asarray(4.0 * (np.arange(classes) == predicted[:, None]))


def test_macro_f1_counts_a_class_that_is_only_predicted_as_scikit_learn() -> None:
    labels, predicted = np.array([0, 0, 1, 1]), np.array([0, 0, 1, 2])
    expected = reference.f1_score(labels, predicted, average="macro")
    assert score(predicted, labels, 3, "macro_f1") == pytest.approx(expected)
    low, high = interval(logits(predicted), labels, "macro_f1")
    assert low <= expected <= high


@pytest.mark.parametrize("metric", ["top1", "macro_f1", "balanced_accuracy"])
def test_interval_of_one_group_is_that_of_one_answer(metric: str) -> None:
    labels, groups = np.array([0, 1] * 8), np.zeros(16, np.int64)
    assert interval(logits(labels, 2), labels, metric, groups) == pytest.approx(wilson(1, 1))
    assert interval(logits(labels, 2), labels, metric) == pytest.approx(wilson(16, 16)), "every image is right"


def test_scores_of_one_group_have_the_same_interval() -> None:
    labels, groups = np.array([0, 1] * 8), np.zeros(16, np.int64)
    scores = score_logits(torch.from_numpy(logits(labels, 2)), torch.from_numpy(labels), groups)
    assert scores.intervals()["top1"] == scores.intervals()["macro_f1"] == pytest.approx(wilson(1, 1))


def test_comparison_of_one_group_convinces_nobody() -> None:
    labels = np.array([0, 1] * 10)
    found = compare(logits(labels, 2), logits(np.zeros(20, np.int64), 2), labels, groups=np.zeros(20, np.int64))
    assert found.gain == 0.5 and not found.convinces and found.doubt == "1 group cannot tell"
    assert found.describe("prompts") == (
        "prompts beat the probe by 50.0 points (20 images in 1 group, too few for an interval)"
    )
    masks = {"gain": 0.1, "low": 0.1, "high": 0.1}
    text = "prompts beat the head alone by 10.0 points of mean IoU (1 image, too few for an interval)"
    assert describe_masks(masks, "prompts", 1) == text


@pytest.mark.parametrize(
    ("values", "doubt"),
    [
        ({}, ""),
        ({"gain": 0.0}, "no gain"),
        ({"wins": 8, "losses": 1}, "9 differing predictions cannot tell"),
        ({"wins": 9, "losses": 1}, ""),
        ({"wins": 20, "losses": 17}, "the gain is below its standard error"),
        ({"wins": 28, "losses": 22}, "the gain is below its standard error"),
        ({"wins": 10, "losses": 6}, ""),  # 4 / sqrt(16): one standard error
        ({"groups": 2}, "2 groups cannot tell"),
        ({"groups": 3}, ""),
        ({"loss_gain": -0.1}, "its log loss is higher"),
        ({"loss_gain": -0.1, "metric": "r2"}, "its squared error is higher"),
        ({"metric": "mae", "error": 0.0, "wins": None, "losses": None}, "resampled images do not differ"),
    ],
)
def test_doubt_names_what_is_missing(values: dict[str, Any], doubt: str) -> None:
    given = {"metric": "top1", "gain": 0.02, "error": 0.01, "wins": 30, "losses": 15, "loss_gain": 0.1}
    assert Comparison(images=400, low=0.0, high=0.04, p=0.04, **{**given, **values}).doubt == doubt


def test_r2_of_draws_without_variance_does_not_rule_the_error() -> None:
    """Four patients of one age each: a draw of one patient has no R²."""
    groups = np.repeat(np.arange(4), 10)
    labels, rng = np.array([20.0, 40.0, 60.0, 80.0], np.float32)[groups], np.random.default_rng(0)
    theirs = labels[:, None] + rng.normal(0, 10, (40, 1))
    ours = labels[:, None] + rng.normal(0, 5, (40, 1))
    found = compare(ours, theirs, labels, "r2", groups)
    assert compare(theirs, ours, labels, "r2", groups).error == pytest.approx(found.error)
    assert 0 < found.error < 1 and found.low <= found.gain <= found.high and found.convinces
    low, high = interval(theirs, labels, "r2", groups)
    assert -10 < low < high <= 1
    assert interval(theirs[:10], labels[:10], "r2")[0] == interval(theirs[:10], labels[:10], "r2")[1], "is not defined"


def test_chains_of_copies_that_join_most_images_leave_the_known_groups() -> None:
    features = np.random.default_rng(0).normal(size=(20, 30))
    features[4::4] = features[0]  # copies of one image, in every group
    known = np.arange(20) // 4
    found = near_copies(features, known)
    assert len(set(found.tolist())) == 1, "which are truly copies, in every group"
    rng = np.random.default_rng(1)
    features[4::4] += rng.normal(0, 0.08, (4, 30))  # look alike, and are others
    assert near_copies(features, known).tolist() == known.tolist()
    assert len(set(near_copies(features).tolist())) == 16, "five of twenty images are a group"
    pair = np.concatenate([features, features[1:2]])
    assert near_copies(pair, np.append(known, 9))[-1] == near_copies(pair, np.append(known, 9))[1]


@pytest.mark.usefixtures("few_steps")
def test_search_of_one_group_says_that_none_can_be_left_out(
    search: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VPT_ALLOW_OUTSIDE", "1")
    write_images(tmp_path / "photos", 24)
    files = sorted((tmp_path / "photos").rglob("*.png"))
    lines = [f"{path.as_posix()},{path.parent.name},patient\n" for path in files]
    (tmp_path / "labels.csv").write_text("image,label,group\n" + "".join(lines))
    result, clock = search(str(tmp_path / "labels.csv"), step=0.5, method="vpt(length=4)")
    assert any("the training images are one group, so none can be left out" in note for note in clock.notes)
    assert result.search is not None and result.search["optimistic"]
    assert result.search["candidates"][-1]["reason"].endswith("of which none can be left out")


@pytest.mark.usefixtures("few_steps")
@pytest.mark.parametrize(
    ("error", "words"),
    [
        (TrainingError("loss is nan"), "its training on all images diverged (loss is nan): the probe was kept"),
        (MemoryError(), "its training on all images does not fit into memory: the probe was kept"),
        (OutOfTimeError(), "its training on all images was slower than planned: the probe was kept"),
    ],
)
def test_final_training_that_fails_keeps_the_probe_and_says_why(
    search: Search, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    def fail(*arguments: Any) -> None:
        raise error

    monkeypatch.setattr(Comparison, "doubt", "")  # whatever was tried is to ship
    monkeypatch.setattr(finish, "train_model", fail)
    result, _ = search(step=0.5, method="vpt(length=4)")
    assert result.search is not None and result.search["selected"] == "the probe"
    assert result.search["summary"].endswith(words) and result.method == "linear"


@pytest.mark.usefixtures("few_steps")
def test_search_takes_options_that_say_what_it_does_anyway(search: Search) -> None:
    result, _ = search(step=0.5, method="vpt(length=4)", keep="last", grad_accum_steps=32)
    assert result.search is not None
    first = next(row for row in result.search["candidates"] if row["method"] == "vpt(length=4)")
    assert first["status"] not in NOT_BEGUN
    with pytest.raises(SpecError, match="keep is 'best', and a search itself finds how to train"):
        search(out="b.safetensors", keep="best")
    with pytest.raises(SpecError, match="class_weights is 'balanced', and a search has no such option"):
        search(out="b.safetensors", class_weights="balanced")


class Recording:
    """A logger that keeps its calls."""

    calls: ClassVar[list[Any]] = []

    def __init__(self, place: str) -> None:
        self.calls.clear()

    def begin(self, name: str, config: Any) -> None:
        self.calls.append((name, config["method"].partition("(")[0]))

    def log(self, step: int, values: Any) -> None:
        self.calls.append(step)

    def end(self, scores: Any) -> None:
        self.calls.append(sorted(scores)[-1])


@pytest.mark.usefixtures("few_steps")
@pytest.mark.parametrize("ships", [True, False])
def test_logger_of_a_search_sees_what_ships(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ships: bool
) -> None:
    monkeypatch.setitem(loggers.LOGGERS, "recording", Recording)
    monkeypatch.setattr(Comparison, "doubt", "" if ships else "no gain")
    clock, out, cpu = SimulatedClock(0.01, 0.5), tmp_path / "a.safetensors", torch.device("cpu")
    request = SearchRequest.create(images, out, device=cpu, minutes=1.0, method="vpt(length=4)")
    with loggers.log_job(clock, "recording:here", request.job(request.backbones[0], "vpt"), searches=True) as callback:
        result = run_search(request, callback, device="cpu", clock=clock)
    name, *epochs, last = Recording.calls
    assert name == ("a", "vpt" if ships else "linear") and last == "test_top1"
    lines = (tmp_path / "a.run" / "metrics.jsonl").read_text().splitlines() if ships else []
    assert epochs == list(range(1, len(lines) + 1)) and bool(epochs) is ships
    with loggers.log_job(clock, "recording:here", request.job(request.backbones[0], "vpt"), searches=True) as callback:
        assert run_search(request, callback, device="cpu", clock=clock) == result
    assert Recording.calls == [], "nothing is logged twice"


def test_logger_of_a_search_that_cannot_read_the_run_becomes_a_note(tmp_path: Path) -> None:
    clock = SimulatedClock(0.01, 0.1)
    job = SearchRequest.create("digits", tmp_path / "a.safetensors", device=torch.device("cpu")).job("", "linear")
    logger = loggers.SearchLogger(loggers.FailSafeLogger(Recording("here"), clock.on_note), job)
    job.run_dir.mkdir()
    (job.run_dir / "job.json").write_text("{", encoding="utf-8")
    logger.on_train_end({})  # of a search that failed, which is not logged
    assert not clock.notes
    logger.on_train_end({"test_top1": 0.5})
    (note,) = clock.notes
    assert note.startswith("Recording failed, and nothing more is logged: DataError")


@pytest.mark.usefixtures("few_steps")
@pytest.mark.parametrize("convinces", [False, True])
def test_prompts_that_are_not_above_the_probe_also_start_as_one(
    search: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, convinces: bool
) -> None:
    monkeypatch.setattr(Comparison, "doubt", "" if convinces else "no gain")
    result, _ = search(step=0.3, minutes=1.0, method="vpt(length=4)")
    assert result.search is not None
    others = [row for row in result.search["candidates"] if "head" not in row]
    assert [row.get("start") for row in others[:2]] == [None, None if convinces else "probe"]
    lines = (tmp_path / "a.run" / "decisions.jsonl").read_text().splitlines()
    decided = {line["decision"]: line["value"] for line in map(json.loads, lines)}
    assert any(name.endswith("from a linear probe") for name in decided) != convinces
    if not convinces:
        recipe = decided["trial vpt(length=4), from a linear probe"]["recipe"]
        assert recipe["probe_epochs"] == 100 and others[1]["status"] not in NOT_BEGUN
