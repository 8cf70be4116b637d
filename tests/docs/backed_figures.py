"""Figures in the prose and the tables of README and docs, made from the stored records, and the numbers that are none.

A page quotes a figure by a text here, which is built from the record. What no record backs does not belong in a page.
"""

from __future__ import annotations

import csv
import json
import statistics
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
from pages import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

from defaults_report import SHIPPED, difference
from report import RESULTS_DIR

TASKS = ("signdigits", "rsscn7", "dtd10", "caltech101")


def quotations() -> Iterator[tuple[str, str]]:
    """Page, and the text that it quotes from a record."""
    yield from _costs()
    yield from _prompt_lengths()
    yield from _accuracy()
    yield from _few_images()
    yield from _defaults()
    yield from _minutes()
    yield from _prompt_family()
    yield from _shortcuts()
    yield from _corruptions()
    yield from _demo()
    yield from _export()
    yield from _start()
    yield from _road_scenes()
    yield from _counts_beside_the_paper()


# Texts with a number that is not measured: a definition, a default, arithmetic, a quotation from the paper.
CONSTANTS: dict[str, tuple[str, ...]] = {
    "README.md": (
        "in %, mean ± standard deviation of three seeds",
        "the embedded backbone (1.6 M parameters, 48 x 48 px)",
        "(120 MB, downloaded once)",
        "(410 MB); in Python",
        "LoRA of rank 4, 4.8 % of the backbone's parameters without the head; LoRA alone has rank 32 and 21 %",
    ),
    "docs/concepts/identities.md": ("the last block saves 8 % of the forward pass",),
    "docs/embedded-backbone.md": ("top-1, %, mean ± sd, n = 10",),
    "docs/faq.md": ("It has 1.6 M parameters", "with 100 test images it is about 10 points to either side"),
    "docs/how-to/compare-methods.md": (
        "--sample 5%",
        "A plan longer than 10 hours",
        "is refused within 15 seconds",
        "reads it again every 10 s",
        "ends above 1.1 times its first and 2 times its lowest value, or above its first (by 1 % or more)",
        "the training metric lost 5 points",
        "95 % interval (Wilson)",
        "95 % interval (Newcombe)",
        "more than 5 % of its whole rise",
    ),
    "docs/how-to/large-data.md": (
        "150 kB per image at 224 px. Above 4 GiB (28,000 such images)",
        "1.14 or 1.41 times as large as the input",
        "what exceeds 4 GiB",
    ),
    "docs/how-to/minutes.md": (
        "The default is 10 minutes, 5 on a GPU; here it is 12 seconds",
        "its 95 % interval",
        "images of 1.5 and 2 times the backbone's own size",
    ),
    "docs/how-to/runs.md": ("reads it again every 10 s",),
    "docs/how-to/speed-and-memory.md": ("1.41 times as large as the input", "below 70 % of the GPU's memory"),
    "docs/how-to/training-options.md": (
        "`gated`, `class_token` | AdamW | 16 | 0.005 | 0.005 |",
        "`norm`, `ssf` | AdamW | 16 | 0.0005 | 0.005 |",
        "| `full`, `partial` | AdamW | 16 | 0.000125 | 0.005 |",
        "| `linear`, `head2toe` | SGD | 64 | 0.125 | 0.125 |",
        "| `mlp`, `sidetune` | SGD | 64 | 0.025 | 0.025 |",
        "0.75 times the rate of the next one",
        "skipped if its arrays exceed 2 GiB",
    ),
    "docs/methods.md": ("| `expansion` | 0.1 |", "| `dropout` | 0.1 |"),
    "docs/reference/official-code.md": ("| rates of prompts on FGVC | 0.05 is left out",),
    "docs/reliability.md": ("a file system of 4 MB with 0 to 320 kB free", "with 0, 4 and 32 kB free"),
    "docs/tutorials/segmentation.md": (
        "scaled to 0.5 to 2 times that",
        "refuses images whose long side is more than 16 times the short side",
        "asserts them to 2 %",
        "The paper's head has 0.04 M more parameters",
        "its VPT + bias is 0.13 M less than the sum of its own terms",
        "| paper | 35.12 | 42.11 | 43.40 | 44.04 | 48.31 |",
        "A backbone of 5.5 M parameters at 160 px has less to adapt than one of 304 M at 512",
    ),
    "docs/tutorials/serving.md": ("incomplete after 30 s", "more than 32 MiB (for `PUT`, 512 MiB)"),
}


