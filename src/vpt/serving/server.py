"""HTTP server of a bank: a page, and an API with JSON.

    GET  /                       the page
    GET  /tasks                  all tasks: name, kind, method, backbone
    GET  /tasks/TASK             one task, with its classes and scores
    POST /predict/TASK?top=5     the body is an image file, a form with it, or JSON with it in base64
    PUT  /tasks/TASK             adds or replaces a task; the body is a tuned file
    DELETE /tasks/TASK           removes a task and its file
    GET  /healthz, /readyz       whether the server works, and whether it has tasks
    GET  /metrics                figures for Prometheus
    GET  /openapi.json           a description of all of these for programs

Errors are JSON as well, {"error": "..."}: status 400 for the image, 401 without the token, 403 for another origin, 404
for the task or path, 408 for a body that is too slow, 413 for too many bytes or pixels, 503 for too many requests, and
500 for a file that cannot be used.
"""

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Container, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files

from PIL import Image
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from vpt.data.images.files import UnreadableImageError, read_rgb
from vpt.errors import TunedFileError, VptError
from vpt.serving.access import AccessControl
from vpt.serving.bank import Bank, class_names
from vpt.serving.batcher import Batcher
from vpt.serving.bodies import BodyReader, DrainedBodies
from vpt.serving.deadlines import GRACE_SECONDS, Deadlines
from vpt.serving.headers import SecureHeaders
from vpt.serving.image_bodies import find_image
from vpt.serving.memory import SEGMENTATION_BYTES_PER_PIXEL, ByteBudget, read_size
from vpt.serving.monitoring import Metrics, Monitoring
from vpt.serving.predictions import PredictionRequest
from vpt.serving.responses import RequestError, describe_task, error_response, json_response, prediction_response
from vpt.serving.tuned_files import TaskReplacedError

MAX_IMAGE_BYTES = 32 * 2**20
MAX_TASK_BYTES = 512 * 2**20
_MAX_REPLACEMENTS = 3  # of a file during one request
# Letters are those of XML names: JSON Schema and Python disagree on `\w`. openapi.json has the pattern, too. A name has
# at most 141 bytes in UTF-8: file systems take 255, of which a temporary name needs some.
_LETTERS = (
    r"A-Za-z0-9_\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u02ff\u0300-\u037d\u037f-\u1fff\u2070-\u218f\u2c00-\u2fef"
    r"\u3001-\ud7ff\uf900-\ufdcf\ufdf0-\ufffc"
)
_TASK_NAME = re.compile(rf"^([{_LETTERS}][{_LETTERS} .+-]{{0,46}}|[A-Za-z0-9_][A-Za-z0-9_ .+-]{{0,99}})$")
_logger = logging.getLogger(__name__)
_FILES = {
    "/": ("page.html", "text/html"),
    "/page.js": ("page.js", "text/javascript"),
    "/page.css": ("page.css", "text/css"),
    "/openapi.json": ("openapi.json", "application/json"),
}


