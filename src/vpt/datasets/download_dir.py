"""Downloaded files: search in a user's folders, verification, and extraction of archives."""

import errno
import glob
import gzip
import hashlib
import shutil
import tarfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from vpt.core.damage import forward_members
from vpt.core.input_files import require_regular_file
from vpt.core.io import describe_write_error, sweep_abandoned, temporary_path
from vpt.core.text import bullets
from vpt.datasets.prepared import Progress
from vpt.errors import DataError, StorageError

_ARCHIVES = (".zip", ".tar.gz", ".tgz", ".tar", ".gz")
_CHUNK = 1 << 20
# What names of members of an archive bring about, and not the disk.
_ERRORS_OF_NAMES = {errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.EINVAL}


@dataclass(frozen=True)
class RemoteFile:
    """A file to download.

    Args:
        name: File name.
        url: Address of the file.
        sha256: Published checksum, or None.
        size: Published size in bytes, or None.
    """

    name: str
    url: str
    sha256: str | None = None
    size: int | None = None

    @property
    def is_archive(self) -> bool:
        """True if `extract_archive` supports the file."""
        return self.name.endswith(_ARCHIVES)


class MissingFilesError(DataError):
    """Files of a source that are missing. The message names all of them."""

    def __init__(self, names: list[str], roots: Iterable[Path]) -> None:
        """Create the error.

        Args:
            names: The missing files.
            roots: The folders that were searched.
        """
        super().__init__(f"not found in {', '.join(map(str, roots))}:{bullets(names)}")


class DownloadDir:
    """Folders with the files of a source. Each is searched up to two levels deep."""

    def __init__(self, *roots: Path) -> None:
        """Create the search path.

        Args:
            *roots: Folders to search, in this order.
        """
        self.roots = roots

    def find(self, *paths: str) -> tuple[Path, ...]:
        """Return the paths of files or folders.

        Args:
            *paths: Relative paths.

        Returns:
            The full path of each.

        Raises:
            MissingFilesError: Some do not exist. The message names all of them.
        """
        found = {path: self._find(path) for path in paths}
        missing = [path for path, location in found.items() if location is None]
        if missing:
            raise MissingFilesError(missing, self.roots)
        return tuple(location for location in found.values() if location is not None)

    def has(self, path: str) -> bool:
        """Return True if a file or folder exists.

        Args:
            path: Relative path.

        Returns:
            True if `find` finds it.
        """
        return self._find(path) is not None

    def glob(self, pattern: str) -> list[Path]:
        """Return the files that match a pattern, below the first folder that has any.

        Args:
            pattern: A pattern of relative paths, such as "lists/*.txt".

        Returns:
            The files in alphabetical order, empty if there are none.
        """
        found = (sorted(root.glob(f"{folder}{pattern}")) for root in self.roots for folder in ("", "*/", "*/*/"))
        return next(filter(None, found), [])

    def _find(self, path: str) -> Path | None:
        for root in map(Path.resolve, self.roots):
            if path.startswith(f"{root.name}/") and (root.parent / path).exists():
                return root.parent / path
        return next(iter(self.glob(glob.escape(path))), None)


def check_download(file: Path, remote: RemoteFile, progress: Progress) -> str | None:
    """Compare a downloaded file with its published size and checksum.

    Args:
        file: The downloaded file.
        remote: The published values.
        progress: Called while the checksum is computed.

    Returns:
        The difference as text; None if there is none, or if no values are published.
    """
    size = file.stat().st_size
    if remote.size is not None and size != remote.size:
        return f"{file} has {size:,} bytes, published are {remote.size:,}; download it again from {remote.url}"
    if remote.sha256 is None:
        return None
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            progress(f"verifying {file.name}", stream.tell(), size)
    found = digest.hexdigest()
    if found != remote.sha256:
        return f"{file} has SHA-256 {found}, published is {remote.sha256}; download it again from {remote.url}"
    return None


def extract_archive(archive: Path, destination: Path) -> Path:
    """Extract a .zip, .tar, .tar.gz or .gz into the folder `destination / archive.name`, if it does not exist yet.

    The folder appears when the extraction is complete. An archive with a member whose path is absolute, has a drive or
    has `..` in it is refused before anything is extracted.

    Args:
        archive: The archive.
        destination: Parent of the new folder.

    Returns:
        The new folder.

    Raises:
        DataError: The archive is damaged, or a member leads outside the folder.
        StorageError: The folder cannot be written.
    """
    target = destination / archive.name
    if target.is_dir():
        return target
    require_regular_file(archive, "archive", "download it again", DataError)
    tmp_dir = temporary_path(target)
    try:
        tmp_dir.mkdir(parents=True)
        sweep_abandoned(destination)
        if archive.name.endswith(".zip"):
            with zipfile.ZipFile(archive) as zip_file:
                _require_inside(zip_file.namelist())
                zip_file.extractall(tmp_dir)
        elif archive.name.endswith(".gz") and not archive.name.endswith(".tar.gz"):
            with gzip.open(archive) as gzip_file, (tmp_dir / archive.name.removesuffix(".gz")).open("wb") as output:
                shutil.copyfileobj(gzip_file, output, _CHUNK)
        else:
            with tarfile.open(archive) as tar_file:  # also uncompressed files named .tar.gz
                _extract_tar(tar_file, tmp_dir)
        if not target.is_dir():  # another process may have been faster
            tmp_dir.rename(target)
    except Exception as error:  # each compression has its own, and headers of archives give any numbers
        of_disk = isinstance(error, OSError) and error.errno not in (None, *_ERRORS_OF_NAMES)  # damage has no number
        if isinstance(error, OSError) and of_disk:
            raise StorageError(describe_write_error(target, error)) from error
        reason = str(error) or type(error).__name__
        raise DataError(f"{archive} cannot be extracted: {reason}; download it again") from error
    finally:
        shutil.rmtree(tmp_dir, ignore_errors=True)
    return target


def _require_inside(members: Iterable[str]) -> None:
    """Refuse the paths of members that lead outside on any system, which zipfile and tarfile cut to ones inside."""
    for member in members:
        path = PureWindowsPath(member)  # its separators and roots include those of other systems
        if path.anchor or ".." in path.parts:
            raise ValueError(f"its member {member!r} leads outside the archive's folder")


def _extract_tar(tar_file: tarfile.TarFile, folder: Path) -> None:
    """Extract the members into the folder; a link that would leave it raises tarfile.TarError."""
    members = list(forward_members(tar_file))  # all at once: a link lets tarfile itself read to the end
    _require_inside(member.name for member in members)
    if hasattr(tarfile, "data_filter"):
        tar_file.extractall(folder, members=members, filter="data")
        return
    for member in members:  # Python 3.11.0 to 3.11.3
        if not (member.isfile() or member.isdir()):
            raise tarfile.ExtractError(f"{member.name!r} is a link or device")
        tar_file.extract(member, folder)
