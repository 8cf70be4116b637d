"""Tuned files by name, and the backbones that they share."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from vpt.backbones import Backbone
from vpt.core.hub import task_name
from vpt.core.text import pluralize, refuse
from vpt.errors import StorageError, TunedFileError, VptError
from vpt.model.named_backbone import backbone_for
from vpt.model.tuned_file import Header, read_header

BackboneKey = tuple[str, int]
Version = tuple[int, int, int]


class TaskReplacedError(TunedFileError):
    """A request for a file that has been replaced or removed since. Made again, it is for the new file."""


@dataclass(frozen=True, eq=False)
class TunedFile:
    """A tuned file as it is at one time.

    Args:
        path: The file.
        header: Its header.
        version: Time of modification, size and inode, or None if the file does not exist.
    """

    path: Path
    header: Header
    version: Version | None

    def check(self) -> None:
        """Refuse a file that is no longer the same.

        Raises:
            TaskReplacedError: The file has been replaced or removed.
        """
        if file_version(self.path) != self.version:
            raise TaskReplacedError(f"{self.path} has changed since the request was made; make the request again")


def file_version(path: Path) -> Version | None:
    """Return what differs between two files that have the same path at different times.

    Args:
        path: The file.

    Returns:
        Time of modification in nanoseconds, size and inode; None if there is no such file.
    """
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def change_time(path: Path) -> int:
    """Return when a file changed in any way, also in its permissions.

    Args:
        path: The file.

    Returns:
        The time in nanoseconds; 0 if there is no such file.
    """
    try:
        return path.stat().st_ctime_ns
    except OSError:
        return 0


def read_tuned_file(path: Path) -> TunedFile:
    """Read the header of a tuned file.

    Args:
        path: The file.

    Returns:
        The file.

    Raises:
        TunedFileError: The file cannot be used, or its name is not UTF-8.
    """
    try:
        path.name.encode()
    except UnicodeEncodeError as error:  # neither JSON nor an address can name the task
        raise TunedFileError(f"the name of {path} is not UTF-8; rename the file") from error
    version = file_version(path)  # before the header: if the file is replaced in between, `check` notices
    return TunedFile(path, read_header(path), version)


def find_files(paths: Iterable[Path], current: Mapping[str, TunedFile]) -> dict[str, list[Path]]:
    """Return the tuned files that are there now.

    Args:
        paths: Tuned files, and folders of them.
        current: Known files by name.

    Returns:
        The files by name. A name that several files have is that of the first of them, the known one if there is one.

    Raises:
        StorageError: A folder cannot be listed.
    """
    found: dict[str, list[Path]] = {}
    for given in paths:
        for path in _files_in(given) if given.is_dir() else [given] * given.is_file():
            name = task_name(path)
            same = found.setdefault(name, [])
            same.insert(0 if name in current and current[name].path == path else len(same), path)
    return found


def backbone_key(header: Header) -> BackboneKey:
    """Return fingerprint and image size. Weights without positions have one fingerprint at every size.

    Args:
        header: Header of a tuned file.

    Returns:
        The key of its backbone.
    """
    return header.fingerprint, header.preprocessing.size


def _files_in(folder: Path) -> list[Path]:
    """Return the tuned files of a folder; those that add a task to an exported graph are none."""
    try:  # `glob` returns nothing for a folder that cannot be listed, as if its files had gone
        paths = sorted(folder.iterdir())
    except OSError as error:
        reason = error.strerror or error
        raise StorageError(f"the folder {folder} cannot be listed: {reason}; make it readable") from error
    visible = (path for path in paths if path.suffix == ".safetensors" and not path.name.startswith("."))
    return [path for path in visible if not path.name.endswith(".task.safetensors")]


def read_headers(paths: Iterable[Path]) -> dict[str, TunedFile]:
    """Return files and their headers by name.

    Args:
        paths: Tuned files, and folders of them.

    Returns:
        The files, by `vpt.core.hub.task_name`.

    Raises:
        TunedFileError: There is no file, a folder cannot be listed, or files have no header or equal names. The
            message names every such file.
    """
    files: dict[str, TunedFile] = {}
    faults = []
    for given in paths:
        try:
            found = _files_in(given) if given.is_dir() else [given]
        except StorageError as error:
            faults.append(str(error))
            continue
        if not found:
            faults.append(f"{given}: a folder without *.safetensors files")
        for path in found:
            name = task_name(path)
            if name in files:
                faults.append(f"{path}: {files[name].path} is also named {name}; rename one of them")
                continue
            try:
                files[name] = read_tuned_file(path)
            except TunedFileError as error:
                faults.append(str(error))
    refuse(faults, f"{pluralize(len(faults), 'file')} cannot be used", error=TunedFileError)
    if not files:
        raise TunedFileError("no tuned file was given; create one with `vpt tune DATA --out FILE`")
    return files


def load_backbones(
    files: Mapping[str, TunedFile],
    backbone: str | nn.Module | Backbone | None = None,
    weights: Path | None = None,
) -> dict[BackboneKey, Backbone]:
    """Load each backbone once.

    Args:
        files: Tuned files by name.
        backbone: A backbone or its name. Default: that of the files.
        weights: Local weights of the backbone. Default: those that timm downloads.

    Returns:
        The backbones by key.

    Raises:
        TunedFileError: Files were made for another backbone, or it cannot be loaded. The message names every such file.
    """
    names: defaultdict[tuple[str, int], list[str]] = defaultdict(list)
    for name, file in files.items():
        names[file.header.backbone, file.header.preprocessing.size].append(name)
    loaded: dict[BackboneKey, Backbone] = {}
    faults = []
    for (asked, size), group in names.items():
        try:
            first = files[group[0]]
            found = backbone_for(first.path, first.header, backbone, weights)
        except VptError as error:
            faults += [str(error), *(f"{files[name].path}: the same backbone" for name in group[1:])]
            continue
        # Files of either format may come while the server runs.
        loaded |= {(digest, size): found for digest in (found.fingerprint(), found.weights_digest())}
        fingerprints: dict[int, str] = {}  # by format of the file
        for name in group:
            header = files[name].header
            if header.format not in fingerprints:
                fingerprints[header.format] = header.fingerprint_of(found)
            fingerprint = fingerprints[header.format]
            if header.fingerprint != fingerprint:
                faults.append(
                    f"{files[name].path}: made for {asked} with {header.fingerprint[:19]}..., but the backbone is "
                    f"{found.origin} with {fingerprint[:19]}...; its weights must be the same"
                )
    refuse(faults, f"{pluralize(len(faults), 'file')} cannot be used", error=TunedFileError)
    return loaded
