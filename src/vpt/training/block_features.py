"""The features of every block of a frozen backbone, computed in one pass and kept in half precision."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vpt.attention.detection import FeatureExtractor, detect_layout, probe_image, structural_copy
from vpt.backbones import Backbone
from vpt.backbones.layout import BackboneLayout
from vpt.core.array_file import append_checksum, map_array
from vpt.core.io import move_into_place
from vpt.data.decoding.arrays import allocate
from vpt.data.preprocessing import Preprocessing
from vpt.errors import UnsupportedError
from vpt.heads.multi_block import MultiBlockFeatures, features_of, parse_features, select_blocks, units
from vpt.model.readout import MultiBlock, Readout
from vpt.model.tuned_model import TunedModel
from vpt.training.batches import DeviceDataset, iter_batches
from vpt.training.callbacks import Progress

_BATCH = 64
_MAX_HALF = 65504.0  # the largest number of half precision


@dataclass(frozen=True)
class FeatureTable:
    """The columns of the features of a backbone: the pooled feature, then block after block.

    Attributes:
        pooled: Width of the pooled feature.
        widths: Width of each block or stage; none where the backbone has neither.
        features: Features of each block, of `vpt.heads.multi_block.FEATURES`.
    """

    pooled: int
    widths: tuple[int, ...]
    features: tuple[str, ...]

    @property
    def width(self) -> int:
        """Number of all columns."""
        return self.pooled + len(self.features) * sum(self.widths)

    def columns(self, readout: Readout) -> list[slice]:
        """Return the columns that a head reads, in its order.

        Args:
            readout: The readout of the head.

        Returns:
            One slice for each feature of a block, or that of the pooled feature.

        Raises:
            UnsupportedError: The backbone has no such feature.
        """
        if not isinstance(readout, MultiBlock):
            return [slice(0, self.pooled)]
        found = [slice(0, self.pooled)] if readout.pooled else []
        wanted = parse_features(readout.features)
        if missing := [name for name in wanted if name not in self.features]:
            raise UnsupportedError(f"{readout} reads {', '.join(missing)}, which the backbone has not")
        starts = self.pooled + len(self.features) * np.cumsum([0, *self.widths])
        for block in select_blocks(readout.blocks, len(self.widths)):
            for name in wanted:
                start = int(starts[block]) + self.features.index(name) * self.widths[block]
                found.append(slice(start, start + self.widths[block]))
        return found


class BlockFeatureNetwork(nn.Module):
    """Normalized images (batch, 3, height, width) -> the pooled feature and the features of every block, side by side.

    Args:
        backbone: The backbone; its weights are shared.
        device: Device of the network.
    """

    def __init__(self, backbone: Backbone, device: torch.device) -> None:
        super().__init__()
        trunk = structural_copy(backbone.module).to(device)
        layout = detect_layout(trunk, backbone.preprocessing)
        blocks = _read_blocks(structural_copy(backbone.module).to(device), layout, backbone.preprocessing)
        widths, features = ((), ()) if blocks is None else (blocks.widths, blocks.features)
        self.table: FeatureTable = FeatureTable(layout.feature_width, widths, features)
        self.network: nn.Module = FeatureExtractor(trunk) if blocks is None else blocks

    def forward(self, images: Tensor) -> Tensor:
        """Return the features.

        Args:
            images: Normalized images (batch, 3, height, width).

        Returns:
            Features (batch, `table.width`).
        """
        return self.network(images)  # type: ignore[no-any-return]


def _read_blocks(trunk: nn.Module, layout: BackboneLayout, preprocessing: Preprocessing) -> MultiBlockFeatures | None:
    """Return the features of all blocks or stages, or None for a backbone whose own cannot be read."""
    try:
        features, count = features_of(layout), len(units(trunk, layout))
        blocks = MultiBlockFeatures(trunk, layout, range(count), features, pooled=True)
        with torch.no_grad():
            blocks(probe_image(trunk, preprocessing))  # the only way to see what stages put out
    except UnsupportedError:
        return None
    return blocks


@torch.inference_mode()
def compute_block_features(
    network: BlockFeatureNetwork,
    dataset: DeviceDataset,
    *,
    bf16: bool = False,
    path: Path | None = None,
    on_batch: Progress | None = None,
) -> NDArray[np.float16]:
    """Compute the features of images in one pass.

    Args:
        network: The network.
        dataset: The images.
        bf16: True runs the forward pass in bf16. Default: False.
        path: File (.npy) that keeps the features and is mapped into memory; one that is complete is read. Default: no
            file.
        on_batch: Function that receives the number of finished images and of all images. Default: none.

    Returns:
        Features, float16 (n, `network.table.width`).
    """
    shape = (len(dataset), network.table.width)
    known = None if path is None else map_array(path)
    if known is not None and known.shape == shape and known.dtype == np.float16:
        return known
    known = None  # closes the file, which Windows replaces only then
    if path is None:
        return compute_features(network, network.table.width, dataset, bf16=bf16, on_batch=on_batch)
    values = allocate(shape, 0, path.parent, np.float16)
    assert isinstance(values, np.memmap) and values.filename is not None
    unfinished = Path(values.filename)
    try:
        _fill(values, network, dataset, bf16, on_batch)
        values.flush()
        del values  # closes the file, which Windows renames only then
        append_checksum(unfinished)
        move_into_place(unfinished, path)
    except BaseException:
        with suppress(OSError):  # on Windows, where the file may still be open; the error before says more
            unfinished.unlink(missing_ok=True)
        raise
    return np.lib.format.open_memmap(path, mode="r")


@torch.inference_mode()
def compute_features(
    network: nn.Module, width: int, dataset: DeviceDataset, *, bf16: bool = False, on_batch: Progress | None = None
) -> NDArray[np.float16]:
    """Compute features of images in one pass.

    Args:
        network: Normalized images (batch, 3, height, width) -> features (batch, width).
        width: Number of features.
        dataset: The images.
        bf16: True runs the forward pass in bf16. Default: False.
        on_batch: Function that receives the number of finished images and of all images. Default: none.

    Returns:
        Features, float16 (n, width).
    """
    values: NDArray[np.float16] = np.empty((len(dataset), width), np.float16)
    _fill(values, network, dataset, bf16, on_batch)
    return values


def columns_of_head(model: TunedModel) -> list[slice]:
    """Return the features that the head of a model reads, without the pooled one where it reads blocks.

    Args:
        model: A model that classifies images.

    Returns:
        One slice for each feature of a block, or that of the pooled feature.
    """
    if not isinstance(model.readout, MultiBlock):
        return [slice(0, model.width)]
    widths = list(units(model.trunk, model.layout).values())
    features = parse_features(model.readout.features)
    sizes = [widths[index] for index in select_blocks(model.readout.blocks, len(widths)) for _ in features]
    ends = model.width - sum(sizes) + np.cumsum(sizes)
    return [slice(int(end) - size, int(end)) for end, size in zip(ends, sizes, strict=True)]


def _fill(
    values: NDArray[np.float16], network: nn.Module, dataset: DeviceDataset, bf16: bool, on_batch: Progress | None
) -> None:
    """Compute the features of all images into an array."""
    batches = list(iter_batches(np.arange(len(dataset)), _BATCH))
    dataset.plan(batches)
    for indices in batches:
        with torch.autocast(dataset.device.type, torch.bfloat16, enabled=bf16):
            features = network(dataset.inputs(indices)).float().clamp(-_MAX_HALF, _MAX_HALF)
        values[indices] = features.cpu().numpy()
        if on_batch is not None:
            on_batch(int(indices[-1]) + 1, len(dataset))
