"""Run the code blocks of a page in the current folder and compare what they print with what the page shows."""

from __future__ import annotations

import ast
import contextlib
import doctest
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import tokenize
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from pages import Block

from vpt.cli import main

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
_FILE = re.compile(r"# file: (?P<name>[\w./-]+)\s*\n")


class WrongPageError(AssertionError):
    """A block of a page that fails, or that prints something else than the page shows."""


class Session:
    """The state that the blocks of one page share: names, the last exit code, servers in the background.

    Args:
        port: Port of this machine that takes the place of 8000 in the page.
    """

    def __init__(self, port: int) -> None:
        self.names: dict[str, Any] = {"__name__": "__main__"}
        self.code = 0
        self.port = port
        self.servers: list[subprocess.Popen[bytes]] = []

    def run(self, block: Block) -> None:
        """Run one block.

        Raises:
            WrongPageError: The block fails, or prints something else than the page shows.
        """
        source = block.source.replace("8000", str(self.port))
        named = _FILE.match(source)
        if named:
            path = Path(named["name"])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(source[named.end() :], encoding="utf-8")
        try:
            self._run(block.language, source, run_python=not named)
        except WrongPageError as error:
            raise WrongPageError(f"{block.where}: {error}") from error

    def close(self) -> None:
        """Stop the servers in the background."""
        for server in self.servers:
            server.send_signal(signal.SIGINT)
        for server in self.servers:
            try:
                server.wait(120)  # Ray ends many processes
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
                raise

    def _run(self, language: str, source: str, run_python: bool) -> None:
        if language == "toml":
            tomllib.loads(source)
        elif language == "json":
            json.loads(source)
        elif language == "console":
            for command, output in commands(source):
                self._command(command, output)
        elif run_python:
            self._python(source)

    def _python(self, source: str) -> None:
        """Run Python; comments behind and below a call of `print` are what it prints."""
        for statement, expected in statements(source):
            code = compile(ast.Module([statement], []), "<page>", "exec", dont_inherit=True)
            out = io.StringIO()
            with _described(f"line {statement.lineno} of the block"), contextlib.redirect_stdout(out):
                exec(code, self.names)
            _compare(expected, out.getvalue())

    def _command(self, command: str, output: str) -> None:
        if command == "echo $?":
            _compare(output, f"{self.code}\n")
            return
        if command.endswith("&"):
            self._serve(shlex.split(command.removesuffix("&")))
            return
        command, _, target = command.partition(" > ") if command.startswith("vpt ") else (command, "", "")
        words = shlex.split(command, comments=True)
        plain = not re.search(r"[|<>;&*]", re.sub(r"\"[^\"]*\"|'[^']*'", "", command))
        if plain and words[0] == "vpt":
            self.code, out, err = _in_this_process(lambda: main(words[1:]))
        else:
            environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
            done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment, timeout=600)
            self.code, out, err = done.returncode, done.stdout, done.stderr
        if target:
            Path(target).write_text(out, encoding="utf-8")
            out = ""
        if self.code and "error:" not in output.lower():
            raise WrongPageError(f"`{command}` ends with {self.code}:\n{out}{err}")
        if output:
            _compare(output, _last_error(err) if self.code else out)

    def _serve(self, words: list[str]) -> None:
        command, (program, *arguments) = shlex.join(words), words
        line = [sys.executable, *arguments] if program == "python" else [sys.executable, "-m", *words]
        server = subprocess.Popen(line)
        self.servers.append(server)
        end = time.monotonic() + 240
        while time.monotonic() < end and server.poll() is None:
            with contextlib.suppress(OSError):
                urlopen(f"http://127.0.0.1:{self.port}/tasks").close()
                return
            time.sleep(0.2)
        raise WrongPageError(f"`{command}` does not answer")


def commands(source: str) -> list[tuple[str, str]]:
    """Return the commands of a console block, each with the output that the page shows ("" if none)."""
    found: list[tuple[str, str]] = []
    for line in source.replace("\\\n", " ").splitlines(keepends=True):
        if line.startswith("$ "):
            found.append((line[2:].strip(), ""))
        elif found:
            command, output = found[-1]
            found[-1] = command, output + line
        elif line.strip():
            raise WrongPageError(f"a console block begins with a command behind `$ `, not with {line!r}")
    return [(command, output if output.strip() else "") for command, output in found]


def statements(source: str) -> Iterator[tuple[ast.stmt, str]]:
    """Yield the statements of a block, each with the output that its comments show ("" if none)."""
    comments = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            comments[token.start[0]] = token.string[1:].removeprefix(" "), token.line.strip().startswith("#")
    for statement in ast.parse(source).body:
        expected = ""
        call = statement.value if isinstance(statement, ast.Expr) else None
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "print":
            last = statement.end_lineno or statement.lineno
            lines = [comments[last][0]] if last in comments else []
            below = last + 1
            while comments.get(below, ("", False))[1]:
                lines.append(comments[below][0])
                below += 1
            expected = "".join(f"{line}\n" for line in lines)
        yield statement, expected


def _last_error(printed: str) -> str:
    """Return standard error from the line of the error on, without the progress and the notes before it."""
    found = re.search(r"^(Usage|error|Error):? ", printed, re.MULTILINE)
    return printed[found.start() :] if found else printed


def _compare(expected: str, printed: str) -> None:
    if expected.strip() and not doctest.OutputChecker().check_output(expected, printed, FLAGS):
        raise WrongPageError(f"the page shows\n{expected}\nbut printed is\n{printed}")


@contextlib.contextmanager
def _described(place: str) -> Iterator[None]:
    try:
        yield
    except WrongPageError:
        raise
    except Exception as error:
        raise WrongPageError(f"{place}: {type(error).__name__}: {error}") from error


def _in_this_process(call: Callable[[], None]) -> tuple[int, str, str]:
    """Return exit code, standard output and standard error of a call."""
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            call()
        except SystemExit as left:
            code = int(left.code or 0)
    return code, out.getvalue(), err.getvalue()
