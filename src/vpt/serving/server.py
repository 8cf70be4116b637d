"""HTTP server of a bank: a page, and an API with JSON.

    GET  /                       the page
    GET  /tasks                  all tasks: name, kind, method, backbone
    GET  /tasks/TASK             one task, with its classes and scores
    POST /predict/TASK?top=5     the body is an image file; the response is JSON

Errors are JSON as well, {"error": "..."}: status 400 for the image, 403 for another origin, 404 for the task or path,
413 for too many bytes, 503 for too many requests, and 500 for a file that cannot be used.
"""

import asyncio
import base64
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from PIL import Image
from pydantic_core import to_json
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from vpt.data.image_files import UnreadableImageError, encode_png, read_rgb
from vpt.data.masks import palette
from vpt.errors import DataError, SpecError, VptError
from vpt.serving.bank import Bank, ClassPrediction, Prediction, PredictionRequest
from vpt.serving.batcher import Batcher
from vpt.tasks.registry import task_of_file
from vpt.tasks.segmentation.prediction import draw_overlay, indexed_mask

MAX_IMAGE_BYTES = 32 * 2**20
# The page runs its inline script, shows local images, and connects to this server only.
_CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; connect-src 'self'"
)
Handler = Callable[[Request], Awaitable[Response]]


class _RequestError(HTTPException):
    """A request that is answered with a given HTTP status and message."""


def create_app(
    bank: Bank,
    *,
    batch_size: int = 32,
    max_delay: float = 0.005,
    max_requests: int = 64,
    allowed_hosts: Collection[str] | None = None,
) -> Starlette:
    """Return an ASGI application that serves a bank. Its lifespan must be run.

    Args:
        bank: The tasks.
        batch_size: Maximum number of images per forward pass. Default: 32.
        max_delay: Maximum time in seconds that an image waits for others. Default: 0.005.
        max_requests: Maximum number of images in memory. Further requests get status 503. Default: 64.
        allowed_hosts: Accepted `Host` headers, which protects a local server from DNS rebinding. Default: any.

    Returns:
        The application.
    """
    page = files("vpt.serving").joinpath("page.html").read_text(encoding="utf-8")
    decode_slots = asyncio.Semaphore(os.cpu_count() or 1)  # a decoded image is much larger than its file
    in_flight = asyncio.Semaphore(max_requests)

    @asynccontextmanager
    async def lifespan(application: Starlette) -> AsyncIterator[None]:
        application.state.batcher = Batcher(bank.iter_predictions, batch_size=batch_size, max_delay=max_delay)
        yield
        await asyncio.to_thread(application.state.batcher.close)

    async def index(request: Request) -> Response:
        return HTMLResponse(page, headers={"Content-Security-Policy": _CONTENT_SECURITY_POLICY})

    async def tasks(request: Request) -> Response:
        return _json_response([_describe_task(bank, name) for name in bank.tasks])

    async def task(request: Request) -> Response:
        name = request.path_params["task"]
        more = {"classes": bank.class_names(name), "scores": dict(bank.header(name).scores)}
        return _json_response({**_describe_task(bank, name), **more})

    async def predict(request: Request) -> Response:
        name, top = request.path_params["task"], _parse_top(request)
        bank.header(name)  # before the image is read
        if in_flight.locked():
            raise _RequestError(503, f"{max_requests} images are being processed; try again in a moment")
        async with in_flight:
            body = await _read_body(request)
            async with decode_slots:
                image, prepared = await asyncio.to_thread(_prepare, bank, name, body)
            answer = await asyncio.wrap_future(request.app.state.batcher.submit(prepared))
            return await asyncio.to_thread(_to_response, answer, image, bank.class_names(name), top)

    def check_origin(handler: Handler) -> Handler:
        async def check_and_answer(request: Request) -> Response:
            _check_origin(request, allowed_hosts)
            return await handler(request)

        return check_and_answer

    return Starlette(
        routes=[
            Route("/", check_origin(index)),
            Route("/tasks", check_origin(tasks)),
            Route("/tasks/{task}", check_origin(task)),
            Route("/predict/{task}", check_origin(predict), methods=["POST"]),
        ],
        lifespan=lifespan,
        exception_handlers=dict.fromkeys(
            (ClientDisconnect, HTTPException, UnreadableImageError, VptError, Exception), _error_response
        ),
    )


