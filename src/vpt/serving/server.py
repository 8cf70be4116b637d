"""A bank over HTTP: a page to look at, and an interface for programs.

    GET  /                       the page
    GET  /tasks                  what is served: names, kinds, methods, backbones
    GET  /tasks/TASK             one of them, with its classes and scores
    POST /predict/TASK?top=5     the body is an image file; the answer is JSON

An error is JSON, too: {"error": "..."}, with status 400 for an image, 403 for a stranger's page, 404 for a task or an
address, 413 for too many bytes, 503 when too many requests are at work, and 500 for a file that cannot be used.
"""

from __future__ import annotations

import asyncio
import base64
import io
import math
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from PIL import Image
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from vpt.data.image_files import UnreadableImageError, read_rgb
from vpt.data.mask_labels import palette
from vpt.errors import DataError, SpecError, VptError
from vpt.serving.bank import Bank, ClassPrediction, Prediction, PredictionRequest
from vpt.serving.batcher import Batcher
from vpt.tasks.segmentation.prediction import draw_overlay, indexed_mask

MAX_IMAGE_BYTES = 32 * 2**20  # of an image file
# The page runs its own script and shows pictures it was sent; it asks nobody else for anything.
_CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; connect-src 'self'"
)
Handler = Callable[[Request], Awaitable[Response]]


class _RequestError(VptError):
    """A request that is answered with a status of its own."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def create_app(
    bank: Bank,
    *,
    batch_size: int = 32,
    max_delay: float = 0.005,
    max_requests: int = 64,
    allowed_hosts: Collection[str] | None = None,
) -> Starlette:
    """An ASGI application that serves `bank`; its lifespan must be run.

    batch_size: images in one pass at most. max_delay: seconds that an image waits for others at most.
    max_requests: images in memory at once; what comes beyond is told to come again.
    allowed_hosts: names under which it may be asked; None is any. Where only this machine may ask, its names keep pages of
        strangers from asking in its stead.
    """
    page = files("vpt.serving").joinpath("page.html").read_text(encoding="utf-8")
    decode_slots = asyncio.Semaphore(os.cpu_count() or 1)  # a decoded image is far larger than its file
    in_flight = 0

    @asynccontextmanager
    async def lifespan(application: Starlette) -> AsyncIterator[None]:
        application.state.batcher = Batcher(bank.iter_predictions, batch_size=batch_size, max_delay=max_delay)
        yield
        await asyncio.to_thread(application.state.batcher.close)

    async def index(request: Request) -> Response:
        return HTMLResponse(page, headers={"Content-Security-Policy": _CONTENT_SECURITY_POLICY})

    async def tasks(request: Request) -> Response:
        return JSONResponse([_describe_task(bank, name) for name in bank.tasks])

    async def task(request: Request) -> Response:
        name = request.path_params["task"]
        header = bank.header(name)
        return _json_response(
            {**_describe_task(bank, name), "classes": bank.class_names(name), "scores": dict(header.scores)}
        )

    async def predict(request: Request) -> Response:
        nonlocal in_flight
        name, top = request.path_params["task"], _parse_top(request)
        bank.header(name)  # before the image is read
        if in_flight >= max_requests:
            raise _RequestError(503, f"{in_flight} images are at work already; ask again in a moment")
        in_flight += 1
        try:
            body = await _read_body(request)
            async with decode_slots:
                image, prepared = await asyncio.to_thread(_prepare, bank, name, body)
            answer = await asyncio.wrap_future(request.app.state.batcher.submit(prepared))
            return await asyncio.to_thread(_to_response, answer, image, bank.class_names(name), top)
        finally:
            in_flight -= 1

    def handle_errors(handler: Handler) -> Handler:
        async def answer(request: Request) -> Response:
            try:
                _check_origin(request, allowed_hosts)
                return await handler(request)
            except ClientDisconnect:
                return Response(status_code=499)  # nobody listens any more
            except (UnreadableImageError, VptError) as error:
                return _error_response(error)

        return answer

    return Starlette(
        routes=[
            Route("/", handle_errors(index)),
            Route("/tasks", handle_errors(tasks)),
            Route("/tasks/{task}", handle_errors(task)),
            Route("/predict/{task}", handle_errors(predict), methods=["POST"]),
        ],
        lifespan=lifespan,
        exception_handlers={HTTPException: _not_found, Exception: _internal_error},
    )


def _prepare(bank: Bank, task: str, body: bytes) -> tuple[Image.Image | None, PredictionRequest]:
    """What the model reads; and the image itself only where an overlay will be drawn on it."""
    image = read_rgb(body)
    prepared = bank.make_request(task, image)
    return (image if bank.header(task).is_dense else None), prepared


def _check_origin(request: Request, allowed_hosts: Collection[str] | None) -> None:
    """Refuse what a page of strangers asks by this machine's hand: of another origin, or under a name of its own."""
    host, origin = request.headers.get("host", ""), request.headers.get("origin")
    if allowed_hosts is not None and urlsplit(f"//{host}").hostname not in allowed_hosts:
        raise _RequestError(
            403, f"asked as {host!r}, which is not among the names served: {', '.join(sorted(allowed_hosts))}"
        )
    if origin is not None and urlsplit(origin).netloc != host:
        raise _RequestError(403, f"asked by a page of {origin}, which is not this server's")


