"""The largest batch whose training step fits into memory, for `--batch-size auto`.

On a GPU, steps are tried, each of half the batch of the one before, until one fits. On a CPU, where too much memory
ends the process and larger batches are no faster, the default is halved until its activations are a small share.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from vpt.core import environment
from vpt.core.text import format_bytes
from vpt.errors import SpecError
from vpt.model.tuned_model import TunedModel
from vpt.training.config import TrainingConfig

_MAX_BATCH = 1024  # images that the first try on a GPU has at most
_GPU_SHARE = 0.7  # of the memory of a GPU that a step may take; images may lie there, too
_CPU_SHARE = 0.25  # of the available memory that the activations of a step may take
_MEASURED = 2  # images of the measured step: batch normalization needs two


def find_batch_size(model: TunedModel, training: TrainingConfig, num_images: int) -> tuple[int, str]:
    """Return the batch size of a model that trains on its device.

    The model is used up: a step is tried with it. With `grad_accum_steps`, each micro-batch has to fit.

    Args:
        model: A model like the one that is to be trained, on its device.
        training: The configuration; its batch size is the largest on a CPU.
        num_images: Number of training images.

    Returns:
        The batch size, a power of two times `grad_accum_steps`, and the reason in words.

    Raises:
        SpecError: Not even the smallest batch fits.
    """
    device = next(model.parameters()).device
    if device.type == "cuda":
        limit = _GPU_SHARE * torch.cuda.get_device_properties(device).total_memory
        first, taken = _MAX_BATCH, _peak_bytes
    else:
        limit = _CPU_SHARE * environment.available_memory()
        first, taken = max(1, training.batch_size // training.grad_accum_steps), _activation_bytes
    size = largest_fitting(lambda images: taken(model, training, images) <= limit, min(first, max(1, num_images)))
    if size is None:
        raise SpecError(
            f"batch_size is 'auto', and not even {_MEASURED} images fit into {format_bytes(int(limit))}; give "
            "--activation-checkpointing, a smaller --image-size, or a smaller backbone"
        )
    share = "of the GPU's memory" if device.type == "cuda" else "of the available memory, the share for activations"
    return size * training.grad_accum_steps, f"a step of {size} images fits into {format_bytes(int(limit))} {share}"


def largest_fitting(fits: Callable[[int], bool], first: int) -> int | None:
    """Return the largest power of two that fits, by halving.

    Args:
        fits: Function of a number of images.
        first: Number that is not exceeded.

    Returns:
        The number, at least 2 unless `first` is 1, or None if none fits.
    """
    size, least = 1 << (first.bit_length() - 1), min(first, _MEASURED)
    while not fits(size):
        if size <= least:
            return None
        size //= 2
    return size


def _peak_bytes(model: TunedModel, training: TrainingConfig, images: int) -> float:
    """Return the peak of GPU memory in a step, infinite if it does not fit."""
    device = next(model.parameters()).device
    torch.cuda.reset_peak_memory_stats(device)
    try:
        named = {name: weight for name, weight in model.trainable_state_dict().items() if weight.requires_grad}
        optimizer = training.make_optimizer(named)  # type: ignore[arg-type]
        _loss(model, training, images).backward()
        optimizer.step()
        return torch.cuda.max_memory_allocated(device)
    except torch.OutOfMemoryError:
        return float("inf")
    finally:
        model.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()


def _activation_bytes(model: TunedModel, training: TrainingConfig, images: int) -> float:
    """Return the bytes that a step keeps for the backward pass besides weights, as many times those of two images."""
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        _loss(model, training, _MEASURED)
    return sum(kept.values()) / _MEASURED * images


def _loss(model: TunedModel, training: TrainingConfig, images: int) -> Tensor:
    """Return a loss of black images."""
    device, preprocessing = next(model.parameters()).device, model.backbone.preprocessing
    inputs = torch.zeros(images, preprocessing.channels, preprocessing.size, preprocessing.size, device=device)
    with torch.autocast(device.type, torch.bfloat16, enabled=training.use_bf16(device)):
        logits = model.train().logits_with_auxiliary(inputs) if model.is_dense else (model.train()(inputs),)
    return torch.stack([output.float().mean() for output in logits]).sum()
