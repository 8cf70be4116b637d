"""Commands in processes that are forked from one that has imported everything, so that each starts at once."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

_SERVER = """
import io, json, os, signal, socket, sys
from vpt.cli import main
import vpt.api.training, vpt.cli.tune, vpt.search, vpt.serving.bank, vpt.experiments.running.worker, vpt.plots.figures
import matplotlib.figure, matplotlib.backends.backend_agg, torch, numpy
vpt.load_backbone()  # as all else is loaded that a command loads at its start
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL if number != signal.SIGINT else signal.default_int_handler)
control = socket.socket(fileno=int(sys.argv[1]))
while True:
    message, handles, _, _ = socket.recv_fds(control, 65536, 2)
    if not message:
        break
    request = json.loads(message)
    if "wait" in request:
        control.sendall(json.dumps(os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])).encode())
        continue
    pid = os.fork()
    if pid:
        for handle in handles:
            os.close(handle)
        control.sendall(json.dumps(pid).encode())
        continue
    code = 1
    try:
        control.close()
        os.environ.update(request["env"])
        for number, name in ((1, "stdout"), (2, "stderr")):
            if name in request["closed"]:
                os.close(number)
                stream = None
            else:
                handle = handles.pop(0)
                os.dup2(handle, number)
                os.close(handle)
                encoding = request["env"].get("PYTHONIOENCODING", "utf-8")
                stream = io.TextIOWrapper(io.FileIO(number, "w", closefd=False), encoding, line_buffering=number == 2)
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)
        main(request["args"])
        code = 0
    except SystemExit as error:
        code = error.code or 0
    except BaseException:
        import traceback
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        os._exit(code)
"""


@dataclass(frozen=True)
class ForkedCommand:
    """A command at work.

    Attributes:
        server: Its server.
        pid: Its process.
    """

    server: CommandServer
    pid: int

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def wait(self) -> int:
        """Its exit code, negative after a signal that ended it."""
        return int(self.server.ask({"wait": self.pid}))


class CommandServer:
    """The process that commands are forked from. Use as a context manager."""

    def __enter__(self) -> CommandServer:
        self.control, theirs = socket.socketpair()
        self.process = subprocess.Popen(
            [sys.executable, "-c", _SERVER, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )
        theirs.close()
        return self

    def __exit__(self, *_: object) -> None:
        self.control.close()
        self.process.wait(timeout=60)

    def start(
        self, *args: object, stdout: int | None, stderr: int | None, env: dict[str, str] | None = None
    ) -> ForkedCommand:
        """Start a command.

        Args:
            *args: Its words.
            stdout: File descriptor, which is closed here; None for a closed one.
            stderr: As `stdout`.
            env: Variables of its environment.
        """
        streams = {"stdout": stdout, "stderr": stderr}
        request = {
            "args": [str(arg) for arg in args],
            "closed": [name for name, handle in streams.items() if handle is None],
            "env": env or {},
        }
        handles = [handle for handle in streams.values() if handle is not None]
        socket.send_fds(self.control, [json.dumps(request).encode()], handles)
        pid = json.loads(self.control.recv(64))
        for handle in set(handles):
            os.close(handle)
        return ForkedCommand(self, pid)

    def ask(self, request: dict[str, Any]) -> Any:
        """The answer of the server."""
        self.control.sendall(json.dumps(request).encode())
        return json.loads(self.control.recv(64))
