"""Results of frozen weights, computed once before training: features, and inputs of the first block that changes."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from vpt.core.array_file import append_checksum, map_array
from vpt.core.damage import FAULTS
from vpt.core.io import move_into_place, sweep_abandoned, write_atomic
from vpt.data.decoding.arrays import allocate
from vpt.errors import DataError
from vpt.model.header import KEY, NO_CHECKSUM, checksum_of_file, seal
from vpt.model.injection import named_tensors
from vpt.model.split_forward import SplitForward
from vpt.model.tuned_model import TunedModel
from vpt.training.batches import DeviceDataset
from vpt.training.evaluation import iter_logits

NUM_VIEWS = 16  # augmented images whose features are kept, for each one
MAX_ACTIVATION_BYTES = 4 * 2**30  # bytes of activations that are kept in memory

_Outputs = Callable[[], Iterator[tuple[NDArray[np.int64], Tensor]]]  # of a network, batch by batch


def cache_frozen_features(
    model: TunedModel,
    *datasets: DeviceDataset | None,
    augment: str = "none",
    bf16: bool = False,
    cache: Path | None = None,
    repeated: bool = False,
    on_note: Callable[[str], None] = lambda text: None,
) -> nn.Module:
    """Compute the outputs of frozen modules once, for every dataset, and return the module that still has to run.

    Without augmentation that module is the head if only the head trains, and otherwise the network from its first
    modified block on. With augmentation it is the model, except for `random_resized_crop` if only the head trains: the
    features of a few random crops of each image of the first dataset are computed once.

    Args:
        model: The model.
        *datasets: The datasets, whose `features` are set; None is skipped.
        augment: Text of the augmentation of the first dataset. Default: none.
        bf16: True runs the forward pass in bf16. Default: False.
        cache: Folder that keeps features under a key of pixels, preprocessing, fingerprint and precision. Default:
            none.
        repeated: True if the images are used more than once. Default: False.
        on_note: Function that receives the reason why frozen modules run again and again. Default: none.

    Returns:
        The module that maps the inputs of the datasets to logits.

    Raises:
        DataError: The first dataset has no images.
    """
    present = [dataset for dataset in datasets if dataset is not None]
    if not len(present[0]):
        raise DataError("there are no training images; give at least one")
    if model.only_head_trains and augment in ("none", "random_resized_crop"):
        for index, dataset in enumerate(present):
            if dataset.features is None:
                num_views = NUM_VIEWS if augment != "none" and index == 0 else 0  # only what is trained on is augmented
                dataset.features = compute_features(model, dataset, bf16, cache, num_views)
        if augment != "none":
            on_note(
                f"the features of {NUM_VIEWS} random crops of each image are computed once, and each epoch takes one "
                "of them"
            )
        return model.head
    split_forward = model.split_forward() if repeated and not model.only_head_trains else None
    if augment != "none":
        if model.only_head_trains or split_forward is not None:
            on_note(f"augment={augment} makes every image new, so nothing frozen can be computed in advance")
        return model
    if split_forward is None or not all(map(len, present)):
        return model
    model.eval()
    first_input = split_forward.run_frozen_prefix(present[0].inputs(np.arange(1)))
    required_bytes = sum(map(len, present)) * first_input.float().nbytes
    if required_bytes > MAX_ACTIVATION_BYTES:
        on_note(
            f"what goes into block {model.first_modified_block + 1} takes {required_bytes / 2**30:.1f} GiB for all "
            f"images, more than {MAX_ACTIVATION_BYTES / 2**30:.1f}, so the frozen blocks before it run in every epoch"
        )
        return model
    for dataset in present:
        inputs = partial(iter_logits, split_forward.run_frozen_prefix, dataset, bf16=bf16)
        if dataset.stream is not None:
            dataset.features = _map_outputs(
                [inputs], dataset, dataset.stream.folder / f"inputs-{split_forward.path}.npy"
            )
        else:
            dataset.features = _join(inputs).unsqueeze(0).to(dataset.device)
    return _SuffixModel(split_forward, model)


def compute_features(
    model: TunedModel, dataset: DeviceDataset, bf16: bool, cache: Path | None, num_views: int = 0
) -> Tensor:
    """Return the features that the head reads, of every image and of random crops of it.

    Args:
        model: The model.
        dataset: The images.
        bf16: True runs the forward pass in bf16.
        cache: Folder that keeps frozen features, or None.
        num_views: Number of random crops of each image, which are the same for all seeds. Default: 0.

    Returns:
        Features (1 + num_views, n, d) on the device, the first those of the whole images; for a stream of images, in a
        file that is mapped into memory.
    """

    def compute(view: int) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
        augment = "random_resized_crop" if view else "none"
        return iter_logits(model.network, dataset, bf16=bf16, augment=augment, seed=(view, len(dataset)))

    views = [partial(compute, view) for view in range(1 + num_views)]
    if cache is None and dataset.stream is None:
        return torch.stack([_join(view) for view in views]).to(dataset.device)
    keys = [_cache_key(model, dataset, bf16)]
    if num_views:
        crop_key = _cache_key(model, dataset, bf16, crops=True)
        keys += [f"{crop_key}-view{view}" for view in range(1, num_views + 1)]
    if dataset.stream is not None:
        # Views of a stream are augmented by all that its loader does.
        text = hashlib.sha256(dataset.stream.augment.encode()).hexdigest()[:8] if num_views else "whole"
        return _map_outputs(views, dataset, (cache or dataset.stream.folder) / f"features-{keys[-1]}-{text}.npy")
    assert cache is not None
    found = [
        _load_or_compute(cache / f"features-{key}.safetensors", len(dataset), partial(_join, view))
        for key, view in zip(keys, views, strict=True)
    ]
    return torch.stack(found).to(dataset.device)


def _join(outputs: _Outputs) -> Tensor:
    """Return the outputs of all images, in memory."""
    return torch.cat([values for _, values in outputs()])


def _map_outputs(views: Sequence[_Outputs], dataset: DeviceDataset, path: Path) -> Tensor:
    """Return outputs (views, n, ...) in a file that is mapped into memory, and written if missing or damaged."""
    shape = (len(views), len(dataset))
    known = map_array(path, "c")  # torch warns of arrays that cannot be written
    if known is None or known.dtype != np.float32 or known.shape[:2] != shape:
        known = None  # closes the file, which Windows replaces only then
        sweep_abandoned(path.parent)
        array: Any = None
        unfinished: Path | None = None
        try:
            for view, outputs in enumerate(views):
                for indices, values in outputs():
                    if array is None:
                        array = allocate((*shape, *values.shape[1:]), 0, path.parent, np.float32)
                        unfinished = Path(array.filename)
                    array[view, indices] = values.numpy()
            array.flush()
            array = None  # closes the file, which Windows renames and removes only then
            assert unfinished is not None
            append_checksum(unfinished)
            move_into_place(unfinished, path)
        except BaseException:
            array = None
            if unfinished is not None:
                with suppress(OSError):  # the error before says more
                    unfinished.unlink(missing_ok=True)
            raise
        known = np.lib.format.open_memmap(path, mode="c")
    return torch.from_numpy(known)


def _load_or_compute(path: Path, count: int, compute: Callable[[], Tensor]) -> Tensor:
    """Return the features (count, d) of a file, or compute and write them."""
    if path.is_file():
        known = _read_features(path)
        if known is not None and known.ndim == 2 and len(known) == count and known.is_floating_point():
            return known
    features = compute()
    write_atomic(path, seal(save({"features": features}, {KEY: json.dumps({"checksum": NO_CHECKSUM})})))
    return features


def _read_features(path: Path) -> Tensor | None:
    """Return cached features; None where the file is damaged or has no checksum, as those of earlier versions."""
    try:
        with safe_open(path, framework="np") as file:
            checksum = json.loads(file.metadata()[KEY])["checksum"]
        return load_file(path)["features"] if checksum == checksum_of_file(path) else None
    except (*FAULTS, SafetensorError, MemoryError):
        return None


def _cache_key(model: TunedModel, dataset: DeviceDataset, bf16: bool, crops: bool = False) -> str:
    digest = hashlib.sha256(model.backbone.weights_digest().encode())
    digest.update(json.dumps([model.backbone.preprocessing.to_dict(), bf16], sort_keys=True).encode())
    digest.update(dataset.examples.content)
    oversized = dataset.examples.oversized
    if crops and oversized is not None:
        for index in range(len(oversized)):
            digest.update(str(oversized[index].shape).encode())
            digest.update(np.ascontiguousarray(oversized[index]).data)
    if model.injected_modules or not model.reads_backbone_feature:  # fixed prompts, for one, change the features
        digest.update(model.method.spec(full=True).encode())
        digest.update((model.readout.spec(full=True) or "").encode())
        heads = {id(tensor) for _, tensor in named_tensors(model.head)}
        for name, tensor in sorted(model.trainable_state_dict().items()):
            if id(tensor) not in heads:
                digest.update(name.encode())
                digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:32]


class _SuffixModel(nn.Module):
    def __init__(self, split_forward: SplitForward, model: TunedModel) -> None:
        super().__init__()
        self.split_forward = split_forward
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        head = self.model.head
        return head(self.split_forward(x).to(next(head.parameters()).dtype))  # type: ignore[no-any-return]
