"""The range of values from black to white, for images with more than 8 bits per channel."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpt.errors import SpecError

ValueRange = tuple[float, float]


def parse_value_range(text: str) -> ValueRange:
    """Read the values of black and white.

    Args:
        text: Two numbers, such as "0,4095".

    Returns:
        The two numbers.

    Raises:
        SpecError: The text is not two finite numbers, the smaller first.
    """
    try:
        low, high = map(float, text.split(","))
    except ValueError as error:
        raise SpecError(f"value range {text!r} is not two numbers; write LOW,HIGH: 0,4095 for 12 bits") from error
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise SpecError(f"value range {text!r} has no values between its ends; write LOW,HIGH: 0,4095 for 12 bits")
    return low, high


def scale_to_uint8(values: NDArray[Any], value_range: ValueRange) -> NDArray[np.uint8]:
    """Scale values so that black is 0 and white 255. Values outside the range become black or white.

    Args:
        values: Finite values of any shape.
        value_range: The values of black and white.

    Returns:
        uint8 of the same shape.
    """
    low, high = value_range
    values = values.astype(np.float64)
    scaled: NDArray[np.uint8] = np.rint(((values - low) * (255 / (high - low))).clip(0, 255)).astype(np.uint8)
    return scaled
