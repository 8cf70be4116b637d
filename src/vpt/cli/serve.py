"""`vpt serve`."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import click

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@click.command()
@click.argument("places", type=click.Path(path_type=Path, exists=True), nargs=-1, required=True, metavar="FILES...")
@click.option("--host", default="127.0.0.1", show_default=True, help="0.0.0.0 answers other machines, too.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes a free one.")
@click.option("--backbone", help="The backbone's name, if it is not to be taken from FILES.")
@click.option("--weights", type=click.Path(path_type=Path), help="Local weights of the backbone.")
@click.option("--batch-size", type=click.IntRange(min=1), default=32, show_default=True, help="Images in one pass.")
@click.option("--wait", type=click.FloatRange(min=0), default=5.0, show_default=True,
              help="Milliseconds that an image waits for others.")  # fmt: skip
@click.option("--name", "names", multiple=True, metavar="HOST",
              help="A further name by which programs and pages ask, as behind a proxy; repeatable.")  # fmt: skip
@click.option("--preload", is_flag=True, help="Read all weights now, not when a task is first asked for.")
@click.option("--capacity", type=click.IntRange(min=1), default=1000, show_default=True,
              help="Tasks whose weights stay in memory.")  # fmt: skip
def command(
    places: tuple[Path, ...],
    host: str,
    port: int,
    backbone: str | None,
    weights: Path | None,
    batch_size: int,
    wait: float,
    names: tuple[str, ...],
    preload: bool,
    capacity: int,
) -> None:
    """Serve tuned FILES, or folders of them, from one backbone: a page to look at, and JSON for programs.

    Images of different tasks that come in together are answered in one pass. Whoever can reach the port may ask: there
    is no password.

    \b
    vpt serve tasks/ --port 8000
    curl --data-binary @new.jpg http://127.0.0.1:8000/predict/photos
    """
    import socket

    from vpt.core.optional import need
    from vpt.core.text import number
    from vpt.errors import StorageError

    uvicorn = need("uvicorn", "serve", "vpt serve")
    need("starlette", "serve", "vpt serve")
    from vpt.serving.bank import Bank
    from vpt.serving.server import app
    from vpt.training import distributed

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        raise StorageError(f"port {port} of {host} cannot be taken ({error}); choose another with --port") from error
    bank = Bank(places, backbone=backbone, weights=weights, device=distributed.local_device(), capacity=capacity)
    if preload:
        with click.progressbar(length=min(capacity, len(bank.tasks)), label="weights", file=sys.stderr) as bar:
            bank.preload(lambda done, total: bar.update(1))
    shown = f"[{host}]" if ":" in host else host
    click.echo(f"{number(len(bank.tasks), 'task')} at http://{shown}:{listener.getsockname()[1]}/  (Ctrl-C ends it)")
    own = _LOOPBACK if host in _LOOPBACK else None
    hosts = None if own is None and not names else {*(own or (host,)), *names}
    application = app(bank, batch_size=batch_size, wait=wait / 1000, hosts=hosts)
    config = uvicorn.Config(application, log_level="warning", timeout_graceful_shutdown=10)
    with contextlib.suppress(KeyboardInterrupt):  # it has answered what was waiting
        uvicorn.Server(config).run(sockets=[listener])
    click.echo("stopped")
