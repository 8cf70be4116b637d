"""The tuned files of a bank, which come, change and go while it is in use."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from itertools import pairwise
from pathlib import Path
from threading import Lock
from typing import IO

from vpt.core.io import write_atomic_with
from vpt.core.text import did_you_mean
from vpt.errors import SpecError, StorageError, TunedFileError, VptError
from vpt.serving.tuned_files import (
    TaskReplacedError,
    TunedFile,
    Version,
    change_time,
    file_version,
    find_files,
    read_headers,
    read_tuned_file,
)


class TaskFiles:
    """Tuned files by name of the task. A file that cannot be used replaces nothing.

    Attributes:
        current: The files as they are now. The mapping is replaced, never changed, because threads read it.
    """

    def __init__(
        self,
        paths: Iterable[Path],
        *,
        accept: Callable[[str, TunedFile], None],
        forget: Callable[[TunedFile], None],
    ) -> None:
        """Read the headers of all files.

        Args:
            paths: Tuned files, and folders of them.
            accept: Called with the name and the file of a task before it is added or replaced. Raises VptError if the
                file cannot be used.
            forget: Called with a file that is replaced or removed.
        """
        self._paths = tuple(paths)
        self._accept = accept
        self._forget = forget
        self.current: Mapping[str, TunedFile] = read_headers(self._paths)
        self._refused: dict[Path, tuple[Version, int, str]] = {}  # with the time of change and the reason
        self._duplicates: Set[Path] = frozenset()  # files whose names are those of tasks that other files have
        self._refreshing = Lock()

    def __getitem__(self, task: str) -> TunedFile:
        """Return the file of a task as it is now.

        Args:
            task: Name of the task.

        Returns:
            The file.

        Raises:
            SpecError: The task is unknown.
        """
        files = self.current
        if task not in files:
            raise SpecError(f"there is no task {task!r}; {did_you_mean(task, files)}")
        return files[task]

    def check(self, file: TunedFile) -> None:
        """Refuse a file that is no longer the same.

        Args:
            file: The file of a task.

        Raises:
            TunedFileError: The file that took its place cannot be used. The message says why.
            TaskReplacedError: The file has been replaced or removed otherwise.
        """
        try:
            file.check()
        except TaskReplacedError as error:
            version, _, reason = self._refused.get(file.path, (None, 0, ""))
            if version is None or version != file_version(file.path):
                raise
            raise TunedFileError(
                f"{file.path} was replaced by a file that cannot be used, and the weights of the old one are not in "
                f"memory; replace it again: {reason}"
            ) from error

    def refresh(self) -> list[str]:
        """Take over files that came, changed or went.

        Returns:
            A line for each of them, such as "added pets", "replaced pets", "removed pets" or "refused pets: REASON". A
            file is refused once, until it or its permissions change, and one with the name of another until it goes.

        Raises:
            StorageError: A folder cannot be listed. Its files stay in use.
        """
        with self._refreshing:
            found = find_files(self._paths, self.current)
            lines = [line for name, (path, *_) in found.items() for line in self._take(name, path)]
            duplicates = {other: name for name, (_, *others) in found.items() for other in others}
            lines += [
                f"refused {name}: {other}: {found[name][0]} is also named {name}; rename one of them"
                for other, name in duplicates.items()
                if other not in self._duplicates
            ]
            self._duplicates = duplicates.keys()
            for name in self.current.keys() - found.keys():
                self._forget(self.current[name])
                self.current = {other: file for other, file in self.current.items() if other != name}
                lines.append(f"removed {name}")
            return lines

    def _take(self, name: str, path: Path) -> Iterator[str]:
        """Take over one file if it is new, and yield what happened."""
        old, version, changed = self.current.get(name), file_version(path), change_time(path)
        is_known = old is not None and (old.path, old.version) == (path, version)
        if version is None or is_known or self._refused.get(path, ())[:2] == (version, changed):
            return
        try:
            new = read_tuned_file(path)
            self._accept(name, new)
        except TaskReplacedError:  # again, while it was read
            return
        except Exception as error:  # of any kind, such as of the memory of a GPU: the other tasks are served on
            self._refused[path] = version, changed, str(error)
            yield f"refused {name}: {error}"
            return
        self.current = {**self.current, name: new}
        if old is not None:
            self._forget(old)
        yield f"{'added' if old is None else 'replaced'} {name}"

    def put(self, task: str, content: bytes) -> list[str]:
        """Write the file of a task to the first folder, or in place of its old file, and take it over.

        Args:
            task: Name of the task.
            content: Contents of the tuned file.

        Returns:
            What `refresh` returns, with this task and what else has changed.

        Raises:
            SpecError: The task is new, and there is no folder.
            TunedFileError: The contents cannot be used, or the file would lie in the cache of the Hugging Face Hub.
        """
        old, folder = self.current.get(task), next((path for path in self._paths if path.is_dir()), None)
        if old is not None:
            path = old.path
        elif folder is not None:
            path = folder / f"{task}.safetensors"
        else:
            raise SpecError(f"there is no folder for the new task {task!r}; serve a folder of tuned files")
        _require_own_file(path)
        write_atomic_with(path, lambda file: self._write(file, task, content), size=len(content))
        return self.refresh()

    def _write(self, file: IO[bytes], task: str, content: bytes) -> None:
        """Write contents, or raise TunedFileError if they cannot be used."""
        file.write(content)
        file.flush()
        tmp = Path(file.name)
        try:
            new = read_tuned_file(tmp)
            self._accept(task, new)
        except VptError as error:
            raise TunedFileError(str(error).replace(str(tmp), f"the file for {task}")) from error
        self._forget(new)

    def remove(self, task: str) -> list[str]:
        """Delete the file of a task. An unknown task raises SpecError.

        Args:
            task: Name of the task.

        Returns:
            What `refresh` returns, with this task and what else has changed.

        Raises:
            TunedFileError: The file lies in the cache of the Hugging Face Hub.
            StorageError: The file cannot be deleted.
        """
        path = self[task].path
        _require_own_file(path)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(
                f"{path} could not be deleted: {error.strerror or error}; make its folder writable for the server"
            ) from error
        return self.refresh()


def _require_own_file(path: Path) -> None:
    """Refuse to write where a program that asks for an address on the Hub would get the new file."""
    folders = path.parent.resolve().parts  # a link to such a file is the user's own
    if any(repo.startswith("models--") and name == "snapshots" for repo, name in pairwise(folders)):
        raise TunedFileError(
            f"{path} lies in the cache of the Hugging Face Hub, where it stands for its address; serve a copy in a "
            "folder of your own to replace or delete it"
        )
