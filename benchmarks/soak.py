"""A server under load whose tasks come, change and go: each answer is compared with that of its own file.

    python benchmarks/soak.py --seconds 600

On this machine alone: 8 clients, each of which sends an image once the one before is answered, and beside them broken,
stalled and unknown requests. Every second one task is added, replaced or removed, in turn by its file and by a request.
An answer is right if it is that of a file that was served at some time between the question and the answer.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import re
import shutil
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from local_server import TOKEN, running_server
from report import BENCHMARKS_DIR, write_between_marks, write_section
from vpt import attach, load_backbone, save
from vpt.serving.bank import Bank

SETTLING = 8.0  # seconds until a change of a folder is seen everywhere, on a busy machine
IMAGES = 4


class Tasks:
    """Files of tasks, the answers that they give, and when each is served."""

    def __init__(self, folder: Path, count: int, spare: int) -> None:
        backbone, rng = load_backbone(), np.random.default_rng(0)
        pixels = [Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)) for _ in range(IMAGES)]
        self.images = [_png(image) for image in pixels]
        self.files = [
            _tuned_file(backbone, folder / f"v{number}.safetensors", number) for number in range(count + spare)
        ]
        bank = Bank([folder])
        self.answers = []
        for file in self.files:
            ranked = bank.predict([bank.make_request(file.stem, image) for image in pixels])
            self.answers.append([dict(one.top) for one in ranked])
        self.intervals: dict[str, list[list[float]]] = {}  # name of a task -> [version or -1, begin, end]
        self.lock = threading.Lock()

    def change(self, name: str, version: int, do: Callable[[], None], settling: float) -> None:
        """Carry out a change; until it has settled, the answers before it are right, too."""
        with self.lock:
            intervals = self.intervals.setdefault(name, [[-1, 0.0, np.inf]])
            last = intervals[-1]
            intervals.append([version, time.monotonic(), np.inf])
        do()
        with self.lock:
            last[2] = time.monotonic() + settling

    def is_right(self, name: str, image: int, found: dict[str, float] | None, begin: float, end: float) -> bool:
        with self.lock:
            known = [
                int(v)
                for v, first, last in self.intervals.get(name, [[-1, 0, np.inf]])
                if first <= end and last >= begin
            ]
        if found is None:
            return -1 in known
        return any(v >= 0 and _close(self.answers[v][image], found) for v in known)


def _close(expected: dict[str, float], found: dict[str, float]) -> bool:
    return expected.keys() == found.keys() and all(abs(expected[k] - found[k]) < 1e-3 for k in expected)


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def _tuned_file(backbone: Any, path: Path, number: int) -> Path:
    classes = (f"{number}a", f"{number}b")
    model = attach(backbone, "vpt(length=2)" if number % 4 else "linear", 2, classes=classes)
    generator = torch.Generator().manual_seed(number)
    with torch.no_grad():
        for weight in model.trainable_parameters():
            weight.normal_(std=0.5, generator=generator)
    return save(model, path)


class Soak:
    """One run against a server in a process of its own."""

    def __init__(self, tasks: Tasks, folder: Path, port: int, seconds: float) -> None:
        self.tasks, self.folder, self.port = tasks, folder, port
        self.end = time.monotonic() + seconds
        self.seconds: list[float] = []
        self.failed: list[str] = []
        self.wrong: list[str] = []
        self.bad_statuses: dict[int, int] = {}
        self.changes = 0

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, {"Authorization": f"Bearer {TOKEN}"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def client(self, seed: int) -> None:
        rng = random.Random(seed)
        while (begin := time.monotonic()) < self.end:
            name, image = f"t{rng.randrange(len(self.tasks.files))}", rng.randrange(IMAGES)
            if name not in self.tasks.intervals:
                continue
            try:
                status, content = self.ask("POST", f"/predict/{name}", self.tasks.images[image])
            except OSError as error:
                self.failed.append(f"{name}: {error}")
                continue
            end = time.monotonic()
            if status not in (200, 404):
                self.failed.append(f"{name}: {status} {content[:200]!r}")
                continue
            top = {one["class"]: one["probability"] for one in json.loads(content)["top"]} if status == 200 else None
            if not self.tasks.is_right(name, image, top, begin, end):
                self.wrong.append(f"{name}: {top}")
            self.seconds.append(end - begin)

    def disturb(self) -> None:
        """Send what no client should: each kind in turn, ten in a second."""
        stalled: list[socket.socket] = []
        kinds: list[tuple[str, str, bytes | None]] = [
            ("POST", "/predict/t0", b"no image"),
            ("POST", "/predict/t0", self.tasks.images[0][:100]),
            ("POST", "/predict/unknown", self.tasks.images[0]),
            ("POST", "/predict/t0?top=x", self.tasks.images[0]),
            ("PUT", "/tasks/bad", b"no tuned file"),
            ("BREW", "/tasks", None),
        ]
        number = 0
        while time.monotonic() < self.end:
            number += 1
            if number % (len(kinds) + 1) == 0:
                client = socket.create_connection(("127.0.0.1", self.port))
                client.sendall(b"POST /predict/t0 HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9999\r\n\r\nx")
                stalled.append(client)
                if len(stalled) > 20:
                    stalled.pop(0).close()
            else:
                status = self.ask(*kinds[number % (len(kinds) + 1) - 1])[0]
                self.bad_statuses[status] = self.bad_statuses.get(status, 0) + 1
                if not 400 <= status < 500:
                    self.failed.append(f"bad request: {status}")
            time.sleep(0.1)
        for client in stalled:
            client.close()

    def mutate(self) -> None:
        rng = random.Random(1)
        while time.monotonic() < self.end - SETTLING:
            name, version = f"t{rng.randrange(len(self.tasks.files))}", rng.randrange(len(self.tasks.files))
            path, by_file, current = (
                self.folder / f"{name}.safetensors",
                rng.random() < 0.5,
                self.tasks.intervals.get(name),
            )
            served = current is not None and current[-1][0] >= 0
            if served and rng.random() < 0.4:
                version = -1
            do = self._by_file(path, version) if by_file else self._by_request(name, version)
            self.tasks.change(name, version, do, SETTLING if by_file else 0.5)
            self.changes += 1
            time.sleep(1)

    def _by_file(self, path: Path, version: int) -> Callable[[], None]:
        def do() -> None:
            if version < 0:
                path.unlink(missing_ok=True)
            else:
                shutil.copy(self.tasks.files[version], path.with_suffix(".next"))
                path.with_suffix(".next").replace(path)

        return do

    def _by_request(self, name: str, version: int) -> Callable[[], None]:
        def do() -> None:
            body = None if version < 0 else self.tasks.files[version].read_bytes()
            status, content = self.ask("DELETE" if version < 0 else "PUT", f"/tasks/{name}", body)
            if status not in (200, 201, 204, 404):
                self.failed.append(f"change of {name}: {status} {content[:200]!r}")

        return do

    def memory(self) -> int:
        """Resident memory of the server in bytes."""
        found = re.search(rb"^process_resident_memory_bytes (\S+)", self.ask("GET", "/metrics")[1], re.MULTILINE)
        return int(float(found[1])) if found else 0

    def run(self, clients: int) -> dict[str, Any]:
        threads = [threading.Thread(target=self.client, args=(seed,)) for seed in range(clients)]
        threads += [threading.Thread(target=self.disturb), threading.Thread(target=self.mutate)]
        duration = self.end - time.monotonic()
        for thread in threads:
            thread.start()
        time.sleep(duration / 5)  # caches are full
        before = self.memory()
        for thread in threads:
            thread.join()
        after = self.memory()
        ranked = sorted(self.seconds)
        p50, p99 = statistics.median(ranked), ranked[int(0.99 * (len(ranked) - 1))]
        return {
            "answers": len(ranked), "failed": len(self.failed), "wrong": len(self.wrong), "changes": self.changes,
            "bad_requests": self.bad_statuses, "memory_growth": after / max(1, before) - 1, "memory_bytes": after,
            "p50_seconds": p50, "p99_seconds": p99, "first_faults": [*self.failed, *self.wrong][:5],
        }  # fmt: skip


def measure(seconds: float, count: int, clients: int) -> dict[str, Any]:
    """Serve `count` tasks for some seconds, and return the figures."""
    with tempfile.TemporaryDirectory() as tmp:
        made, served = Path(tmp) / "made", Path(tmp) / "served"
        made.mkdir()
        served.mkdir()
        tasks = Tasks(made, count, max(4, count // 10))
        for number in range(count):
            shutil.copy(tasks.files[number], served / f"t{number}.safetensors")
            tasks.intervals[f"t{number}"] = [[number, 0.0, np.inf]]
        with running_server(served, "--preload") as port:
            return Soak(tasks, served, port, seconds).run(clients)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--dry-run", action="store_true", help="write no figures")
    options = parser.parse_args()
    found = measure(options.seconds, options.tasks, options.clients)
    print(json.dumps(found, indent=1))
    table = "\n".join(
        [
            f"**Soak**: {options.seconds:g} s, {options.clients} clients, {options.tasks} tasks, embedded backbone.",
            "",
            "| answers | failed | wrong | changes | bad requests | memory growth | p50, ms | p99, ms | p99 / p50 |",
            "|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
            f"| {found['answers']:,} | {found['failed']} | {found['wrong']} | {found['changes']} "
            f"| {sum(found['bad_requests'].values())} | {100 * found['memory_growth']:.1f} % "
            f"| {1000 * found['p50_seconds']:.0f} | {1000 * found['p99_seconds']:.0f} "
            f"| {found['p99_seconds'] / found['p50_seconds']:.1f} |",
        ]
    )
    arguments = f"--seconds {options.seconds:g} --tasks {options.tasks} --clients {options.clients}"
    if not options.dry_run:
        write_section("soak", "soak", found, f"python benchmarks/soak.py {arguments}", table)
        write_between_marks(BENCHMARKS_DIR.parent / "docs" / "reliability.md", "soak", table)
    sys.exit(bool(found["failed"] or found["wrong"]))


if __name__ == "__main__":
    main()
