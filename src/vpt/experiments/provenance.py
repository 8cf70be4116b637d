"""The conditions of the runs of an experiment, for readers of its report."""

from __future__ import annotations

from collections.abc import Sequence

from vpt.core.text import pluralize
from vpt.experiments.results import ExperimentResults


def provenance(results: ExperimentResults) -> Sequence[tuple[str, str]]:
    """Return the conditions of the runs as names and values.

    Args:
        results: Results of the experiment.

    Returns:
        The conditions of the runs as names and values.
    """
    experiment, protocol = results.experiment, results.experiment.protocol
    machines: dict[str, None] = {}
    for record in results.records:
        found = record.provenance
        if found:
            parts = [
                found["processor"],
                pluralize(found["cores"], "core"),
                pluralize(found["threads"], "thread"),
                *found["gpus"],
            ]
            parts += [f"{name} {version}" for name, version in found["versions"].items()]
            machines.setdefault("; ".join(parts))
    size = f"{protocol.image_size} px, " if protocol.image_size else ""
    lines = [
        ("backbone", f"{experiment.backbone}, {experiment.parameters:,} parameters, {experiment.fingerprint}"),
        ("images", f"{size}{protocol.resize}, interpolation: {protocol.interpolation or 'that of the backbone'}"),
        ("runs", f"{len(results.records)}, of which {sum(r.status == 'done' for r in results.records)} are done"),
        *(("machine", machine) for machine in machines),
    ]
    if protocol.train_fraction < 1:
        lines.append(("training images", f"{protocol.train_fraction:.0%} of each class"))
    for task in experiment.tasks:
        counts = ", ".join(f"{split} {count:,}" for split, count in task.images.items())
        lines += [(task.name, f"{task.classes} classes; {counts}"), *((task.name, note) for note in task.notes)]
    return lines


PROTOCOL_DESCRIPTION = (
    "Every setting was trained on train and scored by its last epoch on val. The best one was trained again on train "
    "and val with several seeds, and the last epoch of each was scored on test, once. Search runs are given no test "
    "set. A method with one setting has no search."
)
