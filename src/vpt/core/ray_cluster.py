"""A Ray cluster: whether one responds, and whether this process joins it or starts one of its own."""

import os
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from vpt.core.optional import import_optional
from vpt.core.text import pluralize
from vpt.errors import SpecError, VptError

_ADDRESS = re.compile(r"(?P<client>ray://)?(?P<host>\[[^\]]+\]|[^:/\[\]]+):(?P<port>\d+)")
_TIMEOUT = 10.0  # seconds for a response; Ray itself tries for minutes


def check_cluster(address: str | None) -> None:
    """Check that Ray is installed and, where there is an address, that something responds there.

    Args:
        address: Address of a cluster, such as "ray://host:10001". Default: that of the variable RAY_ADDRESS, if it is
            set; otherwise nothing is asked.

    Raises:
        VptError: Ray is not installed, or nothing responds within 10 s.
        SpecError: The address cannot be read.
    """
    import_optional("ray", "ray", "work on a cluster")
    given = address or os.environ.get("RAY_ADDRESS")
    if not given or given in ("auto", "local"):
        return
    found = _ADDRESS.fullmatch(given)
    if found is None:
        raise SpecError(f"the address of the Ray cluster is {given!r}{_source(address)}; write ray://HOST:10001")
    host, port = found["host"].strip("[]"), int(found["port"])
    try:
        if found["client"]:
            _await_grpc(f"{found['host']}:{port}")
        else:
            socket.create_connection((host, port), timeout=_TIMEOUT).close()
    except (OSError, UnicodeError) as error:  # UnicodeError: a name that no host can have
        raise VptError(
            f"no Ray cluster responds at {given}{_source(address)}: {error}; run `ray status` on its head, which "
            "listens at port 10001 for ray:// and at 6379 without it, and correct the address"
        ) from error


def cluster_address(executor: str | None) -> str | None:
    """Return the address that the name of an executor has, after `check_cluster`.

    Args:
        executor: "ray", an address such as "ray://HOST:10001", or None for this process.

    Returns:
        The address; None for "ray" and for None.

    Raises:
        SpecError: The text is neither.
        VptError: Ray is not installed, or nothing responds.
    """
    if executor is None:
        return None
    if executor != "ray" and not executor.startswith("ray://"):
        raise SpecError(f"the executor is {executor!r}; it must be ray, or an address such as ray://HOST:10001")
    address = None if executor == "ray" else executor
    check_cluster(address)
    return address


@contextmanager
def connect_cluster(address: str | None, on_note: Callable[[str], object], *, verbose: bool = False) -> Iterator[Any]:
    """Join a cluster, or start one on this machine, and leave it at the end. A process that is connected stays so.

    Args:
        address: Address of a cluster. Default: that of RAY_ADDRESS, the cluster of this machine, or a new one.
        on_note: Receiver of a sentence that says which of them it is.
        verbose: True shows the log lines of Ray. Default: False.

    Yields:
        The module `ray`.

    Raises:
        VptError: Ray is not installed, or no cluster responds.
    """
    ray = import_optional("ray", "ray", "work on a cluster")
    if ray.is_initialized():
        yield ray
        return
    check_cluster(address)
    options = {"log_to_driver": verbose, "logging_level": "INFO" if verbose else "ERROR"}
    ray._private.worker._worker_logs_enabled = verbose  # without it, messages about a lost node come to stdout
    given = address or os.environ.get("RAY_ADDRESS")
    named = given and f"{given}{_source(address)}"
    try:
        try:
            ray.init(address=address or "auto", **options)
            where = f"joined the Ray cluster {f'at {named}' if named else 'of this machine'}"
        except ConnectionError:
            if named:
                raise
            ray.init(address="local", include_dashboard=False, **options)
            where = "no Ray cluster runs here, so one was started on this machine until the end of this command"
    except Exception as error:  # a plain one, where the processes of a new cluster do not start within 30 s
        ray.shutdown()
        ray._private.worker._worker_logs_enabled = True
        what = f"no Ray cluster responds at {named}" if named else "Ray cannot be started on this machine"
        raise VptError(f"{what}: {error}") from error
    resources = ray.cluster_resources()
    cores, gpus = (int(resources.get(name, 0)) for name in ("CPU", "GPU"))
    on_note(f"{where}: {pluralize(len(_alive_nodes(ray)), 'node')}, {cores} CPUs, {gpus} GPUs")
    try:
        yield ray
    finally:
        ray.shutdown()
        ray._private.worker._worker_logs_enabled = True


class NodeWatch:
    """Nodes of a cluster that are alive, and those that are lost."""

    def __init__(self, ray: Any) -> None:
        self._ray, self._alive = ray, _alive_nodes(ray)

    def report_lost(self, work: str, on_note: Callable[[str], object]) -> None:
        """Name the nodes that were alive at the last call; Ray does their work again.

        Args:
            work: Plural of what the nodes do, such as "runs".
            on_note: Receiver of a sentence for each lost node.
        """
        alive = _alive_nodes(self._ray)
        for node in self._alive.keys() - alive.keys():
            on_note(f"the node {self._alive[node]} is lost; its {work} are done again on the others")
        self._alive = alive


def _source(address: str | None) -> str:
    """Return the name of the variable, for a message, where no option gives the address."""
    return "" if address else " (from RAY_ADDRESS)"


def _alive_nodes(ray: Any) -> dict[str, str]:
    """Return the address of each node that is alive, by its id."""
    return {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}


def _await_grpc(target: str) -> None:
    """Raise OSError where nobody speaks the protocol of ray:// at an address."""
    grpc = import_optional("grpc", "ray", "an address ray://")
    with grpc.insecure_channel(target) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=_TIMEOUT)
        except grpc.FutureTimeoutError as error:
            raise OSError(f"no response within {_TIMEOUT:.0f} s") from error
