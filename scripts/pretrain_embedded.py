"""Pretrain the backbone that ships inside vpt, on pictures this script draws itself.

    python scripts/pretrain_embedded.py --out src/vpt/backbone/vit_nano_patch12_48.safetensors

Every picture is a texture, perhaps one of 256 fractals or 256 invented characters, and up to six flat shapes.
One network learns what the drawer knows: the class token names texture, character or fractal, the kinds of
shape present and the largest shape; every patch token describes the shape it shows. No photograph, no
foreign weights and no downstream task is involved. Killed runs resume from `--work`.
"""

from __future__ import annotations

import argparse
import functools
import math
import multiprocessing
import os
import time
from pathlib import Path

# Spinning threads stall each other as soon as anything else runs on the machine; this must precede torch.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.nn import functional as F

SIZE, PATCH = 48, 12
GRID = SIZE // PATCH
FRACTALS = GLYPHS = 256
SLOTS = 6  # shapes per picture, at most
FAMILIES = ("gradient", "stripes", "plaid", "checks", "clouds", "cells", "rings", "grain")
ORIENTED = (1, 2, 3)
# name -> rotational symmetry: a shape looks the same after 360/symmetry degrees; 0 = at every angle
SHAPES = {
    "disc": 0, "ring": 0, "square": 4, "cross": 4, "triangle": 3, "star": 5,
    "bar": 2, "ellipse": 2, "half": 1, "arrow": 1, "corner": 1, "crescent": 1,
}  # fmt: skip
SYMMETRY = np.array(list(SHAPES.values()))
KINDS = len(SHAPES)
Floats = NDArray[np.float32]

# Columns of the two label tables; an angle is (cos, sin, is there one), a colour three values in -1..1.
CLS_COLUMNS = 2 + 4 + KINDS + 10  # family, layer | angle, frequency | presence | largest shape
PATCH_COLUMNS = 12  # coverage, centres, kind, dx, dy, size, angle (3), colour (3)


@functools.cache
def clouds() -> Floats:
    """Point clouds (FRACTALS + GLYPHS, 3000, 2) within about -1..1, one per class of the middle layer."""
    rng = np.random.default_rng(0)
    out = np.zeros((FRACTALS + GLYPHS, 3000, 2), np.float32)
    done = 0
    while done < FRACTALS:  # iterated function systems, kept when they neither collapse nor explode
        maps = rng.uniform(-1, 1, (int(rng.integers(2, 5)), 2, 3))
        for m in maps:  # contract every map
            m[:, :2] *= rng.uniform(0.4, 0.85) / max(np.linalg.norm(m[:, :2], 2), 1e-3)
        points = rng.uniform(-1, 1, (3000, 2))
        weight = np.abs(np.linalg.det(maps[:, :, :2])) + 0.05
        for _ in range(30):
            pick = maps[rng.choice(len(maps), 3000, p=weight / weight.sum())]
            points = np.einsum("nij,nj->ni", pick[:, :, :2], points) + pick[:, :, 2]
        low, high = np.percentile(points, [1, 99], axis=0)
        points = (2 * points - low - high) / max((high - low).max(), 1e-6)
        cells = np.unique(np.clip(np.floor((points + 1) * 12), -1, 24) @ [1, 100])
        if (high - low).min() > 0.3 and 60 < len(cells) < 400:
            out[done] = np.clip(points, -1.3, 1.3)
            done += 1
    for glyph in range(GLYPHS):  # 2-4 curved strokes between points of a coarse grid
        strokes = int(rng.integers(2, 5))
        knots = rng.integers(-2, 3, (strokes, 3, 2)) / 2.0
        knots[1:, 0] = np.where(rng.random((strokes - 1, 1)) < 0.6, knots[:-1, 2], knots[1:, 0])
        k = knots[rng.integers(0, strokes, 3000)]
        t = rng.random((3000, 1))
        out[FRACTALS + glyph] = (1 - t) ** 2 * k[:, 0] + 2 * t * (1 - t) * k[:, 1] + t**2 * k[:, 2]
    return out


def colours(rng: np.random.Generator, *shape: int) -> Floats:
    """Random colours (*shape, 3) in 0..1, pale ones and vivid ones."""
    vivid = rng.random((*shape, 1)) < 0.6
    c = rng.random((*shape, 3))
    stretched = (c - c.min(-1, keepdims=True)) / (np.ptp(c, axis=-1, keepdims=True) + 1e-3)
    return np.where(vivid, stretched * rng.uniform(0.4, 1, (*shape, 1)), c).astype(np.float32)