def _prepare(bank: Bank, task: str, body: bytes) -> tuple[Image.Image | None, PredictionRequest]:
    """Return the prepared request, and the image if an overlay is drawn on it."""
    image = read_rgb(body, bank.header(task).preprocessing.value_range)
    prepared = bank.make_request(task, image)
    return (image if bank.header(task).is_dense else None), prepared


def _check_origin(request: Request, allowed_hosts: Collection[str] | None) -> None:
    """Refuse requests of pages of another origin, and requests for an unknown host."""
    host, origin = request.headers.get("host", ""), request.headers.get("origin")
    if allowed_hosts is not None and urlsplit(f"//{host}").hostname not in allowed_hosts:
        known = ", ".join(sorted(allowed_hosts))
        raise _RequestError(403, f"the host is {host!r}; allowed are {known}, see --allowed-host")
    if origin is not None and urlsplit(origin).netloc != host:
        raise _RequestError(403, f"the origin is {origin}; only pages of this server may send requests")


async def _error_response(request: Request, error: Exception) -> Response:
    match error:
        case ClientDisconnect():
            return Response(status_code=499)
        case HTTPException():
            subject = "" if isinstance(error, _RequestError) else f"{request.method} {request.url.path}: "
            status, text = error.status_code, subject + error.detail
        case UnreadableImageError():
            status, text = 400, f"the image is {error}"
        case VptError():
            status, text = {SpecError: 404, DataError: 400}.get(type(error), 500), str(error)
        case _:
            status, text = 500, f"{type(error).__name__} on the server; see its log"
    return _json_response({"error": text}, status)


def _parse_top(request: Request) -> int:
    text = request.query_params.get("top", "5")
    if not text.isdecimal() or len(text) > 9 or int(text) < 1:
        raise _RequestError(400, f"top is {text[:20]!r}; give an integer, at least 1")
    return int(text)


async def _read_body(request: Request) -> bytes:
    """Return the request body. Its length is checked while it is read, because the announced length may be wrong."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_IMAGE_BYTES:
            raise _RequestError(413, f"the image has more than {MAX_IMAGE_BYTES // 2**20} MB; scale it down")
    return bytes(body)


def _describe_task(bank: Bank, name: str) -> dict[str, Any]:
    header = bank.tasks[name]
    described = {key: getattr(header, key) for key in ("method", "backbone", "num_classes")}
    labels = {} if header.is_dense else {"label_kind": header.label_kind.name}
    return {"name": name, "kind": task_of_file(header).name, **labels, **described}


def _to_response(answer: Prediction, image: Image.Image | None, classes: tuple[str, ...], top: int) -> Response:
    """Return a prediction as JSON. Masks and overlays are PNG images in data URIs."""
    if isinstance(answer, ClassPrediction):
        found = {"value": answer.value, "labels": answer.labels and _to_dicts(answer.labels)}
        known = {key: value for key, value in found.items() if value is not None}
        ranking = {} if answer.value is not None else {"top": _to_dicts(answer.ranking[:top])}
        return _json_response({"task": answer.task, **known, **ranking})
    colors = palette(len(classes))
    return _json_response(
        {
            "task": answer.task,
            "classes": [{"class": name, "fraction": fraction} for name, fraction in answer.class_fractions[:top]],
            "mask": _data_uri(indexed_mask(answer.mask, colors)),
            "overlay": _data_uri(draw_overlay(np.asarray(image), answer.mask, classes, colors)),
        }
    )


def _to_dicts(pairs: Sequence[tuple[str, float]]) -> list[dict[str, Any]]:
    return [{"class": name, "probability": probability} for name, probability in pairs]


def _json_response(values: Any, status: int = 200) -> Response:
    """Return values as JSON, with null for NaN and infinity, because JSON has neither."""
    return Response(to_json(values, inf_nan_mode="null"), status, media_type="application/json")


def _data_uri(image: Image.Image) -> str:
    return f"data:image/png;base64,{base64.b64encode(encode_png(image)).decode()}"
