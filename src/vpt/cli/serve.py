"""The command `vpt serve`."""

import contextlib
import sys
from pathlib import Path
from typing import Any

import click

from vpt.cli import options as common
from vpt.cli.options import option

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@click.command()
@click.argument("paths", type=click.Path(path_type=Path, exists=True), nargs=-1, required=True, metavar="FILES...")
@option("--host", "Address to listen on; 0.0.0.0 accepts other machines.", default="127.0.0.1")
@option("--port", "Port; 0 selects a free one.", click.IntRange(0, 65535), default=8000)
@common.backbone_option("Name of the backbone [default: that of FILES].")
@common.weights_option
@common.device_option
@option("--batch-size", "Maximum number of images per forward pass.", common.COUNT, default=32)
@option("--max-delay-ms", "Maximum time in milliseconds that an image waits for others.", click.FloatRange(min=0),
        default=5.0)  # fmt: skip
@option("--allowed-host extra_hosts", "A further accepted `Host` header, for example behind a proxy; repeatable.",
        multiple=True, metavar="HOST")  # fmt: skip
@option("--preload", "Read all weights at the start, not at the first request.", is_flag=True)
@option("--cache-size", "Maximum number of tasks with weights in memory.", common.COUNT, default=1000)
def command(
    paths: tuple[Path, ...],
    host: str,
    port: int,
    device: str,
    extra_hosts: tuple[str, ...],
    preload: bool,
    batch_size: int,
    max_delay_ms: float,
    **bank_options: Any,
) -> None:
    """Serve tuned FILES, or folders of them: a web page and a JSON API.

    The files share their backbone. Images of different tasks that arrive together share a forward pass. There is no
    authentication: everyone who can reach the port can send requests.

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

    target, family = distributed.resolve_device(device), socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        server_socket = socket.create_server((host, port), family=family)
    except OSError as error:
        raise StorageError(f"port {port} of {host} cannot be opened ({error}); choose another --port") from error
    bank = Bank(paths, device=target, **bank_options)
    if preload:
        with click.progressbar(
            length=min(bank_options["cache_size"], len(bank.tasks)), label="weights", file=sys.stderr
        ) as bar:
            bank.preload(lambda done, total: bar.update(1))
    url = f"http://{f'[{host}]' if ':' in host else host}:{server_socket.getsockname()[1]}/"
    click.echo(f"{pluralize(len(bank.tasks), 'task')} at {url}  (stop with Ctrl-C)")
    own_hosts = _LOOPBACK if host in _LOOPBACK else (host,) if extra_hosts else ()
    allowed_hosts = {*own_hosts, *extra_hosts} or None
    application = create_app(bank, batch_size=batch_size, max_delay=max_delay_ms / 1000, allowed_hosts=allowed_hosts)
    config = uvicorn.Config(application, log_level="warning", timeout_graceful_shutdown=10)
    with contextlib.suppress(KeyboardInterrupt):  # after the running requests
        uvicorn.Server(config).run(sockets=[server_socket])
    click.echo("stopped")
