"""Variables for a process that starts a Ray cluster, or for one that looks for it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


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
            "RAY_health_check_initial_delay_ms": "0",
            "RAY_health_check_period_ms": "500",
            "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
            "OMP_NUM_THREADS": "1",
        }
