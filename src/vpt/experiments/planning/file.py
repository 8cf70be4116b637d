"""Plan files: TOML in, an experiment out. docs/reference/plan-file.md describes every key.

    name = "two tasks"                     methods = [
    backbone = "vit_nano_patch12_48"         "linear",
    seeds = 5                                { name = "VPT", spec = ["vpt(length=1)", "vpt(length=50)"], grid = "sgd" },
    benchmark = "tasks.toml"                 { spec = "full", optimizer = "adamw", learning_rate = [1e-3, 1e-4] },
    [training]                             ]
    epochs = 100                           [grids.sgd]
    [[tasks]]                              optimizer = "sgd"
    name = "digits"                        learning_rate = [5.0, 0.5]
    group = "Natural"                      weight_decay = [0.01, 0.0]

A method takes its settings from [training], then from its grid, then from its own keys, then from those for a task; and
what none of them names from the method itself. One is selected on val from lists of learning_rate, weight_decay and
spec. Paths are relative to the plan. A table [segmentation] says that the tasks are folders of images and masks.
"""

from pathlib import Path
from typing import Any

from vpt.core.text import did_you_mean
from vpt.errors import SpecError
from vpt.experiments.experiment import Experiment
from vpt.experiments.planning.resolution import resolve_plan
from vpt.experiments.planning.validation import read_toml

PLANS_DIR = Path(__file__).parents[1] / "plans"


def builtin_plans() -> dict[str, Path]:
    """Return the plans that come with vpt by name."""
    return {path.stem: path for path in sorted(PLANS_DIR.glob("*.toml"))}


def find_plan_file(plan: str) -> Path:
    """Return the file of a plan.

    Args:
        plan: Path of a file, or name of a plan that comes with vpt.

    Returns:
        The file of a plan.

    Raises:
        SpecError: There is neither.
    """
    path = Path(plan)
    if path.is_file():
        return path
    if plan in builtin_plans():
        return builtin_plans()[plan]
    raise SpecError(
        f"there is no plan {plan!r}, neither a file nor one that comes with vpt; {did_you_mean(plan, builtin_plans())}"
    )


def load_experiment(path: Path, data: Path | None = None, *, for_estimate: bool = False, **changes: Any) -> Experiment:
    """Read a plan, list its data, identify its backbones and try each method on them.

    Args:
        path: TOML file.
        data: Folder with the prepared tasks of a benchmark; None takes the one that the plan names.
        for_estimate: As `resolve_plan` takes it. Default: False.
        **changes: Keys of the plan with other values, such as seeds.

    Returns:
        The experiment.

    Raises:
        VptError: The plan cannot be run. All errors are in one, of the class of the first: SpecError for a key or a
            value, DataError for a task, BackboneError for a backbone, UnsupportedError for a method.
    """
    return resolve_plan({**read_toml(path), **changes}, path, data, for_estimate=for_estimate)
