"""The model card of a tuned file: a README.md with metadata, as the Hugging Face Hub shows it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from vpt.backbones.loading import is_timm_model
from vpt.core.hub import HubAddress
from vpt.core.intervals import wilson
from vpt.core.metrics import format_metric
from vpt.core.text import format_bytes
from vpt.errors import printable
from vpt.methods.registry import parse_method
from vpt.model.header import Header
from vpt.model.hub_license import hub_license
from vpt.model.tuned_file import read_header

_TEMPLATE = Path(__file__).with_name("card.md")
_MAX_CLASSES = 100  # names in a card
_SPLITS = ("train", "val", "test", "out_of_fold")  # what the name of a metric may begin with
# Names of metrics -> those of the Hub.
_METRICS = {"top1": "accuracy", "macro_f1": "f1", "miou": "mean_iou", "mae": "mae", "r2": "r_squared"}


def model_card(file: Path, address: HubAddress | None = None) -> str:
    """Return the model card of a tuned file.

    Data, intervals and the options of the training come from the run directory beside the file, where there is one.

    Args:
        file: The tuned file.
        address: Its place on the Hub. Default: none yet.

    Returns:
        The text of README.md.
    """
    header = read_header(file)
    run = _read_run(file, header)
    title = file.stem if address is None else address.repo.partition("/")[2]
    task = "image-segmentation" if header.is_dense else "image-classification"
    scores = _scores(header, run)
    name = printable(run.get("data", "")) or None
    results = [
        EvalResult(
            task_type=task,
            dataset_type=name,
            dataset_name=name,
            dataset_split=score["split"] or None,
            metric_type=_METRICS.get(score["metric"], score["metric"]),
            metric_value=score["value"],
        )
        for score in scores
        if name is not None and score["value"] is not None
    ]
    license, license_name = hub_license(header.license)
    data = ModelCardData(
        library_name="vpt",
        license=license,
        license_name=license_name,
        base_model=_hub_name(header.backbone),
        pipeline_tag=None if header.label_kind.name == "regression" else task,
        tags=["vpt", "visual-prompt-tuning", "timm"],
        model_name=title if results else None,
        eval_results=results or None,
    )
    card = ModelCard.from_template(
        data,
        template_path=str(_TEMPLATE),
        title=title,
        where=file.name if address is None else str(address),
        header=header,
        method=str(parse_method(header.method)),
        size=format_bytes(file.stat().st_size),
        trained=sum(header.parameter_counts.values()),
        scores=scores,
        classes=[printable(each).replace("`", "'") for each in (header.classes or ())[:_MAX_CLASSES]],
        left_out=max(0, len(header.classes or ()) - _MAX_CLASSES),
        data=name,
        images=run.get("images", {}),
        options=_options(run),
        made_with=", ".join(f"{package} {version}" for package, version in header.versions.items()),
    )
    return str(card)


def _read_run(file: Path, header: Header) -> Mapping[str, Any]:
    """Return the result of the run that made a file; empty where none lies beside it, or that of another file."""
    try:
        found = json.loads((file.with_suffix(".run") / "result.json").read_text(encoding="utf-8"))
        return found if found["metrics"].items() <= header.scores.items() else {}
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return {}


def _scores(header: Header, run: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a row for each score: metric, split, value, its text, the number of images, and the interval's text."""
    rows = []
    for key, value in header.scores.items():
        # A name of the caller's own, such as macro_f1, has no split.
        split = next((name for name in _SPLITS if key.startswith(f"{name}_")), "")
        metric = key.removeprefix(f"{split}_") if split else key
        count = run.get("images", {}).get(split)
        row: dict[str, Any] = {"metric": metric, "split": split, "value": value, "images": count, "interval": ""}
        row["text"] = str(value)
        if isinstance(value, float):
            row["text"] = format_metric(metric, value)
        if isinstance(value, float) and metric == "top1" and count:
            low, high = wilson(round(value * count), count)
            row["interval"] = f"{100 * low:.1f} to {100 * high:.1f} %"
        rows.append(row)
    return rows


def _hub_name(backbone: str) -> str | None:
    """Return the repository of a backbone on the Hub, or None where its name does not say it."""
    name = backbone.partition("(")[0]
    if name.startswith("hf-hub:"):
        return name.removeprefix("hf-hub:").partition("@")[0]
    return f"timm/{name}" if "." in name and is_timm_model(name) else None


def _options(run: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of the training, from the record of the run."""
    config = run.get("job", {}).get("config", {})
    names = ("epochs", "iterations", "batch_size", "learning_rate", "optimizer", "weight_decay", "augment", "seed")
    return {name: config[name] for name in names if config.get(name) is not None}
