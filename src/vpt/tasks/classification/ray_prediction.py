"""Predictions on a Ray cluster: Ray Data hands chunks of images to tasks; those of a lost node are done again."""

import copy
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vpt.core.optional import import_optional
from vpt.core.ray_cluster import NodeWatch, connect_cluster
from vpt.core.text import one_line
from vpt.errors import DataError, VptError
from vpt.model.tuned_model import TunedModel
from vpt.tasks.classification.prediction_file import RowOptions, Rows, classify_chunk
from vpt.training import distributed

_models: dict[str, TunedModel] = {}  # of this process of a node, by the id of the object that the cluster has


def classify_on_ray(
    model: TunedModel,
    chunks: Iterable[Sequence[Path]],
    options: RowOptions,
    *,
    address: str | None = None,
    verbose: bool = False,
    on_note: Callable[[str], object],
) -> Iterator[tuple[Rows, list[str]]]:
    """Classify chunks of images on all nodes of a cluster. A task has one GPU where the cluster has some, or one core.

    Nodes need vpt, and the images at the same paths. They get the model from the cluster.

    Args:
        model: The model.
        chunks: The images.
        options: Options of the rows.
        address: Address of a cluster. Default: the one of this machine, or a new one.
        verbose: True shows the log lines of Ray. Default: False.
        on_note: Receiver of sentences about the cluster: which one it is, and which nodes are lost.

    Yields:
        The rows of a chunk, in the order of the chunks, and notes.

    Raises:
        VptError: Ray is not installed, no cluster responds, or Ray gives no result.
        DataError: Images cannot be used.
    """
    all_chunks = list(chunks)
    if not all_chunks:
        return
    # A node has a working directory of its own.
    items = [{"chunk": json.dumps([str(path.absolute()) for path in chunk])} for chunk in all_chunks]
    with connect_cluster(address, on_note, verbose=verbose) as ray:
        data = import_optional("ray.data", "ray", "predictions on a cluster")
        has_gpus = ray.cluster_resources().get("GPU", 0) >= 1
        resources = {"num_cpus": 1, "num_gpus": 1} if has_gpus else {"num_cpus": 1}
        on_cpu = model if next(model.parameters()).is_cpu else copy.deepcopy(model).cpu()
        arguments = {"model": [ray.put(on_cpu)], "options": options}  # in a list, Ray leaves the reference as it is
        nodes = NodeWatch(ray)
        with _in_order(data, verbose):
            dataset = data.from_items(items, override_num_blocks=len(items))
            results = dataset.map(_classify, fn_kwargs=arguments, **resources).iter_rows()
            try:
                for chunk, result in zip(all_chunks, results, strict=True):
                    nodes.report_lost("images", on_note)
                    rows, notes, error = json.loads(result["result"])
                    if error is not None:
                        raise DataError(error)
                    yield [{**row, "path": str(path)} for path, row in zip(chunk, rows, strict=True)], notes
            except ray.exceptions.RayError as error:
                raise VptError(
                    f"Ray gave no result: {one_line(error)}; the same command resumes with the images that are left"
                ) from error


@contextmanager
def _in_order(data: Any, verbose: bool) -> Iterator[None]:
    """Let Ray Data keep the order of its rows and, unless `verbose`, print errors alone; restore it at the end."""
    context, logger = data.DataContext.get_current(), logging.getLogger("ray.data")
    before = context.enable_progress_bars, context.execution_options.preserve_order, logger.level
    context.execution_options.preserve_order = True
    if not verbose:
        context.enable_progress_bars = False
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        context.enable_progress_bars, context.execution_options.preserve_order = before[:2]
        logger.setLevel(before[2])


def _classify(item: dict[str, Any], model: list[Any], options: RowOptions) -> dict[str, str]:
    """Classify a chunk in a task of Ray; errors of ours are part of the result, so that Ray does not try again."""
    import ray

    key = model[0].hex()
    if key not in _models:
        _models.clear()
        _models[key] = ray.get(model[0]).to(distributed.resolve_device("auto")).eval()
    try:
        rows, notes = classify_chunk(_models[key], [Path(path) for path in json.loads(item["chunk"])], options)
    except VptError as error:
        return {"result": json.dumps([[], [], str(error)])}
    return {"result": json.dumps([rows, notes, None])}
