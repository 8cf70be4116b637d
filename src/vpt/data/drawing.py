"""Drawing for the generated tasks: scenes as arrays, painted by numpy alone.

Lengths are in units of the picture's side: x runs to the right and y down, both from 0 to 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

NONE, BALL, BLOCK, HEART, KITE, ROD = range(6)

_CHUNK = 64  # pictures painted at a time, so that the arrays stay in the processor's cache


@dataclass(frozen=True, eq=False)
class Scene:
    """n pictures of up to k objects; a later object hides an earlier one.

    kind: (n, k), one of NONE, BALL, BLOCK, HEART, KITE, ROD.
    x, y, radius: (n, k), centres and half sizes in picture sides.
    angle: (n, k), degrees, clockwise from the right.
    colour: (n, k, 3), 0..1.
    """

    kind: Ints
    x: Floats
    y: Floats
    radius: Floats
    angle: Floats
    colour: Floats


def colours(rng: np.random.Generator, n: int, k: int) -> Floats:
    """Random colours (n, k, 3) in 0..1."""
    return rng.uniform(0, 1, (n, k, 3)).astype(np.float32)


def apart(rng: np.random.Generator, radius: Floats, margin: float = 0.0, tries: int = 60) -> tuple[Floats, Floats]:
    """Centres (n, k) twice, drawn so that circles of `radius` (n, k) stay inside and do not touch.

    Where `tries` draws do not find a free place, the least bad of them is taken.
    """
    n, k = radius.shape
    places = np.zeros((n, k, 2), dtype=np.float32)
    for slot in range(k):
        best = np.full(n, -np.inf)
        for _ in range(tries):
            todo = np.flatnonzero(best < margin)
            if not len(todo):
                break
            r = radius[todo, slot]
            tried = rng.uniform(r[:, None], 1 - r[:, None], (len(todo), 2))
            away = np.hypot(*np.moveaxis(tried[:, None] - places[todo, :slot], -1, 0))
            gap = (away - r[:, None] - radius[todo, :slot]).min(axis=1, initial=1.0)
            better = gap > best[todo]
            places[todo[better], slot] = tried[better]
            best[todo] = np.maximum(best[todo], gap)
    return places[..., 0], places[..., 1]


def marble(rng: np.random.Generator, n: int, size: int) -> Floats:
    """Backgrounds (n, size, size, 3): two colours blended by a few random plane waves, bent by another."""
    y, x = (np.mgrid[:size, :size] / size).astype(np.float32)
    field = np.zeros((n, size, size), dtype=np.float32)
    bend = 0.0
    for _ in range(4):
        fx, fy = rng.normal(0, 2.5, (2, n, 1, 1)).astype(np.float32)
        phase = rng.uniform(0, 2 * np.pi, (n, 1, 1)).astype(np.float32)
        wave = np.sin(2 * np.pi * (fx * x + fy * y) + phase + bend)
        field += wave
        bend = 1.5 * wave
    first, second = colours(rng, n, 2).transpose(1, 0, 2)[:, :, None, None]
    blended: Floats = first + (second - first) * (field[..., None] / 8 + 0.5)
    return blended


def paint(scene: Scene, background: Floats) -> Floats:
    """The scene over a background (n, size, size, 3); returns a new array of that shape."""
    picture = background.copy()
    for start in range(0, len(picture), _CHUNK):
        part = slice(start, start + _CHUNK)
        for slot in range(scene.kind.shape[1]):
            for kind in np.unique(scene.kind[part, slot]):
                if kind != NONE:
                    rows = start + np.flatnonzero(scene.kind[part, slot] == kind)
                    _paint_object(picture, scene, rows, slot, int(kind))
    return picture


def finish(rng: np.random.Generator, picture: Floats, noise: float = 0.03) -> NDArray[np.uint8]:
    """Pictures in 0..1 -> uint8, with sensor noise of standard deviation `noise`."""
    grainy = picture + noise * rng.standard_normal(picture.shape, dtype=np.float32)
    return (np.clip(grainy, 0, 1) * 255).round().astype(np.uint8)


def _paint_object(picture: Floats, scene: Scene, rows: Ints, slot: int, kind: int) -> None:
    size = picture.shape[1]
    y, x = ((np.mgrid[:size, :size] + 0.5) / size).astype(np.float32)
    radius = scene.radius[rows, slot, None, None]
    turn = np.deg2rad(scene.angle[rows, slot, None, None])
    dx, dy = (x - scene.x[rows, slot, None, None]) / radius, (y - scene.y[rows, slot, None, None]) / radius
    u, v = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
    # `outside` is a distance in radii, negative inside; `light` multiplies the colour
    if kind == BALL:
        outside = np.hypot(dx, dy) - 1
        light = 0.45 + 0.75 * np.clip(1 - np.hypot(dx + 0.4, dy + 0.4) / 1.5, 0, 1)
    elif kind == BLOCK:
        outside = np.maximum(np.abs(dx), np.abs(dy)) - 0.85
        light = np.where(dy < -0.45, 1.25, np.where(dx > 0.4, 0.55, 0.9))
    elif kind == HEART:
        across = np.abs(v)  # the two lobes lie towards u, the tip away from it
        outside = np.hypot(across, u + 0.2 - 0.65 * np.sqrt(across)) - 0.8
        light = 1 - 0.25 * u
    elif kind == KITE:  # long and bright towards its tip, blunt behind
        outside = np.maximum(np.abs(v) - 0.45 * (1 - u), np.abs(v) - 0.9 * (u + 1)) * 0.75
        light = 0.85 + 0.35 * u
    else:
        outside = np.maximum(np.abs(u) - 1, np.abs(v) - 0.16)
        light = 0.9 + 0.2 * np.sin(9 * u)
    cover = np.clip(0.5 - outside * radius * size, 0, 1)[..., None]
    body = np.clip(scene.colour[rows, slot, None, None] * light[..., None], 0, 1)
    picture[rows] += cover * (body - picture[rows])
