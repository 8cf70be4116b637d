"""The list layout of the VTAB-1k community."""

from __future__ import annotations

from pathlib import Path

import pytest

from vpt.data.loading import load_dataset
from vpt.errors import DataError

IMAGES = [
    f"{split_name}/{name}/{i}.png" for split_name in ("train", "test") for name in ("cat", "dog") for i in range(4)
]
TRAIN, TEST = IMAGES[:8], IMAGES[8:]


@pytest.fixture
def root(draw) -> Path:
    return draw(*IMAGES)


def write(root: Path, name: str, paths: list[str]) -> None:
    (root / name).write_text("".join(f"{path} {int('dog' in path)}\n" for path in paths), encoding="utf-8")


def sizes(root: Path, **options: float) -> list[int]:
    return [len(split) for split in load_dataset(root, **options).splits.values()]


def refusal(root: Path) -> str:
    with pytest.raises(DataError) as caught:
        load_dataset(root)
    return str(caught.value)


def test_load_dataset_of_four_lists_returns_their_splits(root):
    for name, paths in {"train6": TRAIN[:3] + TRAIN[4:7], "val2": TRAIN[3::4], "train6val2": TRAIN}.items():
        write(root, f"{name}.txt", paths)
    write(root, "test.txt", TEST)
    dataset = load_dataset(root)
    assert dataset.classes == ("cat", "dog")
    assert sizes(root) == [6, 2, 8]
    assert dataset.val.names == ("train/cat/3.png", "train/dog/3.png")
    assert dataset.val.labels.tolist() == [0, 1]
    assert not dataset.notes


def test_load_dataset_of_train_and_test_lists_splits_val(root):
    write(root, "train.txt", TRAIN)
    write(root, "test.txt", TEST)
    assert sizes(root, val_fraction=0.25) == [6, 2, 8]
    assert sizes(root, val_fraction=0) == [8, 0, 8]


def test_load_dataset_of_train_list_splits_val_and_test(root):
    write(root, "train.txt", TRAIN)
    assert sizes(root, val_fraction=0.25, test_fraction=0.25) == [4, 2, 2]


@pytest.mark.parametrize("other", ["train", "val"])
def test_load_dataset_of_trainval_list_derives_the_missing_list(root, other):
    write(root, f"{other}.txt", TRAIN[:3] + TRAIN[4:7])
    write(root, "trainval.txt", TRAIN)
    write(root, "test.txt", TEST)
    assert sizes(root) == ([6, 2, 8] if other == "train" else [2, 6, 8])


def test_load_dataset_of_lists_that_disagree_is_refused(root):
    write(root, "train.txt", TRAIN[:3])
    write(root, "val.txt", TRAIN[4:5])
    write(root, "trainval.txt", TRAIN[1:6])
    text = refusal(root)
    assert "trainval.txt does not agree with train.txt + val.txt on 3 images: train/cat/0.png" in text


def test_list_file_with_blanks_unicode_and_crlf_is_read(draw):
    root = draw("über hund/a b.png", "über hund/c  d.png", "犬/1.png", "犬/2.png")
    text = "über hund/a b.png 0\r\nüber hund/c  d.png\t0\r\n\r\n./犬/1.png   1\r\n犬/2.png 1"
    (root / "train.txt").write_bytes(b"\xef\xbb\xbf" + text.encode())
    dataset = load_dataset(root, val_fraction=0, test_fraction=0)
    assert dataset.classes == ("über hund", "犬")
    assert dataset.train.labels.tolist() == [0, 0, 1, 1]


def test_list_file_without_class_folders_names_classes_by_number(draw):
    root = draw("images/1.png", "images/2.png")
    (root / "train.txt").write_text("images/1.png 0\nimages/2.png 1\n")
    dataset = load_dataset(root, val_fraction=0, test_fraction=0)
    assert dataset.classes == ("0", "1")
    assert "named by number" in dataset.notes[0]


def test_list_file_with_faulty_lines_names_each(root):
    lines = [
        "train/cat/0.png 0",
        "train/cat/9.png 0",
        "train/cat/1.png",
        "train/cat/2.png -1",
        "train/dog/0.png x",
    ]
    (root / "train.txt").write_text(
        "\n".join([*lines, "train/dog/1.png 1.0", "train/cat/0.png 0", "train/cat/0.png 1"])
    )
    (root / "test.txt").write_text("train/cat/0.png 1\n")
    text = refusal(root)
    for fault in (
        "8 faults in train.txt, test.txt",
        "train.txt line 2: no such image: 'train/cat/9.png'",
        "train.txt line 3: no label: 'train/cat/1.png'",
        "train.txt line 4: a negative label: '-1' after 'train/cat/2.png'",
        "train.txt line 5: not an integer: 'x'",
        "train.txt line 6: not an integer: '1.0'",
        "train.txt line 7: 'train/cat/0.png' is already in line 1\n",
        "train.txt line 8: 'train/cat/0.png' is already in line 1, with label 0 there and 1 here",
        "test.txt line 1: 'train/cat/0.png' has label 1, but 0 in train.txt line 1",
    ):
        assert fault in text


def test_list_file_with_many_faults_counts_the_rest(root):
    (root / "train.txt").write_text("".join(f"nowhere/{i}.png 0\n" for i in range(50)))
    text = refusal(root)
    assert text.count("no such image") == 20 and "and 30 more" in text


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (
            [1, 2],
            "largest label is 2, which means 3 classes, but the lists use 2 labels; without any image: 0",
        ),
        ([1, 2], "subtract 1"),
        ([0, 3], "without any image: 1, 2. Number the classes from 0"),
        ([0, 10**12], "without any image: 1, 2, 3, 4, 5, ..."),
        ([0, 0], "only one class, 'cat'"),
    ],
)
def test_list_file_with_label_gaps_is_refused(draw, labels, reason):
    root = draw("cat/1.png", "dog/1.png" if labels[1] else "cat/2.png")
    second = "dog/1.png" if labels[1] else "cat/2.png"
    (root / "train.txt").write_text(f"cat/1.png {labels[0]}\n{second} {labels[1]}\n")
    assert reason in refusal(root)


def test_list_file_with_test_class_absent_from_train_is_refused(draw):
    root = draw(*IMAGES, "test/emu/1.png")
    write(root, "train.txt", TRAIN)
    (root / "test.txt").write_text("test/cat/0.png 0\ntest/emu/1.png 2\n")
    assert "1 class of test without any image in train:\n  'emu' (1 image)" in refusal(root)


def test_list_file_with_class_in_val_alone_adds_a_note(draw):
    root = draw(*IMAGES, "train/emu/1.png")
    write(root, "train.txt", TRAIN)
    write(root, "test.txt", TEST)
    (root / "val.txt").write_text("train/emu/1.png 2\n")
    assert any("train has no image of 1 class: 'emu'" in note for note in load_dataset(root).notes)


def test_list_file_that_is_binary_empty_or_duplicate_is_refused(root):
    (root / "train.txt").write_bytes(b"\xff\xfe\x00")
    assert "train.txt is not UTF-8 text" in refusal(root)
    (root / "train.txt").write_text("\n")
    assert "train.txt is empty" in refusal(root)
    write(root, "train8.txt", TRAIN)
    assert "holds train.txt, train8.txt; keep one list for train" in refusal(root)


def test_list_file_with_image_in_train_and_test_adds_a_note(root):
    write(root, "train.txt", TRAIN)
    write(root, "test.txt", [*TEST, TRAIN[0]])
    assert "1 file of test with the same bytes" in load_dataset(root, val_fraction=0).notes[0]
