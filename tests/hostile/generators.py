"""Hostile inputs: what damage, chance and malice make of a file of each kind that vpt reads.

Each generator yields (name, writer). A writer puts its input at a path: bytes, or something that is no file.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save

from vpt.model.header import seal

Writer = Callable[[Path], object]
HOSTILE_TEXT = "\x1b[2J\x07\u202e‮𐏿" + "x" * 5000
DEEP = 100_000


def content(data: bytes) -> Writer:
    return lambda path: path.write_bytes(data)


def damaged(original: bytes, flips: int = 8) -> Iterator[tuple[str, Writer]]:
    """Truncations, flips of bits, and other files under the name of this one."""
    rng = np.random.default_rng(len(original))
    for share in (0, 0.001, 0.3, 0.9, 0.999):
        yield f"cut to {share:.1%}", content(original[: int(len(original) * share)])
    for bit in rng.integers(0, 8 * len(original), flips).tolist():
        changed = bytearray(original)
        changed[bit // 8] ^= 1 << (bit % 8)
        yield f"bit {bit} flipped", content(bytes(changed))
    yield "one byte", content(b"{")
    yield "zeros", content(bytes(len(original)))
    yield "ones", content(b"\xff" * 300)
    yield "noise", content(rng.bytes(2000))
    yield "twice", content(original + original)
    yield "gzip", content(gzip.compress(original))
    yield "utf-16", content(original.decode("latin-1").encode("utf-16"))
    yield "web page", content(b"<!DOCTYPE html><html><body>Sign in</body></html>")
    yield "pointer", content(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    yield "pickle", content(pickle.dumps(os.getcwd, protocol=2))


def no_files() -> Iterator[tuple[str, Writer]]:
    """What lies at the path instead of a file."""
    yield "nothing", lambda path: None
    yield "folder", lambda path: path.mkdir()
    yield "pipe", lambda path: os.mkfifo(path)
    yield "device", lambda path: path.symlink_to("/dev/zero")
    yield "link to itself", lambda path: path.symlink_to(path.name)
    yield "link to nothing", lambda path: path.symlink_to("absent")


def names_of_damage(original: bytes) -> set[str]:
    """Return the names of the inputs that are no whole file, which a checksum tells."""
    return {name for name, _ in (*damaged(original), *no_files())}


def json_texts(original: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    """Other JSON: of other types, deeply nested, with huge numbers, foreign keys, and text of no encoding."""
    for value in (None, True, 3, "text", [], [[]], {}, [1, 2], {"format": 1}, {"format": {}}):
        yield f"is {value!r}", json.dumps(value).encode()
    yield "deep list", b"[" * DEEP + b"]" * DEEP
    yield "deep object", b'{"a":' * DEEP + b"1" + b"}" * DEEP
    yield "huge number", b"[" + b"9" * 5000 + b"]"
    yield "surrogate", json.dumps({**original, "method": "\ud800"}).encode()
    yield "repeated keys", b'{"format": 2, "format": 1, "format": null}'
    yield "foreign key", json.dumps({**original, HOSTILE_TEXT: HOSTILE_TEXT}).encode()
    for key in list(original)[:6]:
        yield f"without {key}", json.dumps({name: value for name, value in original.items() if name != key}).encode()
        for value in (None, -1, 10**400, HOSTILE_TEXT, [[[]]], {"a": {"b": {}}}, float("nan")):
            yield f"{key} is {str(value)[:12]}", json.dumps({**original, key: value}).encode()


def tuned_files(original: bytes) -> Iterator[tuple[str, Writer]]:
    """Tuned files, also with the checksum that fits what was forged."""
    yield from damaged(original)
    yield from no_files()
    size = int.from_bytes(original[:8], "little")
    header = json.loads(json.loads(original[8 : 8 + size])["__metadata__"]["vpt"])
    tensors = load(original)

    def forge(name: str, text: str, more: dict[str, torch.Tensor] | None = None) -> tuple[str, Writer]:
        raw = save({**tensors, **(more or {})}, {"vpt": text})
        try:
            return name, content(seal(raw))
        except Exception:  # what has no checksum gets none
            return name, content(raw)

    for name, text in json_texts(header):
        yield forge(f"header {name}", text.decode())
    zero = {**header, "checksum": 64 * "0"}
    forged: dict[str, dict[str, Any]] = {
        "many classes": {"num_classes": 10**9, "classes": None},
        "long prompt": {"method": "vpt(length=1000000)"},
        "endless head": {"method": "mlp(layers=100000000000)"},
        "deep method": {"method": "vpt(depth=" + "(" * 900 + "1" + ")" * 900 + ")"},
        "long sum": {"method": "+".join(["bias"] * 2000)},
        "sum of numbers": {"method": "vpt(depth=" + "1+" * 1900 + "1)"},
        "code": {"method": "__import__('os').system('true')"},
        "huge images": {"preprocessing": {"size": 10**9}},
        "unknown backbone": {"backbone": HOSTILE_TEXT[:900]},
        "backbone of a stranger": {"backbone": "hf-hub:stranger/model"},
        "another fingerprint": {"fingerprint": f"sha256:{64 * '0'}"},
        "foreign head": {"head": "multi_block(blocks=1-100000000000)"},
        "unknown kind": {"label_kind": {"name": "ranking"}},
        "nan in a kind": {"label_kind": {"name": "regression", "mean": float("nan"), "std": 1}},
        "no spread": {"label_kind": {"name": "regression", "mean": 0.0, "std": 0.0}},
        "hostile classes": {"classes": [HOSTILE_TEXT[:900]] * header["num_classes"], "method": "x"},
    }
    for name, changes in forged.items():
        yield forge(name, json.dumps({**zero, **changes}))
    yield forge("another dtype", json.dumps(zero), {name: tensor.double() for name, tensor in tensors.items()})
    yield forge("nan", json.dumps(zero), {name: tensor * float("nan") for name, tensor in tensors.items()})
    yield forge("another tensor", json.dumps(zero), {"surprise": torch.zeros(3)})
    for length in (2**63, 2**40, 10**6, 0):
        yield f"header of {length} bytes", content(struct.pack("<Q", length) + original[8:])
    for entry in ({"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}, {"dtype": "X9"}, [], None):
        text = json.dumps({"__metadata__": {"vpt": json.dumps(zero)}, "head.weight": entry}).encode()
        yield f"tensor {json.dumps(entry)[:20]}", content(struct.pack("<Q", len(text)) + text)


def weights_files(state: dict[str, torch.Tensor]) -> Iterator[tuple[str, str, Writer]]:
    """Weights files, each with its ending."""
    raw: dict[str, bytes] = {".safetensors": save(state)}
    buffer = io.BytesIO()
    torch.save(state, buffer)
    raw[".pth"] = buffer.getvalue()
    buffer = io.BytesIO()
    np.savez(buffer, **{"embedding/kernel": np.zeros((2, 2, 3, 4), np.float32), "cls": np.zeros((1, 1, 4), np.float32)})
    raw[".npz"] = buffer.getvalue()
    for suffix, original in raw.items():
        for name, writer in (*damaged(original, 4), *no_files()):
            yield name, suffix, writer
    for name, value in {
        "a list": [1, 2], "a number": 3, "nested": {"state_dict": {"model": {}}}, "numbers": {"a": 1, 2: "b"},
        "cyclic": (lambda loop: loop.update(state_dict=loop) or loop)({}),
        "hostile keys": {HOSTILE_TEXT: torch.zeros(1)}, "huge": {"pos_embed": torch.zeros(1).expand(2**20, 2**10)},
    }.items():  # fmt: skip
        buffer = io.BytesIO()
        torch.save(value, buffer)
        yield name, ".pth", content(buffer.getvalue())
    for name, array in {
        "objects": np.array([{}], dtype=object), "text": np.array(["x"]), "empty": np.zeros(0),
        "deep": np.zeros((1,) * 9),
    }.items():  # fmt: skip
        buffer = io.BytesIO()
        np.savez(buffer, **{"embedding/kernel": array, "Transformer/encoderblock_0/LayerNorm_0/scale": array})
        yield name, ".npz", content(buffer.getvalue())
    for name, changed in {
        "another type": {key: tensor.to(torch.int8) for key, tensor in state.items()},
        "another shape": {key: tensor.flatten() for key, tensor in state.items()},
        "no tensors": {}, "scalars": dict.fromkeys(state, torch.tensor(1.0)),
    }.items():  # fmt: skip
        yield name, ".safetensors", content(save({key: tensor.contiguous().clone() for key, tensor in changed.items()}))


def plans() -> Iterator[tuple[str, Writer]]:
    """Plan files."""
    base = 'methods = ["linear"]\n[training]\nepochs = 1\n[[tasks]]\nname = "digits"\n'
    yield from damaged(base.encode(), 6)
    yield from no_files()
    texts = {
        "deep": "a = " + "[" * DEEP + "]" * DEEP,
        "deep table": "[" + ".".join(["a"] * 3000) + "]\nb = 1",
        "huge number": f"seeds = {'9' * 5000}\n" + base,
        "many seeds": f"seeds = {10**12}\n" + base,
        "huge seed": f"first_seed = {2**70}\n" + base,
        "nan": "val_fraction = nan\n" + base,
        "infinite": base.replace("epochs = 1", "learning_rate = inf"),
        "foreign key": "surprise = 1\n" + base,
        "wrong type": "methods = 3\n[[tasks]]\nname = 4\n",
        "hostile name": f"name = {json.dumps(HOSTILE_TEXT)}\n" + base.replace("digits", "x" * 3000),
        "cyclic ensemble": 'methods = ["linear", {name = "a", ensemble_of = "b"}, {name = "b", ensemble_of = "a"}]\n',
        "own ensemble": 'methods = [{name = "a", ensemble_of = "a"}]\n[[tasks]]\nname = "digits"\n',
        "endless head": base.replace('"linear"', '"mlp(layers=100000000000)"'),
        "code": base.replace('"linear"', "\"__import__('os')\""),
        "paths outside": base + 'data = "../../../../etc"\n',
        "absolute path": base + 'data = "/etc"\n',
        "benchmark outside": 'benchmark = "../../../etc/passwd"\n' + base,
        "itself as benchmark": 'benchmark = "plan.toml"\n' + base,
        "weights outside": 'weights = "../../../../etc/passwd"\n' + base,
        "a device as weights": 'weights = "/dev/zero"\n' + base,
        "dates": "seeds = 1979-05-27T07:32:00Z\n" + base,
        "no tasks": 'methods = ["linear"]\n',
        "unknown backbone": 'backbone = "\\u001b[2J"\n' + base,
    }
    for name, text in texts.items():
        yield name, content(text.encode())


def lists() -> Iterator[tuple[str, str, Writer]]:
    """List files and tables of labels, each with its name."""
    rows = {"train.txt": "a.png 0\nb.png 1\n", "labels.csv": "image,label\na.png,cat\nb.png,dog\n"}
    rows["labels.jsonl"] = '{"image": "a.png", "label": "cat"}\n{"image": "b.png", "label": "dog"}\n'
    for file, text in rows.items():
        for name, writer in (*damaged(text.encode(), 4), *no_files()):
            yield name, file, writer
    labels = {
        "digits": "9" * 5000,
        "large": str(10**15),
        "negative": "-1",
        "hostile": HOSTILE_TEXT,
        "roman": "Ⅳ",
        "thai": "๑",
    }
    for name, label in labels.items():
        yield name, "train.txt", content(f"a.png {label}\nb.png 1\n".encode())
        yield name, "labels.csv", content(f"image,label\na.png,{label}\nb.png,1\n".encode())
        line = json.dumps({"image": "a.png", "label": label})
        yield name, "labels.jsonl", content(f'{line}\n{{"image": "b.png", "label": "1"}}\n'.encode())
    for path in ("../../../../etc/passwd", "/etc/passwd", "/dev/zero", "x" * 5000, "a\0b.png", "..", "", "C:\\a.png"):
        yield f"path {path[:12]!r}", "train.txt", content(f"{path} 0\nb.png 1\n".encode())
        yield f"path {path[:12]!r}", "labels.csv", content(f"image,label\n{path},cat\nb.png,dog\n".encode())
        line = json.dumps({"image": path, "label": "cat"})
        yield f"path {path[:12]!r}", "labels.jsonl", content(f'{line}\n{{"image": "b.png", "label": "dog"}}\n'.encode())
    cells: tuple[Any, ...] = (None, True, [], [[1]], {"a": 1}, 10**400, "[" * DEEP, 1e308, ["a", 1])
    for number, cell in enumerate(cells):
        for column in ("image", "label"):
            row = {"image": "a.png", "label": "cat", column: cell}
            text = f'{json.dumps(row)}\n{{"image": "b.png", "label": "dog"}}\n'
            yield f"{column} {number}", "labels.jsonl", content(text.encode())
    yield "deep", "labels.jsonl", content(b"[" * DEEP + b"\n")
    yield "quotes", "labels.csv", content(b'image,label\n"a.png,cat\nb.png,dog\n')
    yield "wide", "labels.csv", content(b"image," + b"a," * 50_000 + b"label\n")
    yield "long cell", "labels.csv", content(b"image,label\na.png," + b"y" * 200_000 + b"\nb.png,dog\n")
    yield "parquet", "labels.parquet", content(b"PAR1" + bytes(100) + b"PAR1")
    yield "no parquet", "labels.parquet", content(b"text")


def requests(picture: bytes) -> Iterator[tuple[str, str, str, dict[str, str], bytes]]:
    """HTTP requests: name, method, path, headers, body."""
    bodies: dict[str, bytes] = {"empty": b"", "text": b"hello", "json": b"{}", "cut": picture[: len(picture) // 2]}
    bodies |= {f"bits {i}": bytes(b ^ (i + 1) for b in picture) for i in range(3)}
    bodies |= {"gif": b"GIF89a" + bytes(100), "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>", "tar": bytes(10_240)}
    bodies |= {
        "bomb": b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBBI", 13, b"IHDR", 2**31 - 1, 2**31 - 1, 8, 2, 0, 0, 0, 0)
    }
    for name, body in bodies.items():
        yield name, "POST", "/predict/a", {}, body
    paths = (
        "/predict/",
        "/predict/%00",
        "/predict/..%2f..%2fetc",
        "/predict/" + "x" * 3000,
        "/predict/%1b%5b2J",
        "//",
        "/x",
    )
    for path in paths:
        yield f"path {path[:20]}", "POST", path, {}, picture
        yield f"path {path[:20]}", "GET", path, {}, b""
    for top in ("0", "-1", "x", "1e9", "9" * 5000, "%00", "\u0663"):
        yield f"top {top[:8]}", "POST", f"/predict/a?top={top}", {}, picture
    for kind in ("multipart/form-data", "multipart/form-data; boundary=x", "application/json", "\x1b[2J", "image/png"):
        yield f"type {kind!r}", "POST", "/predict/a", {"content-type": kind}, b"--x\r\n\r\nnothing"
    for method in ("PUT", "DELETE", "PATCH", "TRACE", "X" * 300):
        yield f"method {method[:8]}", method, "/predict/a", {}, picture
    for headers in ({"host": "x" * 3000}, {"origin": "http://evil"}, {"origin": "\x00"}, {"content-length": "-1"}):
        yield f"headers {str(headers)[:30]}", "POST", "/predict/a", headers, picture
