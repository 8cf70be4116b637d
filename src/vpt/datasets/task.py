"""A task of a benchmark, as one row: what it is, where it comes from, how it is read and cut."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from vpt.datasets.download_dir import Place, Remote
from vpt.datasets.prepared.records import Listing
from vpt.datasets.split_spec import Cut


@dataclass(frozen=True)
class Source:
    """What is to be downloaded. home: the page of the data. terms: the licence, or that none is stated.

    how: what a person must do by hand, where a plain download is not enough.
    """

    name: str
    home: str
    files: tuple[Remote, ...]
    terms: str
    citation: str
    how: str = ""


@dataclass(frozen=True, eq=False)
class BenchmarkTask:
    """One task. benchmark: "vtab" or "fgvc". group: tasks are averaged within it.

    published: images of each part as its publisher has it; None where that is not known. All of them are verified.
    rule: what the label is, in words. read: the layout. names: its key in the published 800/200 name file.
    community: the folder's name in copies that the community shares. remark: how the copy behind published figures
    differs from this one. resize, augment: how the paper's protocol fits images to a backbone, and varies them.
    """

    name: str
    benchmark: str
    group: str
    classes: int
    published: dict[str, int | None]
    cut: Cut
    rule: str
    source: Source
    read: Callable[[Place], Listing]
    names: str | None = None
    community: str = ""
    remark: str = ""
    metric: str = "top-1"
    resize: Literal["squash", "crop"] = "squash"
    augment: Literal["none", "crop"] = "none"

    @property
    def sizes(self) -> dict[str, int | None]:
        """Images of train, val and test; None where it depends on the source."""
        return self.cut.sizes(self.published)

    @property
    def sizes_text(self) -> str:
        """The same, for people: "800/200/10000"."""
        return "/".join("the rest" if size is None else str(size) for size in self.sizes.values())

    @property
    def lists(self) -> dict[str, tuple[str, ...]]:
        """File name of each list -> the parts in it."""
        if self.cut.first is None:
            return {"train.txt": ("train",), "val.txt": ("val",), "test.txt": ("test",)}
        train, val = self.cut.first
        both = {f"train{train}val{val}.txt": ("train", "val"), "test.txt": ("test",)}
        return {f"train{train}.txt": ("train",), f"val{val}.txt": ("val",), **both}
