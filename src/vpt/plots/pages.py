"""The environment in which pages are rendered, and what they share: a style, and images in the page itself."""

import base64
import io
from typing import Any

import numpy as np
from jinja2 import ChoiceLoader, Environment, PackageLoader
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from vpt.core.text import printable

_SIDE = 240  # pixels of an image


def page_environment(package: str) -> Environment:
    """Return an environment for the templates of a package, which may include `page.css`.

    Args:
        package: Name of the package that has the folder templates.

    Returns:
        The environment. Values are escaped: characters of HTML, and those that are not shown or turn the direction of
        a line, except ends of lines.
    """
    loader = ChoiceLoader([PackageLoader(package), PackageLoader("vpt.plots")])
    return Environment(loader=loader, autoescape=True, keep_trailing_newline=True, finalize=_show_hidden)


def _show_hidden(value: Any) -> Any:
    """Return a value of a template with escapes for characters that are not shown; a chart is markup as it is."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return "\n".join(map(printable, value.split("\n")))


def data_uri(pixels: NDArray[np.uint8]) -> str:
    """Return an image as a JPEG in a data URI.

    Args:
        pixels: The image, uint8 (height, width, 3). One with a side above 240 pixels is reduced to it.

    Returns:
        The address.
    """
    image, data = Image.fromarray(np.ascontiguousarray(pixels)), io.BytesIO()
    image.thumbnail((_SIDE, _SIDE))
    image.save(data, "JPEG", quality=88)
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"