def _record(name: str) -> Any:
    return json.loads((RESULTS_DIR / f"{name}.json").read_text(encoding="utf-8"))


def _mean_and_std(values: list[float], digits: int) -> str:
    return f"{100 * statistics.fmean(values):.{digits}f} ± {100 * statistics.stdev(values):.{digits}f}"


def _costs() -> Iterator[tuple[str, str]]:
    """README, "At the frozen backbone's cost"."""
    sections = _record("attention")

    def times(section: str, name: str) -> dict[str, float]:
        return dict(sections[section]["values"][name]["times_reference"])

    assert "--batch 16" in sections["inference"]["command"] and "--batch 16" in sections["textbook"]["command"]
    few, many, textbook = times("inference", "50"), times("inference", "200"), times("textbook", "plain")
    text = (
        f"two CPU threads: a forward pass with 50 deep prompts takes {few['median']:.2f} (quartiles {few['low']:.2f} "
        f"to {few['high']:.2f}, n = {few['n']}) times the frozen one, with 200 prompts {many['median']:.2f} "
        f"({many['low']:.2f} to {many['high']:.2f}) times. A training step at p = 200 is {textbook['median']:.1f} "
        f"times faster than concatenation (n = {textbook['n']},"
    )
    yield "README.md", text


def _prompt_lengths() -> Iterator[tuple[str, str]]:
    """Questions, "How many prompts?"."""
    record = _record("ablations/length")
    deep = {point["x"]: point for point in record["points"] if point["line"] == "deep"}
    score = {x: f"{100 * deep[x]['mean']:.1f} ± {100 * deep[x]['spread']:.1f} %" for x in (10, 50, 100, 200)}
    settings = record["settings"]
    assert (settings["image_size"], settings["epochs"], settings["seeds"]) == (112, 2, 3)
    yield (
        "docs/faq.md",
        (
            f"(DeiT-Tiny, 112 px, two epochs, n = 3), 50 prompts per block reach {score[50]}, 100 reach {score[100]}, "
            f"ten {score[10]}, and 200 at the same rate {score[200]}"
        ),
    )


def _accuracy() -> Iterator[tuple[str, str]]:
    """README, "With many images", and the answer of the questions."""
    scores: dict[tuple[str, str], list[float]] = {}
    trained: dict[str, int] = {}
    for run in _record("accuracy")["runs"]:
        scores.setdefault((run["row"], run["task"]), []).append(run["result"]["top1"])
        trained[run["row"]] = max(trained.get(run["row"], 0), run["result"]["trainable_parameters"])
    rows = {
        "linear probe": "linear",
        "VPT-shallow": 'vpt(depth="shallow", dropout=0)',
        "VPT-deep": "vpt(dropout=0)",
        "full fine-tuning": "full",
    }
    means = {}
    for name, row in rows.items():
        means[name] = 100 * statistics.fmean(statistics.fmean(scores[row, task]) for task in TASKS)
        cells = " | ".join(_mean_and_std(scores[row, task], 1) for task in TASKS)
        yield "README.md", f"| {name} | {trained[row]:,} | {cells} | {means[name]:.1f} |"
    with (RESULTS_DIR / "probes" / "runs.csv").open(encoding="utf-8") as file:
        probes = {run["task"]: run for run in csv.DictReader(file) if run["method"] == "all blocks"}
    probe_scores = [100 * float(probes[task]["top1"]) for task in TASKS]
    cells = " | ".join(f"{score:.1f}" for score in probe_scores)
    largest = max(int(run["trainable"]) for run in probes.values())
    text = (
        f"| [ridge probe (all blocks)](benchmarks/results/probes/README.md) | {largest:,} | {cells} | "
        f"{statistics.fmean(probe_scores):.1f} |"
    )
    yield "README.md", text
    text = (
        f"{means['VPT-deep']:.1f} % for VPT-deep (p = 10, from the head of the linear probe), "
        f"{means['full fine-tuning']:.1f} % for full fine-tuning, "
        f"{means['linear probe']:.1f} % for a linear probe"
    )
    yield "docs/faq.md", text


