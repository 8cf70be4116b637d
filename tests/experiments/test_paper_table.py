"""The table of a paper: ranks, caption, and LaTeX that compiles whatever the names are."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from vpt.core import environment
from vpt.experiments.reports import latex
from vpt.experiments.reports.paper_table import make_paper_table, own_options, to_html, to_latex, to_markdown
from vpt.experiments.reports.report import provenance
from vpt.experiments.reports.table import to_latex as table_to_latex
from vpt.experiments.reports.tables import build_tables
from vpt.experiments.results import load_results
from vpt.experiments.store import Store

HOSTILE = r'a_b & 50% $x$ #1 {c} ~ ^ \ "q" [d] *e | <f> é ß 中 −1 -2.5 a--b ñ_þ' + " \a\x7f"


def score(store: Store, task: str, method: str, *values: float) -> None:
    finals = [r for r in store.records().values() if (r.task, r.method, r.stage) == (task, method, "final")]
    for record, value in zip(finals, values, strict=True):
        provenance = {**environment.describe(), "ended": f"2026-03-0{len(method)}T10:00:00+00:00"}
        store.write(replace(record, scores={**record.scores, "top1": value}, history=[], provenance=provenance))


@pytest.fixture
def ranked(doubtful: Store) -> Store:
    """Full is best on shade, with VPT within its spread; VPT is best on hue, where its grid has an edge."""
    score(doubtful, "shade", "Full", 1.0, 0.99)
    score(doubtful, "shade", "VPT", 0.99, 0.99)
    score(doubtful, "hue", "Full", 0.805, 0.805)
    score(doubtful, "hue", "VPT", 0.97, 0.97)
    return Store(doubtful.folder)  # the first one has read the records


def test_make_paper_table_ranks_scores_by_column(ranked: Store) -> None:
    table = make_paper_table(load_results(ranked))
    assert [(column.group, column.name) for column in table.columns] == [
        ("Light", "shade"), ("Color", "hue"), ("", "mean"),
    ]  # fmt: skip
    assert [[(one.text, one.rank, one.mark) for one in row] for _, row in table.rows] == [
        [("99.5", "best", ""), ("80.5", "other", ""), ("90.0", "other", "")],
        [("99.0", "close", ""), ("97.0", "best", " †"), ("98.0", "best", " †")],
    ]


def test_paper_table_in_each_format_is_golden(ranked: Store) -> None:
    table = make_paper_table(load_results(ranked))
    head, *body = to_markdown(table).splitlines()
    assert head == "| method | Light: shade | Color: hue | mean |"
    assert body[1:3] == ["| Full | **99.5** | 80.5 | 90.0 |", "| VPT | <u>99.0</u> | **97.0** † | **98.0** † |"]
    assert "Best in bold; underlined: within one standard deviation of the best over seeds." in body[-1]
    assert "n = 8 images a task; mean of 2 seeds." in body[-1] and body[-1].endswith("Date: 2026-03-04.")
    assert "Protocol: that of the plan." in body[-1] and "† edge of the grid: VPT on hue" in body[-1]
    lines = to_latex(table).splitlines()
    assert r" & \multicolumn{1}{c}{Light} & \multicolumn{1}{c}{Color} & \multicolumn{1}{c}{} \\" in lines
    assert r"\cmidrule(lr){2-2} \cmidrule(lr){3-3}" in lines and r"\label{tab:small}" in lines
    assert r"VPT & \underline{99.0} & \textbf{97.0}$^\dagger$ & \textbf{98.0}$^\dagger$ \\" in lines
    assert "<u>99.0</u>" in to_html(table) and "<b>97.0</b> †" in to_html(table)


def test_paper_caption_names_protocol_and_departures(ranked: Store) -> None:
    results = load_results(ranked)
    table = make_paper_table(replace(results, experiment=replace(results.experiment, protocol_name="paper")))
    assert "Protocol: paper, without departures." in table.caption


def test_escape_of_numbers_writes_true_minus_signs() -> None:
    assert latex.escape("-2.5 (-1) a-1 1e-05 top-1 a--b") == "$-$2.5 ($-$1) a-1 1e-05 top-1 a-{}-b"
    assert latex.escape("中[x]*") == r"\texttt{U+4E2D}{[}x{]}{*}"


def test_report_latex_of_hostile_names_compiles(ranked: Store, tmp_path: Path) -> None:
    if shutil.which("pdflatex") is None:
        pytest.skip("pdflatex is not installed (texlive-latex-recommended)")
    results = load_results(ranked)
    experiment = results.experiment
    tasks = tuple(replace(task, group=f"{HOSTILE} {task.name}") for task in experiment.tasks)
    rows = tuple(replace(row, name=f"[{HOSTILE} {row.name}") for row in experiment.methods)
    store = Store(tmp_path / "hostile")
    for record in ranked.records().values():
        store.write(replace(record, error=HOSTILE if record.stage == "search" else ""))
    store.save_experiment(replace(experiment, name=HOSTILE, tasks=tasks, methods=rows, baseline=rows[0].name))
    found = load_results(store)
    texts = {table.name: table_to_latex(table) for table in build_tables(found)}
    texts["paper"] = to_latex(make_paper_table(found))
    assert texts.keys() >= {"paper", "main", "tasks", "verdicts", "tests"}
    inputs = "\\clearpage\n".join(texts.values())
    text = "\\documentclass{article}\n\\usepackage{booktabs,graphicx}\n\\begin{document}\n%s\\end{document}\n"
    (tmp_path / "all.tex").write_text(text % inputs)
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "all.tex"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, check=False, env={**os.environ, "HOME": str(tmp_path)}
    )
    assert done.returncode == 0, done.stdout.decode("latin-1")[-3000:]
    assert (tmp_path / "all.pdf").stat().st_size > 10_000


def test_rows_of_another_backbone_are_named_and_counted_in_it(done: Store, tmp_path: Path) -> None:
    results = load_results(done)
    assert "of their own" not in make_paper_table(results).caption
    full, prompts = results.experiment.methods
    full = replace(full, job_options={"backbone": "other", "image_size": 96}, fingerprint="x", parameters=10_000_000)
    prompts = replace(prompts, job_options={"train_fraction": 0.5, "backbone": results.experiment.backbone})
    changed = replace(results, experiment=replace(results.experiment, methods=(full, prompts)))
    expected = (
        "Rows with a backbone or images of their own: Full (backbone other, image size 96), VPT (train fraction 0.5)"
    )
    assert f"Backbone: {results.experiment.backbone}. {expected}." in make_paper_table(changed).caption
    ours, theirs = results.parameters("Full"), changed.parameters("Full")
    assert ours is not None and theirs == pytest.approx(ours * results.experiment.parameters / 10_000_000)
    assert changed.parameters("VPT") == results.parameters("VPT")
    unknown = replace(changed.experiment, methods=(replace(full, parameters=None), prompts))  # of an earlier version
    assert replace(changed, experiment=unknown).parameters("Full") is None


def test_tasks_of_other_images_are_named_with_their_options(done: Store) -> None:
    results = load_results(done)
    shade, hue = results.experiment.tasks
    few = {"images_per_class": 5, "train_on": "train", "resize": "squash"}  # squashed, as all of the plan are
    for tasks, expected in (
        ((replace(shade, **few), hue), "shade (images per class 5, train on train)"),
        ((replace(shade, **few), replace(hue, **few)), "shade, hue (images per class 5, train on train)"),
        (
            (replace(shade, resize="crop", crop_fraction=0.5), replace(hue, images_per_class=2)),
            "shade (resize crop, crop fraction 0.5); hue (images per class 2)",
        ),
    ):
        changed = replace(results, experiment=replace(results.experiment, tasks=tasks))
        assert f" Tasks with options of their own: {expected}. " in make_paper_table(changed).caption
        lines = [text for name, text in provenance(changed) if name == "shade"]
        assert any(text.endswith(f"test 8; {own_options(tasks[0], changed.experiment.protocol)}") for text in lines)
    assert "of their own" not in make_paper_table(results).caption
    assert ("hue", "2 classes; train 12, val 4, test 8") in provenance(results)


def test_row_that_is_an_ensemble_is_named_as_one_model(done: Store) -> None:
    results = load_results(done)
    rows = (replace(results.experiment.methods[0], ensemble_of="VPT"), results.experiment.methods[1])
    changed = replace(results, experiment=replace(results.experiment, methods=rows))
    sentence = " Full is one model of the 2 runs of VPT, without a spread. "
    assert sentence in make_paper_table(changed).caption and sentence not in make_paper_table(results).caption
