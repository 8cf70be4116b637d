"""TFRecord files of tf.train.Example records, read without TensorFlow.

A record is its length (uint64), a checksum of the length, the data, and a checksum of the data. An Example is a
protocol buffer: a map from names to lists of bytes or integers. The checksums are not verified, because archives have
their own.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vpt.errors import DataError

_HEADER_BYTES, _FOOTER_BYTES = 12, 4  # bytes around the data of a record
_VARINT, _BYTES = 0, 2  # wire types of the fields of an Example with bytes and integers
_INT64_LIST = 3  # field number of Feature.int64_list


def iter_records(file: Path) -> Iterator[tuple[int, int]]:
    """Iterate over the records of a file.

    Args:
        file: The file.

    Yields:
        Offset and length of the data of each record.

    Raises:
        DataError: The file ends within a record.
    """
    size, position = file.stat().st_size, 0
    with file.open("rb") as stream:
        while position < size:
            stream.seek(position)
            header = stream.read(_HEADER_BYTES)
            length = struct.unpack("<Q", header[:8])[0] if len(header) == _HEADER_BYTES else size
            if position + _HEADER_BYTES + length + _FOOTER_BYTES > size:
                raise DataError(f"{file} is truncated in the record at byte {position}; extract it again")
            yield position + _HEADER_BYTES, length
            position += _HEADER_BYTES + length + _FOOTER_BYTES


def parse_example(data: bytes) -> dict[str, bytes | int]:
    """Return the first value of each feature.

    Args:
        data: A serialized Example of bytes and integers.

    Returns:
        Feature name to value.

    Raises:
        DataError: The data is not an Example.
    """
    try:
        features: dict[str, bytes | int] = {}
        for _, entries in _iter_fields(data):
            for _, entry in _iter_fields(entries):
                (_, key), (_, feature) = _iter_fields(entry)
                for kind, values in _iter_fields(feature):
                    _, first = next(_iter_fields(values))
                    if kind == _INT64_LIST and isinstance(first, bytes):  # integers may be packed into bytes
                        first, _ = _read_varint(first, 0)
                    features[key.decode()] = first
        return features
    except (IndexError, ValueError, TypeError, AttributeError, StopIteration, RuntimeError) as error:
        raise DataError(f"a record is not a tf.train.Example ({error}); extract the archive again") from error


def _iter_fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Iterate over the fields of a message, as field number and value: an integer, or bytes."""
    position = 0
    while position < len(data):
        tag, position = _read_varint(data, position)
        number, position = _read_varint(data, position)
        end = position + number if tag & 7 == _BYTES else position
        if tag & 7 not in (_VARINT, _BYTES) or end > len(data):
            raise ValueError(f"wire type {tag & 7} at byte {position} of {len(data)}")
        yield tag >> 3, data[position:end] if tag & 7 == _BYTES else number
        position = end


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    """Return an integer of seven bits per byte, and the position after it."""
    stop = next(i for i in range(position, len(data)) if data[i] < 0x80) + 1
    return sum((byte & 0x7F) << 7 * i for i, byte in enumerate(data[position:stop])), stop
