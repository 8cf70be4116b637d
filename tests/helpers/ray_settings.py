"""Variables for a process that starts a Ray cluster, or for one that looks for it; and such a process."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

# Of Ray itself: nodes that do not start within its 30 s on a busy machine, and checks of its own that fail.
_FAULTS = (
    "timed out during startup",
    "Timed out while waiting for nodes",
    "seconds while waiting for node to startup",
    "Timed out waiting for node info",
    "You have likely discovered a bug in Ray",
)


@contextmanager
def ray_settings() -> Iterator[dict[str, str]]:
    """Yield variables: a cluster has files of its own, its workers are not starved, and lost nodes are soon noticed.

    The folder has a short name, as the path of a socket has at most 107 characters.
    """
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        yield {
            "RAY_TMPDIR": folder,
            "RAY_ADDRESS": "",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_worker_niceness": "0",
            "RAY_gcs_server_port_wait_time_s": "120",
            "RAY_health_check_initial_delay_ms": "0",
            "RAY_health_check_period_ms": "500",
            "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
            "OMP_NUM_THREADS": "1",
        }


def run_on_ray(line: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command that starts a cluster and writes into a folder; after a fault of Ray itself, once more."""
    for last in (False, True):
        folder.mkdir()
        with ray_settings() as settings:
            ran = subprocess.run(
                line, capture_output=True, text=True, timeout=400, env=os.environ | settings, check=False
            )
        if last or ran.returncode == 0 or not any(fault in ran.stdout + ran.stderr for fault in _FAULTS):
            break
        shutil.rmtree(folder)
    return ran
