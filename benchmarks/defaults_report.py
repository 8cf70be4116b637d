"""Tables and curves of the results of defaults.py."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import rate_curves
from report import RESULTS_DIR, write_section
from vpt.methods.registry import parse_method
from vpt.tasks.classification.config import ClassificationConfig

SETS = {"signdigits": (20, "sign digits"), "rsscn7": (20, "RSSCN7"), "dtd10": (20, "DTD-10"),
        "caltech101": (5, "Caltech-101")}  # fmt: skip
METHODS = ("vpt", "vpt(depth=shallow)", "bias", "lora", "adapter", "ssf", "full")
PROBE, PROBE_EPOCHS = "linear", 100
PROBE_HEADS = ("trained head alone", "ridge regression")
HEADS = {
    "trained head alone": None,
    "and ridge, pooled feature": "linear",
    "and ridge, last 4 blocks": "multi_block(blocks=last4)",
    "and ridge, all blocks": "multi_block(blocks=all, features=cls+mean+std)",
}
SHIPPED = "and ridge, pooled feature"  # what `vpt tune --epochs` has by default
Cell = tuple[str, str, int, int, float]  # set, method, epochs, seed, factor of the rate
Results = dict[Cell, dict[str, float]]  # % by head


def ending(precision: str, split: str) -> str:
    """The end of the names of results."""
    return f"-{precision}.json" if split == "test" else f"-{precision}-{split}.json"


def read_results(folder: Path, ends: str, metric: str = "top1") -> Results:
    """The results in a folder whose names end like that."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob(f"*{ends}"))]
    return {
        (one["set"], one["method"], one["epochs"], one["seed"], one.get("rate_factor", 1.0)): one[metric]
        for one in found
        if metric in one
    }


def probe_scores(results: Results, name: str, heads: Sequence[str] = PROBE_HEADS) -> dict[int, float]:
    """Top-1 of the probe on a set by seed: of that of some heads with the highest mean."""
    runs = {cell[3]: found for cell, found in results.items() if cell[:3] == (name, PROBE, PROBE_EPOCHS)}
    by_head = {
        head: {seed: found[head] for seed, found in runs.items()}
        for head in heads
        if runs and all(head in found for found in runs.values())
    }
    return max(by_head.values(), key=lambda scores: statistics.fmean(scores.values()), default={})


def difference(
    results: Results,
    name: str,
    method: str,
    epochs: int,
    factor: float,
    head: str,
    probe_heads: Sequence[str] = PROBE_HEADS,
) -> list[float]:
    """Top-1 minus that of the probe, in points, of every seed that has both."""
    ours = {cell[3]: found for cell, found in results.items() if (*cell[:3], cell[4]) == (name, method, epochs, factor)}
    probes = probe_scores(results, name, probe_heads)
    return [ours[seed][head] - probes[seed] for seed in sorted(ours) if seed in probes and head in ours[seed]]


def describe(values: Sequence[float]) -> str:
    """Mean, standard deviation and number."""
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):+.1f}{spread} ({len(values)})" if values else "–"


def format_table(results: Results, split: str) -> str:
    """Markdown: a row for each training and head, a column for each set."""
    probes = {name: list(probe_scores(results, name).values()) for name in SETS}
    factors = len({cell[4] for cell in results}) > 1
    lines = [
        f"**Fixed recipes**: points of {split} top-1 above the class token probe, mean ± standard deviation over the "
        "same draws (number of them). The probe of a set is the better one of a trained head and of ridge regression.",
        "",
        f"| epochs | method |{' rate, times the default |' if factors else ''} head | "
        f"{' | '.join(title for _, title in SETS.values())} |",
        f"|---:|---|{'---:|' if factors else ''}---|{'---:|' * len(SETS)}",
        f"| {PROBE_EPOCHS} | class token probe: top-1 in % |{' |' if factors else ''} | "
        + " | ".join(describe(scores).removeprefix("+") for scores in probes.values())
        + " |",
    ]
    for epochs, method, factor in rows_of(results):
        for head in HEADS:
            cells = [describe(difference(results, name, method, epochs, factor, head)) for name in SETS]
            if set(cells) != {"–"}:
                rate = f" {factor:g} |" if factors else ""
                lines.append(f"| {epochs} | `{method}` |{rate} {head} | {' | '.join(cells)} |")
    return "\n".join(lines)


def rows_of(results: Results) -> list[tuple[int, str, float]]:
    """Epochs, method and factor of what was trained, in the order of tables."""
    found = {(cell[2], cell[1], cell[4]) for cell in results if cell[1] != PROBE}
    return sorted(found, key=lambda row: (row[0], METHODS.index(row[1]), row[2]))


def choose(means: Mapping[float, Mapping[str, float]], sets: Iterable[str]) -> float:
    """The factor with the highest mean over sets, of equals the one next to the default."""
    names = list(sets)
    return max(means, key=lambda factor: (statistics.fmean(means[factor][name] for name in names), -abs(factor - 1)))


