"""The paper's ablations: what each series varies. Its titles are in the TOML file beside this one."""

import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vpt.core.text import did_you_mean
from vpt.errors import SpecError
from vpt.methods.base import Method, Sum
from vpt.methods.registry import parse_method
from vpt.methods.vpt import VPT


@dataclass(frozen=True)
class SeriesContext:
    """The backbone and the data that the points of a series depend on.

    Attributes:
        base: Text of the method that is varied.
        classes: Number of classes of the data.
        backbones: Names of the backbones.
        blocks: Number of blocks of the first backbone.
        size: Side of its images in pixels.
        patch: Side of its patches in pixels; 0 without patches.
    """

    base: str
    classes: int
    backbones: tuple[str, ...]
    blocks: int
    size: int
    patch: int

    @property
    def quarters(self) -> list[int]:
        """One block, and a quarter, a half, three quarters and all of the blocks; of twelve 1, 3, 6, 9, 12."""
        return sorted({max(1, round(self.blocks * quarter / 4)) for quarter in range(5)})

    def scaled_size(self, factor: float) -> int:
        """Return the side of the image times a factor, rounded to whole patches."""
        patch = self.patch or 32  # the stride of ConvNets
        return round(self.size * factor / patch) * patch


@dataclass(frozen=True)
class Point:
    """A point of a series.

    Attributes:
        x: Its number or category on the axis.
        curve: Its curve, where a series has several.
        method: Text of its method; None takes the base.
        fields: Fields of the vpt(...) in the method with other values.
        job: Fields of the job with other values.
        ensemble_of: x of the point of the same curve whose runs are scored together as one model; nothing trains then.
    """

    x: str | float
    curve: str = ""
    method: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    job: Mapping[str, Any] = field(default_factory=dict)
    ensemble_of: str | float | None = None

    @property
    def label(self) -> str:
        """Name of the point within its series."""
        return f"{self.curve} {self.x}".strip()

    def method_for(self, base: Method) -> Method:
        """Return the method of this point.

        Args:
            base: Method that the series varies.

        Returns:
            The method of this point.

        Raises:
            SpecError: The fields cannot be combined, or the method has no prompts.
        """
        method = base if self.method is None else parse_method(self.method)
        if not self.fields:
            return method
        terms = method.terms if isinstance(method, Sum) else (method,)
        if not any(isinstance(term, VPT) for term in terms):
            raise SpecError(f"{method} has no prompts whose {next(iter(self.fields))} could vary; give a vpt(...)")
        changed = tuple(replace(term, **self.fields) if isinstance(term, VPT) else term for term in terms)
        return Sum(changed) if isinstance(method, Sum) else changed[0]


@dataclass(frozen=True)
class Series:
    """An ablation.

    Attributes:
        name: Name on the command line.
        title: Title of the table and the picture.
        source: Section of the paper.
        x: Name of the axis.
        points: Function that returns the points.
        log_scale: The axis is logarithmic.
    """

    name: str
    title: str
    source: str
    x: str
    points: Callable[[SeriesContext], Iterable[Point]]
    log_scale: bool = False


def _vary(field: str, values: Iterable[Any], curve: str = "", **others: Any) -> list[Point]:
    """Return the base with one field of its vpt(...) at each of `values`, and the same `others` at all of them."""
    return [Point("none" if value is None else value, curve, fields={field: value, **others}) for value in values]


def _whole_methods(*texts: str) -> list[Point]:
    """Return a point for each method; a method that is given twice has one."""
    return [Point(text, method=text) for text in dict.fromkeys(texts)]


def _vary_depth(context: SeriesContext) -> list[Point]:
    """Return prompts in some blocks, counted from either end."""
    below = [Point(count, "from the bottom", fields={"depth": f"1-{count}"}) for count in context.quarters]
    above = ((count, f"{context.blocks - count + 1}-{context.blocks}") for count in context.quarters)
    return [*below, *(Point(count, "from the top", fields={"depth": depth}) for count, depth in above)]


def _vary_location(context: SeriesContext) -> Iterator[Point]:
    for depth, in_pixels in (("deep", ()), ("shallow", ("prepend_pixel", "concat_channel", "pad"))):
        yield from _vary("location", ("prepend", *in_pixels), depth, depth=depth)
        # As many as there are tokens, or one: the length of the base has no meaning here.
        yield from _vary("location", ("add", "add_1"), depth, depth=depth, length=VPT.length)


def _combine(context: SeriesContext) -> list[Point]:
    base = context.base
    combined = _whole_methods(base, "bias", f"{base} + bias", "class_token", f"{base} + class_token")
    return [*combined, Point("frozen prompts", fields={"frozen": True}), *_whole_methods("linear")]


def _vary_resolution(context: SeriesContext) -> list[Point]:
    sides = dict.fromkeys(map(context.scaled_size, (1, 1.25, 1.5)))
    linear = [Point(side, "linear", "linear", job={"image_size": side}) for side in sides]
    return [*linear, Point(context.size, context.base)]


def _ensembles(context: SeriesContext) -> Iterator[Point]:
    for method in dict.fromkeys((context.base, "full")):
        # One cut for all seeds: what one of them has trained on must not test another.
        alone = Point("each alone", method, method, job={"split_seed": 0})
        yield from (alone, replace(alone, x="together", ensemble_of="each alone"))


_OUTPUTS = ("default", "image_mean", "image_max", "prompt_mean", "prompt_max", "global_mean", "global_max")
_POINTS: dict[str, Callable[[SeriesContext], Iterable[Point]]] = {
    "length": lambda context: [
        point
        for depth in ("deep", "shallow")
        for point in _vary("length", (1, 5, 10, 50, 100, 200), depth, depth=depth)
    ],
    "depth": _vary_depth,
    "location": _vary_location,
    "output": lambda context: _vary("output", _OUTPUTS),
    "init": lambda context: _vary("init", ("random", "prototypes"), length=context.classes),  # one length for both
    "sharing": lambda context: _vary("shared", ("none", "blocks", "prompts", "all")),
    "projection": lambda context: _vary("projection", (None, 8, 32, 128)),
    "combine": _combine,
    "resolution": _vary_resolution,
    "ensemble": _ensembles,
    "data": lambda context: [
        Point(percent, method, method, job={"train_fraction": percent / 100})
        for method in dict.fromkeys(("linear", context.base, "full"))
        for percent in (10, 25, 50, 75, 100)
    ],
    "backbone": lambda context: [Point(name, job={"backbone": name}) for name in context.backbones],
}
_TITLES = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
SERIES = {name: Series(name, points=_POINTS[name], **titles) for name, titles in _TITLES.items()}


def find_series(name: str) -> Series:
    """Return the series of this name.

    Args:
        name: Name of the series.

    Returns:
        The series of this name.

    Raises:
        SpecError: There is none.
    """
    if name not in SERIES:
        raise SpecError(f"there is no series {name!r}; {did_you_mean(name, SERIES)}")
    return SERIES[name]
