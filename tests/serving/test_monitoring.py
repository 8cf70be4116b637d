"""Ids of requests, the log, figures for Prometheus, and responses where the application fails."""

from __future__ import annotations

import logging
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from helpers.serving import png, predict, refusal, running_server, wait_until
from vpt.serving.bank import Bank


def response_id(address: str, given: str | None = None) -> str:
    headers = {} if given is None else {"X-Request-ID": given}
    try:
        with urlopen(Request(address, headers=headers)) as response:
            return str(response.headers["X-Request-ID"])
    except HTTPError as error:
        error.close()
        return str(error.headers["X-Request-ID"])


def test_request_ids_come_back_and_are_logged(folder, caplog):
    with running_server(Bank([folder])) as address:
        caplog.set_level(logging.INFO, "vpt.serving")
        assert response_id(f"{address}/tasks", "a-1.b") == response_id(f"{address}/nowhere", "a-1.b") == "a-1.b"
        made = [response_id(f"{address}/tasks", given) for given in (None, "with space", "x" * 129, "")]
        assert len(set(made)) == 4 and all(len(one) == 32 for one in made)
        wait_until(lambda: caplog.text.count("a-1.b GET '/") == 2 and made[-1] in caplog.text)


def test_metrics_count_requests_and_tasks(folder, pictures):
    with running_server(Bank([folder])) as address:
        predict(address, "animals", png(pictures[0]))
        assert refusal(f"{address}/tasks/nothing")[0] == 404

        def lines() -> set[str]:
            with urlopen(f"{address}/metrics") as response:
                assert response.headers["Content-Type"].startswith("text/plain; version=")
                return set(response.read().decode().splitlines())

        wait_until(lambda: 'vpt_requests_total{endpoint="tasks",method="GET",status="404"} 1.0' in lines())
        assert 'vpt_requests_total{endpoint="predict",method="POST",status="200"} 1.0' in lines()
        assert "vpt_tasks 8.0" in lines()


def test_failing_application_responds_500_with_the_id_of_the_log(folder, monkeypatch, caplog):
    bank = Bank([folder])
    with running_server(bank) as address:
        monkeypatch.setattr(bank, "header", lambda task: 1 / 0)
        with pytest.raises(HTTPError) as caught:
            urlopen(Request(f"{address}/tasks/animals", headers={"X-Request-ID": "that-one"}))
        with caught.value as error:
            assert error.code == 500 and b"ZeroDivisionError on the server" in error.read()
            assert error.headers["X-Request-ID"] == "that-one" and error.headers["X-Content-Type-Options"] == "nosniff"
    assert "request that-one failed" in caplog.text
