"""Connections that stall outside a body, too many of them, and the end of a server under load."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace
from urllib.error import URLError

import pytest

from helpers.serving import connect, get, png, predict, read_all, running_server
from vpt.serving import connections
from vpt.serving.bank import Bank


@pytest.fixture(scope="module")
def bank(folder):
    return Bank([folder])


def test_connection_without_complete_headers_is_closed_in_time(bank, monkeypatch):
    monkeypatch.setattr(connections, "STALL_SECONDS", 1.0)
    with running_server(bank) as address:
        idle, half = connect(address, ""), connect(address, "GET /tasks HTTP/1.1|Host")
        second = connect(address, "GET /page.css HTTP/1.1|Host: x||GET /tas")
        assert read_all(idle) == read_all(half) == b""
        assert read_all(second).startswith(b"HTTP/1.1 200")


def test_connections_beyond_the_maximum_are_closed_at_once(bank, monkeypatch):
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 3)
    with running_server(bank) as address:
        kept = [connect(address, "GET /tas") for _ in range(3)]
        assert read_all(connect(address, "")) == b""
        for client in kept:
            client.close()
        connections_of = get(f"{address}/tasks")
        assert len(connections_of) == len(bank.tasks)


def test_response_that_is_taken_slowly_goes_on_and_one_that_is_not_is_cut_off(monkeypatch):
    monkeypatch.setattr(connections, "STALL_SECONDS", 0.05)
    sizes = iter([90_000, 60_000, 30_000, 29_000])

    async def read() -> int:
        ended = asyncio.Event()
        connection = connections._Connection.__new__(connections._Connection)
        connection.loop, connection.flow = asyncio.get_running_loop(), SimpleNamespace(pause_writing=lambda: None)
        connection.transport = SimpleNamespace(get_write_buffer_size=lambda: next(sizes), abort=ended.set)
        connection.pause_writing()
        await asyncio.wait_for(ended.wait(), 30)
        return len(list(sizes))

    assert asyncio.run(read()) == 0  # not before a part is too small


def test_response_that_goes_on_is_cut_off_when_the_server_stops(monkeypatch):
    monkeypatch.setattr(connections, "GRACE_SECONDS", 1.1)

    async def stop() -> None:
        ended = asyncio.Event()
        connection = connections._Connection.__new__(connections._Connection)
        connection.loop, connection.cycle = asyncio.get_running_loop(), None
        connection.conn = SimpleNamespace(send=lambda event: None)
        connection.flow = SimpleNamespace(resume_writing=lambda: None)
        connection.transport = SimpleNamespace(close=lambda: None, abort=ended.set)
        connection.shutdown()
        connection.resume_writing()
        await asyncio.wait_for(ended.wait(), 30)

    asyncio.run(stop())


def test_serve_command_terminated_under_load_ends_without_an_error(folder, pictures):
    command = [sys.executable, "-m", "vpt", "serve", str(folder), "--port", "0"]
    image, stop = png(pictures[0]), threading.Event()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        found = re.search(r"at (http://127.0.0.1:\d+)/", process.stdout.readline())
        assert found
        address, predicted = found[1], []

        def ask() -> None:
            while not stop.is_set():
                try:
                    predicted.append(predict(address, "plants", image)["task"])
                except (URLError, ConnectionError):
                    return

        clients = [threading.Thread(target=ask) for _ in range(4)]
        for client in clients:
            client.start()
        while len(predicted) < 8:
            time.sleep(0.05)
        stalled = [connect(address, "POST /predict/plants HTTP/1.1|Host: 127.0.0.1|Content-Length: 99||")] * 3
        stalled += [connect(address, "GET /tas"), connect(address, "")]
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
        stop.set()
        for client in clients:
            client.join(30)
    for client in stalled:
        client.close()
    assert process.returncode == 0 and out == "stopped\n" and err == ""
