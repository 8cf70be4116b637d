"""Learning rates of ranges of the backbone's blocks, such as "stem=0, 1-6=0, 7-12=0.1"."""

import math
import re

from vpt.core.text import pluralize
from vpt.errors import SpecError
from vpt.model.tuned_model import TunedModel
from vpt.training.layer_decay import layer_numbers

_STEM = 0  # the number of what comes before block 1: patch embedding, positions and tokens
_ENTRY = re.compile(r"(?:(stem)|(\d{1,4})(?:-(\d{1,4}))?)=(\S+)")


def parse_block_rates(text: str) -> list[tuple[str, range, float]]:
    """Return the ranges of a text.

    Args:
        text: Ranges of blocks, counted from 1 as in `vpt(depth="3-6")`, or "stem", with the factor of their rate,
            joined by commas: "stem=0, 1-6=0, 7-12=0.1".

    Returns:
        The text of each range, its numbers, and its factor. The stem is number 0.

    Raises:
        SpecError: The text cannot be read, or names a block twice.
    """
    found: list[tuple[str, range, float]] = []
    for entry in text.split(","):
        match = _ENTRY.fullmatch(entry.replace(" ", ""))
        factor = _number(match[4]) if match is not None else math.nan
        numbers = range(0)
        if match is not None:
            numbers = range(_STEM, _STEM + 1) if match[1] else range(int(match[2]), int(match[3] or match[2]) + 1)
        if not 0 <= factor < math.inf or not numbers or (match is not None and not match[1] and numbers[0] == _STEM):
            raise SpecError(
                f"block_rates is {text!r}, of which {entry.strip()!r} is no range of blocks with a factor of at least "
                '0; write such as "1-6=0,7-12=0.1", with blocks counted from 1, or stem=0 for what is before them'
            )
        twice = [number for _, others, _ in found for number in numbers if number in others]
        if twice:
            raise SpecError(f"block_rates is {text!r}, which names block {twice[0]} twice; give each block one factor")
        found.append((entry.strip().partition("=")[0].strip(), numbers, factor))
    return found


def block_lr_scales(model: TunedModel, text: str) -> dict[str, float]:
    """Return the learning rate of each trainable tensor, relative to that of the others.

    Args:
        model: The model.
        text: Ranges of blocks with factors, see `parse_block_rates`.

    Returns:
        The factors by the names of `trainable_state_dict`; 1 for what is in no range.

    Raises:
        SpecError: The blocks of the backbone are not known or fewer, or nothing trains in a range.
    """
    ranges, numbers = parse_block_rates(text), _block_numbers(model)
    blocks = len(model.layout.blocks)
    for name, covered, _ in ranges:
        if covered[-1] > blocks:
            known = f"has {pluralize(blocks, 'block')}" if blocks else "does not say which blocks it has"
            raise SpecError(f"block_rates is {text!r}, and {model.backbone.name} {known}; correct {name!r}")
        if not any(number in covered for number in numbers.values()):
            raise SpecError(
                f"block_rates is {text!r}, and {model.method} trains nothing in {name!r}; leave it out, or choose a "
                "method that does, such as full, partial, bias, norm, ssf or lora"
            )
    factors = {number: factor for _, covered, factor in ranges for number in covered}
    return {name: factors.get(number, 1.0) if number is not None else 1.0 for name, number in numbers.items()}


def _block_numbers(model: TunedModel) -> dict[str, int | None]:
    """Return the number of the block of each trainable tensor, 0 for the stem, None for what is in neither."""
    prefix = next(f"{name}." for name, module in model.named_modules() if module is model.trunk)
    paths = {id(weight): path for path, weight in model.named_parameters()}
    starts = {f"{prefix}{path}.": number for number, path in enumerate(model.layout.blocks, start=1)}
    layers = layer_numbers(model)

    def number_of(path: str) -> int | None:
        block = next((number for start, number in starts.items() if path.startswith(start)), None)
        return _STEM if block is None and layers.get(path) == 0 else block

    return {name: number_of(paths.get(id(tensor), "")) for name, tensor in model.trainable_state_dict().items()}


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
