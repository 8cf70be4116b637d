"""Archives are extracted whole, and only into their own folder."""

from __future__ import annotations

import gzip
import io
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
@pytest.mark.parametrize("name", ["../outside.txt", "/outside.txt", "folder/link"])
def test_tar_with_members_outside_its_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_filter: bool, name: str
) -> None:
    if not has_filter:  # as in Python 3.11.0 to 3.11.3
        monkeypatch.delattr(tarfile, "data_filter", raising=False)
    with tarfile.open(tmp_path / "images.tar", "w") as tar_file:
        for member_name, content in (("folder/inside.txt", b"inside"), (name, b"outside")):
            member = tarfile.TarInfo(member_name)
            member.size = len(content)
            if member_name == "folder/link":
                member.type, member.size, member.linkname = tarfile.SYMTYPE, 0, "../../.."
            tar_file.addfile(member, io.BytesIO(content))
    if name.startswith("/") and has_filter:  # the filter takes it as a path inside the folder
        extract_archive(tmp_path / "images.tar", tmp_path / "unpacked")
        assert (tmp_path / "unpacked" / "images.tar" / "outside.txt").read_bytes() == b"outside"
    else:
        with pytest.raises(DataError, match=r"images\.tar cannot be extracted"):
            extract_archive(tmp_path / "images.tar", tmp_path / "unpacked")
        assert list((tmp_path / "unpacked").iterdir()) == []
    assert not (tmp_path / "outside.txt").exists() and not Path("/outside.txt").exists()


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
