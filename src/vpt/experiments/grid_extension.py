"""Another value on an axis of the grid of a method: the axes are the rates, and the numeric options of the method."""

import math
from collections.abc import Mapping
from dataclasses import fields, replace

from vpt.core.text import did_you_mean
from vpt.errors import SpecError
from vpt.experiments.design import MethodRow, Setting
from vpt.experiments.experiment import Experiment
from vpt.experiments.planning.schema import SEARCHED_KEYS
from vpt.experiments.selection_checks import check_split_seed, check_splits
from vpt.methods.registry import parse_method
from vpt.protocols import Departure


def axes(setting: Setting) -> dict[str, float]:
    """Return the numbers of a setting that a grid may vary, by name."""
    training, method = setting.config.training, parse_method(setting.spec)
    options = {field.name: getattr(method, field.name) for field in fields(method)}
    numbers = {name: value for name, value in options.items() if type(value) in (int, float)}
    return {**{key: getattr(training, key) for key in SEARCHED_KEYS}, **numbers}


def changed(setting: Setting, key: str, value: float) -> Setting:
    """Return a setting with another value on an axis.

    Args:
        setting: The setting.
        key: Name of the axis.
        value: The value.

    Returns:
        The other setting.

    Raises:
        SpecError: The method has no such option, or does not accept the value.
    """
    known = axes(setting)
    if key not in known:
        raise SpecError(f"{setting.spec} has no number {key!r}; {did_you_mean(key, known)}")
    if not math.isfinite(value):
        raise SpecError(f"{key} is {value:g}; give a finite number")
    if key in SEARCHED_KEYS:
        return replace(setting, config=setting.config.replace(**{key: value}))
    method = parse_method(setting.spec)
    if isinstance(known[key], int):
        if value != int(value):
            raise SpecError(f"{key} is {value:g}, and {setting.spec} counts it; give a whole number")
        value = int(value)
    other = parse_method(str(replace(method, **{key: value})))
    return replace(setting, spec=other.spec(full=True))


def extend_grid(experiment: Experiment, method: str, values: Mapping[str, float]) -> Experiment:
    """Return an experiment with further values in the grid of a method, on every task.

    A new value is combined with the settings that have the nearest value there is.

    Args:
        experiment: The experiment.
        method: Name of the row.
        values: Axis -> value. One that the grid has already adds nothing.

    Returns:
        The experiment. Under a protocol, the longer axes are departures from it.

    Raises:
        SpecError: There is no such row, it has no grid, a value is not possible, or each run has a split of its own.
        DataError: A task has no val images to choose settings on, or no others to be scored on.
    """
    names = [row.name for row in experiment.methods if row.settings]
    if method not in names:
        raise SpecError(f"there is no grid of {method!r} to extend; {did_you_mean(method, names)}")
    row, departures = experiment.row(method), {departure.key: departure for departure in experiment.departures}
    for key, value in values.items():
        before = _values(row, key)
        row = replace(
            row,
            settings=_with_value(row.settings, key, value),
            task_settings={task: _with_value(own, key, value) for task, own in row.task_settings.items()},
            is_head_grid=row.is_head_grid and key in SEARCHED_KEYS,
        )
        if experiment.protocol_name and value not in before:
            path = f"methods.{method}.{key}"
            protocol = departures[path].protocol if path in departures else before
            departures[path] = Departure(path, protocol, _values(row, key))
    check_split_seed(row, experiment.protocol, experiment.name)
    for task in experiment.tasks:
        check_splits(task, experiment.tasks, [row], experiment.protocol, experiment.name)
    methods = tuple(row if other.name == method else other for other in experiment.methods)
    return replace(experiment, methods=methods, departures=tuple(departures.values()))


def _values(row: MethodRow, key: str) -> list[float]:
    return sorted({axes(setting)[key] for setting in row.all_settings if key in axes(setting)})


def _with_value(settings: tuple[Setting, ...], key: str, value: float) -> tuple[Setting, ...]:
    there = {axes(setting).get(key) for setting in settings} - {None}
    nearest = min(there, key=lambda one: abs(float(one or 0) - value), default=None)
    near = [setting for setting in settings if nearest is None or axes(setting).get(key) == nearest]
    return tuple(dict.fromkeys([*settings, *(changed(setting, key, value) for setting in near)]))
