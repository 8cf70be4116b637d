"""Values of options: what a text of the command line spells."""

import contextlib

import click


def number_or_word(text: str) -> float | str:
    """Return the number that a text spells, or "auto" or "none"."""
    if text in ("auto", "none", "default"):  # the last is that of a run.toml
        return text
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is no number; give a penalty above 0, auto or none") from error


def count_or_all(text: str) -> int | str:
    """Return the whole number that a text spells, or "all"."""
    try:
        return text if text == "all" else int(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is no whole number; give a number of training images, or all") from error


def percentage(text: str) -> float:
    """Return the fraction that a percentage above 0 spells, such as "5%"."""
    number = text.removesuffix("%").rstrip()
    with contextlib.suppress(ValueError):
        if text.endswith("%") and 0 < float(number) <= 100:
            return float(number) / 100
    raise click.BadParameter(f"{text!r} is no percentage above 0 and up to 100; write 5%")


def parse_scales(context: click.Context, param: click.Parameter, text: str) -> tuple[float, ...]:
    """Read the value of `--scales`.

    Args:
        context: The context.
        param: The option.
        text: Numbers with commas.

    Returns:
        The numbers.

    Raises:
        click.UsageError: The text holds no numbers.
    """
    try:
        return tuple(float(scale) for scale in text.split(","))
    except ValueError as error:
        raise click.UsageError(f"--scales is {text!r}; write numbers, such as 0.75,1,1.25") from error


def parse_batch_size(context: click.Context, param: click.Parameter, text: str | None) -> int | str | None:
    """Read the value of `--batch-size`.

    Args:
        context: The context.
        param: The option.
        text: A whole number or "auto", or None.

    Returns:
        The number, "auto" or None.

    Raises:
        click.UsageError: The text is neither.
    """
    if text is None or text == "auto":
        return text
    try:
        return int(text)
    except ValueError as error:
        raise click.UsageError(f"--batch-size is {text!r}; write a whole number, such as 64, or auto") from error