def smooth(rng: np.random.Generator, n: int, cells: int) -> Floats:
    """Bilinear value noise (n, SIZE, SIZE) in 0..1 with `cells` cells a side."""
    grid = rng.random((n, cells + 1, cells + 1)).astype(np.float32)
    at = np.arange(SIZE) * cells / SIZE
    low = at.astype(int)
    f = (at - low).astype(np.float32)
    rows = grid[:, low] * (1 - f)[:, None] + grid[:, low + 1] * f[:, None]
    return rows[:, :, low] * (1 - f) + rows[:, :, low + 1] * f


def backgrounds(rng: np.random.Generator, n: int) -> tuple[Floats, NDArray[np.int64], Floats, Floats]:
    """Textures (n, SIZE, SIZE, 3), their family, angle and frequency (cycles a picture)."""
    family = rng.integers(0, len(FAMILIES), n)
    angle = rng.uniform(0, np.pi, n).astype(np.float32)
    frequency = np.exp(rng.uniform(np.log(2), np.log(9), n)).astype(np.float32)
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32) / SIZE - 0.5
    blend = np.zeros((n, SIZE, SIZE), np.float32)
    for code, name in enumerate(FAMILIES):
        i = np.flatnonzero(family == code)
        c, s = np.cos(angle[i])[:, None, None], np.sin(angle[i])[:, None, None]
        phase = rng.uniform(0, 2 * np.pi, (2, len(i), 1, 1)).astype(np.float32)
        u, v = x * c + y * s, y * c - x * s
        w = (2 * np.pi * frequency[i])[:, None, None]
        hard = rng.choice([1.0, 8.0], (len(i), 1, 1))  # a sine or a square wave
        if name == "gradient":
            b = u + 0.5
        elif name == "stripes":
            b = 0.5 + 0.5 * np.tanh(hard * np.sin(w * u + phase[0]))
        elif name == "plaid":
            b = 0.5 + 0.25 * (np.sin(w * u + phase[0]) + np.sin(0.5 * w * v + phase[1]))
        elif name == "checks":
            b = 0.5 + 0.5 * np.tanh(8 * np.sin(w * u / 2 + phase[0]) * np.sin(w * v / 2 + phase[1]))
        elif name == "clouds":
            b = (smooth(rng, len(i), 3) + 0.5 * smooth(rng, len(i), 7) + 0.25 * smooth(rng, len(i), 15)) / 1.75
            b = (b - 0.5) * 1.8 + 0.5
        elif name == "cells":
            centres = rng.uniform(-0.55, 0.55, (len(i), 2, 14, 1, 1)).astype(np.float32)
            distance = (x - centres[:, 0]) ** 2 + (y - centres[:, 1]) ** 2
            b = rng.random((len(i), 14)).astype(np.float32)[np.arange(len(i))[:, None, None], distance.argmin(1)]
        elif name == "rings":
            cx, cy = rng.uniform(-0.5, 0.5, (2, len(i), 1, 1))
            b = 0.5 + 0.5 * np.tanh(hard * np.sin(w * np.hypot(x - cx, y - cy) + phase[0]))
        else:
            b = rng.random((len(i), SIZE, SIZE))
        blend[i] = b
    pair = colours(rng, 2, n)[:, :, None, None]
    contrast = rng.uniform(0.15, 1, (n, 1, 1, 1)).astype(np.float32)
    picture = pair[0] + (pair[1] - pair[0]) * contrast * blend[..., None]
    return picture, family, angle, frequency


