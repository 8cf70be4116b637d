"""What a search ships minus its own probe, on test images that took no part: can `vpt tune --minutes` lose?

    python benchmarks/risk.py --data FOLDER --backbone deit_tiny_patch16_224.fb_in1k --weights FILE --records RECORDS
    python benchmarks/risk.py --records RECORDS --report

Every search is one draw of the training images, and a process of its own. Its record is a file in RECORDS; searches
that have one do not run again, and one that was killed resumes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from corruptions import SETS
from report import write_section
from vpt.core import environment
from vpt.core.io import write_atomic

CELLS = {"signdigits": (10, 20), "rsscn7": (10, 20), "dtd10": (10, 20), "caltech101": (3, 5)}
DRAWS = 4
LOSS = 0.01  # of the probe's score: one point


def run_search(data: Path, images: int, draw: int, minutes: float, options: list[str], out: Path) -> dict[str, Any]:
    """Run one search and return its record."""
    line = [sys.executable, "-m", "vpt", "tune", str(data), "--images-per-class", str(images), "--seed", str(draw)]
    line += ["--minutes", f"{minutes:g}", "--out", str(out), "--json", *options]
    done = subprocess.run(line, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return {"set": data.name, "images": images, "draw": draw, **summarize(json.loads(done.stdout)["search"])}


def summarize(search: dict[str, Any]) -> dict[str, Any]:
    """Return what the record of a search has: its gain over its probe, 0 where it keeps the probe."""
    kept = search["selected"] == "the probe"
    return {
        "minutes": search["minutes"], "shipped": search["selected"],
        "score": search["score"], "gain": 0.0 if kept else search["comparison"]["gain"],
        "comparison": search["comparison"], "test_images": search["images"], "seconds": search["seconds"],
        "words": search["summary"], "environment": environment.describe(),
        "tried": [{k: row[k] for k in ("method", "head", "factor", "status", "reason", "score") if k in row}
                  for row in search["candidates"]],
    }  # fmt: skip


def tabulate(records: list[dict[str, Any]]) -> str:
    """Return the table of the records, a row for each set and number of images."""
    rows = [
        "| set | images per class | searches | not the probe | shipped minus probe, points: mean | least | most |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, counts in CELLS.items():
        for count in counts:
            found = [r for r in records if (r["set"], r["images"]) == (name, count)]
            if found:
                gains = [100 * r["gain"] for r in found]
                other = sum(r["shipped"] != "the probe" for r in found)
                rows.append(
                    f"| {SETS[name]} | {count} | {len(found)} | {other} | {np.mean(gains):+.1f} | {min(gains):+.1f} "
                    f"| {max(gains):+.1f} |"
                )
    gains = [r["gain"] for r in records]
    error = 1.96 * np.std(gains, ddof=1) / len(gains) ** 0.5
    low, high = 100 * (np.mean(gains) - error), 100 * (np.mean(gains) + error)
    minutes = ", ".join(f"{m:g}" for m in sorted({r["minutes"] for r in records}))
    return "\n".join(
        [
            f"**Searches of {minutes} minutes against their own probes**, DeiT-Tiny, test top-1; a search that keeps "
            "its probe has 0.",
            "",
            *rows,
            "",
            f"All {len(gains)}: mean {100 * np.mean(gains):+.1f} points (95 % interval over searches {low:+.1f} to "
            f"{high:+.1f}); {sum(g < -LOSS for g in gains)} lose more than {100 * LOSS:g} point.",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the sets")
    parser.add_argument("--records", type=Path, required=True, help="folder of the records")
    parser.add_argument("--sets", nargs="+", choices=CELLS, default=list(CELLS))
    parser.add_argument("--draws", type=int, nargs="+", default=list(range(DRAWS)))
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--backbone")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--report", action="store_true", help="only write the table of the records")
    options = parser.parse_args()
    options.records.mkdir(parents=True, exist_ok=True)
    if not options.report:
        if options.data is None:
            parser.error("--data is missing: the folder that holds the sets")
        given = {"--backbone": options.backbone, "--weights": options.weights}
        flags = [part for name, value in given.items() if value for part in (name, str(value))]
        cells = [(draw, name, k) for draw in options.draws for name in options.sets for k in CELLS[name]]
        for done, (draw, name, count) in enumerate(cells):
            record = options.records / f"{name}-{count}-{draw}.json"
            if not record.exists():
                out = options.records / "files" / f"{record.stem}.safetensors"
                found = run_search(options.data / name, count, draw, options.minutes, flags, out)
                write_atomic(record, f"{json.dumps(found, indent=1)}\n".encode())
            print(f"{done + 1} of {len(cells)}: {record.name}", flush=True)
    records = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(options.records.glob("*.json"))]
    if not records:
        raise SystemExit(f"no records in {options.records}")
    table = tabulate(records)
    if options.report:
        command = "python benchmarks/risk.py --records RECORDS --report"
        write_section("risk", "risk", {"searches": records}, command, table)
    print(table)


if __name__ == "__main__":
    main()
