"""What is frozen is computed once: features, their cache, and random crops of which a few are kept."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from test_training import differences
from two_processes import RECIPE, examples, model
from vpt import TunedModel
from vpt.errors import DataError, SpecError
from vpt.training import Examples, Watcher, prototypes, train
from vpt.training.batches import Feed
from vpt.training.evaluation import logits_of
from vpt.training.feature_cache import what_must_run
from vpt.training.head_grid import check_grid


def test_prototypes_are_the_mean_features_of_the_frozen_backbone():
    tuned, data = model("vpt(length=3, init=prototypes)"), examples()
    inputs = tuned.backbone.preprocessing.normalise(torch.from_numpy(data.pixels))
    with torch.no_grad():
        features = model("linear").features(inputs)
    found = prototypes(tuned, data)
    for label in range(3):
        wanted = features[torch.from_numpy(data.labels == label)].mean(0)
        assert torch.allclose(found[label], wanted, rtol=1e-4, atol=1e-5)
    tuned.begin_at(found)
    with pytest.raises(SpecError, match="with 3 classes, write length=3"):
        model("vpt(length=4, init=prototypes)").begin_at(found)
    kept = data.labels != 1
    with pytest.raises(DataError, match="needs an image of every class, and 1 have none"):
        prototypes(tuned, Examples(data.pixels[kept], data.labels[kept]))


def test_frozen_features_are_computed_once_and_change_nothing(monkeypatch, tmp_path):
    cached, again, plain = model("linear"), model("linear"), model("linear")
    seen: list[int] = []
    cached.trunk.blocks[0].register_forward_pre_hook(lambda block, args: seen.append(len(args[0])))
    history = train(cached, examples(), RECIPE, validation=examples(seed=1), cache=tmp_path)
    assert sum(seen) == 2 * 24  # each image once, whatever the number of epochs
    assert len(list(tmp_path.iterdir())) == 2
    train(again, examples(), RECIPE, validation=examples(seed=1), cache=tmp_path)
    assert differences(again, cached) == 0
    monkeypatch.setattr(TunedModel, "only_head_trains", False)
    uncached = train(plain, examples(), RECIPE, validation=examples(seed=1))
    assert differences(cached, plain) < 1e-5
    assert [e.val_loss for e in history] == pytest.approx([e.val_loss for e in uncached], rel=1e-5)


def test_features_of_fixed_prompts_are_their_own(tmp_path):
    """They never train, but they hang: no cache may give them the features of a bare backbone, or of another draw."""
    for number, name in enumerate(("linear", "vpt(length=5, fixed=true)", "vpt(length=5, fixed=true)")):
        tuned = model(name)
        for tensor in tuned.owned_state().values():
            if not isinstance(tensor, nn.Parameter):
                tensor += number
        feed = Feed(examples(), tuned.backbone.preprocessing, torch.device("cpu"))
        with torch.no_grad():
            wanted = logits_of(tuned, feed)
        network = what_must_run(tuned, RECIPE, feed, cache=tmp_path)
        assert (logits_of(network, feed) - wanted).abs().max() < 1e-4
        assert len(list(tmp_path.iterdir())) == number + 1
    with pytest.raises(SpecError, match="hangs something that every seed draws anew"):
        check_grid(tuned, [RECIPE])


def test_features_that_a_head_reads_otherwise_are_kept_apart(tmp_path):
    found = []
    for name in ("linear", "linear(output=image_mean)", "linear(output=cls_image_mean)"):
        tuned = model(name)
        feed = Feed(examples(), tuned.backbone.preprocessing, torch.device("cpu"))
        what_must_run(tuned, RECIPE, feed, cache=tmp_path)
        found.append(feed.features)
    cls, mean, both = found
    assert not torch.equal(cls, mean)
    assert torch.allclose(both, torch.cat([cls, mean], dim=1), atol=1e-6)


@pytest.mark.parametrize("augment", ["flip", "crop"])
def test_augmentation_goes_past_the_cache_and_repeats(augment):
    larger = Examples(np.random.default_rng(0).integers(0, 256, (24, 3, 36, 36), np.uint8), examples().labels)
    recipe = replace(RECIPE, augment=augment)
    first, second, plain = model("linear"), model("linear"), model("linear")
    train(first, larger, recipe)
    train(second, larger, recipe)
    train(plain, larger, replace(recipe, augment="none"))
    assert differences(first, second) == 0
    assert differences(first, plain) > 0


def test_random_crops_of_each_image_are_drawn_once_and_their_features_kept(tmp_path, monkeypatch):
    recipe = replace(RECIPE, augment="resize_crop")
    heard: list[str] = []
    watcher = Watcher()
    monkeypatch.setattr(watcher, "note", heard.append)
    first, second, plain = model("linear"), model("linear"), model("linear")
    train(first, examples(), recipe, validation=examples(), cache=tmp_path, watcher=watcher)
    assert [file.suffix for file in tmp_path.iterdir()] == [
        ".safetensors"
    ] * 17  # the images, and sixteen crops of each
    assert "16 random crops of each image" in heard[0]
    monkeypatch.setattr("vpt.training.feature_cache.logits_of", None)  # nothing is computed a second time
    train(second, examples(), recipe, validation=examples(), cache=tmp_path)
    assert differences(first, second) == 0
    train(plain, examples(), replace(recipe, augment="none"), cache=tmp_path)
    assert differences(first, plain) > 0


def test_random_crops_where_more_than_the_head_trains(tmp_path):
    tuned = model()
    history = train(tuned, examples(), replace(RECIPE, augment="resize_crop", epochs=4))
    assert history[-1].train_loss < history[0].train_loss
    train(model(), examples(), replace(RECIPE, augment="resize_crop", probe_epochs=2), cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 17  # the probe learns from crops, too


def test_random_crops_are_cut_from_larger_images_where_they_are_given(tmp_path):
    """All features of crops change with the larger images; those of the images as they are do not."""
    recipe, small = replace(RECIPE, augment="resize_crop"), examples()
    larger = np.random.default_rng(1).integers(0, 256, (len(small), 3, 45, 45), np.uint8)
    first, second = model("linear"), model("linear")
    train(first, small, recipe, cache=tmp_path)
    train(second, replace(small, larger=larger), recipe, cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 17 + 16
    assert differences(first, second) > 0


@pytest.mark.parametrize("side", [None, 45])
def test_a_random_crop_is_a_part_of_the_image(side):
    size, n = 32, 64
    ramp, larger = (
        np.ascontiguousarray(np.broadcast_to(np.linspace(0, 248, s, dtype=np.uint8), (n, 3, s, s)))
        for s in (size, side or size)
    )
    preprocessing = replace(model().backbone.preprocessing, size=size, mean=(0, 0, 0), std=(1, 1, 1))
    feed = Feed(Examples(ramp, np.zeros(n, np.int64), larger if side else None), preprocessing, torch.device("cpu"))
    indices = np.arange(n)
    pixels = 255 * feed.inputs(indices, "resize_crop", np.random.default_rng(0))
    again = 255 * feed.inputs(indices, "resize_crop", np.random.default_rng(0))
    assert torch.equal(pixels, again)
    across = pixels[:, 0, :, -1].mean(1) - pixels[:, 0, :, 0].mean(1)
    assert 20 < (across < 0).sum() < 44  # half of them are mirrored
    assert (across.abs() / 248).min() > 0.6 and (
        across.abs() / 248
    ).max() <= 1  # sqrt(0.5 * 0.85) of the width at least
    assert (pixels - pixels[:, :, :1]).abs().max() == 0  # rows stay alike
    assert pixels.min() >= 0 and pixels.max() <= 248
