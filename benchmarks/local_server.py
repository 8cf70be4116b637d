"""A server of vpt in a process of its own, on this machine alone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TOKEN = "of-this-machine-alone"


@contextmanager
def running_server(folder: Path, *options: str, log: Path | None = None) -> Iterator[int]:
    """Serve the tuned files of a folder, which may be changed with TOKEN; the port."""
    token = folder.with_name(f"{folder.name}.token")
    token.write_text(TOKEN)
    command = [sys.executable, "-m", "vpt", "serve", str(folder), "--port", "0", "--token-file", str(token), *options]
    with (
        (log or Path(os.devnull)).open("w") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        assert process.stdout is not None
        found = re.search(r"127.0.0.1:(\d+)/", process.stdout.readline())
        assert found, "the server did not start"
        try:
            yield int(found[1])
        finally:
            process.terminate()
            process.wait(60)