def create_app(
    bank: Bank,
    *,
    batch_size: int = 32,
    max_delay: float = 0.005,
    max_requests: int = 64,
    body_seconds: float = 30.0,
    image_memory: int = 2**30,
    watch_seconds: float = 1.0,
    allowed_hosts: Collection[str] | None = None,
    token: str | None = None,
    origin_hosts: Collection[str] = (),
) -> Starlette:
    """Return an ASGI application that serves a bank. Its lifespan must be run.

    Args:
        bank: The tasks.
        batch_size: Maximum number of images per forward pass. Default: 32.
        max_delay: Maximum time in seconds that an image waits for others. Default: 0.005.
        max_requests: Maximum number of complete images at work. Further ones get status 503. Default: 64.
        body_seconds: Maximum time in seconds until the body of a request is complete. Default: 30.
        image_memory: Maximum memory in bytes of images that are decoded, and as much again for bodies, of which a form
            or JSON takes more while its image is taken out. What needs more alone gets status 413. Default: 1 GiB.
        watch_seconds: Time in seconds between two looks at the folders of tasks. Default: 1.
        allowed_hosts: Accepted `Host` headers, which protects a local server from DNS rebinding. Default: any.
        token: Token that requests must have, `Authorization: Bearer TOKEN`. Default: none is needed, and tasks come
            and go by their files alone.
        origin_hosts: Hosts of pages that may send requests, beside that of the `Host` header, which a reverse proxy
            may have replaced. Default: none.

    Returns:
        The application. Its `state.deadlines` are shortened by `stop()` when a server begins to stop.
    """
    deadlines, at_work, memory = Deadlines(), asyncio.Semaphore(max_requests), ByteBudget(image_memory)
    metrics = Metrics(bank)
    bodies = BodyReader(deadlines, seconds=body_seconds, max_total=image_memory)

    @asynccontextmanager
    async def lifespan(application: Starlette) -> AsyncIterator[None]:
        application.state.batcher = Batcher(bank.iter_predictions, batch_size=batch_size, max_delay=max_delay)
        watch = asyncio.create_task(_watch(bank, watch_seconds, metrics))
        yield
        watch.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watch
        await asyncio.to_thread(application.state.batcher.close)

    async def tasks(request: Request) -> Response:
        return json_response([describe_task(name, header) for name, header in bank.tasks.items()])

    async def task(request: Request) -> Response:
        name = request.path_params["task"]
        header = bank.header(name)
        more = {"classes": class_names(header), "scores": dict(header.scores)}
        return json_response({**describe_task(name, header), **more})

    async def put_task(request: Request) -> Response:
        name = _writable_task(request, token, bank.files.current)
        async with bodies.read(request, MAX_TASK_BYTES) as body:
            is_new = name not in bank.files.current
            _record(await asyncio.to_thread(bank.files.put, name, body), metrics)
        return json_response(describe_task(name, bank.header(name)), 201 if is_new else 200)

    async def delete_task(request: Request) -> Response:
        name = _writable_task(request, token, bank.files.current)
        _record(await asyncio.to_thread(bank.files.remove, name), metrics)
        return Response(status_code=204)

    async def one_task(request: Request) -> Response:
        """Handle any method: of several routes with a path, only the first would name its methods in `Allow`."""
        try:
            return await {"PUT": put_task, "DELETE": delete_task}.get(request.method, task)(request)
        except TunedFileError as error:  # of the request; only for a prediction is it one of the server
            raise RequestError(400, str(error)) from error

    async def healthz(request: Request) -> Response:
        is_alive = request.app.state.batcher.is_alive
        return json_response({"status": "ok" if is_alive else "the batcher has ended"}, 200 if is_alive else 503)

    async def readyz(request: Request) -> Response:
        is_ready = bool(bank.files.current) and not deadlines.stopping
        return json_response({"status": "ok" if is_ready else "no task, or stopping"}, 200 if is_ready else 503)

    async def predict(request: Request) -> Response:
        name, top = request.path_params["task"], _parse_top(request)
        bank.header(name)  # before the image is read
        async with bodies.read(request, MAX_IMAGE_BYTES) as body:
            data = await find_image(request, body)
            del body  # of a form or JSON: the image alone is kept
            if at_work.locked():
                raise RequestError(503, f"{max_requests} images are being processed; try again in a moment")
            async with at_work, deadlines.limit(None, stop_after=GRACE_SECONDS - 2):
                for _ in range(_MAX_REPLACEMENTS):
                    with contextlib.suppress(TaskReplacedError):
                        return await respond(request, name, data, top)
                    await _refresh(bank, metrics)
                return await respond(request, name, data, top)

    async def respond(request: Request, name: str, data: bytes, top: int) -> Response:
        is_dense = bank.header(name).is_dense

        async def finish(image: Image.Image | None, prepared: PredictionRequest) -> Response:
            prediction = await asyncio.wrap_future(request.app.state.batcher.submit(prepared))
            header = prepared.file.header
            names, colors = class_names(header), header.class_colors
            return await asyncio.to_thread(prediction_response, prediction, image, names, colors, top)

        size = await asyncio.to_thread(read_size, data)
        needed = size.num_bytes + is_dense * SEGMENTATION_BYTES_PER_PIXEL * size.width * size.height
        if needed > memory.total:
            raise RequestError(413, f"{size} needs more than {memory.total / 1e6:.0f} MB; scale it down")
        async with memory.hold(needed):
            image, prepared = await asyncio.to_thread(_prepare, bank, name, data)
            if prepared.file.header.is_dense:  # the mask is drawn on the image
                return await finish(image, prepared)
            del image  # before its memory is given to others
        return await finish(None, prepared)

    async def metrics_text(request: Request) -> Response:
        text = await asyncio.to_thread(generate_latest, metrics.registry)
        return Response(text, headers={"Content-Type": CONTENT_TYPE_LATEST})

    application = Starlette(
        routes=[
            *(Route(path, _file_endpoint(name, media_type)) for path, (name, media_type) in _FILES.items()),
            Route("/tasks", tasks),
            Route("/tasks/{task}", one_task, methods=["GET", "PUT", "DELETE"]),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", metrics_text),
            Route("/predict/{task}", predict, methods=["POST"]),
        ],
        middleware=[
            Middleware(SecureHeaders),
            Middleware(Monitoring, metrics),
            Middleware(DrainedBodies, deadlines),
            Middleware(AccessControl, allowed_hosts, token, origin_hosts),
        ],
        lifespan=lifespan,
        exception_handlers=dict.fromkeys(
            (ClientDisconnect, HTTPException, UnreadableImageError, VptError), error_response
        ),
    )
    application.state.deadlines = deadlines
    return application


