"""Skipped tests with and without VPT_CI."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

SKIPS = {
    "mark": "@pytest.mark.skipif(True, reason={!r})\ndef test() -> None: pass",
    "call": "def test() -> None: pytest.skip({!r})",
    "fixture": "@pytest.fixture\ndef needed() -> None: pytest.skip({!r})\ndef test(needed: None) -> None: pass",
    "module": "pytest.skip({!r}, allow_module_level=True)",
    "package": "def test() -> None: pytest.importorskip('no_such_package', reason={!r})",
}


@pytest.fixture
def outcomes(pytester: pytest.Pytester, request: pytest.FixtureRequest) -> dict[str, int]:
    """Outcomes of a file with one skipped test."""
    kind, reason = request.param
    pytester.makeconftest("from helpers.strict_skips import pytest_make_collect_report, pytest_runtest_makereport")
    pytester.makepyfile(f"import pytest\n{SKIPS[kind].format(reason)}")
    return pytester.runpytest_inprocess("-p", "no:cacheprovider").parseoutcomes()


@pytest.fixture
def ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VPT_CI", "1")


@pytest.fixture
def no_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VPT_CI", raising=False)


@pytest.mark.parametrize("outcomes", [(kind, "PyArrow is not installed") for kind in SKIPS], indirect=True)
def test_skip_for_a_missing_package_passes_outside_ci(no_ci: None, outcomes: dict[str, int]) -> None:
    assert outcomes == {"skipped": 1}


@pytest.mark.parametrize("outcomes", [(kind, "PyArrow is not installed") for kind in SKIPS], indirect=True)
def test_skip_for_a_missing_package_fails_in_ci(ci: None, outcomes: dict[str, int]) -> None:
    assert outcomes in ({"failed": 1}, {"errors": 1})


@pytest.mark.parametrize(
    "outcomes",
    [(kind, reason) for kind in SKIPS for reason in ("there is no GPU", "no real data: /nowhere does not exist")],
    indirect=True,
)
def test_skip_for_a_gpu_or_shared_data_is_allowed_in_ci(ci: None, outcomes: dict[str, int]) -> None:
    assert outcomes == {"skipped": 1}


def test_expected_failure_is_allowed_in_ci(ci: None, pytester: pytest.Pytester) -> None:
    pytester.makeconftest("from helpers.strict_skips import pytest_make_collect_report, pytest_runtest_makereport")
    pytester.makepyfile("import pytest\n@pytest.mark.xfail\ndef test() -> None: assert False")
    assert pytester.runpytest_inprocess("-p", "no:cacheprovider").parseoutcomes() == {"xfailed": 1}
