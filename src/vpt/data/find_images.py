"""Images that are to be predicted: files, folders, and tables of images."""

from collections.abc import Sequence
from pathlib import Path

from vpt.data.folder_walk import is_table_name, walk_images
from vpt.data.image_files import IMAGE_SUFFIXES
from vpt.errors import DataError


def find_images(paths: Sequence[Path]) -> list[Path]:
    """Find image files.

    Args:
        paths: Image files, folders, and tables of images.

    Returns:
        The files, all images below the folders, sorted, and those that the tables list.

    Raises:
        DataError: A path does not exist, or a folder holds no image.
    """
    found: list[Path] = []
    for path in paths:
        try:
            exists = path.exists()
        except OSError as error:  # such as a name that is too long
            raise DataError(f"{path} cannot be opened ({error.strerror}); give an image or a folder") from error
        if not exists:
            raise DataError(f"{path} does not exist; give an image or a folder of images")
        if is_table_name(path.name) and not path.is_dir():
            from vpt.data.label_tables import read_table_images  # which needs more than walking folders does

            files: Sequence[Path] = read_table_images(path)
        else:
            files = walk_images(path) if path.is_dir() else [path]
        if not files:
            raise DataError(f"there is no image below {path}; known endings: {', '.join(sorted(IMAGE_SUFFIXES))}")
        found += files
    return found
