"""Archives are extracted whole, and only into their own folder."""

from __future__ import annotations

import gzip
import io
import re
import tarfile
import zipfile
from pathlib import Path

import pytest

from hostile import archive_files, generators
from hostile.entries import raw_errors
from vpt.datasets.download_dir import extract_archive
from vpt.errors import DataError

FILTERS = [True, False] if hasattr(tarfile, "data_filter") else [False]  # Python 3.11.0 to 3.11.3 have none


@pytest.mark.filterwarnings("ignore:Python 3.14 will:DeprecationWarning")
@pytest.mark.parametrize("has_filter", FILTERS)
def test_tar_with_a_link_out_of_its_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_filter: bool
) -> None:
    if not has_filter:  # as in Python 3.11.0 to 3.11.3
        monkeypatch.delattr(tarfile, "data_filter", raising=False)
    with tarfile.open(tmp_path / "images.tar", "w") as tar_file:
        link = tarfile.TarInfo("folder/link")
        link.type, link.linkname = tarfile.SYMTYPE, "../../.."
        tar_file.addfile(link)
    with pytest.raises(DataError, match=r"images\.tar cannot be extracted: .*link"):
        extract_archive(tmp_path / "images.tar", tmp_path / "unpacked")
    assert list((tmp_path / "unpacked").iterdir()) == []


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
@pytest.mark.parametrize(
    "name", ["../evil.txt", "/evil.txt", "a/../../evil.txt", "C:evil.txt", "C:/a.txt", r"..\a.txt"]
)
def test_archive_with_a_member_outside_its_folder_is_refused(tmp_path: Path, suffix: str, name: str) -> None:
    archive = tmp_path / f"images{suffix}"
    if suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as zip_file:
            for member in ("good.txt", name):
                zip_file.writestr(member, b"outside")
    else:
        with tarfile.open(archive, "w") as tar_file:
            for member in ("good.txt", name):
                tar_file.addfile(tarfile.TarInfo(member))
    with pytest.raises(DataError, match=f"cannot be extracted: its member {re.escape(repr(name))} leads outside"):
        extract_archive(archive, tmp_path / "unpacked")
    assert list((tmp_path / "unpacked").iterdir()) == []
    assert not list(tmp_path.rglob("evil.txt")) and not Path("/evil.txt").exists()


@pytest.mark.parametrize("has_filter", FILTERS)
@pytest.mark.filterwarnings("ignore:Python 3.14 will:DeprecationWarning")
def test_tar_of_plain_files_is_extracted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_filter: bool) -> None:
    if not has_filter:
        monkeypatch.delattr(tarfile, "data_filter", raising=False)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.txt").write_text("a")
    with tarfile.open(tmp_path / "images.tar.gz", "w:gz") as tar_file:
        tar_file.add(tmp_path / "photos", "photos")
    folder = extract_archive(tmp_path / "images.tar.gz", tmp_path / "unpacked")
    assert (folder / "photos" / "a.txt").read_text() == "a"


def test_hostile_archives_are_refused_or_extracted(tmp_path: Path) -> None:
    whole = {"zip": io.BytesIO(), "tar": io.BytesIO()}
    with zipfile.ZipFile(whole["zip"], "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.txt", bytes(range(256)) * 20)
    with tarfile.open(fileobj=whole["tar"], mode="w") as tar:
        info = tarfile.TarInfo("a.txt")
        info.size = 5120
        tar.addfile(info, io.BytesIO(bytes(range(256)) * 20))
    contents = {".zip": whole["zip"].getvalue(), ".gz": gzip.compress(whole["tar"].getvalue())}
    contents[".tar.gz"] = contents[".gz"]
    inputs = [(name, ".tar", write) for name, write in archive_files.archives(b"picture")]
    for suffix, content in contents.items():
        inputs += [(name, suffix, write) for name, write in (*generators.damaged(content, 40), *generators.no_files())]
    found = []
    for number, (name, suffix, write) in enumerate(inputs):
        path = tmp_path / f"{number}{suffix}"
        write(path)
        entries = {"extract_archive": lambda path=path: extract_archive(path, tmp_path / "unpacked")}
        found += raw_errors(f"{suffix}, {name}", entries, path)
    assert not found, "\n".join(found)
    assert not list((tmp_path / "unpacked").glob(".*"))
