"""Checks of files that a user names, before they are opened."""

import os
from pathlib import Path

from vpt.core.text import printable
from vpt.errors import VptError

OUTSIDE_VARIABLE = "VPT_ALLOW_OUTSIDE"
OUTSIDE_ADVICE = f"link its folder into this one, or set {OUTSIDE_VARIABLE}=1"


def require_regular_file(path: Path, kind: str, advice: str, error: type[VptError]) -> Path:
    """Return a path if a regular file lies there. Pipes and devices may never end, so they are not read.

    Args:
        path: The path.
        kind: What the file is to be, such as "tuned file".
        advice: What to do instead.
        error: Class of the error.

    Returns:
        The path.

    Raises:
        error: There is no file, a folder, or something else; or the path is no path at all.
    """
    shown = printable(str(path))
    try:
        if path.is_file():
            return path
        other = "folder" if path.is_dir() else "device or a pipe" if path.exists() else None
    except (OSError, ValueError) as reason:  # a name that is too long, or has a null byte
        raise error(f"the {kind} {shown} cannot be opened ({reason}); {advice}") from reason
    if other is None:
        raise error(f"the {kind} {shown} does not exist; {advice}")
    raise error(f"{shown} is a {other}, not a {kind}; {advice}")


def lies_outside(path: Path, folder: Path) -> bool:
    """Return True if a path that a list or a plan names leads out of its folder, and the user has not allowed that.

    Links inside the folder may lead anywhere: they are the user's, and not of the list. The environment variable
    `VPT_ALLOW_OUTSIDE=1` allows all paths.

    Args:
        path: The path.
        folder: Folder of the list or the plan.

    Returns:
        True if the path must not be read.
    """
    if os.environ.get(OUTSIDE_VARIABLE) == "1":
        return False
    named = path.relative_to(folder) if path.is_relative_to(folder) else path
    # Behind a link, `..` is not the folder that it is in the text.
    if ".." not in named.parts and Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder)):  # noqa: PTH100
        return False
    try:
        return not path.resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):  # no path of this system, or links in a circle
        return True