def _few_images() -> Iterator[tuple[str, str]]:
    """README, "With few labeled images": where the intervals of prompts + LoRA minus others are above 0."""
    rows = [
        row
        for row in _record("images_per_class")["accuracy"]["values"]["differences"]
        if row["ours"] == "VPT-deep + LoRA, with a ridge head"
    ]
    assert all(row["high"] >= 0 for row in rows)
    of = {other: [row for row in rows if row["above"] == other] for other in {row["above"] for row in rows}}
    leads = {other: {(row["set"], row["images"]) for row in found if row["low"] > 0} for other, found in of.items()}
    everything = 100  # ALL in images_per_class.py
    near = {("rsscn7", everything), ("caltech101", 5)}
    probe, ridge = "ridge probe, all blocks", "Full, with a ridge head"
    assert leads["Full"] == near | {("signdigits", 1), ("signdigits", 5)}
    assert leads["LoRA"] == near
    assert leads[probe] == near | {("signdigits", images) for images in (5, 20, everything)}
    assert not leads[ridge] and sum(row["points"] < 0 for row in of[ridge]) == 4
    assert all(row["points"] < 0 for row in of[probe] if row["set"] == "dtd10")
    assert all(row["points"] < 0 for row in of[probe] if row["set"] == "rsscn7" and row["images"] != everything)
    words = {6: "six", 7: "seven", 9: "nine"}
    yield "README.md", f"all {words[len(of[ridge])]} intervals contain 0, and four of the {words[len(of[ridge])]} means"
    for other in ("Full", "LoRA", probe):
        yield "README.md", f"The other {words[len(of[other]) - len(leads[other])]} intervals contain 0."


def _defaults() -> Iterator[tuple[str, str]]:
    names = ("set", "method", "epochs", "seed", "rate_factor")
    runs = _record("defaults")["defaults"]["values"]["runs"]
    results = {tuple(run[name] for name in names): run["top1"] for run in runs}

    def above(epochs: int, seeds: int) -> list[str]:
        found = [difference(results, name, "vpt", epochs, 1.0, SHIPPED) for name in TASKS]
        assert [len(values) for values in found] == [seeds] * 4
        return [f"{statistics.fmean(values):.1f}" for values in found]

    def with_ridge(epochs: int) -> str:
        found = {key: top1 for key, top1 in results.items() if key[1:3] == ("vpt", epochs) and key[4] == 1}
        return f"{statistics.fmean(top1[SHIPPED] - top1['trained head alone'] for top1 in found.values()):+.1f}"

    yield (
        "docs/how-to/training-options.md",
        f"changes by {with_ridge(3)} points at three epochs and {with_ridge(10)} at ten (mean of four datasets, three "
        f"draws), and by {with_ridge(30)} at 30 (one draw)",
    )
    three, ten, thirty = above(3, 3), above(10, 3), above(30, 1)
    deviations = [statistics.stdev(difference(results, name, "vpt", 10, 1.0, SHIPPED)) for name in TASKS]
    spread = [f"{mean} ± {deviation:.1f}" for mean, deviation in zip(ten, deviations, strict=True)]
    yield (
        "docs/how-to/training-options.md",
        f"by {three[0]} (sign digits), {three[1]} (RSSCN7), {three[2]} (DTD-10) and {three[3]} points (Caltech-101) at "
        f"three epochs, by {ten[0]}, {ten[1]}, {ten[2]} and {ten[3]} points at ten, and by {thirty[0]}, {thirty[1]}, "
        f"{thirty[2]} and {thirty[3]} points at 30 (one draw)",
    )
    yield (
        "README.md",
        f"{spread[0]} (sign digits), {spread[1]} (RSSCN7), {spread[2]} (DTD-10) and {spread[3]} points (Caltech-101)",
    )


