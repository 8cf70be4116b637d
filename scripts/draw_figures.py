"""Draw every kind of figure and page for docs/reference/figures.md, on the sample data of the tutorials.

Usage: python scripts/draw_figures.py

It writes docs/figures/*.png and takes minutes on a CPU. Chromium draws the pages.
"""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from vpt.cli import main as vpt

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "docs" / "figures"
SMALL = ("--epochs", 8, "--batch-size", 16)
MASKS = ("--method", "vpt(length=4)", "--image-size", 48, "--iterations", 60, "--batch-size", 4, "--eval-every", 20)
WIDTH = 900  # pixels
# Name in docs/figures -> what is drawn below, and for a page the width and height of the window.
PICTURES: dict[str, tuple[str, tuple[int, int] | None]] = {
    "curve": ("photos.run/curve.png", None),
    "confusion": ("photos.run/confusion.png", None),
    "examples": ("photos.run/examples.png", None),
    "numbers": ("redness.run/scatter.png", None),
    "label-scores": ("labels.run/classes.png", None),
    "explained": ("explained.png", None),
    "explained-grid": ("grid.png", None),
    "occlusion": ("occlusion.png", None),
    "embedding": ("features.png", None),
    "overlay": ("predicted/street.overlay.png", None),
    "report": ("photos.run/report.html", (1000, 1500)),
    "report-masks": ("roads.run/report.html", (1000, 2400)),
    "report-phone": ("roads.run/report.html", (500, 900)),
    "embedding-page": ("features.html", (1000, 1050)),
    "search": ("searched.run/search.png", None),
    "demo": ("vpt-demo/comparison.png", None),
    "comparison": ("report/report.html", (1000, 1900)),
    "live-page": ("smoke/page.html", (1000, 900)),
}


def write_tables() -> None:
    """Write tables with several labels and with a number for each photo."""
    labels, numbers = ["path,labels"], ["path,redness"]
    for path in sorted(Path("photos").rglob("*.jpg")):
        red, green, blue = np.asarray(Image.open(path), np.float64).mean((0, 1))
        found = [path.parent.name, *(["dark"] if red + green + blue < 320 else []), *(["bluish"] if blue > red else [])]
        labels.append(f"{path},{'|'.join(found)}")
        numbers.append(f"{path},{red - green:.2f}")
    Path("labels.csv").write_text("\n".join(labels) + "\n")
    Path("redness.csv").write_text("\n".join(numbers) + "\n")


def draw() -> None:
    """Run the commands whose pictures are shown."""
    write_tables()
    for line in (
        ("tune", "photos", "--out", "photos.safetensors", *SMALL),
        ("tune", "labels.csv", "--out", "labels.safetensors", *SMALL),
        ("tune", "redness.csv", "--out", "redness.safetensors", *SMALL),
        ("tune", "roads", "--out", "roads.safetensors", "--head", "linear", *MASKS),
        ("predict", "roads.safetensors", "street.png", "--out", "predicted"),
        ("explain", "photos.safetensors", "new.jpg", "--out", "explained.png"),
        ("explain", "photos.safetensors", "new.jpg", "inbox", "--out", "grid.png"),
        ("explain", "photos.safetensors", "new.jpg", "--method", "occlusion", "--out", "occlusion.png"),
        ("embed", "photos.safetensors", "photos", "--split", "train", "--out", "features.png"),
        ("embed", "photos.safetensors", "photos", "--split", "train", "--out", "features.html"),
        ("tune", "photos", "--out", "searched.safetensors", "--minutes", 0.5),
        ("demo", "--draws", 3),
        ("bench", "run", "smoke", "--out", "smoke", "--page"),
        ("bench", "report", "smoke", "--out", "report"),
    ):
        vpt(list(map(str, line)))
    page = Path("features.html")
    page.write_text(page.read_text().replace('<input type="radio"', '<input checked type="radio"', 1))


def take_picture(page: Path, size: tuple[int, int], out: Path) -> None:
    """Draw a page as Chromium shows it, in dark mode where the window is narrow."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("there is no Chromium on this machine, which draws the pages; install it")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--window-size={size[0]},{size[1]}"]
    flags += ["--blink-settings=preferredColorScheme=0"] if size[0] < WIDTH else []
    subprocess.run([chromium, *flags, f"--screenshot={out}", page.absolute().as_uri()], check=True, capture_output=True)


def main() -> None:
    """Draw all figures in a folder of their own, and keep the pictures."""
    OUT.mkdir(exist_ok=True)
    make_data = runpy.run_path(str(ROOT / "docs" / "examples" / "make_data.py"))
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        make_data["main"](Path())
        draw()
        for name, (source, size) in PICTURES.items():
            drawn = Path(source) if size is None else Path(f"{name}.png")
            if size is not None:
                take_picture(Path(source), size, drawn)
            picture = Image.open(drawn).convert("RGB")
            picture.thumbnail((WIDTH, 10_000))
            picture.save(OUT / f"{name}.png", optimize=True)
        os.chdir(ROOT)


if __name__ == "__main__":
    main()
