"""Parts of torch datasets, and several together, keep the names of their classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, Subset, random_split

from helpers.brightness import PairDataset, draw
from vpt.data.memory.datasets import dataset_from_memory
from vpt.errors import DataError

DATA = PairDataset(*draw(12))  # whose classes are light, dark


def other_names() -> PairDataset:
    data = PairDataset(*draw(4))
    data.classes = ("bright", "dim")
    return data


@pytest.mark.parametrize(
    "data",
    [
        Subset(DATA, [0, 1, 2, 5]),
        Subset(Subset(DATA, [0, 1, 2, 5]), [3, 0]),
        random_split(DATA, [8, 4], torch.Generator().manual_seed(0))[0],
        ConcatDataset([DATA, Subset(DATA, [1])]),
        Subset(ConcatDataset([DATA, DATA]), [0, 13]),
    ],
)
def test_part_of_a_torch_dataset_keeps_the_names_of_classes(data: Any) -> None:
    found = dataset_from_memory({"train": data})
    assert found.classes == ("light", "dark") and found.name == "PairDataset"
    assert found.train.labels.tolist() == [data[i][1] for i in range(len(data))]


def test_datasets_with_other_names_have_none_together() -> None:
    assert dataset_from_memory({"train": ConcatDataset([DATA, other_names()])}).classes == ("0", "1")


def test_names_of_classes_may_be_an_array_or_an_index() -> None:
    pandas = pytest.importorskip("pandas")
    for names in (np.array(["dark", "light"]), pandas.Index(["dark", "light"])):
        assert dataset_from_memory({"train": draw(12)}, classes=names).classes == ("dark", "light")
        data = PairDataset(*draw(12))
        data.classes = names  # type: ignore[assignment]
        assert dataset_from_memory({"train": data}).classes == ("dark", "light")
        assert dataset_from_memory({"train": ConcatDataset([data, data])}).classes == ("dark", "light")


def test_labels_without_names_have_those_of_train() -> None:
    pixels, labels = draw(6, 1)
    found = dataset_from_memory({"train": DATA, "val": (pixels, 1 - labels)})
    assert found.classes == ("light", "dark") and found.val.labels.tolist() == (1 - labels).tolist()
    with pytest.raises(DataError, match="val has the labels '2', which are no classes"):
        dataset_from_memory({"train": DATA, "val": (pixels, np.arange(6) % 3)})