def _minutes() -> Iterator[tuple[str, str]]:
    record = _record("minutes")
    runs = record["minutes on signdigits"]["values"]["runs"]
    (run,) = (run for run in runs if run["minutes"] == 10)
    low, high = (f"{100 * bound:.1f}" for bound in run["interval"])
    yield (
        "docs/how-to/minutes.md",
        f"saves `{run['shipped']}` with {100 * run['score']:.1f} % top-1 (95 % interval {low} to {high}, "
        f"{run['images']['test']:,} test images)",
    )
    whole, prompts, lora, full = record["methods on signdigits"]["values"]["runs"]
    assert (whole["shipped"], f"{whole['score']:.3f}") == (run["shipped"], f"{run['score']:.3f}")
    gain, low, high = full["below"]
    yield (
        "docs/how-to/minutes.md",
        "| search | top-1, % | file | whole search minus this one, points (95 % interval) | |---|---:|---|---| "
        f"| all methods | {100 * whole['score']:.1f} | | | | `vpt` | {100 * prompts['score']:.1f} | | | | `lora` | "
        f"{100 * lora['score']:.1f} | | | | `full` | {100 * full['score']:.1f} | above the default `--max-size` | "
        f"{gain:.1f} ({low:.1f} to {high:+.1f}) |",
    )
    scenes = {run["minutes"]: run for run in record["minutes on camvid"]["values"]["runs"]}
    low, high = (f"{100 * bound:.1f}" for bound in scenes[10]["interval"])
    yield (
        "docs/how-to/minutes.md",
        f"selects images of {scenes[10]['image_size']} px and saves prompts with {100 * scenes[10]['score']:.1f} % "
        f"mean IoU (95 % interval {low} to {high}, {scenes[10]['images']['test']} test images)",
    )
    assert all(run["shipped"] == "the probe" for run in runs if run["minutes"] < 10), "shorter budgets keep the probe"
    names = ("rsscn7", "dtd10", "caltech101")
    kept = [record[f"methods on {name}"]["values"]["runs"] for name in names]
    assert all(run["shipped"] == "the probe" for runs in kept for run in runs)
    first, second, third = (f"{100 * runs[0]['score']:.1f}" for runs in kept)
    yield "docs/how-to/minutes.md", f"RSSCN7, DTD-10 and Caltech-101 ({first}, {second} and {third} %)"
    searches = _record("risk")["risk"]["values"]["searches"]
    others = [one for one in searches if one["shipped"] != "the probe"]
    by_set = Counter(one["set"] for one in others)
    assert by_set.keys() == {"signdigits", "caltech101"} and all(one["gain"] >= 0 for one in searches)
    gains = 100 * np.array([one["gain"] for one in searches])
    error = 1.96 * gains.std(ddof=1) / len(gains) ** 0.5
    yield (
        "docs/how-to/minutes.md",
        f"Of {len(searches)} searches with {min(one['images'] for one in searches)} to "
        f"{max(one['images'] for one in searches)} images of each class on four datasets, "
        f"{len(searches) - len(others)} keep the probe, so they equal it. The other {len(others)} save another model, "
        f"{100 * min(one['gain'] for one in others):.1f} to {gains.max():.1f} points above their probe on test images: "
        f"{by_set['signdigits']} on sign digits and {by_set['caltech101']} on Caltech-101. The mean over all searches "
        f"is {gains.mean():+.1f} points (95 % interval {gains.mean() - error:+.1f} to {gains.mean() + error:+.1f}",
    )
    yield "README.md", f"reaches {100 * run['score']:.1f} % on sign digits with 50 prompts"


def _prompt_family() -> Iterator[tuple[str, str]]:
    curves = _record("rate_curves")["rate_curves"]["values"]
    best = {method: max(sets["rsscn7"].values()) for method, sets in curves.items() if "rsscn7" in sets}
    yield (
        "docs/prompt-family.md",
        f"MLAE ({best['MLAE']:.1f} %) and Adapter+ ({best['Adapter+']:.1f} %) are above it on val "
        f"({best['VPT-deep, p = 50']:.1f} %), and MLAE is above LoRA ({best['LoRA']:.1f} %)",
    )


def _shortcuts() -> Iterator[tuple[str, str]]:
    page, rows = "docs/prompt-family.md", _record("shortcuts")["shortcuts"]["values"]["rows"]

    def ends(shortcut: str) -> str:
        points = [abs(row["points"]) for row in rows if row["shortcut"] == shortcut]
        return f"{min(points):.1f} to {max(points):.1f} points"

    yield page, f"The best of five seeds adds {ends('best seed')}, the best epoch {ends('best epoch')}"
    yield page, f"both together {ends('best epoch and seed')}."
    rate = {(row["set"], row["method"]): row for row in rows if row["shortcut"] == "default rate"}
    full = sorted(-row["points"] for (_, method), row in rate.items() if method == "Full")
    prompts = rate["signdigits", "VPT-deep"]
    assert rate["rsscn7", "VPT-deep"]["low"] < 0 < rate["rsscn7", "VPT-deep"]["points"]
    yield (
        page,
        f"full fine-tuning loses {full[0]:.1f} and {full[1]:.1f} points, and prompts lose {-prompts['points']:.1f} "
        "points on sign digits",
    )
    images = ("JPEG, quality 75", "the other normalization")
    told = [row for row in rows if row["shortcut"] in images and row["low"] > 0]
    assert [(row["set"], row["method"], row["shortcut"]) for row in told] == [
        ("signdigits", "Full", "the other normalization")
    ]
    yield page, f"which gains {told[0]['points']:.1f} points by the other normalization on sign digits"