def _file_endpoint(name: str, media_type: str) -> Callable[[Request], Awaitable[Response]]:
    """Return the endpoint of a file that is served as it is."""
    content = files("vpt.serving").joinpath(name).read_bytes()

    async def endpoint(request: Request) -> Response:
        return Response(content, media_type=media_type)

    return endpoint


async def _watch(bank: Bank, seconds: float, metrics: Metrics) -> None:
    """Take over files of tasks that come, change or go, until canceled."""
    while True:
        await asyncio.sleep(seconds)
        await _refresh(bank, metrics)


async def _refresh(bank: Bank, metrics: Metrics) -> None:
    """Take over files of tasks that came, changed or went, count them and log them."""
    try:
        lines = await asyncio.to_thread(bank.files.refresh)
    except Exception as error:  # such as of a folder that is out of reach for a while
        lines = [f"unreadable folder of tasks: {error}"]
    _record(lines, metrics)


def _record(lines: Sequence[str], metrics: Metrics) -> None:
    """Count and log what has changed."""
    for line in lines:
        change = line.partition(" ")[0]
        metrics.changes.labels(change).inc()
        _logger.log(logging.INFO if change in ("added", "replaced", "removed") else logging.WARNING, "%s", line)


def _writable_task(request: Request, token: str | None, served: Container[str]) -> str:
    """Return the name of the task that a request may write. One that is served has the name of its file."""
    name = str(request.path_params["task"])
    if token is None:
        raise RequestError(403, "tasks are written with a token only; start the server with --token-file")
    if name in served:
        return name
    if not _TASK_NAME.fullmatch(name):
        raise RequestError(400, f"the task name {name[:100]!r} is no file name; use letters, digits and _ . + -")
    if name.endswith(".task"):
        raise RequestError(
            400, f"the task name {name[:100]!r} ends in .task, as files for exported graphs do; rename it"
        )
    return name


def _prepare(bank: Bank, task: str, data: bytes) -> tuple[Image.Image, PredictionRequest]:
    """Return the image in a file, and the request for its prediction."""
    value_range = bank.header(task).preprocessing.value_range
    image = read_rgb(data, value_range)
    prepared = bank.make_request(task, image)
    if prepared.file.header.preprocessing.value_range != value_range:
        raise TaskReplacedError(f"{task} was replaced while the image was read")
    return image, prepared


def _parse_top(request: Request) -> int:
    text = request.query_params.get("top", "5")
    if not (text.isascii() and text.isdecimal()) or len(text) > 9 or int(text) < 1:
        raise RequestError(400, f"top is {text[:20]!r}; give an integer, at least 1")
    return int(text)
