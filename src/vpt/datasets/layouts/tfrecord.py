"""TFRecord files of tf.train.Example records, read without TensorFlow.

A record is its length (uint64), a checksum of the length, the data, and a checksum of the data. An Example is a
protocol buffer: a map from names to lists of bytes or integers. The checksums are not verified, because archives have
their own.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from vpt.errors import DataError

_HEADER_BYTES, _FOOTER_BYTES = 12, 4  # bytes around the data of a record
_VARINT, _BYTES = 0, 2  # wire types; those of fixed length have the sizes below
_FIXED = {1: 8, 5: 4}
_INT64_LIST = 3  # field number of Feature.int64_list

Value = bytes | int


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


def parse_example(data: bytes) -> dict[str, Value]:
    """Return the first value of each feature.

    Args:
        data: A serialized Example.

    Returns:
        Feature name to value.

    Raises:
        DataError: The data is not an Example.
    """
    try:
        features: dict[str, Value] = {}
        for _, entries in _iter_fields(data):
            for _, entry in _iter_fields(_expect_bytes(entries)):
                key, feature = (value for _, value in _iter_fields(_expect_bytes(entry)))
                for list_field, values in _iter_fields(_expect_bytes(feature)):
                    _, first = next(_iter_fields(_expect_bytes(values)))
                    if list_field == _INT64_LIST and isinstance(first, bytes):  # integers may be packed into bytes
                        first, _ = _read_varint(first, 0)
                    features[_expect_bytes(key).decode()] = first
        return features
    except (IndexError, ValueError, StopIteration, RuntimeError) as error:
        raise DataError(f"a record is not a tf.train.Example ({error}); extract the archive again") from error


def _iter_fields(data: bytes) -> Iterator[tuple[int, Value]]:
    """Iterate over the fields of a message, as field number and value."""
    position = 0
    while position < len(data):
        tag, position = _read_varint(data, position)
        field_number, wire_type = tag >> 3, tag & 7
        if wire_type == _VARINT:
            value, position = _read_varint(data, position)
            yield field_number, value
        else:
            length = _FIXED.get(wire_type)
            if wire_type == _BYTES:
                length, position = _read_varint(data, position)
            if length is None or position + length > len(data):
                raise ValueError(f"wire type {wire_type} at byte {position} of {len(data)}")
            yield field_number, data[position : position + length]
            position += length


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    """Return an integer of seven bits per byte, and the position after it."""
    value = shift = 0
    while True:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position


def _expect_bytes(value: Value) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError(f"the number {value} where a message should be")
    return value
