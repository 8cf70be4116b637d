"""Responses in JSON: predictions, descriptions of tasks, and errors with their HTTP status."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from vpt.core.prediction import NONE_OF_THESE, class_probabilities
from vpt.data.images.files import UnreadableImageError, encode_png
from vpt.data.masks.class_colors import class_colors
from vpt.errors import DataError, SpecError, VptError
from vpt.model.tuned_file import Header
from vpt.serving.predictions import ClassPrediction, Prediction
from vpt.tasks.registry import task_of_file
from vpt.tasks.segmentation.drawing import draw_overlay, indexed_mask


class RequestError(HTTPException):
    """A request that fails with a given HTTP status and message."""


def json_response(values: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return values as JSON, with null for NaN and infinity, because JSON has neither.

    Args:
        values: The values.
        status: HTTP status. Default: 200.
        headers: Further headers. Default: none.

    Returns:
        The response.
    """
    return Response(to_json(values, inf_nan_mode="null"), status, headers, media_type="application/json")


async def error_response(request: Request, error: Exception) -> Response:
    """Return an error as JSON.

    Args:
        request: The request that met the error.
        error: The error.

    Returns:
        The response.
    """
    headers = None
    match error:
        case ClientDisconnect():
            return Response(status_code=499)
        case HTTPException():
            subject = "" if isinstance(error, RequestError) else f"{request.method} {request.scope['path']}: "
            status, text, headers = error.status_code, subject + error.detail, error.headers
        case UnreadableImageError():
            status, text = 400, f"the image is {error}"
        case VptError():
            status, text = {SpecError: 404, DataError: 400}.get(type(error), 500), str(error)
        case _:
            status, text = 500, f"{type(error).__name__} on the server; see its log"
    return json_response({"error": text}, status, headers)


def describe_task(name: str, header: Header) -> dict[str, Any]:
    """Return what a list of tasks shows of a task.

    Args:
        name: Name of the task.
        header: Header of its file.

    Returns:
        JSON values.
    """
    described = {key: getattr(header, key) for key in ("method", "backbone", "num_classes")}
    labels = {} if header.is_dense else {"label_kind": header.label_kind.name}
    return {"name": name, "kind": task_of_file(header).name, **labels, **described}


def prediction_response(
    prediction: Prediction,
    image: Image.Image | None,
    classes: tuple[str, ...],
    colors: Sequence[str] | None,
    top: int,
) -> Response:
    """Return a prediction as JSON. Masks and overlays are PNG images in data URIs.

    Args:
        prediction: The prediction.
        image: The image, if it is segmented.
        classes: Names of the classes.
        colors: Colors of the classes in their tuned file, or None.
        top: Maximum number of classes.

    Returns:
        The response.
    """
    if isinstance(prediction, ClassPrediction):
        found = {
            "label": NONE_OF_THESE if prediction.rejected else None,
            "value": prediction.value,
            "labels": prediction.labels and class_probabilities(prediction.labels),
        }
        known = {key: value for key, value in found.items() if value is not None}
        top_classes = {} if prediction.value is not None else {"top": class_probabilities(prediction.top[:top])}
        return json_response({"task": prediction.task, **known, **top_classes})
    palette = class_colors(classes, colors)
    return json_response(
        {
            "task": prediction.task,
            "classes": [
                {"class": name, "fraction": fraction, "color": f"#{bytes(palette[classes.index(name)]).hex()}"}
                for name, fraction in prediction.top[:top]
            ],
            "mask": _data_uri(indexed_mask(prediction.mask, palette)),
            "overlay": _data_uri(draw_overlay(np.asarray(image), prediction.mask, classes, palette)),
        }
    )


def _data_uri(image: Image.Image) -> str:
    return f"data:image/png;base64,{base64.b64encode(encode_png(image)).decode()}"
