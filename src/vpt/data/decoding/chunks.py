"""Parts of splits of any size, decoded one after the other, of which a whole part may be unreadable."""

from vpt.data.dataset import Split
from vpt.data.decoding.arrays import DecodedImages, decode
from vpt.data.preprocessing import Preprocessing
from vpt.errors import DataError


def decode_chunk(
    chunk: Split, preprocessing: Preprocessing, *, skip_corrupt: bool
) -> tuple[DecodedImages | None, list[str]]:
    """Decode a part of the images of a call.

    Args:
        chunk: The images.
        preprocessing: Preprocessing of the backbone.
        skip_corrupt: True leaves unreadable images out.

    Returns:
        The images, or None if all are left out, and notes about them.

    Raises:
        DataError: Images cannot be used, and may not be left out.
    """
    try:
        pixels = decode(chunk, preprocessing, skip_corrupt=skip_corrupt)
    except DataError as error:
        if not skip_corrupt:
            raise
        return None, [str(error)]
    return pixels, pixels.all_notes
