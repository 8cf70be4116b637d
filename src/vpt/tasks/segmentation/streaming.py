"""Random crops of images and masks, which are read whenever they are used, or decoded once.

A crop depends on the seed, the epoch and the image alone. An epoch can therefore be repeated bit by bit, with any
number of workers.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from vpt.data.decoding.stream import default_workers, init_worker, keep
from vpt.data.images.files import UnreadableImageError, capture_warnings
from vpt.data.masks.augmentation import JointAugmentation
from vpt.data.masks.dataset import SegmentationDataset
from vpt.data.masks.layouts import ImageMaskPairs
from vpt.errors import DataError
from vpt.tasks.segmentation.pair_reader import PairReader, decoded_bytes
from vpt.training.streaming import choose_loading

_Crops = tuple[NDArray[np.float32], NDArray[np.uint8], str]  # images, classes, and the fault of a file or ""
_Request = tuple[NDArray[np.int64], tuple[int, ...]]  # draws of images, and a seed


def choose_crop_loading(dataset: SegmentationDataset, loading: str, workers: int | None) -> tuple[bool, str]:
    """Decide how training images and masks are loaded, and say it with sizes.

    Args:
        dataset: The images and masks.
        loading: "cache" decodes each once, "stream" whenever it is used; "auto" streams if they would take more than
            `vpt.data.decoding.arrays.MEMORY_LIMIT`.
        workers: Number of processes that decode a stream, or None for the default.

    Returns:
        True for a stream, and a few words.
    """
    return choose_loading(loading, decoded_bytes(dataset, ["train"]), None, workers)


class CropLoader:
    """Random crops of the training images, which worker processes read in the order in which they are announced."""

    def __init__(
        self,
        dataset: SegmentationDataset,
        augmentation: JointAugmentation,
        size: int,
        *,
        streams: bool = True,
        workers: int | None = 0,
        reader: PairReader | None = None,
    ) -> None:
        """Prepare the workers, which start with the first plan.

        Args:
            dataset: The images and masks.
            augmentation: The augmentation.
            size: Side of a crop in pixels.
            streams: False reads in this process. Default: True.
            workers: Number of processes that decode a stream; 0 decodes in this one, None is one for each core, at most
                8. Default: 0.
            reader: Reader of the images and masks, which may keep them. Default: one that keeps the training images
                without a stream, and none with one.
        """
        self._cropper = _Cropper(
            dataset.splits["train"], reader or PairReader(dataset, () if streams else ["train"]), augmentation, size
        )
        self._planned: list[_Request] = []
        self._next = 0
        self._loaded: Iterator[_Crops] = iter(())
        self._loader: DataLoader[_Crops] | None = None
        count = default_workers() if workers is None else workers
        if streams and count:
            self._loader = DataLoader(
                self._cropper, batch_size=None, sampler=self._planned, num_workers=count, persistent_workers=True,
                collate_fn=keep, worker_init_fn=init_worker,
                generator=torch.Generator(),  # else it draws from torch's own, and so does dropout
            )  # fmt: skip

    def plan(self, batches: Sequence[NDArray[np.int64]], seed: tuple[int, ...]) -> None:
        """Announce the batches that are loaded next.

        Args:
            batches: Draws of images, see `vpt.training.batches.number_draws`, of each batch.
            seed: Seed of the augmentation, together with the draw.
        """
        if self._loader is not None:
            self._planned[:] = [(batch, seed) for batch in batches]
            self._next, self._loaded = 0, iter(self._loader)

    def load(self, draws: NDArray[np.int64], seed: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a batch: the next one announced or, for any other, one that is read in this process.

        Args:
            draws: Draws of images.
            seed: Seed of the augmentation.

        Returns:
            Images, float (batch, 3, size, size) in 0..255, and classes, uint8 (batch, size, size).

        Raises:
            DataError: A file has changed since it was checked.
        """
        is_announced = self._next < len(self._planned) and (
            np.array_equal(self._planned[self._next][0], draws) and self._planned[self._next][1] == seed
        )
        self._next += is_announced
        images, masks, fault = next(self._loaded) if is_announced else self._cropper[draws, seed]
        if fault:
            raise DataError(f"{fault}; it was sound when it was checked, so restore it, or begin anew with --overwrite")
        return torch.from_numpy(images), torch.from_numpy(masks)


class _Cropper(TorchDataset[_Crops]):
    """Request in, crops out: in a worker or in this process."""

    def __init__(self, train: ImageMaskPairs, reader: PairReader, augmentation: JointAugmentation, size: int) -> None:
        self.train = train
        self.reader = reader
        self.augmentation = augmentation
        self.size = size

    def __getitem__(self, request: _Request) -> _Crops:
        draws, seed = request
        train, size = self.train, self.size
        images = np.zeros((len(draws), 3, size, size), np.float32)
        masks = np.zeros((len(draws), size, size), np.uint8)
        with capture_warnings():
            for position, draw in enumerate(draws.tolist()):
                try:
                    pixels, classes = map(torch.from_numpy, self.reader.read(train, draw % len(train)))
                except UnreadableImageError as error:
                    return images, masks, f"{train.names[draw % len(train)]}: {error}"
                image, mask = self.augmentation(pixels, classes, size, np.random.default_rng((*seed, draw)))
                images[position], masks[position] = image.numpy(), mask.numpy()
        return images, masks, ""
