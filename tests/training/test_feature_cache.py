"""What is frozen is computed once: features, their cache, and random crops of which a few are kept."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from helpers.comparison import max_relative_difference
from helpers.families import backbone_of
from helpers.two_processes import CONFIG, examples, model
from vpt import TunedModel, attach
from vpt.errors import DataError, SpecError
from vpt.methods.init_inputs import InitInputs
from vpt.tasks.classification import train
from vpt.training import Callback, Examples, class_prototypes
from vpt.training.batches import DeviceDataset
from vpt.training.evaluation import predict_logits
from vpt.training.feature_cache import cache_frozen_features
from vpt.training.head_grid import check_head_grid


@pytest.mark.parametrize("family", ["vit", "vit-avg"])
def test_class_prototypes_of_frozen_backbone_equal_mean_features(family, tmp_path):
    """A class token is read before the final norm, also where the cache has the features after it."""
    tuned, data = attach(backbone_of(family), "vpt(length=3, init=prototypes)", 3), examples()
    inputs = tuned.backbone.preprocessing.normalize(torch.from_numpy(data.pixels))
    plain = tuned.backbone.module
    train(attach(tuned.backbone, "linear", 3), data, CONFIG.replace(epochs=1), cache=tmp_path)
    with torch.no_grad():
        tokens = plain.blocks(plain._pos_embed(plain.patch_embed(inputs)))
        features = tokens[:, 0] if family == "vit" else plain.fc_norm(tokens[:, 1:].mean(1))
    for found in (class_prototypes(tuned, data, cache=tmp_path), class_prototypes(tuned, data)):
        for label in range(3):
            wanted = features[torch.from_numpy(data.labels == label)].mean(0)
            assert torch.allclose(found[label], wanted, rtol=1e-4, atol=1e-5)
    assert len(list(tmp_path.iterdir())) == (2 if family == "vit" else 1)
    tuned.initialize(InitInputs(found))
    with pytest.raises(SpecError, match="with 3 classes, write length=3"):
        model("vpt(length=4, init=prototypes)").initialize(InitInputs(found))
    kept = data.labels != 1
    with pytest.raises(DataError, match="needs an image of every class, and 1 have none"):
        class_prototypes(tuned, Examples(data.pixels[kept], data.labels[kept]))


def test_train_linear_with_cache_computes_features_once_and_equals_uncached(monkeypatch, tmp_path):
    cached, again, plain = model("linear"), model("linear"), model("linear")
    seen: list[int] = []
    cached.trunk.blocks[0].register_forward_pre_hook(lambda block, args: seen.append(len(args[0])))
    history = train(cached, examples(), CONFIG, validation=examples(seed=1), cache=tmp_path)
    assert sum(seen) == 2 * 24  # each image once, whatever the number of epochs
    assert len(list(tmp_path.iterdir())) == 2
    train(again, examples(), CONFIG, validation=examples(seed=1), cache=tmp_path)
    assert max_relative_difference(again, cached) == 0
    monkeypatch.setattr(TunedModel, "only_head_trains", False)
    uncached = train(plain, examples(), CONFIG, validation=examples(seed=1))
    assert max_relative_difference(cached, plain) < 1e-5
    assert [e.val_loss for e in history] == pytest.approx([e.val_loss for e in uncached], rel=1e-5)


@pytest.mark.parametrize("cached", [False, True])
def test_train_with_arrays_in_any_layout_equals_contiguous_ones(cached, tmp_path):
    data, plain, other = examples(), model("linear"), model("linear")
    pixels = np.ascontiguousarray(data.pixels.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    train(plain, data, CONFIG)
    train(other, Examples(pixels, data.labels.astype(np.int32)), CONFIG, cache=tmp_path if cached else None)
    assert max_relative_difference(other, plain) == 0


def test_train_without_images_is_refused():
    data = examples()
    for method in ("linear", "vpt(length=3)"):
        with pytest.raises(DataError, match="there are no training images; give at least one"):
            train(model(method), Examples(data.pixels[:0], data.labels[:0]), CONFIG)
    with pytest.raises(DataError, match=r"24 images and labels of shape \(23,\) do not match; give one label"):
        Examples(data.pixels, data.labels[1:])


def test_feature_cache_of_frozen_prompts_has_its_own_entry(tmp_path):
    """Frozen prompts change the features: the cache must not return those of the backbone alone or of another seed."""
    for number, name in enumerate(("linear", "vpt(length=5, frozen=true)", "vpt(length=5, frozen=true)")):
        tuned = model(name)
        for tensor in tuned.trainable_state_dict().values():
            if not isinstance(tensor, nn.Parameter):
                tensor += number
        dataset = DeviceDataset(examples(), tuned.backbone.preprocessing, torch.device("cpu"))
        with torch.no_grad():
            wanted = predict_logits(tuned, dataset)
        network = cache_frozen_features(tuned, dataset, cache=tmp_path)
        assert (predict_logits(network, dataset) - wanted).abs().max() < 1e-4
        assert len(list(tmp_path.iterdir())) == number + 1
    with pytest.raises(SpecError, match="injects modules that every seed initializes differently"):
        check_head_grid(tuned, [CONFIG])


def test_feature_cache_of_each_output_has_its_own_entry(tmp_path):
    found = []
    for name in ("linear", "linear(output=image_mean)", "linear(output=cls_image_mean)"):
        tuned = model(name)
        dataset = DeviceDataset(examples(), tuned.backbone.preprocessing, torch.device("cpu"))
        cache_frozen_features(tuned, dataset, cache=tmp_path)
        found.append(dataset.features[0])
    cls, mean, both = found
    assert not torch.equal(cls, mean)
    assert torch.allclose(both, torch.cat([cls, mean], dim=1), atol=1e-6)


@pytest.mark.parametrize("augment", ["flip", "random_crop"])
def test_train_linear_with_augmentation_bypasses_the_cache_reproducibly(augment):
    oversized = Examples(np.random.default_rng(0).integers(0, 256, (24, 3, 36, 36), np.uint8), examples().labels)
    config = CONFIG.replace(augment=augment)
    first, second, plain = model("linear"), model("linear"), model("linear")
    train(first, oversized, config)
    train(second, oversized, config)
    train(plain, oversized, config.replace(augment="none"))
    assert max_relative_difference(first, second) == 0
    assert max_relative_difference(first, plain) > 0


def test_train_linear_with_random_resized_crop_caches_features_of_16_crops(tmp_path, monkeypatch):
    config = CONFIG.replace(augment="random_resized_crop")
    notes: list[str] = []
    callback = Callback()
    monkeypatch.setattr(callback, "on_note", notes.append)
    first, second, plain = model("linear"), model("linear"), model("linear")
    train(first, examples(), config, validation=examples(), cache=tmp_path, callback=callback)
    assert [file.suffix for file in tmp_path.iterdir()] == [
        ".safetensors"
    ] * 17  # the images, and sixteen crops of each
    assert "16 random crops of each image" in notes[0]
    monkeypatch.setattr("vpt.training.feature_cache.iter_logits", None)  # nothing is computed a second time
    train(second, examples(), config, validation=examples(), cache=tmp_path)
    assert max_relative_difference(first, second) == 0
    train(plain, examples(), config.replace(augment="none"), cache=tmp_path)
    assert max_relative_difference(first, plain) > 0


def test_train_vpt_with_random_resized_crop_lowers_the_loss(tmp_path):
    tuned = model()
    history = train(tuned, examples(), CONFIG.replace(augment="random_resized_crop", epochs=4))
    assert history[-1].train_loss < history[0].train_loss
    train(model(), examples(), CONFIG.replace(augment="random_resized_crop", probe_epochs=2), cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 17  # the probe learns from crops, too


def test_random_resized_crop_with_oversized_images_uses_them(tmp_path):
    """All features of crops change with the larger images; those of the images as they are do not."""
    config, small = CONFIG.replace(augment="random_resized_crop"), examples()
    oversized = np.random.default_rng(1).integers(0, 256, (len(small), 3, 45, 45), np.uint8)
    first, second = model("linear"), model("linear")
    train(first, small, config, cache=tmp_path)
    train(second, replace(small, oversized=oversized), config, cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 17 + 16
    assert max_relative_difference(first, second) > 0


@pytest.mark.parametrize("side", [None, 45])
def test_random_resized_crop_of_a_ramp_is_a_region_of_the_image(side):
    size, n = 32, 64
    ramp, oversized = (
        np.ascontiguousarray(np.broadcast_to(np.linspace(0, 248, s, dtype=np.uint8), (n, 3, s, s)))
        for s in (size, side or size)
    )
    preprocessing = replace(model().backbone.preprocessing, size=size, mean=(0, 0, 0), std=(1, 1, 1))
    dataset = DeviceDataset(
        Examples(ramp, np.zeros(n, np.int64), oversized if side else None), preprocessing, torch.device("cpu")
    )
    indices = np.arange(n)
    pixels = 255 * dataset.inputs(indices, "random_resized_crop", np.random.default_rng(0))
    again = 255 * dataset.inputs(indices, "random_resized_crop", np.random.default_rng(0))
    assert torch.equal(pixels, again)
    across = pixels[:, 0, :, -1].mean(1) - pixels[:, 0, :, 0].mean(1)
    assert 20 < (across < 0).sum() < 44  # half of them are mirrored
    assert (across.abs() / 248).min() > 0.6 and (
        across.abs() / 248
    ).max() <= 1  # sqrt(0.5 * 0.85) of the width at least
    assert (pixels - pixels[:, :, :1]).abs().max() == 0  # rows stay alike
    assert pixels.min() >= 0 and pixels.max() <= 248
