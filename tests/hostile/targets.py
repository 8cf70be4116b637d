"""Readers of what strangers write, as functions of bytes: nothing but errors of vpt may come out of them."""

from __future__ import annotations

import io
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

from PIL import Image
from safetensors.numpy import save
from starlette.exceptions import HTTPException
from starlette.requests import Request

from vpt.core.spec import split_terms
from vpt.data.folders.shards import read_shards
from vpt.data.images.files import UnreadableImageError, read_rgb
from vpt.data.preprocessing import Preprocessing
from vpt.data.tables.listings import read_listing
from vpt.errors import VptError
from vpt.experiments.planning.schema import plan_model
from vpt.experiments.planning.validation import ErrorCollector, read_toml, validate
from vpt.methods.registry import parse_method
from vpt.model.header import KEY, Header, inspect
from vpt.serving.image_bodies import find_image
from vpt.serving.memory import read_size

_CORPUS = Path(__file__).with_name("corpus.zip")
_FOLDER = Path(tempfile.gettempdir())
_LISTS = ("train.txt", "labels.csv", "labels.jsonl")
_TYPES = (b"image/png", b"application/json", b"multipart/form-data; boundary=x")


def read_header(data: bytes) -> None:
    """The first byte says whether the rest is a file or the text of its header."""
    if data[:1] < b"\x80":
        path = _write(data[1:], "a.safetensors")
        with suppress(VptError):
            inspect(path)
    else:
        with suppress(VptError):
            Header.from_json(data[1:].decode("utf-8", "replace"), Path("a"))


def read_spec(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    split_terms(text)
    with suppress(VptError):
        parse_method(text)


def read_plan(data: bytes) -> None:
    collector = ErrorCollector("plan")
    with suppress(VptError):
        values = read_toml(_write(data, "plan.toml"))
        validate(plan_model(segmentation="segmentation" in values), values, "plan", collector)


def read_list(data: bytes) -> None:
    """The first byte says which kind of list the rest is."""
    kind = data[0] % len(_LISTS) if data else 0
    for other in _LISTS:
        (_FOLDER / other).unlink(missing_ok=True)
    for name in ("a.png", "b.png"):
        (_FOLDER / name).touch()
    source = _write(data[1:], _LISTS[kind])
    with suppress(VptError):
        read_listing(_FOLDER if kind == 0 else source)


def read_upload(data: bytes) -> None:
    """The first byte says which type the request names for the rest, which is its body."""
    kind = _TYPES[data[0] % len(_TYPES) if data else 0]
    request = Request({"type": "http", "headers": [(b"content-type", kind)]})
    with suppress(HTTPException, UnreadableImageError, VptError):
        image = _finish(find_image(request, data[1:]))
        if read_size(image).num_bytes < 2**24:
            read_rgb(image)


def read_archive(data: bytes) -> None:
    """The first byte says whether headers in the rest get a checksum that fits."""
    content = _seal_members(data[1:]) if data[:1] < b"\x80" else data[1:]
    with suppress(VptError):
        read_shards(_write(content, "train.tar"))


def _seal_members(data: bytes) -> bytes:
    """Return a tar file whose headers have the checksums that fit: with another, tarfile reads no further."""
    content = bytearray(data)
    for start in range(0, len(content) - 511, 512):
        if content[start + 257 : start + 262] == b"ustar":
            first, last = content[start : start + 148], content[start + 156 : start + 512]
            content[start + 148 : start + 156] = b"%06o\0 " % (sum(first) + sum(last) + 8 * ord(" "))
    return bytes(content)


def _finish(coroutine: Coroutine[Any, Any, bytes]) -> bytes:
    """Run a coroutine that waits for nothing: a loop of events for each input takes longer than the reader."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return bytes(end.value)
    raise AssertionError("the reader of a body waits for something")


def _write(data: bytes, name: str) -> Path:
    path = _FOLDER / name
    path.write_bytes(data)
    return path


TARGETS: dict[str, Callable[[bytes], None]] = {
    "header": read_header, "spec": read_spec, "plan": read_plan, "list": read_list, "upload": read_upload,
    "archive": read_archive,
}  # fmt: skip


def use_folder(folder: Path) -> None:
    """Set where the targets write their files."""
    global _FOLDER
    _FOLDER = folder


def seeds(name: str) -> list[bytes]:
    """Return some whole inputs of a target, from which mutations begin."""
    header = Header("linear()", "vit_nano_patch12_48", f"sha256:{64 * '0'}", Preprocessing(48), 2, ("a", "b"), "fp32")
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "png")
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for member, content in (("0.png", picture.getvalue()), ("0.cls", b"0"), ("1.png", b"x"), ("1.json", b"{}")):
            info = tarfile.TarInfo(member)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    form = (
        b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n' + picture.getvalue() + b"\r\n--x--"
    )
    return {
        "header": [b"\x00" + save({}, {KEY: header.to_json()}), b"\x80" + header.to_json().encode()],
        "spec": [b"vpt(length=10, depth=deep) + bias", b"mlp(layers=2)", b"partial(blocks=1)"],
        "plan": [b'methods = ["linear"]\nseeds = 2\n[training]\nepochs = 1\n[[tasks]]\nname = "digits"\n'],
        "list": [
            b"\x00a.png 0\nb.png 1\n",
            b"\x01image,label\na.png,cat\nb.png,dog\n",
            b'\x02{"image": "a.png", "label": "cat"}\n{"image": "b.png", "label": "dog"}\n',
        ],
        "upload": [b"\x00" + picture.getvalue(), b'\x01{"image": "aGVsbG8="}', b"\x02" + form],
        "archive": [b"\0" + archive.getvalue()[:5120]],  # without the padding of a tape
    }[name]


def kept_inputs(name: str) -> list[bytes]:
    """Return the inputs of a target that reached new code when it was fuzzed."""
    if not _CORPUS.exists():
        return []
    with zipfile.ZipFile(_CORPUS) as file:
        return [file.read(each) for each in file.namelist() if each.startswith(f"{name}/")]
