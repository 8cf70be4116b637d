"""Memory of images that are decoded: an estimate from the header of a file, and a limit for all files together."""

import asyncio
import io
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import astuple, dataclass

from PIL import Image

from vpt.core.optional import import_optional
from vpt.data.images.files import has_deep_pixels, supported_formats

_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PNG_BIT_DEPTH = 24  # offset in the file
# Copies of an image while it is decoded: its own mode, RGBA, white, the two blended, RGB. Deep values become floats.
_BYTES_PER_PIXEL = 24
_BYTES_PER_DEEP_PIXEL = 96
_BYTES_PER_DEEP_VALUE = 36
SEGMENTATION_BYTES_PER_PIXEL = 48  # image, classes, mask and overlay, and their PNG files in base64


@dataclass(frozen=True)
class ImageSize:
    """Size of an image according to the header of its file.

    Args:
        width: Width in pixels.
        height: Height in pixels.
        num_bytes: Upper bound of the memory that decoding takes.
    """

    width: int
    height: int
    num_bytes: int

    def __str__(self) -> str:
        """Return the words of an error."""
        pixels = f"{self.width} x {self.height} px" if self.width else f"more than {Image.MAX_IMAGE_PIXELS} pixels"
        return f"the image of {pixels}"


def read_size(data: bytes) -> ImageSize:
    """Read the header of an image file.

    Args:
        data: Contents of the file.

    Returns:
        The size; 0 for anything else than an image, which decoding refuses without memory.
    """
    size = _read_pillow_size(data)
    if data.startswith(_TIFF_STARTS):
        # Either library may decode the file, and a tag that one of them cannot read does not stop the other.
        with suppress(Exception):
            other = _read_tiff_size(data)
            return ImageSize(*map(max, astuple(size), astuple(other)))
    return size


def _read_pillow_size(data: bytes) -> ImageSize:
    """Return the size of an image that Pillow opens, or 0."""
    try:
        with Image.open(io.BytesIO(data), formats=supported_formats()) as image:
            is_deep = has_deep_pixels(image) or (image.format == "PNG" and data[_PNG_BIT_DEPTH] > 8)
            each = _BYTES_PER_DEEP_PIXEL if is_deep else _BYTES_PER_PIXEL
            return ImageSize(*image.size, image.width * image.height * each)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        return ImageSize(0, 0, sys.maxsize)
    except Exception:  # Pillow raises any kind of error on damaged files; decoding names it
        return ImageSize(0, 0, 0)


def _read_tiff_size(data: bytes) -> ImageSize:
    """Return the size of a TIFF file, which may have any number and type of channels."""
    tifffile = import_optional("tifffile", "deep", "a TIFF image")
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        page = tiff.pages[0]
        width, height, item = page.imagewidth, page.imagelength, page.dtype.itemsize
        deep = page.nbytes // item * _BYTES_PER_DEEP_VALUE if item > 1 else page.nbytes
        return ImageSize(width, height, max(width * height * _BYTES_PER_PIXEL, deep))


class ByteBudget:
    """Bytes that the requests of an event loop share. A request waits, in order of arrival, until enough are free."""

    def __init__(self, total: int) -> None:
        """Create a budget.

        Args:
            total: Number of bytes.
        """
        self.total = total
        self._free = total
        self._turn = asyncio.Lock()
        self._released = asyncio.Condition()

    @asynccontextmanager
    async def hold(self, count: int) -> AsyncIterator[None]:
        """Hold bytes during a block.

        Args:
            count: Number of bytes, at most `total`.

        Yields:
            Nothing.
        """
        async with self._turn, self._released:
            await self._released.wait_for(lambda: count <= self._free)
            self._free -= count
        try:
            yield
        finally:
            async with self._released:
                self._free += count
                self._released.notify_all()
