"""Properties of the training images under the frozen backbone, from which methods can be initialized."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from vpt.attention.detection import FeatureExtractor, structural_copy
from vpt.backbones.layout import BackboneLayout
from vpt.data.label_kinds import kind_of_labels
from vpt.errors import DataError
from vpt.heads.multi_block import features_of
from vpt.methods.init_inputs import InitInputs
from vpt.methods.linear import Linear
from vpt.model.readout import MultiBlock
from vpt.model.tuned_model import TunedModel
from vpt.training.attention_means import collect_attention_means
from vpt.training.batches import DeviceDataset, Examples, iter_batches
from vpt.training.feature_cache import compute_features


def class_prototypes(model: TunedModel, examples: Examples, *, cache: Path | None = None) -> Tensor:
    """Return the mean feature of each class under the frozen backbone alone (paper, section 4.3, "init").

    Where the feature is the class token, it is taken before the final norm, as prompts are: that is what blocks read.

    Args:
        model: The model.
        examples: Training images and labels.
        cache: Folder that keeps frozen features. Default: none.

    Returns:
        Prototypes (classes, d).

    Raises:
        DataError: A class has no image, or images have no single class.
    """
    if kind_of_labels(examples.labels) != "single_label":
        raise DataError("init=prototypes needs one class for each image; choose another init")
    device = next(model.parameters()).device
    frozen = TunedModel(model.backbone, Linear(), model.num_classes).to(device)
    dataset = DeviceDataset.for_model(frozen, examples)
    if model.layout.reads_class_token and "norm" in model.layout.final_norms:
        frozen.trunk.set_submodule("norm", nn.Identity())  # of this model alone, not of the backbone
        folder = cache if dataset.stream is None else cache or dataset.stream.folder
        cache = folder and folder / "without_norm"  # the keys of files do not tell these features from those after it
    features = compute_features(frozen, dataset, False, cache)[0].to(device)
    sums = torch.zeros(model.num_classes, features.shape[1], device=device)
    sums.index_add_(0, dataset.labels.to(device), features)
    counts = dataset.labels.bincount(minlength=model.num_classes).to(device)
    if not counts.all():
        raise DataError(f"init=prototypes needs an image of every class, and {int((counts == 0).sum())} have none")
    return sums / counts.unsqueeze(1)


def collect_init_inputs(
    model: TunedModel, examples: Examples, *, cache: Path | None = None, seed: int = 0
) -> InitInputs:
    """Collect the properties of the training images that the method of a model is initialized from.

    Args:
        model: The model; the properties are those of its frozen backbone.
        examples: The training images.
        cache: Folder for features. Default: none.
        seed: Seed of the sample of tokens. Default: 0.

    Returns:
        The properties named by `model.method.init_inputs`. The errors are those of `class_prototypes`.
    """
    wanted = model.method.init_inputs
    blocks = range(len(model.layout.blocks)) if "tokens" in wanted else ()
    features, targets = collect_features(model, examples, seed=seed) if "features" in wanted else (None, None)
    return InitInputs(
        features=features,
        targets=targets,
        prototypes=class_prototypes(model, examples, cache=cache) if "prototypes" in wanted else None,
        tokens=collect_block_inputs(model, examples, blocks, seed=seed) if blocks else {},
        attention=collect_attention_means(model, examples, seed=seed) if "attention" in wanted else {},
    )


@torch.no_grad()
def collect_features(
    model: TunedModel, examples: Examples, *, max_images: int = 2048, seed: int = 0, batch_size: int = 64
) -> tuple[Tensor, Tensor]:
    """Return features of all blocks of the frozen backbone, and what the model is to predict.

    Args:
        model: The model.
        examples: The training images.
        max_images: Largest number of images, drawn at random. Default: 2,048.
        seed: Seed of the draw. Default: 0.
        batch_size: Images per forward pass. Default: 64.

    Returns:
        Class token, mean and standard deviation of the patches of each block (n, width), on the model's device, and
        targets (n, outputs), on the CPU.
    """
    readout = MultiBlock("all", "+".join(features_of(model.layout)))
    frozen = TunedModel(model.backbone, Linear(), 1, readout=readout).to(next(model.parameters()).device)
    images = np.sort(np.random.default_rng((seed, len(examples))).permutation(len(examples))[:max_images])
    dataset = DeviceDataset.for_model(model, examples)
    batches = list(iter_batches(images, batch_size))
    dataset.plan(batches)
    features = torch.cat([frozen.network(dataset.inputs(indices)).float() for indices in batches])
    labels = dataset.labels[torch.from_numpy(images)]  # not on the device: MPS has no float64, which numbers are
    if kind_of_labels(examples.labels) == "single_label":
        return features, nn.functional.one_hot(labels, model.num_classes)
    return features, labels.reshape(len(images), -1)


@torch.no_grad()
def collect_block_inputs(
    model: TunedModel,
    examples: Examples,
    blocks: Sequence[int],
    *,
    max_tokens: int = 4096,
    seed: int = 0,
    batch_size: int = 64,
) -> dict[int, Tensor]:
    """Sample the image tokens that enter blocks of the frozen backbone.

    Each image contributes the same number of tokens, at positions drawn per image; with more images than
    `max_tokens`, a random subset of images contributes one token each. Memory is bounded by one batch and the sample.

    Args:
        model: The model; its frozen backbone runs, without the method.
        examples: The images.
        blocks: Indices of blocks, from 0.
        max_tokens: Largest number of tokens per block. Default: 4096.
        seed: Seed of the sample. Default: 0.
        batch_size: Images per forward pass. Default: 64.

    Returns:
        Index of a block -> tokens (n, d of the block) in float32 on the model's device, without class token and
        registers, n at most `max_tokens`. In blocks of a ConvNet a token is a position of the map.
    """
    rng = np.random.default_rng((seed, len(examples)))
    device, layout = next(model.parameters()).device, model.layout
    trunk = structural_copy(model.backbone.module).to(device)
    network = FeatureExtractor(trunk)
    block_inputs: dict[int, Tensor] = {}
    for index in blocks:
        block = trunk.get_submodule(layout.blocks[index])
        block.register_forward_pre_hook(partial(_keep_input, block_inputs, index))
    images = np.sort(rng.permutation(len(examples))[:max_tokens])
    tokens_per_image = max(1, max_tokens // max(1, len(images)))
    dataset = DeviceDataset.for_model(model, examples)
    sampled: dict[int, list[Tensor]] = {index: [] for index in blocks}
    batches = list(iter_batches(images, batch_size))
    dataset.plan(batches)
    for indices in batches:
        network(dataset.inputs(indices))
        for index in blocks:
            tokens = _image_tokens(block_inputs.pop(index), layout)
            count = min(tokens_per_image, tokens.shape[1])
            positions = torch.from_numpy(rng.random(tokens.shape[:2]).argsort(1)[:, :count].copy()).to(device)
            chosen = tokens.gather(1, positions.unsqueeze(-1).expand(-1, -1, tokens.shape[2]))
            sampled[index].append(chosen.flatten(0, 1).float())
    return {index: torch.cat(found) for index, found in sampled.items()}


def _image_tokens(x: Tensor, layout: BackboneLayout) -> Tensor:
    """Return the input of a block as (batch, n, d), without class token and registers."""
    if layout.kind == "tokens":
        return x[:, layout.num_prefix_tokens :]
    return x.flatten(1, 2) if layout.kind == "windows" else x.flatten(2).transpose(1, 2)


def _keep_input(found: dict[int, Tensor], index: int, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Keep the input of a block; a forward pre-hook of it."""
    found[index] = inputs[0]
