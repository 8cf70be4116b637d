"""Definition of a benchmark task: its source, reader, splits and protocol."""

from collections.abc import Callable, Mapping, Sized
from dataclasses import dataclass
from typing import Literal

from vpt.datasets.download_dir import DownloadDir, RemoteFile
from vpt.datasets.prepared import SourceData
from vpt.datasets.split_spec import SplitSpec


@dataclass(frozen=True)
class DataSource:
    """A dataset to download.

    Args:
        name: Short name.
        homepage: Web page of the dataset.
        files: Files to download.
        terms: The license, or a statement that there is none.
        citation: Publication to cite.
        manual_steps: Steps that the user performs by hand. Default: none.
    """

    name: str
    homepage: str
    files: tuple[RemoteFile, ...]
    terms: str
    citation: str
    manual_steps: str = ""


@dataclass(frozen=True, eq=False)
class BenchmarkTask:
    """A task of a benchmark.

    Args:
        name: Name of the task.
        benchmark: "vtab" or "fgvc".
        group: Group of tasks over which results are averaged.
        classes: Number of classes.
        published_sizes: Number of images of each published split, which is verified; None if unknown.
        split_spec: Train, val and test in terms of published splits.
        label_description: Meaning of the label.
        source: The dataset.
        read_source: Reader of the published files.
        published_names_key: Key of the task in the published file of 800 and 200 names, or None.
        community_name: Folder name of the task in copies that the community shares.
        remark: Differences to the data of published results.
        metric: Metric of the benchmark. Default: "top-1".
        resize: Resize option of the paper's protocol. Default: "squash".
        augment: Augmentation of the paper's protocol. Default: "none".
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
        """Number of images of train, val and test; None if it depends on the source."""
        return self.split_spec.sizes(self.published_sizes)

    def size_faults(self, splits: Mapping[str, Sized]) -> list[str]:
        """Return the differences between the sizes of splits and those of the task.

        Args:
            splits: Split ("train", "val", "test") to its images.

        Returns:
            One text per split with another number of images.
        """
        return [
            f"{split_name}: {len(splits[split_name])} images, {self.name} has {size}"
            for split_name, size in self.sizes.items()
            if size is not None and len(splits[split_name]) != size
        ]

    @property
    def sizes_text(self) -> str:
        """The sizes as text, such as "800/200/10000"."""
        return "/".join("the rest" if size is None else str(size) for size in self.sizes.values())

    @property
    def list_files(self) -> dict[str, tuple[str, ...]]:
        """File name of each list to the splits in it."""
        if self.split_spec.limits is None:
            return {"train.txt": ("train",), "val.txt": ("val",), "test.txt": ("test",)}
        train, val = self.split_spec.limits
        both = {f"train{train}val{val}.txt": ("train", "val"), "test.txt": ("test",)}
        return {f"train{train}.txt": ("train",), f"val{val}.txt": ("val",), **both}
