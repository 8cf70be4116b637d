"""Images that are to be predicted: files, folders, and tables of images."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from vpt.core.text import comma_list, printable
from vpt.data.folders.walk import describe_foreign, is_table_name, require_path, walk_images
from vpt.data.images.files import IMAGE_SUFFIXES
from vpt.errors import DataError

_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):/+", re.IGNORECASE)  # a path has one slash; C:/ is a drive


def find_images(sources: Sequence[str | Path], on_note: Callable[[str], None] | None = None) -> list[Path]:
    """Find image files.

    Args:
        sources: Image files, folders, and tables of images.
        on_note: Called for each folder with entries that are not used. Default: they are passed over.

    Returns:
        The files, all images below the folders, sorted, and those that the tables list.

    Raises:
        DataError: A path is empty, does not exist or is a URL, or a folder holds no image.
    """
    found: list[Path] = []
    for source in sources:
        require_path(str(source), "the path of an image", "give an image or a folder of images")
        path = Path(source)
        try:
            exists = path.exists()
        except OSError as error:  # such as a name that is too long
            raise DataError(f"{path} cannot be opened ({error.strerror}); give an image or a folder") from error
        if not exists and _ADDRESS.match(str(source)):
            url = _ADDRESS.sub(r"\1://", str(source), count=1)
            raise DataError(f"{url} is a URL, and images are read from files; download it first, and give the file")
        if not exists:
            raise DataError(f"{path} does not exist; give an image or a folder of images")
        ignored: list[str] = []
        if is_table_name(path.name) and not path.is_dir():
            from vpt.data.tables.images import read_table_images  # which needs more than walking folders does

            files: Sequence[Path] = read_table_images(path)
        else:
            files = walk_images(path, ignored) if path.is_dir() else [path]
        unused = sorted(map(printable, ignored))  # a line end in a name must not end the note
        kinds = describe_foreign(unused)
        if not files:
            endings = ", ".join(sorted(IMAGE_SUFFIXES))
            raise DataError(f"there is no image below {path}; known endings: {endings}{kinds}")
        if unused and on_note is not None:
            entries = "1 entry" if len(unused) == 1 else f"{len(unused)} entries"
            on_note(printable(f"not used: {entries} of {path}: {comma_list(unused)}{kinds}"))
        found += files
    return found