def _error_response(error: Exception) -> Response:
    if isinstance(error, UnreadableImageError):
        return JSONResponse({"error": f"the image is {error}"}, 400)
    if isinstance(error, _RequestError):
        return JSONResponse({"error": str(error)}, error.status)
    status = 404 if isinstance(error, SpecError) else 400 if isinstance(error, DataError) else 500
    return JSONResponse({"error": str(error)}, status)


async def _not_found(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": f"{request.method} {request.url.path}: {error.detail}"}, error.status_code)


async def _internal_error(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": f"{type(error).__name__} on the server; its log tells more"}, 500)


def _parse_top(request: Request) -> int:
    text = request.query_params.get("top", "5")
    if not text.isdecimal() or len(text) > 9 or int(text) < 1:
        raise _RequestError(400, f"top is {text[:20]!r}; give a whole number of classes, at least 1")
    return int(text)


async def _read_body(request: Request) -> bytes:
    """What was sent, as long as it may be one image. Its announced length is not trusted."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_IMAGE_BYTES:
            raise _RequestError(413, f"the image has more than {MAX_IMAGE_BYTES // 2**20} MB; scale it down")
    return bytes(body)


def _describe_task(bank: Bank, name: str) -> dict[str, Any]:
    header = bank.tasks[name]
    return {
        "name": name,
        "kind": "segmentation" if header.is_dense else "classification",
        "method": header.method,
        "backbone": header.backbone,
        "num_classes": header.num_classes,
    }


def _to_response(answer: Prediction, image: Image.Image | None, classes: tuple[str, ...], top: int) -> Response:
    """An answer as JSON. Of a segmentation also its mask, and what it looks like, as PNG in data URIs."""
    if isinstance(answer, ClassPrediction):
        ranking = [{"class": name, "probability": probability} for name, probability in answer.ranking[:top]]
        return _json_response({"task": answer.task, "top": ranking})
    colors = palette(len(classes))
    return _json_response(
        {
            "task": answer.task,
            "classes": [{"class": name, "fraction": fraction} for name, fraction in answer.class_fractions[:top]],
            "mask": _data_uri(indexed_mask(answer.mask, colors)),
            "overlay": _data_uri(draw_overlay(np.asarray(image), answer.mask, classes, colors)),
        }
    )


def _json_response(values: Any) -> Response:
    return JSONResponse(_replace_non_finite(values))


def _replace_non_finite(value: Any) -> Any:
    """JSON has neither NaN nor infinity: None stands for them."""
    if isinstance(value, dict):
        return {key: _replace_non_finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_replace_non_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _data_uri(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