def outline(kind: str, u: Floats, v: Floats) -> Floats:
    """How far outside a shape of radius 1 the points (u, v) lie; negative inside. About Euclidean."""
    r = np.hypot(u, v)
    box = lambda a, b, du=0.0, dv=0.0: np.maximum(np.abs(u - du) - a, np.abs(v - dv) - b)  # noqa: E731
    if kind == "disc":
        return r - 0.9
    if kind == "ring":
        return np.abs(r - 0.72) - 0.22
    if kind == "square":
        return box(0.78, 0.78)
    if kind == "cross":
        return np.minimum(box(1, 0.3), box(0.3, 1))
    if kind in ("triangle", "star"):
        n, depth = (3, 1.0) if kind == "triangle" else (5, 0.0)
        phi = np.abs((np.arctan2(v, u) + np.pi / n) % (2 * np.pi / n) - np.pi / n)
        if depth:
            return r * np.cos(np.pi / n - phi) - np.cos(np.pi / n)
        a, b = r * np.cos(phi), r * np.sin(phi)  # the edge from the tip (1, 0) to the notch at 36 degrees
        nx, ny = 0.45 * math.sin(math.pi / 5), 1 - 0.45 * math.cos(math.pi / 5)
        return ((a - 1) * nx + b * ny) / math.hypot(nx, ny)
    if kind == "bar":
        return box(1, 0.28)
    if kind == "ellipse":
        return (np.hypot(u, v / 0.5) - 1) * 0.6
    if kind == "half":
        return np.maximum(r - 0.95, -u)
    if kind == "arrow":
        return np.minimum(box(0.55, 0.18, du=-0.4), np.maximum(np.abs(v) - 0.75 * (1 - u), -u) * 0.8)
    if kind == "corner":
        return np.minimum(box(0.85, 0.25, dv=-0.6), box(0.25, 0.85, du=-0.6))
    return np.maximum(r - 0.95, 0.8 - np.hypot(u - 0.5, v))  # crescent


