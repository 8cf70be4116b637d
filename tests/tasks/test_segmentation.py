"""Segmentation from folder to figures, on a miniature ADE20K of the real layout."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import confusion_matrix as reference_confusion_matrix
from torch import nn

import vpt
from vpt import attach, inspect, load
from vpt.backbones import Backbone
from vpt.cli import main
from vpt.data.joint_augmentation import JointAugmentation
from vpt.data.mask_files import load_pair
from vpt.data.mask_labels import IGNORE_INDEX, LABEL_SCHEMES, palette
from vpt.data.segmentation_folder import load_segmentation_dataset
from vpt.errors import DataError, ExitCode, SpecError
from vpt.methods import parse_method
from vpt.tasks.segmentation import SegmentationConfig, SegmentationObjective
from vpt.tasks.segmentation.evaluation import score_pairs
from vpt.tasks.segmentation.objective import cross_entropy, dice_loss, median_frequency_weights
from vpt.tasks.segmentation.scores import PixelScores, confusion_matrix
from vpt.tasks.segmentation.sliding_window import (
    InferenceConfig,
    predict_classes,
    predict_rows,
    sliding_window_logits,
    window_starts,
)
from vpt.training import Callback, EpochMetrics, fit
from vpt.training.job import Job
from vpt.tuning import make_job

SMALL = ["--image-size", "48", "--batch-size", "2", "--iterations", "4", "--eval-every", "2", "--head", "linear"]


def write_split(folder: Path, masks: Path, count: int, suffix: str = ".jpg", first_id: int = 1) -> None:
    """Light squares on a dark ground: ground has the id `first_id`, squares the next."""
    rng = np.random.default_rng(count)
    for directory in (folder, masks):
        directory.mkdir(parents=True)
    for i in range(count):
        pixels = rng.integers(0, 60, (52, 70, 3), dtype=np.uint8)
        mask = np.full((52, 70), first_id, dtype=np.uint8)
        top, left = rng.integers(5, 25, 2)
        pixels[top : top + 20, left : left + 20] += 150
        mask[top : top + 20, left : left + 20] = first_id + 1
        mask[:3] = 0 if first_id else IGNORE_INDEX
        Image.fromarray(pixels).save(folder / f"scene_{i}{suffix}")
        Image.fromarray(mask).save(masks / f"scene_{i}.png")


@pytest.fixture(scope="module")
def ade20k(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ADEChallengeData2016")
    write_split(root / "images/training", root / "annotations/training", 6)
    write_split(root / "images/validation", root / "annotations/validation", 2)
    return root


@pytest.fixture(scope="module")
def tuned(ade20k: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tuned") / "ade.safetensors"
    run_main("tune", ade20k, "--out", out, "--method", "vpt(length=2)", *SMALL)
    return out


def run_main(*args: object) -> None:
    """`main` returns where a command succeeds."""
    main([str(arg) for arg in args])


def test_tune_segmentation_with_classification_head_is_refused(
    ade20k: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main(["tune", str(ade20k), "--out", str(tmp_path / "x.safetensors"), "--head", "multi_block(blocks=last4)"])
    assert left.value.code == ExitCode.USAGE
    assert "'multi_block' is no head of segmentation; known: fpn, linear, setr_pup" in capsys.readouterr().err


def test_segmentation_commands_on_ade20k_tune_eval_and_predict(ade20k, tuned, tmp_path, capsys):
    result = json.loads((tuned.with_suffix(".run") / "result.json").read_text())
    assert result["status"] == "done" and result["eval_split"] == "val" and len(result["per_class"]) == 150
    assert [epoch["epoch"] for epoch in result["history"]] == [1, 2]
    for name in ("curve.png", "confusion.png"):
        with Image.open(tuned.with_suffix(".run") / name) as picture_of_the_run:
            assert min(picture_of_the_run.size) > 300
    header = inspect(tuned)
    assert header.head == "linear()" or header.head == "linear"
    assert header.parameter_counts["head"] == result["head_parameters"]
    capsys.readouterr()
    run_main("inspect", tuned)
    assert f"{header.parameter_counts['head']:,}" in capsys.readouterr().out
    run_main("eval", tuned, ade20k, "--split", "val", "--json")
    evaluated = json.loads(capsys.readouterr().out)
    assert evaluated["miou"] == pytest.approx(result["metrics"]["val_miou"], abs=1e-12)
    run_main("eval", tuned, ade20k, "--split", "val", "--scales", "0.75,1", "--flip", "--json")
    assert json.loads(capsys.readouterr().out)["images"] == 2
    picture = ade20k / "images/validation/scene_0.jpg"
    run_main("predict", tuned, picture, "--out", tmp_path, "--json")
    found = json.loads(capsys.readouterr().out)
    with Image.open(found["mask"]) as mask, Image.open(found["overlay"]) as overlay:
        assert mask.mode == "P" and mask.size == (70, 52) and overlay.width > 70
        ids = np.asarray(mask)
        assert sum(pair["fraction"] for pair in found["classes"]) == pytest.approx(1)
        assert mask.getpalette()[:6] == [0, 0, 0, 128, 0, 0]
    model = load(tuned)
    pixels = torch.from_numpy(np.asarray(Image.open(picture).convert("RGB")).transpose(2, 0, 1).copy())
    assert np.array_equal(predict_classes(model, pixels, InferenceConfig()).numpy(), ids)


def test_predict_of_image_in_memory_returns_mask_and_writes_on_request(
    tuned: Path, ade20k: Path, tmp_path: Path
) -> None:
    picture = next(iter(sorted((ade20k / "images/validation").glob("*.jpg"))))
    with Image.open(picture) as image:
        pixels = np.asarray(image.convert("RGB"))
    found = vpt.predict(tuned, pixels)
    assert found.mask is not None and found.mask.shape == pixels.shape[:2]
    assert found.label == found.top[0][0] and sum(fraction for _, fraction in found.top) == pytest.approx(1)
    assert (found.mask_file, found.overlay_file) == (None, None)
    (written,) = vpt.predict(vpt.load(tuned), [picture], out=tmp_path / "masks")
    assert written.mask is not None and np.array_equal(written.mask, found.mask)
    assert {path.name for path in (tmp_path / "masks").iterdir()} == {
        f"{picture.stem}.mask.png", f"{picture.stem}.overlay.png",
    }  # fmt: skip
    with pytest.raises(vpt.SpecError, match="top: for classification, and the model is for segmentation"):
        vpt.predict(tuned, pixels, top=1)


def test_classification_options_for_segmentation_are_refused(ade20k, tuned, tmp_path, capsys):
    picture = ade20k / "images/validation/scene_0.jpg"
    for arguments, option in (
        (
            ("tune", ade20k, "--out", tmp_path / "x.safetensors", *SMALL, "--interpolation", "bicubic"),
            "--interpolation",
        ),
        (("tune", ade20k, "--out", tmp_path / "x.safetensors", *SMALL, "--resize", "squash"), "--resize"),
        (("eval", tuned, ade20k, "--split", "val", "--skip-corrupt"), "--skip-corrupt"),
        (("predict", tuned, picture, "--out", tmp_path, "--top", 2), "--top"),
    ):
        with pytest.raises(SystemExit) as left:
            run_main(*arguments)
        assert left.value.code == ExitCode.USAGE
        assert f"{option}: for classification, and" in capsys.readouterr().err
    with pytest.raises(SpecError, match=r"resize: for classification, and .* is for segmentation"):
        make_job(ade20k, tmp_path / "x.safetensors", resize="crop")
    with pytest.raises(SpecError, match=r"resize is no option of segmentation"):
        Job.create(ade20k, tmp_path / "x.safetensors", small(), resize="crop")
    with pytest.raises(SpecError, match="augment is 'random_crop'; known: flip, full, none"):
        small(augment="random_crop")


def small(**options: object) -> SegmentationConfig:
    config = SegmentationConfig.for_method(
        parse_method("vpt(length=2)"), batch_size=2, iterations=8, eval_every=2, learning_rate=1.0
    )
    return config.replace(**options)


def new_model(ade20k: Path) -> tuple[nn.Module, object]:
    torch.manual_seed(0)
    dataset = load_segmentation_dataset(ade20k, "plain", ignore_index=0)
    from vpt import load_backbone

    backbone: Backbone = load_backbone(image_size=48)
    return attach(backbone, "vpt(length=2)", len(dataset.classes), head="linear").eval(), dataset


def test_segmentation_commands_on_voc_layout_tune_eval_and_predict(tmp_path, capsys):
    root = tmp_path / "VOC2012"
    write_split(root / "JPEGImages", root / "SegmentationClass", 7)
    for path in (root / "SegmentationClass").iterdir():
        with Image.open(path) as mask:
            ids = np.asarray(mask).copy()
        ids[-2:] = 255  # the rim of things
        colors = Image.fromarray(ids)
        colors.putpalette(  # as VOC has them: an index
            np.repeat(np.arange(256, dtype=np.uint8), 3).tobytes()
        )
        colors.save(path)
    (root / "ImageSets/Segmentation").mkdir(parents=True)
    for part, which in (("train", range(4)), ("val", range(4, 7))):
        (root / f"ImageSets/Segmentation/{part}.txt").write_text("".join(f"scene_{i}\n" for i in which))

    results = {}
    for name, options in {"watched": [], "whole": ["--train-on", "trainval"], "held": ["--val-as-test"]}.items():
        out = tmp_path / f"{name}.safetensors"
        run_main("tune", root, "--out", out, "--method", "bias", *SMALL, *options)
        results[name] = json.loads((out.with_suffix(".run") / "result.json").read_text())
    assert {name: (result["eval_split"], result["images"]) for name, result in results.items()} == {
        "watched": ("val", {"train": 4, "val": 3}),
        "whole": ("train", {"train": 7}),
        "held": ("test", {"train": 3, "val": 1, "test": 3}),
    }
    assert len(results["watched"]["per_class"]) == 21 and "aeroplane" in results["watched"]["per_class"]
    tuned = tmp_path / "watched.safetensors"
    capsys.readouterr()
    run_main("eval", tuned, root, "--split", "val", "--json")
    assert json.loads(capsys.readouterr().out)["miou"] == results["watched"]["metrics"]["val_miou"]
    run_main("predict", tuned, root / "JPEGImages" / "scene_5.jpg", "--out", tmp_path / "predicted")
    with Image.open(tmp_path / "predicted" / "scene_5.mask.png") as mask:
        assert mask.size == (70, 52) and np.asarray(mask).max() < 21


def test_fit_resumed_after_interrupt_is_bit_identical(ade20k, tmp_path):
    class Interrupt(Callback):
        def on_epoch(self, record: EpochMetrics) -> None:
            if record.epoch == 2:
                raise KeyboardInterrupt

    whole, dataset = new_model(ade20k)
    history = fit(whole, SegmentationObjective(whole, dataset, small()), small())
    assert history[-1].train_loss < history[0].train_loss
    path = tmp_path / "checkpoint.safetensors"
    part, dataset = new_model(ade20k)
    with pytest.raises(KeyboardInterrupt):
        fit(part, SegmentationObjective(part, dataset, small()), small(), checkpoint=path, callback=Interrupt())
    again, dataset = new_model(ade20k)
    fit(again, SegmentationObjective(again, dataset, small()), small(), checkpoint=path)
    for name, tensor in whole.trainable_state_dict().items():
        assert torch.equal(tensor, again.trainable_state_dict()[name]), name


def test_load_segmentation_dataset_with_faults_names_all(ade20k, tmp_path):
    write_split(tmp_path / "images", tmp_path / "masks", 5, first_id=0)
    (tmp_path / "masks/scene_0.png").unlink()
    (tmp_path / "images/scene_1.jpg").unlink()
    Image.new("L", (30, 20)).save(tmp_path / "masks/scene_2.png")
    Image.new("L", (70, 52), 9).save(tmp_path / "masks/scene_3.png")
    Image.new("RGB", (70, 52)).save(tmp_path / "masks/scene_4.png")
    with pytest.raises(DataError) as caught:
        load_segmentation_dataset(tmp_path, classes=("ground", "square"))
    text = str(caught.value)
    for part in (
        "scene_0.jpg: an image without a mask",
        "scene_1.png: a mask without an image",
        "70 x 52 px, its mask 30 x 20",
        "ids 9 of the mask",
        "mode RGB",
    ):
        assert part in text, text


@pytest.mark.parametrize(
    ("images", "masks", "labels"),
    [
        ("train", "trainannot", "camvid"),
        ("images/train", "masks/train", "plain"),
        ("train/images", "train/masks", "plain"),
    ],
)
def test_load_segmentation_dataset_of_each_layout_finds_splits(tmp_path, images, masks, labels):
    write_split(tmp_path / images, tmp_path / masks, 3, ".png", first_id=0)
    dataset = load_segmentation_dataset(tmp_path, val_fraction=0.34)
    assert {part: len(pairs) for part, pairs in dataset.splits.items()} == {"train": 2, "val": 1}
    assert dataset.classes == (LABEL_SCHEMES[labels].classes or ("0", "1"))
    assert dataset.pixel_counts.sum() == 2 * 49 * 70


def test_load_segmentation_dataset_of_cityscapes_maps_ids(tmp_path):
    write_split(tmp_path / "leftImg8bit/train/bonn", tmp_path / "gtFine/train/bonn", 1, ".png", first_id=7)
    (tmp_path / "leftImg8bit/train/bonn/scene_0.png").rename(tmp_path / "leftImg8bit/train/bonn/a_leftImg8bit.png")
    (tmp_path / "gtFine/train/bonn/scene_0.png").rename(tmp_path / "gtFine/train/bonn/a_gtFine_labelIds.png")
    dataset = load_segmentation_dataset(tmp_path, val_fraction=0)
    _, mask = load_pair(dataset.splits["train"], 0, dataset.lookup_table)
    assert set(np.unique(mask)) == {0, 1, IGNORE_INDEX} and dataset.classes[:2] == ("road", "sidewalk")


def test_label_schemes_of_each_dataset_have_its_classes():
    assert {name: len(row.classes) for name, row in LABEL_SCHEMES.items()} == {
        "ade20k": 150, "cityscapes": 19, "voc": 21, "camvid": 11, "plain": 0,
    }  # fmt: skip
    assert all(len(set(row.classes)) == len(row.classes) for row in LABEL_SCHEMES.values())
    assert len(np.unique(palette(150), axis=0)) == 150
    ade20k = LABEL_SCHEMES["ade20k"].lookup_table(150)
    assert (ade20k[0], ade20k[1], ade20k[150], ade20k[151]) == (IGNORE_INDEX, 0, 149, -1)


def test_pixel_scores_of_random_masks_equal_sklearn():
    rng = np.random.default_rng(0)
    true, predicted = rng.integers(0, 4, (2, 20, 30))
    true[:2] = IGNORE_INDEX
    counts = confusion_matrix(torch.from_numpy(predicted), torch.from_numpy(true), 5)
    known = true != IGNORE_INDEX
    assert np.array_equal(counts, reference_confusion_matrix(true[known], predicted[known], labels=range(5)))
    scores = PixelScores(counts.numpy())
    ious = []
    for k in range(4):
        both = sum(t == k and s == k for t, s in zip(true[known], predicted[known], strict=True))
        either = sum(t == k or s == k for t, s in zip(true[known], predicted[known], strict=True))
        ious.append(both / either)
    assert scores.per_class[:4] == pytest.approx(ious) and np.isnan(scores.per_class[4])
    assert scores.miou == pytest.approx(np.mean(ious))
    assert scores.pixel_accuracy == pytest.approx((true == predicted)[known].mean())


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
    pairs = replace(dataset.splits["val"])
    table = np.where(dataset.lookup_table == IGNORE_INDEX, IGNORE_INDEX, dataset.lookup_table.clip(0, 4)).astype(
        np.int16
    )
    image = torch.from_numpy(load_pair(pairs, 0, table)[0])
    inference = InferenceConfig(scales=(0.5, 1.0, 2.0), flip=True)
    ((rows, whole),) = predict_rows(model, image, inference)
    assert (rows.start, rows.stop) == (0, 52) and torch.allclose(whole.sum(0), torch.ones(52, 70), atol=1e-5)
    loss, scores = score_pairs(model, pairs, table, inference)
    monkeypatch.setattr("vpt.tasks.segmentation.sliding_window._MAX_PROBABILITIES", 5 * 70 * 7)
    parts = list(predict_rows(model, image, inference))
    assert [part.stop - part.start for part, _ in parts] == [7] * 7 + [3]
    assert torch.allclose(torch.cat([found for _, found in parts], 1), whole, atol=1e-5)
    again, same = score_pairs(model, pairs, table, inference)
    assert again == pytest.approx(loss, rel=1e-5) and np.array_equal(scores.confusion, same.confusion)


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


def test_joint_augmentation_of_image_and_mask_keeps_them_aligned():
    mask = torch.zeros(40, 60, dtype=torch.uint8)
    mask[10:30, 20:50] = 7
    image = mask.repeat(3, 1, 1) * 30
    for seed in range(20):
        found, cut = JointAugmentation(color_jitter=0.0)(image, mask, 32, np.random.default_rng(seed))
        assert found.shape == (3, 32, 32) and set(cut.unique().tolist()) <= {0, 7, IGNORE_INDEX}
        known = cut != IGNORE_INDEX
        wrong = ((found[0] > 105) != (cut == 7)) & known
        assert wrong.float().mean() < 0.06, seed


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
    perfect = 50.0 * nn.functional.one_hot(masks.where(masks != IGNORE_INDEX, 0), 3).permute(0, 3, 1, 2)
    assert dice_loss(perfect, masks) < 1e-4 < dice_loss(logits, masks)
    assert torch.equal(median_frequency_weights(np.array([50, 25, 0, 100])), torch.tensor([1.0, 2.0, 0.0, 0.5]))


def test_segmentation_config_with_iterations_derives_epochs_and_rates():
    config = SegmentationConfig.for_method(parse_method("full"), iterations=10, eval_every=4, batch_size=8)
    assert config.num_epochs == 3
    peak = config.training.learning_rate * 8 / 256
    assert config.lr_at(5, 12, 4) == pytest.approx(peak * 0.5**0.9)
    assert config.training.learning_rate * config.training.head_lr_scale == pytest.approx(0.03)
    with pytest.raises(SpecError, match="iterations"):
        SegmentationConfig(iterations=0)


def write_scene(root: Path, mask: np.ndarray, images: str = "images", masks: str = "masks") -> Path:
    for i, (folder, pixels) in enumerate(((images, np.zeros((*mask.shape, 3), np.uint8)), (masks, mask)) * 2):
        (root / folder).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / folder / f"{i // 2}.png")
    return root


def test_load_segmentation_dataset_with_ignore_index_ignores_that_class(tmp_path):
    mask = np.zeros((16, 16), np.uint8)
    mask[4:] = 1
    dataset = load_segmentation_dataset(write_scene(tmp_path, mask), ignore_index=0)
    assert dataset.lookup_table[0] == IGNORE_INDEX and dataset.lookup_table[1] == 1
    assert dataset.pixel_counts.tolist() == [0, 192]
    assert set(np.unique(load_pair(dataset.splits["train"], 0, dataset.lookup_table)[1])) == {1, IGNORE_INDEX}
    for wrong in (-1, 70_000):
        with pytest.raises(SpecError, match="0 to 65535"):
            load_segmentation_dataset(tmp_path, ignore_index=wrong)


def test_load_segmentation_dataset_of_more_than_255_classes_is_refused(tmp_path):
    mask = np.zeros((16, 16), np.uint16)
    mask[4:] = 300
    with pytest.raises(DataError, match=r"301 classes .*the maximum is 255"):
        load_segmentation_dataset(write_scene(tmp_path, mask))
    assert load_segmentation_dataset(tmp_path, ignore_index=300).classes == ("0",)


def test_load_segmentation_dataset_with_split_without_masks_is_refused(tmp_path):
    mask = np.zeros((16, 16), np.uint8)
    write_scene(tmp_path, mask, "images/train", "masks/train")
    (tmp_path / "images/val").mkdir()
    with pytest.raises(DataError, match=r"images/val: there is no masks/val for it"):
        load_segmentation_dataset(tmp_path)
    (tmp_path / "images/val").rmdir()
    with pytest.raises(SpecError, match=r"val_fraction is 5"):
        load_segmentation_dataset(tmp_path, val_fraction=5)


def test_class_file_with_duplicate_names_is_refused(tmp_path):
    mask = np.zeros((16, 16), np.uint8)
    mask[4:] = 1
    (write_scene(tmp_path, mask) / "classes.txt").write_text("sky\nroad\n", encoding="utf-8-sig")
    assert load_segmentation_dataset(tmp_path).classes == ("sky", "road")
    (tmp_path / "classes.txt").write_text("sky\nsky\n")
    with pytest.raises(DataError, match="names sky more than once"):
        load_segmentation_dataset(tmp_path)


def test_load_segmentation_dataset_of_postscript_mask_is_refused(tmp_path):
    """Pillow would start another program for PostScript."""
    mask = np.zeros((16, 16), np.uint8)
    write_scene(tmp_path, mask)
    Image.fromarray(mask).save(tmp_path / "masks/0.png", "EPS")
    with pytest.raises(DataError, match=r"0: a mask that cannot be read"):
        load_segmentation_dataset(tmp_path)
