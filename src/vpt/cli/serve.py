"""`vpt serve`."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import click

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@click.command()
@click.argument("paths", type=click.Path(path_type=Path, exists=True), nargs=-1, required=True, metavar="FILES...")
@click.option("--host", default="127.0.0.1", show_default=True, help="0.0.0.0 answers other machines, too.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes a free one.")
@click.option("--backbone", help="The backbone's name, if it is not to be taken from FILES.")
@click.option("--weights", type=click.Path(path_type=Path), help="Local weights of the backbone.")
@click.option("--batch-size", type=click.IntRange(min=1), default=32, show_default=True, help="Images in one pass.")
@click.option("--max-delay-ms", type=click.FloatRange(min=0), default=5.0, show_default=True,
              help="Milliseconds that an image waits for others.")  # fmt: skip
@click.option("--allowed-host", "extra_hosts", multiple=True, metavar="HOST",
              help="A further name by which programs and pages ask, as behind a proxy; repeatable.")  # fmt: skip
@click.option("--preload", is_flag=True, help="Read all weights now, not when a task is first asked for.")
@click.option("--cache-size", type=click.IntRange(min=1), default=1000, show_default=True,
              help="Tasks whose weights stay in memory.")  # fmt: skip
def command(
    paths: tuple[Path, ...],
    host: str,
    port: int,
    backbone: str | None,
    weights: Path | None,
    batch_size: int,
    max_delay_ms: float,
    extra_hosts: tuple[str, ...],
    preload: bool,
    cache_size: int,
) -> None:
    """Serve tuned FILES, or folders of them, from one backbone: a page to look at, and JSON for programs.

    Images of different tasks that come in together are answered in one pass. Whoever can reach the port may ask: there
    is no password.

    \b
    vpt serve tasks/ --port 8000
    curl --data-binary @new.jpg http://127.0.0.1:8000/predict/photos
    """
    import socket

    from vpt.core.optional import import_optional
    from vpt.core.text import pluralize
    from vpt.errors import StorageError

    uvicorn = import_optional("uvicorn", "serve", "vpt serve")
    import_optional("starlette", "serve", "vpt serve")
    from vpt.serving.bank import Bank
    from vpt.serving.server import create_app
    from vpt.training import distributed

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        server_socket = socket.create_server((host, port), family=family)
    except OSError as error:
        raise StorageError(f"port {port} of {host} cannot be taken ({error}); choose another with --port") from error
    bank = Bank(paths, backbone=backbone, weights=weights, device=distributed.local_device(), cache_size=cache_size)
    if preload:
        with click.progressbar(length=min(cache_size, len(bank.tasks)), label="weights", file=sys.stderr) as bar:
            bank.preload(lambda done, total: bar.update(1))
    url_host = f"[{host}]" if ":" in host else host
    click.echo(
        f"{pluralize(len(bank.tasks), 'task')} at http://{url_host}:{server_socket.getsockname()[1]}/  (Ctrl-C ends it)"
    )
    loopback_hosts = _LOOPBACK if host in _LOOPBACK else None
    allowed_hosts = None if loopback_hosts is None and not extra_hosts else {*(loopback_hosts or (host,)), *extra_hosts}
    application = create_app(bank, batch_size=batch_size, max_delay=max_delay_ms / 1000, allowed_hosts=allowed_hosts)
    config = uvicorn.Config(application, log_level="warning", timeout_graceful_shutdown=10)
    with contextlib.suppress(KeyboardInterrupt):  # it has answered what was waiting
        uvicorn.Server(config).run(sockets=[server_socket])
    click.echo("stopped")