def format_choice(results: Results) -> str:
    """Markdown: the factor that all sets choose, and on each set what the choice of the three others costs."""
    lines = [
        "**Choice of the rate**, with the head that is the default: factor of the default rate with the highest mean "
        "over the four sets. Left out: on each set, what the factor that the three other sets choose gains over the "
        "default rate, in points. Only seeds that all factors have count.",
        "",
        f"| epochs | method | chosen | {' | '.join(f'{title}, left out' for _, title in SETS.values())} |",
        f"|---:|---|---:|{'---:|' * len(SETS)}",
    ]
    for epochs, method in dict.fromkeys(row[:2] for row in rows_of(results)):
        factors = [row[2] for row in rows_of(results) if row[:2] == (epochs, method)]
        means: dict[float, dict[str, float]] = {factor: {} for factor in factors}
        for name in SETS:
            seeds = [{c[3] for c in results if (*c[:3], c[4]) == (name, method, epochs, factor)} for factor in factors]
            for factor in factors:
                scores = [results[name, method, epochs, seed, factor][SHIPPED] for seed in set.intersection(*seeds)]
                if scores:
                    means[factor][name] = statistics.fmean(scores)
        if len(factors) > 1 and 1.0 in means and all(len(one) == len(SETS) for one in means.values()):
            others = {name: choose(means, SETS.keys() - {name}) for name in SETS}
            gains = [means[factor][name] - means[1.0][name] for name, factor in others.items()]
            lines.append(
                f"| {epochs} | `{method}` | {choose(means, SETS):g} | {' | '.join(f'{gain:+.1f}' for gain in gains)} |"
            )
    return "\n".join(lines)


def format_verdicts(results: Results) -> str:
    """Markdown: on how many sets each recipe is no lower than each probe, and on how many above it."""
    probes = {"better probe": PROBE_HEADS, "trained probe": PROBE_HEADS[:1]}
    lines = [
        "**Against the probe**, with the head that is the default, at the default rate: number of sets where the mean "
        "is no lower than the probe minus the standard deviation of the differences, and above it by more than that. "
        "One draw has no deviation: there it counts as 0. The better probe is that of the table above, which its own "
        f"test score chooses; the trained one is what `vpt tune --method {PROBE} --epochs {PROBE_EPOCHS}` trains.",
        "",
        f"| epochs | method | {' | '.join(f'no lower, {probe} | above, {probe}' for probe in probes)} |",
        f"|---:|---|{'---:|---:|' * len(probes)}",
    ]
    for epochs, method, factor in rows_of(results):
        if factor != 1:
            continue
        counts: list[str] = []
        for heads in probes.values():
            found = [difference(results, name, method, epochs, factor, SHIPPED, heads) for name in SETS]
            known = [values for values in found if values]
            spreads = [statistics.stdev(values) if len(values) > 1 else 0.0 for values in known]
            margins = list(zip([statistics.fmean(values) for values in known], spreads, strict=True))
            for number in (sum(m >= -spread for m, spread in margins), sum(m > spread for m, spread in margins)):
                counts.append(f"{number} of {len(known)}")
        if counts[0] != "0 of 0":
            lines.append(f"| {epochs} | `{method}` | {' | '.join(counts)} |")
    return "\n".join(lines)


def format_calibration(errors: Results, split: str) -> str:
    """Markdown: a row for each head, a column for each length of training at the default rate."""
    errors = {cell: found for cell, found in errors.items() if cell[4] == 1}
    lengths = list(dict.fromkeys(row[:2] for row in rows_of(errors)))
    sets_of = [{cell[0] for cell in errors if (cell[2], cell[1]) == length} for length in lengths]
    shared = set.intersection(*sets_of) if sets_of else set[str]()
    titles = ", ".join(title for name, (_, title) in SETS.items() if name in shared)
    lines = [
        f"**Calibration error** on {split} of the same runs on {titles}, in %, mean over sets and draws (number of "
        "runs).",
        "",
        f"| head | {' | '.join(f'`{method}`, {epochs} epochs' for epochs, method in lengths)} |",
        f"|---|{'---:|' * len(lengths)}",
    ]
    for head in HEADS:
        cells = []
        for length in lengths:
            same = [found for cell, found in errors.items() if (cell[2], cell[1]) == length and cell[0] in shared]
            values = [found[head] for found in same if head in found]
            cells.append(f"{statistics.fmean(values):.1f} ({len(values)})" if values else "–")
        if set(cells) != {"–"}:
            lines.append(f"| {head} | {' | '.join(cells)} |")
    return "\n".join(lines)


def rates_of(results: Results) -> rate_curves.Curves:
    """Mean top-1 with the default head by method, set and peak rate, of the shortest training of each method.

    Only seeds that all rates of a method have on a set count; a set with one rate has no curve.
    """
    curves: dict[str, dict[str, dict[float, float]]] = {}
    for method in dict.fromkeys(row[1] for row in rows_of(results)):
        usual = ClassificationConfig.for_method(parse_method(method)).training.peak_lr
        shortest = min(row[0] for row in rows_of(results) if row[1] == method)
        for name in SETS:
            found: dict[float, dict[int, float]] = {}
            for (of_set, of_method, epochs, seed, factor), scores in results.items():
                if (of_set, of_method, epochs) == (name, method, shortest):
                    found.setdefault(usual * factor, {})[seed] = scores[SHIPPED]
            shared = set.intersection(*map(set, found.values())) if found else set[int]()
            if len(found) > 1 and shared:
                means = {rate: statistics.fmean(found[rate][seed] for seed in shared) for rate in sorted(found)}
                curves.setdefault(method, {})[name] = means
    return curves


def write_report(results: Results, errors: Results, command: str, split: str) -> None:
    names = ("set", "method", "epochs", "seed", "rate_factor", "top1", "calibration_error")
    values: list[Mapping[str, Any]] = [
        dict(zip(names, (*cell, found, errors.get(cell)), strict=True)) for cell, found in sorted(results.items())
    ]
    tables = [format_table(results, split)]
    tables.append(format_verdicts(results))
    if len({cell[4] for cell in results}) > 1:
        tables.append(format_choice(results))
    if errors:
        tables.append(format_calibration(errors, split))
    table = "\n\n".join(tables)
    write_section("defaults", "defaults" if split == "test" else split, {"runs": values}, command, table)
    if split == "val" and (curves := rates_of(results)):
        rate_curves.draw(curves, RESULTS_DIR / "defaults.png")
    print(table)
