"""Augmentation: its text, torchvision's transforms behind it, and the same draws from the same generator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2

from helpers.comparison import max_relative_difference
from helpers.two_processes import CONFIG, examples, model
from vpt.data.preprocessing import Preprocessing
from vpt.errors import SpecError
from vpt.tasks.classification import ClassificationConfig, train
from vpt.training import Callback, DeviceDataset, make_augmentation, parse_augmentation

PLAIN = Preprocessing(size=32, mean=(0.5, 0.25, 0.75), std=(1, 1, 1))
EVERYTHING = "random_resized_crop + vertical_flip + rand_augment(num_ops=1) + random_erasing(p=0.5) + mixup + cutmix"


def image_of(seed: int = 0, side: int = 32) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (3, side, side), np.uint8))


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("none", "none"),
        ("flip", "flip"),
        ("random_crop", "random_crop"),
        ("cutmix+trivial_augment+ random_crop", "random_crop + trivial_augment + cutmix"),
        ("random_erasing+rand_augment(magnitude=9)", "random_erasing + rand_augment"),
        ("mixup(alpha=0.8) + cutmix(alpha=1)", "mixup + cutmix"),
        (EVERYTHING, EVERYTHING),
    ],
)
def test_config_with_augmentation_has_one_text_for_each(text, canonical):
    assert ClassificationConfig(augment=text).augment == canonical
    assert ClassificationConfig(augment=canonical) == ClassificationConfig(augment=text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hflip", "'hflip' is no augmentation; did you mean 'flip'"),
        ("flip + flip", r"'flip \+ flip' has flip twice; give it once"),
        ("random_crop + random_resized_crop", "has two crops; keep one of random_crop, random_resized_crop"),
        ("full", "full augments images of segmentation; classification has flip, vertical_flip, random_crop"),
        ("none + flip", "'none' is no augmentation"),
        ("mixup(alpha=0)", r"mixup\(alpha=0.0\) needs an alpha above 0"),
        ("random_erasing(p=2)", r"random_erasing\(p=2.0\) needs a p above 0 and at most 1"),
        (
            "rand_augment(magnitude=31)",
            r"rand_augment\(magnitude=31\) needs num_ops of at least 1, and a magnitude from",
        ),
        ("rand_augment(strength=3)", "has no field 'strength'"),
    ],
)
def test_config_with_an_unusable_augmentation_is_refused(text, message):
    with pytest.raises(SpecError, match=message):
        ClassificationConfig(augment=text)


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("trivial_augment", v2.TrivialAugmentWide()),
        ("rand_augment(num_ops=3, magnitude=12)", v2.RandAugment(3, 12)),
        ("vertical_flip", v2.RandomVerticalFlip()),
        ("random_erasing(p=0.9)", v2.RandomErasing(0.9, value=(128, 64, 191))),
    ],
)
def test_augmentation_of_an_image_equals_torchvisions(text: str, reference: Callable[[Tensor], Tensor]):
    changed = 0
    for seed in range(20):
        found = make_augmentation(text, PLAIN)(image_of(), np.random.default_rng(seed))
        with torch.random.fork_rng():
            torch.manual_seed(int(np.random.default_rng(seed).integers(2**63)))
            expected = reference(image_of())
        assert found.dtype == torch.uint8 and torch.equal(found, expected)
        changed += not torch.equal(found, image_of())
    assert changed >= 5


def test_augmentation_of_an_image_leaves_torchs_generator_as_it_was():
    before = torch.random.get_rng_state()
    make_augmentation(EVERYTHING, PLAIN)(image_of(side=45), np.random.default_rng(0))
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("text", ["flip", "random_crop", "random_resized_crop + trivial_augment"])
def test_augmentation_of_one_image_equals_that_of_a_batch_of_one(text):
    oversized = np.random.default_rng(1).integers(0, 256, (1, 3, 45, 45), np.uint8)
    data = replace(examples(1), oversized=None if text == "flip" else oversized)
    dataset = DeviceDataset(data, PLAIN, torch.device("cpu"))
    whole = torch.from_numpy(data.pixels[0] if text == "flip" else oversized[0])
    for seed in range(5):
        expected = dataset.inputs(np.arange(1), text, np.random.default_rng(seed))
        found = make_augmentation(text, PLAIN)(whole, np.random.default_rng(seed))
        assert torch.equal(PLAIN.normalize(found[None]), expected)


class Interrupt(Callback):
    def on_step(self, epoch: int, step: int, loss: float, lr: float) -> None:
        if (epoch, step) == (2, 2):
            raise KeyboardInterrupt


def test_train_resumed_with_every_augmentation_is_bit_identical(tmp_path):
    config, method = CONFIG.replace(augment=EVERYTHING, epochs=2), "vpt(length=3, dropout=0.3)"
    unbroken, again, plain = model(method), model(method), model(method)
    train(unbroken, examples(), config)
    with pytest.raises(KeyboardInterrupt):
        train(model(method), examples(), config, checkpoint=tmp_path / "c.safetensors", callback=Interrupt())
    train(again, examples(), config, checkpoint=tmp_path / "c.safetensors")
    assert max_relative_difference(again, unbroken) == 0
    train(plain, examples(), CONFIG.replace(epochs=2))
    assert max_relative_difference(plain, unbroken) > 0


def test_train_linear_with_mixup_bypasses_the_cache(monkeypatch):
    notes: list[str] = []
    callback = Callback()
    monkeypatch.setattr(callback, "on_note", notes.append)
    train(
        model("linear"), examples(), CONFIG.replace(augment="random_resized_crop + mixup", epochs=1), callback=callback
    )
    assert notes == [
        "augment=random_resized_crop + mixup makes every image new, so nothing frozen can be computed in advance"
    ]


def test_augmentation_of_an_image_runs_in_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean of torchvision's contrast depends on the number of threads, which workers have one of."""
    seen: list[int] = []

    def contrast(image: Tensor) -> Tensor:
        seen.append(torch.get_num_threads())
        return image

    monkeypatch.setattr("vpt.training.augmentation_terms.v2.TrivialAugmentWide", lambda: contrast)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        make_augmentation("trivial_augment", PLAIN)(image_of(), np.random.default_rng(0))
        assert seen == [1] and torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_parse_augmentation_tells_crop_flip_and_mixing():
    everything, crop, flip = map(parse_augmentation, (EVERYTHING, "random_crop", "flip"))
    assert everything.mixing is not None and (everything.mixing.mixup_alpha, everything.mixing.cutmix_alpha) == (0.8, 1)
    assert (crop.crop, crop.flips, crop.mixing) == ("random_crop", True, None)
    assert (flip.crop, flip.flips) == (None, True)
    assert parse_augmentation("vertical_flip").flips is False


def test_images_are_on_the_device_of_the_model():
    dataset = DeviceDataset(examples(2), PLAIN, torch.device("meta"))  # as MPS, neither CPU nor CUDA
    assert dataset.inputs(np.arange(2)).device.type == "meta"
