"""Processes of this machine."""

import hashlib
import os
import socket


def host_digest() -> str:
    """Return eight characters that stand for the name of this machine, for file names."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def is_alive(process: int) -> bool:
    """Return True unless a process of this machine has ended.

    Args:
        process: Process id.

    Returns:
        True also where that is not known.
    """
    if os.name == "nt":  # where os.kill ends the process whatever the signal
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is there, and another user's
        return True
    return True
