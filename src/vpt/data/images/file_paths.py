"""Paths of images as the names below their folder: a path object takes several times the memory of its text."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload


@dataclass(frozen=True)
class FilePaths(Sequence[Path]):
    """Paths below a folder, made when they are asked for.

    Args:
        root: The folder.
        names: Paths below it, or absolute ones.
    """

    root: Path
    names: tuple[str, ...]

    def __len__(self) -> int:
        """Return the number of paths."""
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> Path: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Path]: ...

    def __getitem__(self, index: int | slice) -> Path | Sequence[Path]:
        """Return a path, or those of a slice."""
        if isinstance(index, slice):
            return FilePaths(self.root, self.names[index])
        return self.root / self.names[index]
