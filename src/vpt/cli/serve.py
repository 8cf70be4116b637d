"""The command `vpt serve`."""

import sys
from pathlib import Path
from typing import Any

import click

from vpt.cli import options as common
from vpt.cli.lines import echo_line
from vpt.cli.options import option
from vpt.cli.paths import FILE, TUNED_FILES

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def _parse_thresholds(context: click.Context, param: click.Parameter, texts: tuple[str, ...]) -> dict[str, float]:
    """Read the values of `--min-confidence`: thresholds by name of the task, "" for all others."""
    found = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        try:
            found[name] = float(number)
        except ValueError as error:
            raise click.UsageError(f"--min-confidence is {text!r}; write a number: 0.8 or photos=0.8") from error
    return found


@click.command()
@click.argument("paths", type=TUNED_FILES, nargs=-1, required=True, metavar="FILES...")
@option("--host", "Address to listen on; 0.0.0.0 accepts other machines.", default="127.0.0.1")
@option("--port", "Port; 0 selects a free one.", click.IntRange(0, 65535), default=8000)
@common.backbone_option("Name of the backbone [default: that of FILES].")
@common.weights_option
@common.device_option
@option("--batch-size", "Maximum number of images per forward pass.", common.COUNT, default=32)
@option("--max-delay-ms", "Maximum time in milliseconds that an image waits for others.", click.FloatRange(min=0),
        default=5.0)  # fmt: skip
@option("--image-memory-mb", "Maximum memory of images that are decoded.", click.IntRange(min=64), default=1024)
@option("--token-file", "File with a token that requests must send, `Authorization: Bearer TOKEN`. Without it, the "
        "token is that of the variable VPT_SERVE_TOKEN, if it is set.", FILE)  # fmt: skip
@option("--allowed-host extra_hosts", "A further name of this server, such as that of a proxy in front of it, which is "
        "accepted in the headers `Host` and `Origin`; repeatable.", multiple=True, metavar="HOST")  # fmt: skip
@option("--log-requests", "Log each request with its id, status and seconds, and each change of a task.", is_flag=True)
@option("--preload", "Read all weights at the start, not at the first request.", is_flag=True)
@option("--min-confidence thresholds", "Predict `none of these` under this probability, for all tasks or as TASK=0.8; "
        "repeatable.", multiple=True, metavar="[TASK=]NUMBER", callback=_parse_thresholds)  # fmt: skip
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
    thresholds: dict[str, float],
    image_memory_mb: int,
    token_file: Path | None,
    log_requests: bool,
    **bank_options: Any,
) -> None:
    """Serve tuned FILES, or folders of them: a web page and a JSON API.

    The files share their backbone. Images of different tasks that arrive together share a forward pass. Without a
    token, everyone who can reach the port can send requests.

    \b
    vpt serve tasks/ --port 8000
    curl --data-binary @new.jpg http://127.0.0.1:8000/predict/photos
    """
    import logging
    import socket

    from vpt.core.optional import import_optional
    from vpt.core.text import pluralize
    from vpt.errors import StorageError

    for package in ("uvicorn", "starlette", "python_multipart", "prometheus_client"):
        import_optional(package, "serve", "vpt serve")
    from vpt.serving.access import read_token
    from vpt.serving.bank import Bank
    from vpt.serving.connections import Server
    from vpt.serving.server import create_app
    from vpt.training import distributed

    if log_requests:
        logging.basicConfig(format="%(asctime)s %(message)s")
        logging.getLogger("vpt.serving").setLevel(logging.INFO)
    token = read_token(token_file)
    target, family = distributed.resolve_device(device), socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        server_socket = socket.create_server((host, port), family=family)
    except OSError as error:
        raise StorageError(f"port {port} of {host} cannot be opened ({error}); choose another --port") from error
    with server_socket:
        bank = Bank(paths, device=target, min_confidence=thresholds, **bank_options)
        if preload:
            with click.progressbar(
                length=min(bank_options["cache_size"], len(bank.tasks)), label="weights", file=sys.stderr
            ) as bar:
                bank.preload(lambda done, total: bar.update(1))
        url = f"http://{f'[{host}]' if ':' in host else host}:{server_socket.getsockname()[1]}/"
        echo_line(f"{pluralize(len(bank.tasks), 'task')} at {url}  (stop with Ctrl-C)")
        own_hosts = _LOOPBACK if host in _LOOPBACK else (host,) if extra_hosts else ()
        application = create_app(
            bank,
            batch_size=batch_size,
            max_delay=max_delay_ms / 1000,
            image_memory=image_memory_mb * 2**20,
            allowed_hosts={*own_hosts, *extra_hosts} or None,
            token=token,
            origin_hosts=extra_hosts,
        )
        Server(application).run(sockets=[server_socket])
    click.echo("stopped")
