"""The environment in which pages are rendered, and what they share: a style, and images in the page itself."""

import base64
import io

import numpy as np
from jinja2 import ChoiceLoader, Environment, PackageLoader
from numpy.typing import NDArray
from PIL import Image

_SIDE = 240  # pixels of an image


def page_environment(package: str) -> Environment:
    """Return an environment for the templates of a package, which may include `page.css`.

    Args:
        package: Name of the package that has the folder templates.

    Returns:
        The environment. Values are escaped.
    """
    loader = ChoiceLoader([PackageLoader(package), PackageLoader("vpt.plots")])
    return Environment(loader=loader, autoescape=True, keep_trailing_newline=True)


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
