"""Real data sets, where they are at hand."""

from __future__ import annotations

import pytest

from vpt.data.dataset import Split
from vpt.data.decoding.arrays import decode
from vpt.data.loading import load_dataset
from vpt.data.preprocessing import Preprocessing


@pytest.mark.parametrize(
    ("name", "classes", "trainval", "test"),
    [
        ("caltech101", 102, 1000, 1000),
        ("dtd10", 10, 800, 400),
        ("rsscn7", 7, 1000, 1800),
        ("signdigits", 10, 1000, 1062),
    ],
)
def test_load_dataset_of_shared_data_has_known_sizes(shared, name, classes, trainval, test):
    dataset = load_dataset(shared / "data" / name)
    assert len(dataset.classes) == classes
    assert (len(dataset.trainval()), len(dataset.test)) == (trainval, test)
    assert len(dataset.val) == trainval // 5
    assert not dataset.ignored
    assert dataset.trainval().class_counts(classes).min() > 0

    few: Split = dataset.test.select(range(0, test, 100))
    pixels = decode(few, Preprocessing(size=32))
    assert pixels.images.shape == (len(few), 3, 32, 32) and not pixels.notes
    assert pixels.images.std() > 20


def test_load_dataset_of_shared_data_names_classes_by_folder(shared):
    assert "grand_piano" in load_dataset(shared / "data" / "caltech101").classes
    assert load_dataset(shared / "data" / "signdigits").classes == tuple("0123456789")
