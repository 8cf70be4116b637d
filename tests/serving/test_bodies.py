"""Bodies of requests: too slow, too long, refused before they are read, and the forms in which an image may come."""

from __future__ import annotations

import asyncio
import base64
import json
import tracemalloc
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import pytest
from starlette.requests import Request

from helpers.serving import connect, png, predict, read_all, refusal, refused_predict, running_server, wait_until
from vpt.serving import server as serving
from vpt.serving.bank import Bank
from vpt.serving.bodies import BodyReader
from vpt.serving.deadlines import Deadlines

START = "POST /predict/animals HTTP/1.1|Host: x|Content-Length: 1000||"


@pytest.fixture(scope="module")
def bank(folder):
    return Bank([folder])


@pytest.fixture(scope="module")
def address(bank):
    with running_server(bank) as found:
        yield found


def test_stalled_bodies_take_no_slots_and_are_refused_in_time(bank, pictures):
    with running_server(bank, max_requests=2, body_seconds=3) as address:
        stalled = [connect(address, START, b"x" * 10) for _ in range(70)]
        assert predict(address, "animals", png(pictures[0]))["task"] == "animals"
        for client in stalled:
            head, _, body = read_all(client).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 408") and b"incomplete after 3 s" in body
        assert predict(address, "animals", png(pictures[0]))["task"] == "animals"


def test_bodies_beyond_the_shared_memory_get_503_and_free_it(bank, pictures):
    image = png(pictures[0])
    with running_server(bank, image_memory=len(image) + 500, body_seconds=3) as address:
        stalled = connect(address, START, b"x" * 600)
        wait_until(lambda: refused_predict(address, "animals", image)[0] == 503)
        assert b" 408 " in read_all(stalled)
        status, text = refused_predict(address, "animals", image)
        assert status == 413 and "70 x 50 px" in text.replace("50 x 70", "70 x 50")  # read, and too large to decode


def test_put_of_more_than_the_shared_memory_gets_413(bank):
    authorized = {"Authorization": "Bearer correct-horse-battery-staple"}
    with running_server(bank, image_memory=1000, token="correct-horse-battery-staple") as address:
        for body in (b"x" * 1200, iter([b"x" * 600] * 2)):  # with its length, and in chunks
            status, text = put(f"{address}/tasks/animals", authorized, body)
            assert status == 413 and "send a smaller file" in text


def put(address: str, headers: dict[str, str], body: Any) -> tuple[int, str]:
    """Status and text of the response to a PUT."""
    parts = urlsplit(address)
    connection = HTTPConnection(parts.netloc, timeout=60)
    connection.request("PUT", parts.path, body, headers)
    response = connection.getresponse()
    found = response.status, response.read().decode()
    connection.close()
    return found


def test_body_is_in_memory_once_and_its_length_is_counted():
    parts = [b"x" * 300_000, b"y" * 300_000]

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    async def read() -> None:
        reader = BodyReader(Deadlines(), seconds=30, max_total=1_000_000)
        tracemalloc.start()
        async with reader.read(Request({"type": "http", "headers": []}, receive), 700_000) as body:
            assert tracemalloc.get_traced_memory()[0] < 900_000
            assert (len(body), body[0], body[-1], reader._free) == (600_000, ord("x"), ord("y"), 400_000)
        tracemalloc.stop()
        assert reader._free == 1_000_000

    asyncio.run(read())


@pytest.mark.parametrize("path", ["/predict/animals", "/predict/nothing", "/tasks", "/nowhere"])
def test_long_body_gets_the_response_and_no_reset(address, path, monkeypatch):
    monkeypatch.setattr(serving, "MAX_IMAGE_BYTES", 10_000)
    expected = {"/predict/animals": 413, "/predict/nothing": 404, "/tasks": 405, "/nowhere": 404}
    for headers in ({}, {"Transfer-Encoding": "chunked"}):
        body = iter([b"x" * 2**20] * 20) if headers else b"x" * 20 * 2**20
        status, text = refusal(f"{address}{path}", headers, body)
        assert status == expected[path], text


def test_announced_length_above_the_limit_is_refused_before_the_body(address):
    sent = f"POST /predict/animals HTTP/1.1|Host: x|Content-Length: {2**40}|Expect: 100-continue||"
    client = connect(address, sent)
    response = client.recv(65536)
    client.close()
    assert response.startswith(b"HTTP/1.1 413") and b"100 Continue" not in response


def form(parts: list[tuple[str, bytes]], boundary: str = "limit") -> tuple[bytes, dict[str, str]]:
    body = b"".join(f"--{boundary}\r\n{head}\r\n\r\n".encode() + content + b"\r\n" for head, content in parts)
    return body + f"--{boundary}--\r\n".encode(), {"Content-Type": f"multipart/form-data; boundary={boundary}"}


def test_predict_of_form_or_json_equals_that_of_the_file(address, pictures):
    image = png(pictures[0])
    expected = predict(address, "animals", image)
    note, file = 'Content-Disposition: form-data; name="note"', 'Content-Disposition: form-data; name="f"; filename="a"'
    body, headers = form([(note, b"hello"), (file, image)])
    assert predict(address, "animals", body, "", headers) == expected
    encoded = base64.b64encode(image).decode()
    for text in (encoded, f"data:image/png;base64,{encoded}"):
        body = json.dumps({"image": text}).encode()
        assert predict(address, "animals", body, "", {"Content-Type": "application/json; charset=utf-8"}) == expected
    assert predict(address, "animals", image, "", {"Content-Type": "application/x-www-form-urlencoded"}) == expected


def test_predict_of_unusable_form_or_json_says_what_is_wanted(address, pictures):
    file, image = 'Content-Disposition: form-data; name="f"; filename="a"', png(pictures[0])
    bodies = [form([(file, image), (file, image)]), form([('Content-Disposition: form-data; name="f"', image)])]
    bodies += [form([("X: y", b"z")]), (b"no form", {"Content-Type": "multipart/form-data"})]
    bodies += [(b"--x\r\nbroken", {"Content-Type": "multipart/form-data; boundary=limit"})]
    for text in (b"", b"{", b"[]", b'{"image": 3}', b'{"image": "?"}', b'{"image": "\xff"}', b"[" * 10**5):
        bodies.append((text, {"Content-Type": "application/json"}))
    for body, headers in bodies:
        status, text = refused_predict(address, "animals", body, "", headers)
        assert status == 400 and '{"image": "BASE64"}' in text, (body[:50], text)
