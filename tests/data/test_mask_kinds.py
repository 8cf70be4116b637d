"""Masks as people bring them: ids that a reading loses, colors, JPEG, and images that EXIF data turn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from vpt.data.masks.dataset import load_segmentation_dataset
from vpt.data.masks.files import load_mask, load_pair
from vpt.data.masks.schemes import parse_labels
from vpt.errors import DataError, SpecError

RED, BLUE = (255, 0, 0), (0, 0, 255)


def write(root: Path, masks: list[Image.Image], folders: tuple[str, str] = ("images", "masks"), suffix=".png") -> Path:
    rng = np.random.default_rng(0)
    for i, mask in enumerate(masks):
        pixels = Image.fromarray(rng.integers(0, 256, (mask.height, mask.width, 3), dtype=np.uint8))
        for folder, image, end in ((folders[0], pixels, ".png"), (folders[1], mask, suffix)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            image.save(root / folder / f"{i}{end}")
    return root


def gray(*ids: int, dtype=np.uint8) -> Image.Image:
    """A mask with a stripe of each id."""
    return Image.fromarray(np.repeat(np.array(ids, dtype), 8)[None].repeat(16, 0))


def colored(*colors: tuple[int, int, int]) -> Image.Image:
    return Image.fromarray(np.repeat(np.array(colors, np.uint8), 8, axis=0)[None].repeat(16, 0))


@pytest.mark.parametrize(
    ("mask", "options", "suggested"),
    [
        (gray(0, 255), {}, "--labels 0,255"),
        (gray(0), {}, "check that these are the masks"),
        (gray(0, 128, 255), {}, "--labels 0,128,255"),
        (gray(0, 50, 100, 150), {}, "--labels 0,50,100,150"),
        (gray(0, 65535, dtype=np.uint16), {}, "--labels 0,65535"),
        (gray(0, 255).convert("P"), {}, "--labels 0,255"),
        (gray(0, 1), {"ignore_index": 1}, "--labels 0,1"),
        (gray(0, 1), {"reduce_zero_label": True}, "--labels 0,1"),
        (gray(0, 1), {"labels": "ade20k"}, "--labels 0,1"),
        (gray(1000, 2000, dtype=np.uint16), {}, "--labels 1000,2000 makes one class of each id"),
        (Image.fromarray(np.eye(16) > 0).convert("L"), {}, "--labels 0,255"),
    ],
)
def test_masks_whose_reading_loses_classes_are_refused_with_the_option(tmp_path, mask, options, suggested):
    root = write(tmp_path, [mask] * 3)
    with pytest.raises(DataError) as caught:
        load_segmentation_dataset(root, **options)
    assert suggested in str(caught.value)


@pytest.mark.parametrize(
    ("mask", "options", "advice"),
    [
        (gray(0, 255), {"labels": "0,255", "ignore_index": 255}, "255 is ignored; leave out --ignore-index$"),
        (gray(0, 1), {"ignore_index": 1}, "; leave out --ignore-index; --labels 0,1 reads each id as a class$"),
        (gray(0, 1), {"reduce_zero_label": True}, "; leave out --reduce-zero-label; --labels 0,1 reads each id as a"),
        (gray(0, 255), {"ignore_index": 7}, "255 is ignored; --labels 0,255 reads each id as a class$"),
    ],
)
def test_masks_whose_id_an_option_ignores_name_the_option(tmp_path, mask, options, advice):
    with pytest.raises(DataError, match=advice):
        load_segmentation_dataset(write(tmp_path, [mask] * 3), **options)


@pytest.mark.parametrize(
    ("mask", "labels", "classes"),
    [
        (gray(0, 255), "0,255", ("0", "255")),
        (gray(0, 255), "ground=0,road=255", ("ground", "road")),
        (gray(10, 20, 255), "20,10", ("20", "10")),
        (gray(1000, 2000, dtype=np.uint16), "a=1000,b=2000", ("a", "b")),
        (colored(RED, BLUE), "colors", ("#0000ff", "#ff0000")),
        (colored(RED, BLUE), "hot=#FF0000,cold=#0000ff", ("hot", "cold")),
        (colored((0, 0, 0), (255, 255, 255)), "0,255", ("0", "255")),
        (gray(0, 255).convert("RGBA"), "0,255", ("0", "255")),
        (gray(0, 255).convert("1"), "auto", ("0", "1")),
        (gray(0, 1).convert("LA"), "auto", ("0", "1")),
        (colored(RED, (0, 0, 0)).convert("RGBA"), "colors", ("#000000", "#ff0000")),
    ],
)
def test_masks_with_listed_ids_or_colors_are_read(tmp_path, mask, labels, classes):
    dataset = load_segmentation_dataset(write(tmp_path, [mask] * 3), labels, val_fraction=0)
    assert dataset.classes == classes and (dataset.pixel_counts == 3 * 128).all()
    _, found = load_pair(dataset.splits["train"], 0, dataset.lookup_table, dataset.mask_format)
    expected = list(range(len(classes))) if not (classes[0] == "20" or labels == "colors") else [1, 0]
    if classes[0] == "20":
        expected = [1, 0, 255]
    assert found[0, ::8].tolist() == expected
    alone = load_mask(dataset.splits["train"].masks[0], dataset.lookup_table, dataset.mask_format)
    assert alone.dtype == found.dtype and (alone == found).all()


def test_masks_of_jpeg_are_rounded_to_listed_ids(tmp_path):
    mask = Image.fromarray(np.kron(np.eye(4, dtype=np.uint8) * 255, np.ones((9, 9), np.uint8)))
    root = write(tmp_path, [mask] * 2, suffix=".jpg")
    with pytest.raises(DataError, match=r"maximum is 255|is a JPEG or the like|make \d+ classes"):
        load_segmentation_dataset(root)
    dataset = load_segmentation_dataset(root, "0,255", val_fraction=0)
    _, found = load_pair(dataset.splits["train"], 0, dataset.lookup_table, dataset.mask_format)
    assert (found != (np.asarray(mask) > 0)).mean() < 0.02


def test_masks_of_jpeg_whose_ids_are_not_listed_name_the_option(tmp_path):
    mask = np.zeros((30, 40), np.uint8)
    mask[5:15] = 255
    root = write(tmp_path, [Image.fromarray(mask)] * 3, suffix=".jpg")
    with pytest.raises(DataError, match=r"are JPEGs or the like, whose values are blurred: --labels with the .* 0,255"):
        load_segmentation_dataset(root)
    assert load_segmentation_dataset(root, "0,255", val_fraction=0).classes == ("0", "255")


def test_masks_of_colors_name_the_option(tmp_path):
    with pytest.raises(DataError, match=r"mode RGB, whose pixels are colors; .*--labels colors"):
        load_segmentation_dataset(write(tmp_path, [colored(RED, BLUE)] * 2))
    with pytest.raises(DataError, match=r"(?s)ids #0000ff of the mask have no class.*list every color with --labels"):
        load_segmentation_dataset(tmp_path, "#ff0000,#00ff00")


def test_masks_with_different_color_tables_are_noted(tmp_path):
    masks = [colored(RED, BLUE).quantize(2), colored(BLUE, (0, 255, 0)).quantize(2)]
    dataset = load_segmentation_dataset(write(tmp_path, masks), val_fraction=0)
    assert any("2 different color tables" in note and "--labels colors" in note for note in dataset.notes)
    assert load_segmentation_dataset(tmp_path, "colors", val_fraction=0).classes == ("#0000ff", "#00ff00", "#ff0000")


def test_masks_with_few_ids_of_a_scheme_are_noted(tmp_path):
    root = write(tmp_path, [gray(1, 2, 3)] * 2, ("images/training", "annotations/training"))
    dataset = load_segmentation_dataset(root, val_fraction=0)
    assert any("3 of the 150 classes of ade20k" in note and "--labels plain" in note for note in dataset.notes)


@pytest.mark.parametrize("text", ["", "0", "0,0", "0,a", "#ff,#000000", "0,#ff0000", "a=0,a=1", "0,70000", "colours"])
def test_parse_labels_of_faulty_text_is_refused(text):
    with pytest.raises(SpecError, match="labels is"):
        parse_labels(text)


def write_turned(root: Path, orientation: int, size: tuple[int, int], drawn_on: str, count: int = 3) -> Path:
    """Write images that EXIF data turn, with a white corner, and masks of it on the stored or upright image."""
    for i in range(count):
        stored = np.zeros((size[1], size[0], 3), np.uint8)
        stored[:8, :12] = 255
        exif = Image.Exif()
        exif[0x0112] = orientation
        (root / "images").mkdir(parents=True, exist_ok=True)
        (root / "masks").mkdir(parents=True, exist_ok=True)
        Image.fromarray(stored).save(root / f"images/{i}_{orientation}.png", exif=exif)
        mask = Image.fromarray((stored[..., 0] > 0).astype(np.uint8))
        if drawn_on == "upright":
            with Image.open(root / f"images/{i}_{orientation}.png") as opened:
                upright = np.asarray(ImageOps.exif_transpose(opened))
            mask = Image.fromarray((upright[..., 0] > 0).astype(np.uint8))
        mask.save(root / f"masks/{i}_{orientation}.png")
    return root


def overlap(dataset, index: int) -> float:
    pixels, mask = load_pair(dataset.splits["train"], index, dataset.lookup_table, dataset.mask_format)
    return float(((pixels[0] > 0) == (mask == 1)).mean())


@pytest.mark.parametrize("drawn_on", ["upright", "stored"])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_masks_of_turned_images_match_them(tmp_path, orientation, drawn_on):
    root = write_turned(tmp_path, orientation, (40, 24), drawn_on)
    if orientation >= 5:  # the sides are exchanged, so the sizes prove it
        dataset = load_segmentation_dataset(root, val_fraction=0)
    else:
        with pytest.raises(DataError, match=r"EXIF data turn 3 images .*--mask-orientation upright.*stored"):
            load_segmentation_dataset(root)
        dataset = load_segmentation_dataset(root, val_fraction=0, mask_orientation=drawn_on)
    assert [overlap(dataset, i) for i in range(3)] == [1.0] * 3


@pytest.mark.parametrize("drawn_on", ["upright", "stored"])
def test_masks_of_turned_squares_follow_those_that_sizes_prove(tmp_path, drawn_on):
    write_turned(tmp_path, 6, (32, 32), drawn_on)
    with pytest.raises(DataError, match="fit both ways"):
        load_segmentation_dataset(tmp_path)
    write_turned(tmp_path, 8, (40, 24), drawn_on, 1)
    dataset = load_segmentation_dataset(tmp_path, val_fraction=0)
    assert [overlap(dataset, i) for i in range(4)] == [1.0] * 4


@pytest.mark.parametrize(("of_image", "of_mask"), [(1, 3), (3, 2), (1, 2), (4, 3)])
def test_masks_that_exif_data_turn_otherwise_than_images_are_asked_about(tmp_path, of_image, of_mask):
    write_turned(tmp_path, of_image, (40, 24), "stored")
    exif = Image.Exif()
    exif[0x0112] = of_mask
    for path in (tmp_path / "masks").iterdir():
        with Image.open(path) as mask:
            mask.load()
            mask.save(path, exif=exif)
    with pytest.raises(DataError, match=r"otherwise than their masks, which fit both ways: .*upright.*stored"):
        load_segmentation_dataset(tmp_path)
    dataset = load_segmentation_dataset(tmp_path, val_fraction=0, mask_orientation="stored")
    assert [overlap(dataset, i) for i in range(3)] == [1.0] * 3
    dataset = load_segmentation_dataset(tmp_path, val_fraction=0, mask_orientation="upright")
    assert overlap(dataset, 0) < 1


@pytest.mark.parametrize("drawn_on", ["upright", "stored"])
def test_masks_alone_that_exif_data_turn_follow_the_sizes(tmp_path, drawn_on):
    write_turned(tmp_path, 1, (40, 24), "stored")
    exif = Image.Exif()
    exif[0x0112] = 6
    for path in (tmp_path / "masks").iterdir():
        with Image.open(path) as opened:
            mask = opened.copy() if drawn_on == "stored" else opened.transpose(Image.Transpose.ROTATE_90)
        mask.save(path, exif=exif)
    dataset = load_segmentation_dataset(tmp_path, val_fraction=0)
    assert [overlap(dataset, i) for i in range(3)] == [1.0] * 3


def test_masks_with_fractions_are_refused(tmp_path):
    write(tmp_path, [Image.fromarray(np.full((16, 16), 0.5, np.float32))] * 2, suffix=".tiff")
    with pytest.raises(DataError, match=r"such as 0\.5, which are no ids; save it with one whole number a pixel"):
        load_segmentation_dataset(tmp_path)
    whole = Image.fromarray(np.asarray(gray(0, 1), np.float32))
    root = write(tmp_path / "whole", [whole] * 2, suffix=".tiff")
    assert load_segmentation_dataset(root, val_fraction=0).pixel_counts.tolist() == [256, 256]


def test_masks_with_blurred_edges_are_refused(tmp_path):
    mask = np.zeros((80, 80), np.uint8)
    mask[20:60, 20:60], mask[0, :250] = 255, 0
    mask[10, :], mask[70, :], mask[:, 10] = (np.arange(80) * 3 for _ in range(3))
    root = write(tmp_path, [Image.fromarray(np.concatenate([mask, mask.T + mask.T % 2]))] * 2)
    with pytest.raises(DataError, match=r"hold \d+ ids, and \d+ % of their pixels have 0 or \d+, as if edges"):
        load_segmentation_dataset(root)


@pytest.mark.parametrize(("last", "void"), [(100, False), (79, True)])
def test_masks_of_many_classes_and_background_are_read(tmp_path, last, void):
    mask = np.zeros((80, 80), np.uint8)
    mask[:2] = np.resize(np.arange(1, last + 1), (2, 80))
    if void:
        mask[70:] = 255
    root = write(tmp_path, [Image.fromarray(mask)] * 2)
    assert len(load_segmentation_dataset(root, val_fraction=0).classes) == last + 1


def test_masks_of_upright_images_need_no_option(tmp_path):
    dataset = load_segmentation_dataset(write_turned(tmp_path, 1, (40, 24), "stored"), val_fraction=0)
    assert overlap(dataset, 0) == 1.0


def test_masks_with_exif_data_of_their_own_are_turned(tmp_path):
    root = write_turned(tmp_path, 3, (40, 24), "stored")
    exif = Image.Exif()
    exif[0x0112] = 3
    for path in (root / "masks").iterdir():
        with Image.open(path) as mask:
            mask.load()
            mask.save(path, exif=exif)
    dataset = load_segmentation_dataset(root, val_fraction=0)
    assert overlap(dataset, 0) == 1.0


@pytest.mark.parametrize("labels", ["colors", "#ff0000,#0000ff"])
@pytest.mark.parametrize("options", [{"ignore_index": 0}, {"reduce_zero_label": True}])
def test_options_of_ids_with_labels_of_colors_are_refused(tmp_path, labels, options):
    write(tmp_path, [colored(RED, BLUE)] * 2)
    with pytest.raises(
        SpecError, match=f"{next(iter(options))} is .* for masks of ids, and labels '{labels}' reads col"
    ):
        load_segmentation_dataset(tmp_path, labels, **options)