def draw(job: tuple[int, int]) -> tuple[NDArray[np.uint8], NDArray[np.float16], NDArray[np.float16]]:
    """(seed, n) -> n pictures (n, SIZE, SIZE, 3) with class-token labels and patch labels."""
    seed, n = job
    rng = np.random.default_rng([seed, 1])
    picture, family, angle, frequency = backgrounds(rng, n)
    each = np.arange(n)

    layer = np.where(rng.random(n) < 0.5, rng.integers(1, FRACTALS + GLYPHS + 1, n), 0)
    i = np.flatnonzero(layer)
    points = clouds()[layer[i] - 1]
    is_glyph = (layer[i] > FRACTALS)[:, None, None]
    turn, grow = rng.normal(0, 0.25, (len(i), 1)), rng.uniform(9, 21, (len(i), 1, 1))
    stretch = rng.uniform(0.8, 1.2, (len(i), 1, 2))
    p = points * stretch
    p = np.stack([p[..., 0] * np.cos(turn) - p[..., 1] * np.sin(turn),
                  p[..., 0] * np.sin(turn) + p[..., 1] * np.cos(turn)], -1)  # fmt: skip
    p = p * grow * np.where(is_glyph, 0.85, 1) + rng.uniform(19, 29, (len(i), 1, 2))
    p += rng.normal(0, 1, p.shape) * np.where(is_glyph, rng.uniform(0.4, 1.3, (len(i), 1, 1)), 0.15)
    column, row = np.clip(np.round(p), 0, SIZE - 1).astype(np.int64).transpose(2, 0, 1)
    hits = np.bincount(
        (np.arange(len(i))[:, None] * SIZE * SIZE + row * SIZE + column).ravel(), minlength=len(i) * SIZE * SIZE
    ).reshape(len(i), SIZE, SIZE)
    alpha = (1 - np.exp(-hits * np.where(is_glyph, 0.35, 0.5)))[..., None] * rng.uniform(0.7, 1, (len(i), 1, 1, 1))
    picture[i] += alpha.astype(np.float32) * (colours(rng, len(i), 1, 1) - picture[i])

    count = rng.integers(0, SLOTS + 1, n)
    kind = rng.integers(0, KINDS, (n, SLOTS))
    twins = rng.random(n) < 0.3  # pictures of one kind of shape, as counting has them
    kind[twins] = kind[twins, :1]
    radius = np.exp(rng.uniform(np.log(3.5), np.log(13), (n, SLOTS))).astype(np.float32)
    radius = np.where(count[:, None] > 3, np.minimum(radius, 8), radius)
    theta = rng.uniform(0, 2 * np.pi, (n, SLOTS)).astype(np.float32)
    centre = rng.uniform(3, SIZE - 3, (n, SLOTS, 2)).astype(np.float32)
    for slot in range(1, SLOTS):  # keep most shapes apart: redraw a centre that falls into an earlier shape
        for _ in range(6):
            gap = np.hypot(*np.moveaxis(centre[:, slot, None] - centre[:, :slot], -1, 0))
            bad = (gap < 0.9 * (radius[:, slot, None] + radius[:, :slot])).any(1)
            centre[bad, slot] = rng.uniform(3, SIZE - 3, (int(bad.sum()), 2))
    paint = colours(rng, n, SLOTS)
    second = colours(rng, n, SLOTS)
    fill = rng.integers(0, 3, (n, SLOTS))  # flat, shaded, striped
    owner = np.full((n, SIZE, SIZE), SLOTS)
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    for slot in range(SLOTS):
        for code, name in enumerate(SHAPES):
            i = np.flatnonzero((count > slot) & (kind[:, slot] == code))
            if not len(i):
                continue
            r, t, c = radius[i, slot, None, None], theta[i, slot, None, None], centre[i, slot, :, None, None]
            dx, dy = (x - c[:, 0]) / r, (y - c[:, 1]) / r
            u, v = dx * np.cos(t) + dy * np.sin(t), dy * np.cos(t) - dx * np.sin(t)
            alpha = np.clip(0.5 - outline(name, u, v) * r, 0, 1)
            wave = np.where(fill[i, slot, None, None] == 2, np.sin(6 * u) > 0, np.clip(0.5 + (dx - dy) / 3, 0, 1))
            wave = np.where(fill[i, slot, None, None] == 0, 0, wave * 0.7)[..., None].astype(np.float32)
            body = paint[i, slot, None, None] * (1 - wave) + second[i, slot, None, None] * wave
            picture[i] += alpha[..., None] * (body - picture[i])
            owner[i] = np.where(alpha > 0.5, slot, owner[i])

    # What is where: area[n, slot, patch] in pixels, of the shapes as they are seen after overlaps.
    cells = owner.reshape(n, GRID, PATCH, GRID, PATCH).transpose(0, 1, 3, 2, 4).reshape(n, GRID * GRID, -1)
    area = np.stack([(cells == slot).sum(-1) for slot in range(SLOTS + 1)], 1)
    seen = area[:, :SLOTS].sum(-1)
    symmetry = SYMMETRY[kind]
    turned = np.stack([np.cos(symmetry * theta), np.sin(symmetry * theta), symmetry > 0], -1)
    facts = np.concatenate([centre / SIZE * 2 - 1, np.log(radius / 7)[..., None], turned, paint * 2 - 1], -1)

    top = area[:, :SLOTS].argmax(1)  # (n, patches): the slot that fills most of a patch
    shown = np.take_along_axis(area, top[:, None], 1)[:, 0] >= 12
    patches = np.zeros((n, GRID * GRID, PATCH_COLUMNS), np.float32)
    patches[..., 0] = 1 - area[:, SLOTS] / PATCH**2
    home = (np.clip(centre // PATCH, 0, GRID - 1) @ [1, GRID]).astype(int)
    for slot in range(SLOTS):
        np.add.at(patches[..., 1], (each, home[:, slot]), seen[:, slot] > 20)
    patches[..., 2] = np.where(shown, kind[each[:, None], top], KINDS)
    patches[..., 3:] = facts[each[:, None], top]
    cell = np.stack(np.meshgrid(np.arange(GRID), np.arange(GRID)), -1).reshape(-1, 2)
    patches[..., 3:5] -= (cell + 0.5) / GRID * 2 - 1  # offset from the patch to the centre of its shape

    largest = seen.argmax(1)
    any_ = seen.max(1) >= 12
    labels = np.zeros((n, CLS_COLUMNS), np.float32)
    labels[:, 0], labels[:, 1] = family, layer
    labels[:, 2:5] = np.stack([np.cos(2 * angle), np.sin(2 * angle), np.isin(family, ORIENTED)], -1)
    labels[:, 5] = np.log(frequency / 4)
    for slot in range(SLOTS):
        labels[each, 6 + kind[:, slot]] = np.maximum(labels[each, 6 + kind[:, slot]], seen[:, slot] > 20)
    labels[:, 6 + KINDS] = np.where(any_, kind[each, largest], KINDS)
    labels[:, 7 + KINDS :] = facts[each, largest]

    noise = rng.normal(0, 1, picture.shape).astype(np.float32) * rng.uniform(0, 0.06, (n, 1, 1, 1))
    pixels = np.clip((picture + noise) * 255, 0, 255).astype(np.uint8)
    return pixels, labels.astype(np.float16), patches.astype(np.float16)


def dataset(work: Path, n: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.float16], NDArray[np.float16]]:
    """The pictures and their labels, drawn by two processes once and mapped from disk ever after."""
    paths = [work / f"{name}_{n}_{seed}.npy" for name in ("pixels", "labels", "patches")]
    if not all(path.exists() for path in paths):
        chunk, start = 250, time.time()
        jobs = [(seed * 10**6 + 1 + k, chunk) for k in range(n // chunk)]
        parts = []
        with multiprocessing.Pool(2) as pool:
            for k, part in enumerate(pool.imap(draw, jobs)):
                parts.append(part)
                if k % 20 == 19:
                    print(f"drawn {(k + 1) * chunk:,} of {n:,} pictures, {time.time() - start:.0f} s", flush=True)
        for path, column in zip(paths, zip(*parts, strict=True), strict=True):
            np.save(path, np.concatenate(column))
    pixels, labels, patches = (np.load(path, mmap_mode="r") for path in paths)
    return pixels, labels, patches


def backbone() -> VisionTransformer:
    """The architecture; `vpt.backbone.embedded` must say the same."""
    return VisionTransformer(
        img_size=SIZE, patch_size=PATCH, embed_dim=128, depth=8, num_heads=4, num_classes=0, class_token=True
    )


class Pretrainer(nn.Module):
    """The backbone and two linear heads, which are thrown away afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = backbone()
        self.cls = nn.Linear(128, len(FAMILIES) + 1 + FRACTALS + GLYPHS + 3 + KINDS + KINDS + 1 + 8)
        self.patch = nn.Linear(128, 2 + KINDS + 1 + 8)

    def forward(self, pixels: torch.Tensor, labels: torch.Tensor, patches: torch.Tensor) -> dict[str, torch.Tensor]:
        """The losses, each near 1 for a network that knows nothing."""
        tokens = self.trunk.forward_features(pixels)
        family, layer, wave, presence, kind, facts = self.cls(tokens[:, 0]).split(
            [len(FAMILIES), 1 + FRACTALS + GLYPHS, 3, KINDS, KINDS + 1, 8], 1
        )
        amount, p_kind, p_facts = self.patch(tokens[:, 1:]).split([2, KINDS + 1, 8], 2)
        exists = (labels[:, 6 + KINDS] < KINDS).float()
        shown = (patches[..., 2] < KINDS).float()
        return {
            "family": F.cross_entropy(family, labels[:, 0].long()) / math.log(len(FAMILIES)),
            "layer": F.cross_entropy(layer, labels[:, 1].long(), label_smoothing=0.05) / 3.5,
            "wave": turns(wave[:, :2], labels[:, 2:5]) + 2 * F.mse_loss(wave[:, 2], labels[:, 5]),
            "presence": F.binary_cross_entropy_with_logits(presence, labels[:, 6 : 6 + KINDS]) / 0.5,
            "largest": F.cross_entropy(kind, labels[:, 6 + KINDS].long()) / 2.5,
            "its facts": described(facts, labels[:, 7 + KINDS :], exists),
            "amount": 5 * F.mse_loss(amount[..., 0], patches[..., 0]) + 3 * F.mse_loss(amount[..., 1], patches[..., 1]),
            "kind": F.cross_entropy(p_kind.flatten(0, 1), patches[..., 2].flatten().long()) / 1.7,
            "facts": described(p_facts.flatten(0, 1), patches[..., 3:].flatten(0, 1), shown.flatten()),
        }


def turns(guess: torch.Tensor, angle: torch.Tensor) -> torch.Tensor:
    """Squared error of (cos, sin), where there is an angle; (n, 2) against (n, 3)."""
    return ((guess - angle[:, :2]) ** 2).sum(1).mul(angle[:, 2]).sum() / angle[:, 2].sum().clamp(min=1)


def described(guess: torch.Tensor, facts: torch.Tensor, exists: torch.Tensor) -> torch.Tensor:
    """Loss of x, y, log size, angle and colour; (n, 8) against (n, 9), where a shape exists (n,)."""
    total = exists.sum().clamp(min=1)
    place = ((guess[:, :3] - facts[:, :3]) ** 2).sum(1).mul(exists).sum() / total
    colour = ((guess[:, 5:] - facts[:, 6:]) ** 2).mean(1).mul(exists).sum() / total
    angle = torch.cat([facts[:, 3:5], facts[:, 5:6] * exists[:, None]], 1)
    return place + 0.5 * turns(guess[:, 3:5], angle) + 0.5 * colour


def augment(
    pixels: torch.Tensor, labels: torch.Tensor, patches: torch.Tensor, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Swap channels (of the colour labels too), change brightness and contrast, add noise, hide a rectangle."""
    n = len(pixels)
    order = torch.randperm(3, generator=generator)
    labels[:, -3:], patches[..., -3:] = labels[:, -3:][:, order], patches[..., -3:][..., order]
    scale = 0.7 + 0.6 * torch.rand(n, 1, 1, 1, generator=generator)
    shift = 0.3 * torch.rand(n, 1, 1, 1, generator=generator) - 0.15
    noise = torch.randn(pixels.shape, generator=generator) * 0.12 * torch.rand(n, 1, 1, 1, generator=generator)
    out = ((pixels[:, order] * scale + shift + noise)).clamp(-1, 1)
    if torch.rand((), generator=generator) < 0.5:
        a, b = (int(k) for k in torch.randint(0, SIZE - 10, (2,), generator=generator))
        out[: n // 2, :, a : a + 10, b : b + 10] = 0
    return out, labels, patches


def main() -> None:
    """Draw, train, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="safetensors file to write")
    parser.add_argument("--work", type=Path, default=Path("scratch/pretrain"), help="pictures and checkpoint")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--pictures", type=int, default=60_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    args.work.mkdir(parents=True, exist_ok=True)
    pixels, labels, patches = dataset(args.work, args.pictures, args.seed)

    model = Pretrainer()
    decay = [p for p in model.parameters() if p.ndim == 2]
    rest = [p for p in model.parameters() if p.ndim != 2]
    optimiser = torch.optim.AdamW(
        [{"params": decay}, {"params": rest, "weight_decay": 0.0}], lr=args.lr, weight_decay=0.05, betas=(0.9, 0.98)
    )
    checkpoint = args.work / f"checkpoint_{args.steps}_{args.batch}_{args.lr}_{args.pictures}_{args.seed}.pt"
    first = 0
    if checkpoint.exists():
        state = torch.load(checkpoint)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        first = state["step"]
        print(f"resumed at step {first}", flush=True)

    start, mean = time.time(), {}
    for step in range(first, args.steps):
        warm = min(1.0, (step + 1) / (0.05 * args.steps))
        for group in optimiser.param_groups:
            group["lr"] = args.lr * warm * (0.5 + 0.5 * math.cos(math.pi * step / args.steps))
        # One generator a step, not one a run: a resumed run sees the pictures an unbroken one would have seen.
        rng = np.random.default_rng([args.seed, 2, step])
        pick = np.sort(rng.choice(len(pixels), args.batch, replace=False))
        batch = augment(
            torch.from_numpy(pixels[pick]).permute(0, 3, 1, 2).float() / 127.5 - 1,
            torch.from_numpy(labels[pick]).float(),
            torch.from_numpy(patches[pick]).float(),
            torch.Generator().manual_seed(int(rng.integers(2**31))),
        )
        losses = model(*batch)
        optimiser.zero_grad()
        sum(losses.values()).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        for name, value in losses.items():
            mean[name] = 0.98 * mean.get(name, float(value)) + 0.02 * float(value)
        if (step + 1) % 100 == 0 or step + 1 == args.steps:
            pace = (time.time() - start) / (step + 1 - first)
            text = "  ".join(f"{name} {value:.3f}" for name, value in mean.items())
            print(f"step {step + 1}/{args.steps}  {text}  left {pace * (args.steps - step - 1):.0f} s", flush=True)
        if (step + 1) % 300 == 0 or step + 1 == args.steps:
            state = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "step": step + 1}
            torch.save(state, checkpoint.with_suffix(".tmp"))
            checkpoint.with_suffix(".tmp").replace(checkpoint)
            write(model.trunk, args.out)


def write(trunk: nn.Module, out: Path) -> None:
    """The backbone's state dict as fp16 safetensors."""
    save_file({name: value.half().contiguous() for name, value in trunk.state_dict().items()}, out)


if __name__ == "__main__":
    main()
