"""`vpt serve`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("places", type=click.Path(path_type=Path, exists=True), nargs=-1, required=True, metavar="FILES...")
@click.option("--host", default="127.0.0.1", show_default=True, help="0.0.0.0 answers other machines, too.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes a free one.")
@click.option("--backbone", help="The backbone's name, if it is not to be taken from FILES.")
@click.option("--weights", type=click.Path(path_type=Path), help="Local weights of the backbone.")
@click.option("--batch-size", type=click.IntRange(min=1), default=32, show_default=True, help="Images in one pass.")
@click.option("--wait", type=click.FloatRange(min=0), default=5.0, show_default=True,
              help="Milliseconds that an image waits for others.")  # fmt: skip
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

    from vpt.errors import StorageError
    from vpt.extras import need

    uvicorn = need("uvicorn", "serve", "vpt serve")
    need("starlette", "serve", "vpt serve")
    from vpt.serve.bank import Bank
    from vpt.serve.server import app
    from vpt.training import distributed

    bank = Bank(places, backbone=backbone, weights=weights, device=distributed.local_device(), capacity=capacity)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        raise StorageError(f"port {port} of {host} cannot be taken ({error}); choose another with --port") from error
    shown = f"[{host}]" if ":" in host else host
    click.echo(f"{len(bank.tasks)} tasks at http://{shown}:{listener.getsockname()[1]}/  (Ctrl-C ends it)")
    application = app(bank, batch_size=batch_size, wait=wait / 1000)
    try:
        uvicorn.Server(uvicorn.Config(application, log_level="warning")).run(sockets=[listener])
    except KeyboardInterrupt:  # it has answered what was waiting
        click.echo("stopped")
