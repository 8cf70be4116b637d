"""Where downloaded files lie: finding them in a user's folder, verifying and unpacking archives."""

from __future__ import annotations

import gzip
import hashlib
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from vpt.core.io import describe_write_error
from vpt.core.text import bullets
from vpt.datasets.prepared.progress import Progress
from vpt.errors import DataError, StorageError

_ARCHIVES = (".zip", ".tar.gz", ".tgz", ".tar", ".gz")
_CHUNK = 1 << 20


@dataclass(frozen=True)
class RemoteFile:
    """A file to download. sha256, size (bytes): None where none was published."""

    name: str
    url: str
    sha256: str | None = None
    size: int | None = None

    @property
    def is_archive(self) -> bool:
        """Whether it can be unpacked here."""
        return self.name.endswith(_ARCHIVES)


class MissingFilesError(DataError):
    """Files of a source that are not there. `names`: all of them."""

    def __init__(self, names: list[str], roots: Iterable[Path]) -> None:
        self.names = names
        super().__init__(f"not found in {', '.join(map(str, roots))}:{bullets(names)}")


class DownloadDir:
    """Folders in which the files of a source are looked for: in each of them, and up to two folders deep."""

    def __init__(self, *roots: Path) -> None:
        self.roots = roots

    def find(self, *paths: str) -> tuple[Path, ...]:
        """Where each of these files or folders lies. Raises MissingFilesError that names all that are not there."""
        found = [self._find(path) for path in paths]
        missing = [path for path, location in zip(paths, found, strict=True) if location is None]
        if missing:
            raise MissingFilesError(missing, self.roots)
        return tuple(location for location in found if location is not None)

    def has(self, path: str) -> bool:
        """Whether `find` would find it."""
        return self._find(path) is not None

    def _find(self, path: str) -> Path | None:
        for root in self.roots:
            if path.startswith(f"{root.resolve().name}/") and (root.resolve().parent / path).exists():
                return root.resolve().parent / path
            for pattern in ("", "*", "*/*"):
                found = sorted(base / path for base in ([root] if not pattern else root.glob(pattern)))
                existing = next((location for location in found if location.exists()), None)
                if existing is not None:
                    return existing
        return None


def check_download(file: Path, remote: RemoteFile, progress: Progress) -> str | None:
    """What is wrong with a downloaded file; None where nothing is, or where nothing is known to compare with."""
    size = file.stat().st_size
    if remote.size is not None and size != remote.size:
        return f"{file} has {size:,} bytes, the published file {remote.size:,}; download it again from {remote.url}"
    if remote.sha256 is None:
        return None
    digest, done = hashlib.sha256(), 0
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            done += len(chunk)
            progress(f"verifying {file.name}", done, size)
    if digest.hexdigest() != remote.sha256:
        found = digest.hexdigest()
        return f"{file} has SHA-256 {found}, published is {remote.sha256}; download it again from {remote.url}"
    return None


def extract_archive(archive: Path, destination: Path) -> Path:
    """Unpack a .zip, .tar, .tar.gz or .gz into the folder `destination / its name`; once, and never half.

    Members that would leave the folder are refused. Raises DataError for a damaged archive, StorageError when the disk
    is full.
    """
    target = destination / archive.name
    if target.is_dir():
        return target
    destination.mkdir(parents=True, exist_ok=True)
    tmp_dir = Path(tempfile.mkdtemp(prefix=".tmp-", dir=destination))
    try:
        if archive.name.endswith(".zip"):
            with zipfile.ZipFile(archive) as zip_file:
                zip_file.extractall(tmp_dir)
        elif archive.name.endswith(".gz") and not archive.name.endswith(".tar.gz"):
            with gzip.open(archive) as gzip_file, (tmp_dir / archive.name.removesuffix(".gz")).open("wb") as output:
                shutil.copyfileobj(gzip_file, output, _CHUNK)
        else:
            with tarfile.open(archive) as tar_file:  # also plain tars that are called .tar.gz
                tar_file.extractall(tmp_dir, filter="data")
        tmp_dir.rename(target)
    except (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, EOFError) as error:
        raise DataError(f"{archive} cannot be unpacked: {error}; download it again") from error
    except OSError as error:
        raise StorageError(describe_write_error(target, error)) from error
    finally:
        shutil.rmtree(tmp_dir, ignore_errors=True)
    return target