def _corruptions() -> Iterator[tuple[str, str]]:
    page, rows = "docs/prompt-family.md", _record("corruptions")["corruptions"]["values"]["rows"]
    near = [row for row in rows if row["set"] in ("signdigits", "rsscn7")]

    def mean(row: dict[str, Any], corruption: str) -> float:
        return statistics.fmean(row["top1"][corruption])

    def losses(*methods: str) -> list[float]:
        return [row["loss"][0] for row in near if row["method"] in methods]

    def contrast(*methods: str) -> list[float]:
        return [mean(row, "clean") - mean(row, "contrast") for row in near if row["method"] in methods]

    prompts, others = ("VPT-deep, p = 50", "VPT-deep, p = 50, with a ridge head"), ("LoRA", "Full")
    most, least = losses(*prompts, "ridge probe, all blocks"), losses(*others, "class token probe")
    yield page, f"lose most: {min(most):.0f} to {max(most):.0f} points in the mean of the six."
    yield page, f"Full fine-tuning, LoRA and the class token probe lose {min(least):.0f} to {max(least):.0f}."
    yield (
        page,
        f"to contrast there: {min(contrast(*prompts)):.0f} to {max(contrast(*prompts)):.0f} points, LoRA and full "
        f"fine-tuning {min(contrast(*others)):.0f} to {max(contrast(*others)):.0f}.",
    )
    full, probe = contrast("Full, with a ridge head"), contrast("ridge probe, all blocks")
    yield (
        page,
        f"With a ridge head, full fine-tuning loses {min(full):.0f} to {max(full):.0f}, and the ridge probe on all "
        f"blocks {min(probe):.0f} to {max(probe):.0f}, so the ridge head may be part of the cause.",
    )
    of = {(row["set"], row["method"]): mean(row, "clean") - mean(row, "contrast") for row in rows}
    dtd, caltech = (of[name, prompts[0]] for name in ("dtd10", "caltech101"))
    assert of["caltech101", "LoRA"] < 0
    yield page, f"they lose {dtd:.0f} and {caltech:.0f} points to contrast, LoRA {of['dtd10', 'LoRA']:.0f} and none."
    with (RESULTS_DIR / "low_data_fixed" / "tasks.csv").open(encoding="utf-8") as file:
        pairs = [(float(row["class token probe"]), float(row[prompts[0]])) for row in csv.DictReader(file)]
    ours, theirs = zip(*((own, probe) for probe, own in pairs), strict=True)
    yield (
        "README.md",
        f"prompts reach {ours[0]:.1f} and {ours[1]:.1f} %, the linear probe {theirs[0]:.1f} and {theirs[1]:.1f} %",
    )
    yield page, "(all test images: " + " and ".join(f"{probe:.1f} to {own:.1f} %" for probe, own in pairs)


def _demo() -> Iterator[tuple[str, str]]:
    """The table of the embedded backbone, and the differences there."""
    record = _record("demo")
    settings = {
        "prompts": "`vpt(length=4, depth=shallow)`, and a ridge head on the last 4 blocks | AdamW | 0.05 | 15 | 16",
        "linear probe": "`linear` | SGD | 0.05 | 100 | 16",
        "ridge probe": "`linear`, solved for on the last 4 blocks | | | |",
        "full fine-tuning": "`full` | AdamW | 0.012 | 15 | 16",
    }
    for row in record["rows"]:
        figures = f"{100 * row['mean']:.1f} ± {100 * row['std']:.1f}"
        yield "docs/embedded-backbone.md", f"| {row['method']} | {settings[row['method']]} | {figures} |"
    probe, ridge, full = (
        (100 * one["difference"], *(100 * bound for bound in one["interval"])) for one in record["comparisons"]
    )
    text = (
        f"Prompts minus the linear probe: {probe[0]:+.1f} points, 95 % interval {probe[1]:+.1f} to {probe[2]:+.1f}; "
        f"minus the ridge probe: {ridge[0]:+.1f}, {ridge[1]:+.1f} to {ridge[2]:+.1f}; minus full: {full[0]:+.1f}, "
        f"{full[1]:+.1f} to {full[2]:+.1f}"
    )
    yield "docs/embedded-backbone.md", text


