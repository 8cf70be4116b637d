"""What an operator sees of the server: an id for each request, a log, and figures for Prometheus."""

import logging
import re
import time
import uuid

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vpt.serving.bank import Bank
from vpt.serving.responses import error_response

_ID = re.compile(r"[\w.-]{1,128}", re.ASCII)
_ENDPOINTS = ("predict", "tasks", "healthz", "readyz", "metrics")
_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE")
_logger = logging.getLogger(__name__)


class Metrics:
    """The figures of a server."""

    def __init__(self, bank: Bank) -> None:
        """Create the figures.

        Args:
            bank: The tasks.
        """
        self.registry: CollectorRegistry = CollectorRegistry()
        labels = ("endpoint", "method")
        counted = (*labels, "status")
        self.requests: Counter = Counter("vpt_requests", "Completed requests.", counted, registry=self.registry)
        self.seconds: Histogram = Histogram(
            "vpt_request_seconds", "Time to the end of the response.", labels, registry=self.registry
        )
        tasks = Gauge("vpt_tasks", "Tasks that are served.", registry=self.registry)
        tasks.set_function(lambda: len(bank.files.current))
        self.changes: Counter = Counter(
            "vpt_task_changes",
            "Files of tasks that came, changed, went or were refused.",
            ("change",),
            registry=self.registry,
        )
        ProcessCollector(registry=self.registry)


class Monitoring:
    """Middleware that gives each request an id, counts it, logs it, and responds where the application fails."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        """Wrap an application.

        Args:
            app: The application.
            metrics: The figures of the server.
        """
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request.

        Args:
            scope: The request.
            receive: Returns the next part of the body.
            send: Sends a part of the response.
        """
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request, started, status = Request(scope), time.perf_counter(), 0
        given = request.headers.get("x-request-id", "")
        request_id = given if _ID.fullmatch(given) else uuid.uuid4().hex

        async def send_part(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            await send(message)

        try:
            await self._app(scope, receive, send_part)
        except Exception as error:
            _logger.exception("request %s failed", request_id)
            if not status:
                await (await error_response(request, error))(scope, receive, send_part)
        seconds = time.perf_counter() - started
        first = scope["path"].lstrip("/").partition("/")[0]
        labels = (first if first in _ENDPOINTS else "page", scope["method"] if scope["method"] in _METHODS else "other")
        self._metrics.requests.labels(*labels, str(status)).inc()
        self._metrics.seconds.labels(*labels).observe(seconds)
        _logger.info("%s %s %r %d %.3f s", request_id, scope["method"], scope["path"], status, seconds)
