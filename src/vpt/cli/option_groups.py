"""Options that belong to one task: a group in the help, and a usage error where another task is at work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

CommandT = TypeVar("CommandT", bound=Callable[..., Any] | click.Command)
_TITLES = {"classification": "Options of classification", "segmentation": "Options of segmentation"}


class TaskOption(click.Option):
    """An option that only one task has."""

    def __init__(self, *args: Any, task: str, **attributes: Any) -> None:
        """Create an option.

        Args:
            *args: Positional arguments of `click.Option`.
            task: Name of the task.
            **attributes: Keyword arguments of `click.Option`.
        """
        super().__init__(*args, **attributes)
        self.task = task


def task_option(task: str, *args: Any, **attributes: Any) -> Callable[[CommandT], CommandT]:
    """Return the decorator that adds an option of one task to a command.

    Args:
        task: Name of the task.
        *args: Positional arguments of `click.option`.
        **attributes: Keyword arguments of `click.option`.

    Returns:
        The decorator.
    """
    return click.option(*args, cls=TaskOption, task=task, **attributes)


class TaskCommand(click.Command):
    """A command whose help shows the options of each task as a group."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the common options, then one group for each task.

        Args:
            ctx: The context.
            formatter: The formatter.
        """
        groups: dict[str, list[tuple[str, str]]] = {title: [] for title in ("Options", *_TITLES.values())}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None and isinstance(param, click.Option):  # the usage line names the arguments
                groups[_TITLES[param.task] if isinstance(param, TaskOption) else "Options"].append(record)
        for title, records in groups.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


def options_of_task(task: str, subject: str) -> dict[str, Any]:
    """Return the values of the current command's options for one task.

    Args:
        task: Name of the task at work.
        subject: The data or file that decides on the task, for the message.

    Returns:
        The values by parameter name.

    Raises:
        click.UsageError: An option of another task was given.
    """
    context = click.get_current_context()
    options = [param for param in context.command.params if isinstance(param, TaskOption)]
    for other in {option.task for option in options} - {task}:
        given = [
            option.opts[0]
            for option in options
            if option.task == other and context.get_parameter_source(option.name or "") is not ParameterSource.DEFAULT
        ]
        if given:
            raise click.UsageError(f"{', '.join(given)}: for {other}, and {subject} is for {task}")
    return {option.name or "": context.params[option.name or ""] for option in options if option.task == task}


def read_config_file(context: click.Context, param: click.Parameter, path: Path | None) -> Path | None:
    """Take the values of a TOML file as defaults of the command's options.

    Args:
        context: The context.
        param: The option that names the file.
        path: The file, or None.

    Returns:
        The file.

    Raises:
        click.UsageError: The file cannot be read, or it names an option that the command does not have.
    """
    if path is None:
        return None
    import tomllib

    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise click.UsageError(f"{param.opts[0]} {path} cannot be read as TOML: {error}") from error
    known = {option.name for option in context.command.params} - {param.name}
    unknown = next((name for name in values if name not in known), None)
    if unknown is not None:
        from vpt.core.text import did_you_mean

        raise click.UsageError(f"{path} names an unknown option {unknown!r}; {did_you_mean(unknown, map(str, known))}")
    context.default_map = {**(context.default_map or {}), **values}
    return path


def scales_type(context: click.Context, param: click.Parameter, text: str) -> tuple[float, ...]:
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