def _export() -> Iterator[tuple[str, str]]:
    """The cost of exported graphs."""
    record = _record("export")
    one, many = (record["tasks"]["values"][name] for name in ("one graph", "a graph for each task"))
    rates = [each["images_per_second"]["median"] for each in (one, many)]
    tiny, small = (
        record["time"]["values"][name]["vpt"]["times_reference"]["median"]
        for name in ("deit_tiny_patch16_224", "vit_small_patch16_224")
    )
    text = (
        f"take {one['bytes'] / 1e6:,.0f} MB as one graph, and {many['bytes'] / 1e6:,.0f} MB as 100 sessions; batches "
        f"of eight images, each of another task, give {rates[0]:.1f} images/s against {rates[1]:.1f} on one thread. "
        f"VPT-deep as a graph takes {tiny:.2f} times the seconds of the frozen backbone with a linear head, exported "
        f"as timm has it, and {small:.2f} times on ViT-S/16"
    )
    yield "docs/how-to/export.md", text
    accuracy = record["accuracy"]["values"]
    assert all(accuracy[form]["agreement"] == 1 for form in ("graph", "graph, float16", "graph, pixels inside"))
    yield "docs/how-to/export.md", f"the class of the model itself on all {accuracy['images']} test images"


def _start() -> Iterator[tuple[str, str]]:
    """Seconds from the shell to an answer."""
    values = _record("start")["start"]["values"]
    graph, graph_224, tuned = (
        values[name]["seconds"]["median"]
        for name in ("vpt predict model.onnx", "vpt predict model.onnx, DeiT-Tiny", "vpt predict")
    )
    text = (
        f"From the shell to the prediction it takes {graph:.1f} s with the embedded backbone and {graph_224:.1f} s "
        f"with DeiT-Tiny, on one thread; with a tuned file of the embedded backbone it takes {tuned:.1f} s"
    )
    yield "docs/how-to/export.md", text


def _road_scenes() -> Iterator[tuple[str, str]]:
    """Five methods on CamVid."""
    scores: dict[str, list[float]] = {}
    several: dict[str, list[float]] = {}
    for run in _record("segmentation")["runs"]:
        method = run["spec"]["method"]
        scores.setdefault(method, []).append(run["miou"])
        several.setdefault(method, []).append(run["multi_scale_miou"])
    order = ("linear", "vpt(dropout=0)", "bias", "vpt(dropout=0) + bias", "full")
    page = "docs/tutorials/segmentation.md"
    yield page, f"| here | {' | '.join(_mean_and_std(scores[method], 2) for method in order)} |"
    means = {method: 100 * statistics.fmean(values) for method, values in scores.items()}
    yield page, f"{means['full'] - means['linear']:.1f} points from the head to full fine-tuning instead of 13"
    gains = {method: 100 * statistics.fmean(several[method]) - means[method] for method in order}
    assert max(gains, key=lambda method: gains[method]) == "linear"
    text = (
        f"Several scales add {min(gains.values()):.1f} to {max(gains.values()):.1f} points to each method, most to "
        "the head alone"
    )
    yield page, text
    solved = {name: found["miou"] for name, found in _record("segmentation_solved_scores")["methods"].items()}
    names = ("head only", "VPT-deep", "bias", "VPT + bias", "full")
    yield page, f"| here | {' | '.join(_mean_and_std(solved[name], 2) for name in names)} |"
    assert all(min(solved[name]) > max(solved["head only"]) for name in names[1:]), "above the head alone"


def _counts_beside_the_paper() -> Iterator[tuple[str, str]]:
    """Parameters of segmentation models: the terms of the page, beside the figures of the paper."""
    head, prompt, biases, encoder = 13_143_640, 24 * 1024, 272_384, 304_150_000
    ours = {
        "head only": (13.18, head),
        "VPT-deep (p = 10)": (13.43, head + 10 * prompt),
        "bias": (13.46, head + biases),
        "VPT (p = 100) + bias": (15.79, head + 100 * prompt + biases),
        "full": (318.31, head + encoder),
    }
    for name, (paper, count) in ours.items():
        difference = 100 * (count / 1e6 / paper - 1)
        yield "docs/tutorials/segmentation.md", f"| {name} | {paper} | {count / 1e6:.2f} | {difference:+.1f} % |"
    yield "docs/tutorials/segmentation.md", f"The encoder with positions for 512 px is {encoder / 1e6:.2f} M."
