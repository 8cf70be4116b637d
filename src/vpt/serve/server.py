"""A bank over HTTP: a page to look at, and an interface for programs.

    GET  /                      the page
    GET  /tasks                 what is served: names, methods, classes, scores
    POST /predict/TASK?top=5    the body is an image file; the answer is JSON

An error is JSON, too: {"error": "..."}, with status 400 for an image, 404 for a task, 413 for too many bytes, 503 when
too many requests wait, and 500 for a file that cannot be used.
"""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

import numpy as np
from PIL import Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from vpt.data.rgb import BadImage, read_rgb
from vpt.errors import DataError, SpecError, VptError
from vpt.segment.labels import palette
from vpt.segment.predict import index_image, overlay
from vpt.serve import bank as banks
from vpt.serve.together import Busy, Together

MOST_BYTES = 32 * 2**20  # of an image file


class _TooLarge(VptError):
    """More bytes than one image may have."""


class _BadQuery(VptError):
    """What stands behind the question mark of an address makes no sense."""


def app(bank: banks.Bank, *, batch_size: int = 32, wait: float = 0.005, room: int = 256) -> Starlette:
    """An ASGI application that serves `bank`.

    batch_size: images in one pass at most. wait: seconds that an image waits for others. room: requests that may wait.
    """
    page = files("vpt.serve").joinpath("page.html").read_text(encoding="utf-8")

    @asynccontextmanager
    async def working(application: Starlette) -> AsyncIterator[None]:
        application.state.together = Together(bank.answer, batch_size=batch_size, wait=wait, room=room)
        yield
        await asyncio.to_thread(application.state.together.close)

    async def show(request: Request) -> Response:
        return HTMLResponse(page, headers={"Content-Security-Policy": _POLICY})

    async def tasks(request: Request) -> Response:
        return JSONResponse([_told(bank, name) for name in bank.tasks])

    async def predict(request: Request) -> Response:
        task, top = request.path_params["task"], _top(request)
        bank.header(task)  # before the image is read
        body = await _body(request)
        image = await asyncio.to_thread(read_rgb, body)
        asked = await asyncio.to_thread(bank.request, task, image)
        answer = await asyncio.wrap_future(request.app.state.together.submit(asked))
        return JSONResponse(await asyncio.to_thread(_written, answer, image, bank.classes(task), top))

    return Starlette(
        routes=[
            Route("/", _heard(show)),
            Route("/tasks", _heard(tasks)),
            Route("/predict/{task}", _heard(predict), methods=["POST"]),
        ],
        lifespan=working,
    )


# The page runs its own script and shows pictures it was sent; it asks nobody else for anything.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; connect-src 'self'"
)
_STATUS: tuple[tuple[type[Exception], int], ...] = (
    (BadImage, 400),
    (DataError, 400),
    (_BadQuery, 400),
    (SpecError, 404),
    (_TooLarge, 413),
    (Busy, 503),
    (VptError, 500),
)


def _heard(handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """What went wrong as JSON, with its status."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except tuple(kind for kind, _ in _STATUS) as error:
            status = next(status for kind, status in _STATUS if isinstance(error, kind))
            what = f"the image is {error}" if isinstance(error, BadImage) else str(error)
            return JSONResponse({"error": what}, status)

    return answer


def _top(request: Request) -> int:
    text = request.query_params.get("top", "5")
    if not text.isdecimal() or int(text) < 1:
        raise _BadQuery(f"top is {text!r}; give a whole number of classes, at least 1")
    return int(text)


async def _body(request: Request) -> bytes:
    """What was sent, as long as it may be one image. Its announced length is not trusted."""
    found = bytearray()
    async for piece in request.stream():
        found += piece
        if len(found) > MOST_BYTES:
            raise _TooLarge(f"the image has more than {MOST_BYTES // 2**20} MB; scale it down")
    return bytes(found)


def _told(bank: banks.Bank, name: str) -> dict[str, Any]:
    header = bank.tasks[name]
    return {
        "name": name,
        "kind": "classification" if header.head is None else "segmentation",
        "method": header.method,
        "backbone": header.backbone,
        "classes": bank.classes(name),
        "scores": dict(header.scores),
    }


def _written(answer: banks.Answer, image: Image.Image, classes: tuple[str, ...], top: int) -> dict[str, Any]:
    """An answer as JSON values. Of a segmentation also its mask, and what it looks like, as PNG in data URIs."""
    values: dict[str, Any] = {
        "task": answer.task,
        "top": [{"class": name, "share": share} for name, share in answer.shares[:top]],
    }
    if answer.mask is not None:
        colours = palette(len(classes))
        values["mask"] = _uri(index_image(answer.mask, colours))
        values["overlay"] = _uri(overlay(np.asarray(image), answer.mask, classes, colours))
    return values


def _uri(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
