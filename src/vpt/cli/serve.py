"""The command `vpt serve`."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import click

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@click.command()
@click.argument("paths", type=click.Path(path_type=Path, exists=True), nargs=-1, required=True, metavar="FILES...")
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 accepts other machines."
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="Port; 0 selects a free one."
)
@click.option("--backbone", help="Name of the backbone.  [default: that of FILES]")
@click.option("--weights", type=click.Path(path_type=Path), help="Local weights of the backbone.")
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=32,
    show_default=True,
    help="Maximum number of images per forward pass.",
)
@click.option("--max-delay-ms", type=click.FloatRange(min=0), default=5.0, show_default=True,
              help="Maximum time in milliseconds that an image waits for others.")  # fmt: skip
@click.option("--allowed-host", "extra_hosts", multiple=True, metavar="HOST",
              help="A further accepted `Host` header, for example behind a proxy; repeatable.")  # fmt: skip
@click.option("--preload", is_flag=True, help="Read all weights at the start, not at the first request.")
@click.option("--cache-size", type=click.IntRange(min=1), default=1000, show_default=True,
              help="Maximum number of tasks with weights in memory.")  # fmt: skip
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
    """Serve tuned FILES, or folders of them, on one backbone: a web page, and a JSON API.

    Images of different tasks that arrive together share a forward pass. There is no authentication: everyone who can
    reach the port can send requests.

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
        raise StorageError(f"port {port} of {host} cannot be opened ({error}); choose another --port") from error
    bank = Bank(paths, backbone=backbone, weights=weights, device=distributed.local_device(), cache_size=cache_size)
    if preload:
        with click.progressbar(length=min(cache_size, len(bank.tasks)), label="weights", file=sys.stderr) as bar:
            bank.preload(lambda done, total: bar.update(1))
    url_host = f"[{host}]" if ":" in host else host
    port = server_socket.getsockname()[1]
    click.echo(f"{pluralize(len(bank.tasks), 'task')} at http://{url_host}:{port}/  (stop with Ctrl-C)")
    loopback_hosts = _LOOPBACK if host in _LOOPBACK else None
    allowed_hosts = None if loopback_hosts is None and not extra_hosts else {*(loopback_hosts or (host,)), *extra_hosts}
    application = create_app(bank, batch_size=batch_size, max_delay=max_delay_ms / 1000, allowed_hosts=allowed_hosts)
    config = uvicorn.Config(application, log_level="warning", timeout_graceful_shutdown=10)
    with contextlib.suppress(KeyboardInterrupt):  # after the running requests
        uvicorn.Server(config).run(sockets=[server_socket])
    click.echo("stopped")
