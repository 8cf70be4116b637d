"""Standard output that is closed, full, or read by nobody, from the start of a process on."""

from __future__ import annotations

import subprocess
import sys

import pytest

from vpt.errors import ExitCode

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="shells and devices of Unix")
VPT = f"{sys.executable} -c 'from vpt.cli import main; main()'"


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("{vpt} --help >&-", ExitCode.OK, ""),
        ("{vpt} --help >&- 2>&-", ExitCode.OK, ""),
        ("{vpt} --help 2>&- <&- | grep -q Commands", ExitCode.OK, ""),
        ("{{ {vpt} --help; echo code $? >&2; }} | true", ExitCode.OK, "code 0"),
        ("{vpt} --help >/dev/full", ExitCode.STORAGE, "error: standard output could not be written: No space left"),
        ("{vpt} nothing >&- 2>/dev/full", ExitCode.USAGE, ""),
    ],
)
def test_help_with_output_that_fails_has_the_documented_code(line: str, code: ExitCode, words: str) -> None:
    if "/dev/full" in line and sys.platform != "linux":
        pytest.skip("Linux has a device that is always full")
    done = subprocess.run(["bash", "-c", line.format(vpt=VPT)], capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stderr
    assert words in done.stderr and "Traceback" not in done.stderr and "Exception" not in done.stderr
