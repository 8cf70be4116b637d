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

from vpt.data.image_files import BadImage, read_rgb
from vpt.data.mask_labels import palette
from vpt.errors import DataError, SpecError, VptError
from vpt.serving.bank import Answer, Bank, Classified
from vpt.serving.bank import Request as Asked
from vpt.serving.batcher import Batcher
from vpt.tasks.segmentation.prediction import index_image, overlay

MOST_BYTES = 32 * 2**20  # of an image file
# The page runs its own script and shows pictures it was sent; it asks nobody else for anything.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; connect-src 'self'"
)
Handler = Callable[[Request], Awaitable[Response]]


class _Refused(VptError):
    """A request that is answered with a status of its own."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def app(
    bank: Bank,
    *,
    batch_size: int = 32,
    wait: float = 0.005,
    max_requests: int = 64,
    hosts: Collection[str] | None = None,
) -> Starlette:
    """An ASGI application that serves `bank`; its lifespan must be run.

    batch_size: images in one pass at most. wait: seconds that an image waits for others at most.
    max_requests: images in memory at once; what comes beyond is told to come again.
    hosts: names under which it may be asked; None is any. Where only this machine may ask, its names keep pages of
        strangers from asking in its stead.
    """
    page = files("vpt.serving").joinpath("page.html").read_text(encoding="utf-8")
    decoders = asyncio.Semaphore(os.cpu_count() or 1)  # a decoded image is far larger than its file
    at_work = 0

    @asynccontextmanager
    async def working(application: Starlette) -> AsyncIterator[None]:
        application.state.batcher = Batcher(bank.answers, batch_size=batch_size, wait=wait)
        yield
        await asyncio.to_thread(application.state.batcher.close)

    async def show(request: Request) -> Response:
        return HTMLResponse(page, headers={"Content-Security-Policy": _POLICY})

    async def tasks(request: Request) -> Response:
        return JSONResponse([_told(bank, name) for name in bank.tasks])

    async def task(request: Request) -> Response:
        name = request.path_params["task"]
        header = bank.header(name)
        return _json({**_told(bank, name), "classes": bank.classes(name), "scores": dict(header.scores)})

    async def predict(request: Request) -> Response:
        nonlocal at_work
        name, top = request.path_params["task"], _top(request)
        bank.header(name)  # before the image is read
        if at_work >= max_requests:
            raise _Refused(503, f"{at_work} images are at work already; ask again in a moment")
        at_work += 1
        try:
            body = await _body(request)
            async with decoders:
                image, asked = await asyncio.to_thread(_ready, bank, name, body)
            answer = await asyncio.wrap_future(request.app.state.batcher.submit(asked))
            return await asyncio.to_thread(_written, answer, image, bank.classes(name), top)
        finally:
            at_work -= 1

    def heard(handler: Handler) -> Handler:
        async def answer(request: Request) -> Response:
            try:
                _known(request, hosts)
                return await handler(request)
            except ClientDisconnect:
                return Response(status_code=499)  # nobody listens any more
            except (BadImage, VptError) as error:
                return _error(error)

        return answer

    return Starlette(
        routes=[
            Route("/", heard(show)),
            Route("/tasks", heard(tasks)),
            Route("/tasks/{task}", heard(task)),
            Route("/predict/{task}", heard(predict), methods=["POST"]),
        ],
        lifespan=working,
        exception_handlers={HTTPException: _astray, Exception: _unforeseen},
    )


def _ready(bank: Bank, task: str, body: bytes) -> tuple[Image.Image | None, Asked]:
    """What the model reads; and the image itself only where an overlay will be drawn on it."""
    image = read_rgb(body)
    asked = bank.request(task, image)
    return (None if bank.header(task).head is None else image), asked


def _known(request: Request, hosts: Collection[str] | None) -> None:
    """Refuse what a page of strangers asks by this machine's hand: of another origin, or under a name of its own."""
    host, origin = request.headers.get("host", ""), request.headers.get("origin")
    if hosts is not None and urlsplit(f"//{host}").hostname not in hosts:
        raise _Refused(403, f"asked as {host!r}, which is not among the names served: {', '.join(sorted(hosts))}")
    if origin is not None and urlsplit(origin).netloc != host:
        raise _Refused(403, f"asked by a page of {origin}, which is not this server's")


def _error(error: Exception) -> Response:
    if isinstance(error, BadImage):
        return JSONResponse({"error": f"the image is {error}"}, 400)
    if isinstance(error, _Refused):
        return JSONResponse({"error": str(error)}, error.status)
    status = 404 if isinstance(error, SpecError) else 400 if isinstance(error, DataError) else 500
    return JSONResponse({"error": str(error)}, status)


async def _astray(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": f"{request.method} {request.url.path}: {error.detail}"}, error.status_code)


async def _unforeseen(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": f"{type(error).__name__} on the server; its log tells more"}, 500)


def _top(request: Request) -> int:
    text = request.query_params.get("top", "5")
    if not text.isdecimal() or len(text) > 9 or int(text) < 1:
        raise _Refused(400, f"top is {text[:20]!r}; give a whole number of classes, at least 1")
    return int(text)


async def _body(request: Request) -> bytes:
    """What was sent, as long as it may be one image. Its announced length is not trusted."""
    found = bytearray()
    async for piece in request.stream():
        found += piece
        if len(found) > MOST_BYTES:
            raise _Refused(413, f"the image has more than {MOST_BYTES // 2**20} MB; scale it down")
    return bytes(found)


def _told(bank: Bank, name: str) -> dict[str, Any]:
    header = bank.tasks[name]
    return {
        "name": name,
        "kind": "classification" if header.head is None else "segmentation",
        "method": header.method,
        "backbone": header.backbone,
        "num_classes": header.num_classes,
    }


def _written(answer: Answer, image: Image.Image | None, classes: tuple[str, ...], top: int) -> Response:
    """An answer as JSON. Of a segmentation also its mask, and what it looks like, as PNG in data URIs."""
    if isinstance(answer, Classified):
        best = [{"class": name, "probability": share} for name, share in answer.top[:top]]
        return _json({"task": answer.task, "top": best})
    colours = palette(len(classes))
    return _json(
        {
            "task": answer.task,
            "found": [{"class": name, "share": share} for name, share in answer.found[:top]],
            "mask": _uri(index_image(answer.mask, colours)),
            "overlay": _uri(overlay(np.asarray(image), answer.mask, classes, colours)),
        }
    )


def _json(values: Any) -> Response:
    return JSONResponse(_finite(values))


def _finite(value: Any) -> Any:
    """JSON has neither NaN nor infinity: None stands for them."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _uri(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
