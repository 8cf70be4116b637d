"""Files of tf.train.Example records, read without TensorFlow.

A record is its length (uint64), a checksum of that, its bytes, a checksum of those. An Example is a protocol buffer:
a map from names to a list of bytes or of integers. The checksums are not verified: archives are, by their own.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from vpt.errors import DataError

_HEAD, _FOOT = 12, 4  # bytes around the data of a record
_VARINT, _BYTES = 0, 2  # wire types; those of fixed length have the sizes below
_FIXED = {1: 8, 5: 4}

Value = bytes | int


def records(file: Path) -> Iterator[tuple[int, int]]:
    """(offset, length) of each record's data. Raises DataError for a file that ends within one."""
    size, at = file.stat().st_size, 0
    with file.open("rb") as stream:
        while at < size:
            stream.seek(at)
            head = stream.read(_HEAD)
            length = struct.unpack("<Q", head[:8])[0] if len(head) == _HEAD else size
            if at + _HEAD + length + _FOOT > size:
                raise DataError(f"{file} is cut off within the record at byte {at}; unpack it again")
            yield at + _HEAD, length
            at += _HEAD + length + _FOOT


def example(data: bytes) -> dict[str, Value]:
    """The first value of each feature of an Example. Raises DataError for bytes that are none."""
    try:
        features: dict[str, Value] = {}
        for _, entries in _fields(data):
            for _, entry in _fields(_bytes(entries)):
                key, feature = (value for _, value in _fields(_bytes(entry)))
                for _, values in _fields(_bytes(feature)):
                    _, first = next(_fields(_bytes(values)))
                    # A list of integers may be packed into bytes; a list of bytes has a field number of its own.
                    packed = isinstance(first, bytes) and _kind(_bytes(feature)) == _INTEGERS
                    features[_bytes(key).decode()] = _varint(_bytes(first), 0)[0] if packed else first
        return features
    except (IndexError, ValueError, StopIteration, RuntimeError) as error:
        raise DataError(f"a record is no tf.train.Example ({error}); unpack the archive again") from error


_INTEGERS = 3  # field number of Feature.int64_list


def _kind(feature: bytes) -> int:
    return next(_fields(feature))[0]


def _fields(data: bytes) -> Iterator[tuple[int, Value]]:
    """(field number, value) of a message."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value, at = _varint(data, at)
            yield number, value
        else:
            length = _FIXED.get(wire)
            if wire == _BYTES:
                length, at = _varint(data, at)
            if length is None or at + length > len(data):
                raise ValueError(f"wire type {wire} at byte {at} of {len(data)}")
            yield number, data[at : at + length]
            at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """An integer of seven bits a byte, and the position behind it."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _bytes(value: Value) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError(f"the number {value} where a message should be")
    return value
