"""A server in a thread, and clients of it: over HTTP, and over a bare socket for what clients do not do."""

from __future__ import annotations

import io
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import pytest
from PIL import Image

from vpt.serving.bank import Bank


@contextmanager
def running_server(bank: Bank, **options: Any) -> Iterator[str]:
    """A server of `bank` in a thread; its address."""
    pytest.importorskip("uvicorn", reason="uvicorn is not installed")
    from vpt.serving.connections import Server
    from vpt.serving.server import create_app

    server = Server(create_app(bank, **options))
    listening = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    wait_until(lambda: server.started)
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join(timeout=30)
    assert not thread.is_alive()


def wait_until(what: Callable[[], Any], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def get(address: str, headers: dict[str, str] | None = None, body: bytes | None = None) -> Any:
    with urlopen(Request(address, data=body, headers=headers or {}), timeout=60) as response:
        return json.load(response)


def predict(address: str, task: str, body: bytes, query: str = "", headers: dict[str, str] | None = None) -> Any:
    return get(f"{address}/predict/{task}{query}", headers, body)


def refusal(*args: Any) -> tuple[int, str]:
    """The status and the error that `get` meets."""
    with pytest.raises(HTTPError) as caught:
        get(*args)
    with caught.value as error:
        return error.code, json.load(error)["error"]


def refused_predict(
    address: str, task: str, body: bytes, query: str = "", headers: dict[str, str] | None = None
) -> tuple[int, str]:
    return refusal(f"{address}/predict/{task}{query}", headers, body)


def connect(address: str, sent: str, body: bytes = b"") -> socket.socket:
    """A connection that has sent the start of a request, its lines joined by `|`."""
    parts = urlsplit(address)
    client = socket.create_connection((str(parts.hostname), int(parts.port or 0)), timeout=60)
    client.sendall(sent.replace("|", "\r\n").encode() + body)
    return client


def read_all(client: socket.socket) -> bytes:
    """What comes until the server closes the connection, which is then closed."""
    with client:
        return b"".join(iter(lambda: client.recv(65536), b""))
