"""A command in two processes that train together, as torchrun starts them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from helpers.free_port import free_port


def run_on_two_ranks(command_of: Callable[[int], Sequence[Any]], cwd: Path | None = None) -> None:
    """Run the command of each rank, and fail with what it prints where it fails."""
    port = str(free_port())
    common = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            list(command_of(rank)),
            cwd=cwd,
            env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank), "CUDA_VISIBLE_DEVICES": ""},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        for process in processes:
            _, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors
    finally:
        for process in processes:
            process.kill()
            process.communicate()
