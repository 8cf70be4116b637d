"""Access: token, hosts, and headers of every response."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from helpers.serving import get, png, predict, refusal, refused_predict, running_server
from vpt.errors import SpecError
from vpt.serving.access import read_token
from vpt.serving.bank import Bank

TOKEN = "correct-horse-battery-staple"


@pytest.fixture(scope="module")
def address(folder):
    with running_server(Bank([folder]), token=TOKEN) as found:
        yield found


def test_server_with_token_serves_only_those_who_have_it(address, pictures, caplog):
    image = png(pictures[0])
    caplog.set_level(logging.DEBUG)
    for given in (None, "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer é"):
        headers = {} if given is None else {"Authorization": given}
        for status, text in (refusal(f"{address}/tasks", headers), refused_predict(address, "no", image, "", headers)):
            assert status == 401 and TOKEN not in text and "Authorization: Bearer TOKEN" in text
    for scheme in ("Bearer", "bearer"):
        assert predict(address, "animals", image, "", {"Authorization": f"{scheme} {TOKEN}"})["task"] == "animals"
    assert TOKEN not in caplog.text


def test_every_response_has_the_headers_for_browsers(address):
    for path, status in (("/", 200), ("/page.js", 200), ("/page.css", 200), ("/tasks", 401), ("/nowhere", 401)):
        try:
            with urlopen(Request(f"{address}{path}")) as response:
                headers, found = response.headers, response.status
        except HTTPError as error:
            headers, found = error.headers, error.code
            error.close()
        assert found == status
        assert headers["X-Content-Type-Options"] == "nosniff"
        policy = headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in policy and "unsafe" not in policy
        assert (status != 401) or headers["WWW-Authenticate"] == "Bearer"


def test_page_has_no_inline_script_or_style(address):
    with urlopen(address) as response:
        text = response.read().decode()
    assert '<script src="page.js" defer></script>' in text
    assert text.count("<script") == 1 and "<style" not in text and " style=" not in text and " on" not in text.lower()


def test_read_token_of_file_or_variable_returns_it(tmp_path, monkeypatch):
    monkeypatch.delenv("VPT_SERVE_TOKEN", raising=False)
    assert read_token(None) is None
    monkeypatch.setenv("VPT_SERVE_TOKEN", TOKEN)
    assert read_token(None) == TOKEN
    path = tmp_path / "token"
    path.write_text(f"{TOKEN[::-1]}\n")
    assert read_token(path) == TOKEN[::-1]
    for faulty in ("", "short", "x" * 15, "two words that are long", "é" * 20):
        path.write_text(faulty, encoding="utf-8")
        with pytest.raises(SpecError, match="needs at least 16 visible ASCII") as caught:
            read_token(path)
        assert not faulty or faulty not in str(caught.value)
    with pytest.raises(SpecError, match="cannot be read"):
        read_token(tmp_path)


@pytest.fixture
def served_behind_proxy(folder):
    command = [sys.executable, "-m", "vpt", "serve", str(folder), "--port", "0", "--allowed-host", "Photos.example:443"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"http://127.0.0.1:\d+", process.stdout.readline())
            assert found
            yield found[0]
        finally:
            process.kill()


def test_pages_of_a_named_host_may_send_requests_though_a_proxy_replaces_the_host(served_behind_proxy):
    tasks = f"{served_behind_proxy}/tasks"
    for origin in ("https://photos.example", "https://photos.example:8443", served_behind_proxy):
        assert get(tasks, {"Origin": origin})
    for origin in ("https://evil.example", "https://photos.example.evil.example", "http://localhost:3000", "null"):
        status, text = refusal(tasks, {"Origin": origin})
        assert status == 403 and text.endswith("only pages of this server may send requests, see --allowed-host")
    # A page under a foreign name whose address leads here now.
    assert refusal(tasks, {"Origin": "https://photos.example", "Host": "evil.example"})[0] == 403


def test_server_with_strange_host_or_origin_headers_refuses_them(folder):
    with running_server(Bank([folder]), allowed_hosts={"127.0.0.1:80"}) as address:
        for headers in ({"Host": "[::1"}, {"Host": ""}, {"Origin": "null"}, {"Origin": "http://[::1"}):
            assert refusal(f"{address}/tasks", headers)[0] == 403
        assert get(f"{address}/tasks", {"Origin": address})
