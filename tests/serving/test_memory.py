"""Memory of decoded images: estimated from headers alone, and limited for all requests together."""

from __future__ import annotations

import asyncio
import io
import json
import subprocess
import sys
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin, TiffTags

from helpers.serving import png, predict, refused_predict, running_server
from vpt.data.images.files import read_rgb
from vpt.serving.bank import Bank
from vpt.serving.memory import ByteBudget, read_size


def png_of(width: int, height: int, color_type: int = 6, depth: int = 8) -> bytes:
    """A PNG file of one color, written without the pixels in memory."""
    row = b"\0" + bytes(width * {0: 1, 2: 3, 6: 4}[color_type] * depth // 8)
    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()

    def chunk(name: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4) + name + content + zlib.crc32(name + content).to_bytes(4)

    header = width.to_bytes(4) + height.to_bytes(4) + bytes([depth, color_type, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


SIDE = 1800
RGB = Image.radial_gradient("L").resize((SIDE, SIDE)).convert("RGB")
FILES = {
    "rgb.png": saved(RGB, "PNG"),
    "rgba.png": saved(RGB.convert("RGBA"), "PNG"),
    "palette.png": saved(RGB.convert("P"), "PNG", transparency=3),
    "gray.png": saved(RGB.convert("L"), "PNG"),
    "deep gray.png": png_of(SIDE, SIDE, 0, 16),
    "deep rgb.png": png_of(SIDE, SIDE, 2, 16),
    "deep rgba.png": png_of(SIDE, SIDE, 6, 16),
    "rgb.jpg": saved(RGB, "JPEG"),
    "progressive.jpg": saved(RGB, "JPEG", progressive=True),
    "cmyk.jpg": saved(RGB.convert("CMYK"), "JPEG"),
    "rgb.tif": saved(RGB, "TIFF"),
    "rgba.tif": saved(RGB.convert("RGBA"), "TIFF", compression="tiff_lzw"),
    "float.tif": saved(Image.fromarray(np.zeros((SIDE, SIDE), np.float32)), "TIFF"),
    "rgb.webp": saved(RGB, "WEBP"),
    "rgb.gif": saved(RGB, "GIF"),
}


# A process of its own measures, as other tests leave threads and memory behind. The peak is reset before each file.
MEASURE = """
import ctypes, json, re, sys
from pathlib import Path
from vpt.data.images.files import read_rgb

def kilobytes(name):
    return int(re.search(rf"{name}:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

taken = {}
for path in sorted(Path(sys.argv[1]).iterdir()):
    data = path.read_bytes()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = kilobytes("VmRSS")
    read_rgb(data)
    taken[path.name] = (kilobytes("VmHWM") - before) * 1024
print(json.dumps(taken))
"""


@pytest.fixture(scope="module")
def taken(tmp_path_factory) -> dict[str, int]:
    """Bytes that decoding takes, by name of the file."""
    folder = tmp_path_factory.mktemp("images")
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
    done = subprocess.run([sys.executable, "-c", MEASURE, str(folder)], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux resets the peak of a process")
@pytest.mark.parametrize("name", FILES)
def test_read_size_bounds_what_decoding_takes(name, taken):
    size = read_size(FILES[name])
    assert (size.width, size.height) == (SIDE, SIDE)
    assert 0 < taken[name] < size.num_bytes + 10**7


def test_read_size_of_anything_else_is_zero():
    for data in (b"", b"text", b"II*\0", FILES["rgb.png"][:20], b"\x89PNG\r\n\x1a\n" * 9):
        assert read_size(data).num_bytes == 0


def test_read_size_of_a_tiff_with_a_tag_that_only_pillow_passes_over_is_not_zero():
    tifffile = pytest.importorskip("tifffile", reason="tifffile is not installed")
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags.tagtype[34412], tags[34412] = TiffTags.DOUBLE, (1e300, 2.0)  # metadata of a microscope, as tifffile reads it
    data = saved(RGB, "TIFF", compression="tiff_adobe_deflate", tiffinfo=tags)
    with pytest.raises(IndexError):
        tifffile.TiffFile(io.BytesIO(data))
    assert read_rgb(data).size == (SIDE, SIDE)
    assert read_size(data) == read_size(FILES["rgb.tif"])


def test_read_size_of_a_tiff_with_many_channels_is_the_larger_estimate():
    tifffile = pytest.importorskip("tifffile", reason="tifffile is not installed")
    file = io.BytesIO()
    tifffile.imwrite(file, np.zeros((SIDE, SIDE, 4), np.uint16), photometric="rgb")
    size = read_size(file.getvalue())
    assert (size.width, size.height) == (SIDE, SIDE) and size.num_bytes >= SIDE * SIDE * 4 * 36


def test_predict_of_many_pixels_in_a_small_file_gets_413(folder, pictures):
    with running_server(Bank([folder])) as address:
        for side in (9_400, 30_000):  # below and above the limit of Pillow
            bomb = png_of(side, side, 0, 1)
            assert len(bomb) < 5 * 10**6
            status, text = refused_predict(address, "animals", bomb)
            assert status == 413 and text.endswith("needs more than 1074 MB; scale it down"), text
        assert predict(address, "animals", png(pictures[0]))["task"] == "animals"


def test_byte_budget_lets_blocks_wait_in_order():
    async def run() -> list[str]:
        budget, order = ByteBudget(10), []

        async def hold(name: str, count: int) -> None:
            async with budget.hold(count):
                order.append(name)
                await asyncio.sleep(0.01)

        await asyncio.gather(hold("six", 6), hold("eight", 8), hold("one", 1))  # one would fit beside six
        return order

    assert asyncio.run(run()) == ["six", "eight", "one"]
