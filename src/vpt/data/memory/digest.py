"""Digest of a dataset in memory, which tells whether two are the same."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vpt.data.dataset import Split
from vpt.data.images.inputs import ImageInput, StoredImage


def digest_splits(splits: Mapping[str, Split], classes: Sequence[str]) -> str:
    """Return a digest of images, labels and names of classes.

    Args:
        splits: Name of a split to its images and labels.
        classes: Names of the classes.

    Returns:
        SHA-256 in hexadecimal digits.
    """
    digest = hashlib.sha256("\0".join(classes).encode())
    for name, split in sorted(splits.items()):
        digest.update(f"\0{name}\0{len(split)}".encode())
        digest.update(split.labels.data)
        if split.groups is not None:
            digest.update(split.groups.data)
        for image in split.images:
            digest.update(_content(image))
    return digest.hexdigest()


def _content(image: ImageInput) -> bytes:
    """Return what identifies an image: the bytes of a file, or the pixels with their shape."""
    if isinstance(image, StoredImage):
        try:
            return _content(image.read())
        except Exception:  # decoding reports the fault
            return b"unreadable"
    if isinstance(image, str | Path):
        try:
            return Path(image).read_bytes()
        except OSError:  # decoding reports the fault
            return str(image).encode()
    if isinstance(image, bytes):
        return image
    if isinstance(image, Image.Image):
        try:
            return f"{image.mode}{image.size}".encode() + image.tobytes()
        except Exception:  # a damaged file that is decoded only now; decoding reports the fault
            return b"unreadable"
    if isinstance(image, Tensor) and (image.is_complex() or image.is_meta or image.layout != torch.strided):
        return b"unreadable"  # decoding reports the fault
    pixels = image.detach().cpu().float().numpy() if isinstance(image, Tensor) else np.asarray(image)
    return f"{pixels.dtype}{pixels.shape}".encode() + pixels.tobytes()
