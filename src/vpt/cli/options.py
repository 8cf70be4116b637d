"""Options of commands: their declaration, groups by task, those that several commands share, and what `--json` prints.

An option of one task is a usage error where another task is at work.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from vpt.cli.completion import complete_backbones
from vpt.cli.lines import echo_line
from vpt.cli.paths import FILE, PATH
from vpt.cli.values import parse_scales
from vpt.core.json_values import to_finite

COUNT = click.IntRange(min=1)
NATURAL = click.IntRange(min=0)
_TITLES = {None: "Options", "classification": "Options of classification", "segmentation": "Options of segmentation"}


class TaskOption(click.Option):
    """An option that every task has, or only one."""

    def __init__(self, *args: Any, task: str | None = None, **attributes: Any) -> None:
        """Create an option.

        Args:
            *args: Positional arguments of `click.Option`.
            task: Name of the only task that has the option. Default: every task has it.
            **attributes: Keyword arguments of `click.Option`.
        """
        super().__init__(*args, **attributes)
        self.task = task


_Decorator = Callable[[Any], Any]


def option(flags: str, help: str, type: Any = None, **attributes: Any) -> Callable[[Any], Any]:
    """Return the decorator that adds an option to a command. Its default is shown in the help.

    Args:
        flags: The flags and, if they do not spell it, the parameter name, separated by spaces.
        help: Text for the help.
        type: Type of the value as in `click.option`, or a list of choices. Default: that of the default, or text.
        **attributes: Other arguments of `TaskOption`.

    Returns:
        The decorator.
    """
    known = click.Choice(type) if isinstance(type, list) else type
    return click.option(*flags.split(), help=help, type=known, cls=TaskOption, show_default=True, **attributes)


class TaskCommand(click.Command):
    """A command whose help shows the options of each task as a group."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the common options, then one group for each task.

        Args:
            ctx: The context.
            formatter: The formatter.
        """
        options = [param for param in self.get_params(ctx) if isinstance(param, click.Option)]
        for task, title in _TITLES.items():
            records = [param.get_help_record(ctx) for param in options if getattr(param, "task", None) == task]
            with formatter.section(title):
                formatter.write_dl([record for record in records if record is not None])


def own_options(options: Mapping[str, Any], task: str, subject: str) -> dict[str, Any]:
    """Return options of the current command without those of other tasks.

    Args:
        options: Values by parameter name.
        task: Name of the task at work.
        subject: The data or file that decides on the task where `--task` does not, for the message.

    Returns:
        The values by parameter name.

    Raises:
        click.UsageError: An option of another task was given.
    """
    context = click.get_current_context()
    params = [param for param in context.command.params if isinstance(param, TaskOption)]
    foreign = {str(param.name): param for param in params if param.task not in (None, task)}
    given = [p for name, p in foreign.items() if context.get_parameter_source(name) is not ParameterSource.DEFAULT]
    if given:
        flags = ", ".join(param.opts[0] for param in given)
        reason = f"{subject} is for" if context.params.get("task", "auto") == "auto" else "--task is"
        raise click.UsageError(f"{flags}: for {given[0].task}, and {reason} {task}")
    return {name: value for name, value in options.items() if name not in foreign}


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
    except (OSError, ValueError, RecursionError) as error:
        raise click.UsageError(f"{param.opts[0]} {path} cannot be read as TOML: {error}") from error
    if {"weight_decay", "head_lr_scale", "precision", "seed"} <= values.keys():
        values = {"decay": "all", **values}  # the run.toml of an earlier version, which had no other rule
        if values.get("task") == "classification" and {"out", "save_dtype"} <= values.keys():
            values = {"ridge": "none", **values}
    known = {option.name for option in context.command.params} - {param.name}
    unknown = next((name for name in values if name not in known), None)
    if unknown is not None:
        from vpt.core.text import did_you_mean

        raise click.UsageError(f"{path} names an unknown option {unknown!r}; {did_you_mean(unknown, map(str, known))}")
    context.default_map = {**(context.default_map or {}), **values}
    return path


def _join(*decorators: _Decorator) -> _Decorator:
    """Return one decorator that adds the options of several."""

    def add_options(command: Any) -> Any:
        for add_option in reversed(decorators):
            command = add_option(command)
        return command

    return add_options


classification: Callable[..., _Decorator] = partial(option, task="classification")
segmentation: Callable[..., _Decorator] = partial(option, task="segmentation")
backbone_option: Callable[..., _Decorator] = partial(option, "--backbone", shell_complete=complete_backbones)
json_option: _Decorator = option("--json as_json", "Print JSON.", is_flag=True)
events_option: _Decorator = option("--events", "Append each event of the job to this file, as a line of JSON.", FILE)
weights_option: _Decorator = option("--weights", "File with weights of the backbone, instead of timm's download.", PATH)
device_option: _Decorator = option(
    "--device", "auto: a CUDA GPU if there is one, else the CPU.", ["auto", "cpu", "cuda", "mps"], default="auto"
)
split_option: _Decorator = option("--split", "Split of DATA to use.", ["train", "val", "test"], default="test")
task_option: _Decorator = option(
    "--task",
    "auto: segmentation if DATA has masks, else classification.",
    ["auto", "classification", "segmentation"],
    default="auto",
)
split_names_option: _Decorator = option(
    "--split-names",
    "Names of the folders of splits, such as train=Training,test=Testing; none: all folders are classes [default: "
    "recognized].",
)
value_range_option: _Decorator = option(
    "--value-range",
    "Values of black and white in images with more than 8 bits per channel, such as 0,4095 for 12 bits stored in 16 "
    "[default: the range of their type].",
)
table_options: _Decorator = _join(
    classification("--image-column", "Column of the paths of images, in tables of labels [default: recognized]."),
    classification(
        "--label-column", "Column of the labels, or several columns of 0 and 1, with commas [default: recognized]."
    ),
    classification(
        "--label-kind",
        "One class, several, or a number for each image [default: by the labels].",
        ["single_label", "multi_label", "regression"],
    ),
    classification("--split-column", "Column of train, val and test [default: recognized]."),
    classification(
        "--group-column",
        "Column of groups, such as patients, which splits and folds made by vpt never divide [default: group].",
    ),
)
min_confidence_option: _Decorator = classification(
    "--min-confidence",
    "Predict `none of these` if the most likely class has a lower probability.",
    click.FloatRange(min=0),
)
skip_corrupt_option: _Decorator = option("--skip-corrupt", "Leave unreadable images out.", is_flag=True)


def loading_options(make_option: Callable[..., Any]) -> _Decorator:
    """Return the decorator that adds the options of loading.

    Args:
        make_option: `option`, or `classification` where segmentation always streams.

    Returns:
        The decorator.
    """
    loadings, words = ["auto", "cache", "stream"], "cache: decode each image once; stream: each time it is used; auto: "
    return _join(
        make_option("--loading", f"{words}stream above 4 GiB of decoded images.", loadings, default="auto"),
        make_option(
            "--workers", "Number of processes that decode a stream [default: one per core, at most 8].", NATURAL
        ),
    )


_other_backbone = backbone_option("Name of the backbone [default: that of FILE].")
model_options: _Decorator = _join(_other_backbone, weights_option, device_option)
inference_options: _Decorator = _join(
    segmentation(
        "--scales",
        "Scales of the image whose predictions are averaged, such as 0.75,1,1.25.",
        default="1",
        callback=parse_scales,
    ),
    segmentation("--flip", "Average with the prediction of the mirrored image.", is_flag=True),
)
mask_options: _Decorator = _join(
    segmentation(
        "--labels",
        "Meaning of the ids in masks: ade20k, cityscapes, voc, camvid or plain; a list of ids (0,255 or "
        "ground=0,road=255); colors; auto: by the layout of DATA.",
        default="auto",
    ),
    segmentation("--ignore-index", "Another id in masks that stands for no class.", int),
    segmentation("--reduce-zero-label", "Id 0 stands for no class, 1 for the first.", is_flag=True),
    segmentation("--images", "Name of the folder of images [default: recognized]."),
    segmentation("--masks", "Name of the folder of masks [default: recognized]."),
    segmentation(
        "--mask-suffix", "End of the name of a mask after that of its image, such as _mask [default: recognized]."
    ),
    segmentation(
        "--mask-orientation",
        "Orientation of masks for images with EXIF rotation. upright: matches the rotated image; stored: matches the "
        "stored pixels; auto: decided by the image sizes.",
        ["auto", "upright", "stored"],
        default="auto",
    ),
)


def print_result(as_json: bool, values: Any, lines: Iterable[str]) -> None:
    """Print a result.

    Args:
        as_json: True prints JSON.
        values: The result as JSON values.
        lines: The result as lines of text. They are read only if they are printed.
    """
    if as_json:
        print_json(values)
        return
    for line in lines:
        echo_line(line)


def print_json(values: Any, *, one_line: bool = False) -> None:
    """Print a result for programs. `vpt.schemas` has a schema for each.

    Args:
        values: JSON values.
        one_line: True prints one line, for results that come one after the other. Default: False.
    """
    click.echo(to_json(to_finite(values), indent=None if one_line else 1))


def to_json(values: Any, indent: int | None = 1) -> str:
    """Return a result as JSON text."""
    return json.dumps(values, indent=indent, allow_nan=False)
