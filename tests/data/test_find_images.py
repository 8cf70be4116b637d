"""What a folder holds beside its images is named where it is predicted, as where it is trained on."""

from __future__ import annotations

from pathlib import Path

import pytest

from vpt.data.find_images import find_images
from vpt.errors import DataError


def test_find_images_names_what_is_not_used(draw) -> None:
    root = draw("inbox/a.png", "inbox/more/b.png")
    for name in ("noext", "scan.DCM", "more/2.dcm", "c.tga", "clip.mp4", "b.JPG_orig", ".hidden", "Thumbs.db"):
        (root / "inbox" / name).touch()
    notes: list[str] = []
    assert len(find_images([root / "inbox"], notes.append)) == 2
    (note,) = notes
    named = f"b.JPG_orig, c.tga, clip.mp4, {Path('more/2.dcm')}, noext and 1 more"
    assert note.startswith(f"not used: 6 entries of {root / 'inbox'}: {named}; ")
    assert note.count("is a DICOM file; write its slices as 16-bit PNG") == 1
    assert "; clip.mp4 is a video; write some of its frames" in note


@pytest.mark.parametrize("empty", ["", "  "])
def test_find_images_of_an_empty_text_is_refused(empty: str) -> None:
    with pytest.raises(DataError, match=f"the path of an image is '{empty}'; give .*; `.` is the current folder"):
        find_images([empty])


@pytest.mark.parametrize("address", ["https://x.org/a.png", "hf://datasets/x/a.png"])
def test_find_images_at_an_address_is_refused(address: str) -> None:
    for source in (address, Path(address)):
        with pytest.raises(DataError, match=f"^{address} is a URL, and images are read from files; download it first"):
            find_images([source])


def test_find_images_of_images_alone_has_no_note(draw) -> None:
    root = draw("inbox/a.png")
    notes: list[str] = []
    assert len(find_images([root / "inbox", root / "inbox/a.png"], notes.append)) == 2 and not notes
    (root / "inbox/readme.txt").touch()
    assert len(find_images([root / "inbox"], notes.append)) == 1
    assert notes == [f"not used: 1 entry of {root / 'inbox'}: readme.txt"]


def test_find_images_without_any_names_what_reads_the_files(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").touch()
    with pytest.raises(DataError, match=r"there is no image below .*; clip\.mp4 is a video; write some of its frames"):
        find_images([tmp_path])
