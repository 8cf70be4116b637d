"""A task of a benchmark, as one row: what it is, where it comes from, how it is read and cut."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from vpt.datasets.download_dir import DownloadDir, RemoteFile
from vpt.datasets.prepared.records import SourceData
from vpt.datasets.split_spec import SplitSpec


@dataclass(frozen=True)
class DataSource:
    """What is to be downloaded. homepage: the page of the data. terms: the license, or that none is stated.

    manual_steps: what a person must do by hand, where a plain download is not enough.
    """

    name: str
    homepage: str
    files: tuple[RemoteFile, ...]
    terms: str
    citation: str
    manual_steps: str = ""


@dataclass(frozen=True, eq=False)
class BenchmarkTask:
    """One task. benchmark: "vtab" or "fgvc". group: tasks are averaged within it.

    published_sizes: images of each split as its publisher has it; None where that is not known. All of them are verified.
    label_description: what the label is, in words. read_source: the layout. published_names_key: its key in the published 800/200 name file.
    community_name: the folder's name in copies that the community shares. remark: how the copy behind published figures
    differs from this one. resize, augment: how the paper's protocol fits images to a backbone, and varies them.
    """

    name: str
    benchmark: str
    group: str
    classes: int
    published_sizes: dict[str, int | None]
    split_spec: SplitSpec
    label_description: str
    source: DataSource
    read_source: Callable[[DownloadDir], SourceData]
    published_names_key: str | None = None
    community_name: str = ""
    remark: str = ""
    metric: str = "top-1"
    resize: Literal["squash", "crop"] = "squash"
    augment: Literal["none", "random_crop"] = "none"

    @property
    def sizes(self) -> dict[str, int | None]:
        """Images of train, val and test; None where it depends on the source."""
        return self.split_spec.sizes(self.published_sizes)

    @property
    def sizes_text(self) -> str:
        """The same, for people: "800/200/10000"."""
        return "/".join("the rest" if size is None else str(size) for size in self.sizes.values())

    @property
    def list_files(self) -> dict[str, tuple[str, ...]]:
        """File name of each list -> the splits in it."""
        if self.split_spec.limits is None:
            return {"train.txt": ("train",), "val.txt": ("val",), "test.txt": ("test",)}
        train, val = self.split_spec.limits
        both = {f"train{train}val{val}.txt": ("train", "val"), "test.txt": ("test",)}
        return {f"train{train}.txt": ("train",), f"val{val}.txt": ("val",), **both}
