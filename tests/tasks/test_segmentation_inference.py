"""Scores, losses and inference of segmentation: confusion counts, sliding windows, rows of an image."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import confusion_matrix as reference_confusion_matrix
from torch import nn

from helpers.segmentation import new_model
from vpt import attach
from vpt.data.masks.dataset import load_segmentation_dataset
from vpt.data.masks.files import load_pair
from vpt.data.masks.schemes import IGNORE_INDEX
from vpt.errors import DataError, SpecError
from vpt.tasks.segmentation.config import SegmentationConfig, refuse_ineffective_weights
from vpt.tasks.segmentation.objective import (
    SegmentationObjective,
    cross_entropy,
    dice_loss,
    median_frequency_weights,
)
from vpt.tasks.segmentation.prediction import PixelScores, predict_masks, score_split
from vpt.tasks.segmentation.sliding_window import (
    InferenceConfig,
    predict_rows,
    sliding_window_logits,
    window_starts,
)
from vpt.training.evaluation import confusion_matrix


def test_pixel_scores_of_random_masks_equal_sklearn():
    rng = np.random.default_rng(0)
    true, predicted = rng.integers(0, 4, (2, 20, 30))
    true[:2] = IGNORE_INDEX
    counts = confusion_matrix(torch.from_numpy(predicted), torch.from_numpy(true), 5)
    known = true != IGNORE_INDEX
    assert np.array_equal(counts, reference_confusion_matrix(true[known], predicted[known], labels=range(5)))
    scores = PixelScores(counts.numpy(), loss=0.0)
    ious = []
    for k in range(4):
        both = sum(t == k and s == k for t, s in zip(true[known], predicted[known], strict=True))
        either = sum(t == k or s == k for t, s in zip(true[known], predicted[known], strict=True))
        ious.append(both / either)
    assert scores.per_class[:4] == pytest.approx(ious) and np.isnan(scores.per_class[4])
    accuracy = (true == predicted)[known].mean()
    assert scores.metrics == pytest.approx({"miou": np.mean(ious), "pixel_accuracy": accuracy})


def test_window_starts_of_each_length_cover_the_image():
    assert window_starts(48, 48, 1 / 3) == [0] and window_starts(30, 48, 1 / 3) == [0]
    for length in (49, 64, 100, 333):
        found = window_starts(length, 48, 1 / 3)
        assert found[0] == 0 and found[-1] == length - 48
        assert max(b - a for a, b in pairwise(found)) <= 33


def test_predict_rows_in_strips_equal_the_whole_image(ade20k, monkeypatch):
    model = attach("vit_nano_patch12_48", "linear", 5, head="linear").eval()
    with torch.no_grad():
        for weight in model.trainable_parameters():
            weight.normal_()
    dataset = load_segmentation_dataset(ade20k)
    lookup_table = dataset.lookup_table.clip(0, 4)
    lookup_table[dataset.lookup_table == IGNORE_INDEX] = IGNORE_INDEX
    dataset = replace(dataset, lookup_table=lookup_table, classes=dataset.classes[:5])
    image = torch.from_numpy(load_pair(dataset.splits["val"], 0, lookup_table)[0])
    inference = InferenceConfig(scales=(0.5, 1.0, 2.0), flip=True)
    ((rows, whole),) = predict_rows(model, image, inference)
    assert (rows.start, rows.stop) == (0, 52) and torch.allclose(whole.sum(0), torch.ones(52, 70), atol=1e-5)
    scores = score_split(model, dataset, "val", inference)
    monkeypatch.setattr("vpt.tasks.segmentation.sliding_window._MAX_PROBABILITIES", 5 * 70 * 7)
    parts = list(predict_rows(model, image, inference))
    assert [part.stop - part.start for part, _ in parts] == [7] * 7 + [3]
    assert torch.allclose(torch.cat([found for _, found in parts], 1), whole, atol=1e-5)
    same = score_split(model, dataset, "val", inference)
    assert same.loss == pytest.approx(scores.loss, rel=1e-5) and np.array_equal(scores.confusion, same.confusion)


def test_sliding_window_logits_with_overlap_equal_the_mean_of_passes(ade20k):
    model, _ = new_model(ade20k)
    image = torch.randn(1, 3, 48, 72, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(
            sliding_window_logits(model, image[..., :48], InferenceConfig()), model(image[..., :48]), atol=1e-6
        )
        found = sliding_window_logits(model, image, InferenceConfig(overlap=0.5))
        left, right = model(image[..., :48]), model(image[..., 24:])
    assert torch.allclose(found[..., :24], left[..., :24], atol=1e-5)
    assert torch.allclose(found[..., 24:48], (left[..., 24:] + right[..., :24]) / 2, atol=1e-5)


def test_predict_rows_with_scales_and_flip_equals_the_mean_of_passes_by_hand():
    model = attach("vit_nano_patch12_48", "linear", 3, head="linear").eval()
    image = torch.randint(0, 256, (3, 52, 70), generator=torch.Generator().manual_seed(0)).to(torch.uint8)

    def window(pixels, top, left):
        return model(pixels[..., top : top + 48, left : left + 48])

    def small(pixels):  # 24 x 32 px: a part of one window
        return window(nn.functional.pad(pixels, (0, 16, 0, 24)), 0, 0)[..., :24, :32]

    def large(pixels):  # 96 x 129 px: windows that overlap by a third or more
        total, count = torch.zeros(1, 3, 96, 129), torch.zeros(96, 129)
        for top in (0, 24, 48):
            for left in (0, 27, 54, 81):
                total[..., top : top + 48, left : left + 48] += window(pixels, top, left)
                count[top : top + 48, left : left + 48] += 1
        return total / count

    with torch.no_grad():
        for weight in model.trainable_parameters():
            weight.normal_(generator=torch.Generator().manual_seed(1))
        maps = []
        for size, f in (((24, 32), small), ((96, 129), large)):
            pixels = nn.functional.interpolate(image[None].float(), size, mode="bilinear", antialias=True)
            x = model.backbone.preprocessing.normalize(pixels)
            maps += [f(x), f(x.flip(-1)).flip(-1)]
        expected = sum(nn.functional.interpolate(each, (52, 70), mode="bilinear").softmax(1)[0] for each in maps) / 4
        ((_, found),) = predict_rows(model, image, InferenceConfig(scales=(0.5, 2.0), flip=True))
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("values", [{"overlap": 1.0}, {"overlap": -0.1}, {"scales": ()}, {"scales": (1.0, 0.0)}])
def test_inference_options_out_of_range_are_refused(values):
    with pytest.raises(SpecError, match=next(iter(values))):
        InferenceConfig(**values)


def test_losses_with_ignored_pixels_equal_reference():
    torch.manual_seed(0)
    logits, masks = torch.randn(2, 3, 4, 5), torch.randint(0, 3, (2, 4, 5))
    masks[0, 0] = IGNORE_INDEX
    own = sum(
        nn.functional.cross_entropy(a[None], b[None], ignore_index=IGNORE_INDEX)
        for a, b in zip(logits, masks, strict=True)
    )
    assert torch.allclose(cross_entropy(logits, masks), own)
    weights = torch.tensor([1.0, 2.0, 0.5])
    own = sum(
        nn.functional.cross_entropy(a[None], b[None], weights, ignore_index=IGNORE_INDEX)
        for a, b in zip(logits, masks, strict=True)
    )
    assert torch.allclose(cross_entropy(logits, masks, weights), own)
    masks[1][masks[1] == 2] = 0  # an image without the last class
    dice = 0.0
    for shares, mask in zip(logits.softmax(1).double().numpy(), masks.numpy(), strict=True):
        known, of_classes = mask != IGNORE_INDEX, []
        for k in range(3):
            inside, shared = (mask == k).sum(), shares[k][mask == k].sum()
            of_classes += [(2 * shared + 1) / (shares[k][known].sum() + inside + 1)] if inside else []
        dice += 1 - np.mean(of_classes)
    assert len(of_classes) == 2 and dice_loss(logits, masks).item() == pytest.approx(dice, rel=1e-5)
    perfect = 50.0 * nn.functional.one_hot(masks.where(masks != IGNORE_INDEX, 0), 3).permute(0, 3, 1, 2)
    assert dice_loss(perfect, masks) < 1e-4 < dice_loss(logits, masks)


def test_loss_adds_the_weighted_losses_of_auxiliary_heads(ade20k):
    dataset = load_segmentation_dataset(ade20k, "plain", ignore_index=0)
    model = attach("vit_nano_patch12_48", "linear", len(dataset.classes), head="setr_pup(channels=8, auxiliary=2)")
    model.eval()
    objective = SegmentationObjective(model, dataset, SegmentationConfig(auxiliary_weight=0.3))
    (draws, *_) = objective.batches(0)
    objective.plan(0, [draws])
    with torch.no_grad():
        loss, _ = objective.loss(draws, np.random.default_rng(0))
        images, masks = objective.crops.load(draws, (0, 0))
        logits = model.logits_with_auxiliary(model.backbone.preprocessing.normalize(images))
        main, *others = (cross_entropy(each, masks.long()) for each in logits)
    assert len(others) == 2 and loss.item() == pytest.approx((main + 0.3 * sum(others)).item(), rel=1e-5)


def test_predict_masks_of_images_that_share_a_name_names_each(ade20k, tmp_path):
    model, _ = new_model(ade20k)
    paths = [tmp_path / folder / f"{name}.png" for folder in "ab" for name in ("same", folder)]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (48, 48)).save(path)
    with pytest.raises(DataError, match="2 images cannot be used") as caught:
        predict_masks(model, paths, tmp_path / "out", InferenceConfig())
    assert str(caught.value).count("another image is also named same") == 2
    assert len(predict_masks(model, paths, None, InferenceConfig())) == 4


def test_median_frequency_weights_count_the_images_of_a_class_alone():
    counts = np.array([[50, 50, 0, 0], [25, 0, 75, 0]])  # frequencies 75 / 200, 50 / 100, 75 / 100
    expected = torch.tensor([0.5 / 0.375, 1.0, 0.5 / 0.75, 0.0])
    assert torch.allclose(median_frequency_weights(counts), expected)


def test_class_weights_without_cross_entropy_are_refused():
    with pytest.raises(SpecError, match=r"class_weights is balanced, .* and loss is dice; give the loss ce or ce"):
        refuse_ineffective_weights({"loss": "dice", "class_weights": "balanced"})
    refuse_ineffective_weights({"loss": "ce+dice", "class_weights": "balanced"})


def test_predict_masks_of_a_long_strip_is_refused(ade20k, tmp_path):
    model, _ = new_model(ade20k)
    strip, image, notes = tmp_path / "strip.png", tmp_path / "image.png", []
    Image.new("RGB", (850, 50)).save(strip)
    Image.new("RGB", (800, 50)).save(image)
    with pytest.raises(DataError, match=r"strip\.png: the image is 850 x 50 px; .* at most 16 times .*; crop it"):
        predict_masks(model, [strip, image], None, InferenceConfig())
    kept = predict_masks(model, [strip, image], None, InferenceConfig(), skip_corrupt=True, on_note=notes.append)
    assert [one.image for one in kept] == [str(image)] and "left out" in notes[0]


def test_predict_masks_leaves_its_own_pictures_out(ade20k, tmp_path):
    model, _ = new_model(ade20k)
    for name in ("a", "b.mask"):
        Image.new("RGB", (48, 48)).save(tmp_path / f"{name}.png")
    names, notes = [], []
    for _ in range(2):
        images = sorted(tmp_path.iterdir())
        found = predict_masks(model, images, tmp_path, InferenceConfig(), on_note=notes.append)
        names.append([Path(one.image).name for one in found])
    assert names == [["a.png", "b.mask.png"]] * 2
    assert len(notes) == 1 and "earlier predictions" in notes[0] and "a.overlay.png" in notes[0]
    assert len(predict_masks(model, images, None, InferenceConfig())) == len(images)
