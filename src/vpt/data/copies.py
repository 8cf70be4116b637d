"""Files of val and test that are copies of training files: a score on them is optimistic."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from vpt.core.text import pluralize
from vpt.data.dataset import Split

_MOST_FILES = 20_000  # whose sizes are looked up
_START = 4096  # bytes that are compared first


def describe_copies(splits: Mapping[str, Split]) -> tuple[str, ...]:
    """Find files of other splits that equal a training file, byte for byte. Only files of equal size are read.

    Args:
        splits: Split by name, among them "train".

    Returns:
        A note for each split that has such files; none for images that are no files, and for more than 20,000 files.
    """
    if sum(len(split) for split in splits.values()) > _MOST_FILES:
        return ()
    named = {
        name: dict(zip(split.paths, split.names, strict=True)) for name, split in splits.items() if _is_files(split)
    }
    if "train" not in named:
        return ()
    train, notes = _by_size(named.pop("train")), list[str]()
    for name, files in named.items():
        pairs = list(_pairs(files, train))
        if pairs:
            copy, original = pairs[0]
            verb = "is a copy" if len(pairs) == 1 else "are copies"
            example = f"{copy} of {original}" if copy != original else f"{copy}, which both list"
            notes.append(
                f"{pluralize(len(pairs), 'image')} of {name} {verb} of training images, such as {example}: the score "
                "there is optimistic; remove one of both"
            )
    return tuple(notes)


def _is_files(split: Split) -> bool:
    return len(split.paths) == len(split)


def _by_size(files: Mapping[Path, str]) -> dict[int, dict[Path, str]]:
    found: dict[int, dict[Path, str]] = defaultdict(dict)
    for path, name in files.items():
        with suppress(OSError):  # whoever decodes it says what is wrong
            found[path.stat().st_size][path] = name
    return found


def _pairs(files: Mapping[Path, str], train: Mapping[int, Mapping[Path, str]]) -> Iterator[tuple[str, str]]:
    """Yield the name of each file that is in train, too, and the name that it has there."""
    for size, same_size in _by_size(files).items():
        if size not in train:
            continue
        ours, theirs = ({path: _digest(path, _START) for path in found} for found in (same_size, train[size]))
        both = set(ours.values()) & set(theirs.values())
        wholes = {_digest(path): name for path, name in train[size].items() if theirs[path] in both}
        for path, name in same_size.items():
            if ours[path] in both and (whole := _digest(path)) in wholes:
                yield name, wholes[whole]


def _digest(path: Path, size: int = -1) -> bytes:
    """Return a digest of a file, or of its first bytes."""
    try:
        with path.open("rb") as file:
            return hashlib.sha256(file.read(size)).digest()
    except OSError:
        return str(path).encode()  # which equals no other
