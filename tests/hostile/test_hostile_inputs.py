"""Inputs of strangers: each is refused by an error of vpt, at every entry, or is read as what it is."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load as parse
from safetensors.torch import save as serialize

import vpt
from hostile import archive_files, generators
from hostile.entries import COUNTS, clear, command, count_tried, inputs_of, picture, raw_errors, take_turns
from vpt.data.decoding.cache import decode_cached
from vpt.data.decoding.stream import ImageLoader, StreamedImages
from vpt.data.loading import load_dataset
from vpt.experiments.planning.file import load_experiment
from vpt.serving.bank import Bank
from vpt.serving.server import create_app
from vpt.training.batches import DeviceDataset, Examples
from vpt.training.block_features import BlockFeatureNetwork, compute_block_features
from vpt.training.checkpoint import load_checkpoint, save_checkpoint
from vpt.training.feature_cache import compute_features

TOKEN = "of-this-test-alone"
ONE_EPOCH: dict[str, Any] = {"epochs": 1, "batch_size": 16, "progress": False, "val_fraction": 0}
RUN = {"method": "linear", **ONE_EPOCH}


@pytest.fixture(autouse=True)
def quick_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the random weights that those of files replace, and pictures: many models are made here."""
    monkeypatch.setattr("timm.models.vision_transformer.VisionTransformer.init_weights", lambda *_, **__: None)
    for name in ("draw_run", "report_run"):
        monkeypatch.setattr(f"vpt.tuning.{name}", lambda *_: None)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for index in range(12):
        folder = root / ("dark", "light")[index % 2]
        folder.mkdir(exist_ok=True)
        pixels = rng.integers(0, 120, (48, 48, 3), dtype=np.uint8) + 120 * (index % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{index}.png")
    return root


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = vpt.attach(vpt.load_backbone(), "vpt(length=2)", 2, classes=("dark", "light"))
    return vpt.save(model, tmp_path_factory.mktemp("tuned") / "a.safetensors", scores={"top1": 0.5})


def test_hostile_tuned_files_are_refused_at_every_entry(tuned: Path, photos: Path, tmp_path: Path) -> None:
    image, found = photos / "dark" / "0.png", []
    backbone, damaged = vpt.load_backbone(), generators.names_of_damage(tuned.read_bytes())
    inputs = inputs_of("tuned file", generators.tuned_files(tuned.read_bytes()))
    for count, (name, write) in enumerate(inputs, start=1):
        path = tmp_path / f"{count}.safetensors"
        write(path)
        entries = {
            "load": lambda path=path: vpt.load(path, backbone),
            "inspect": lambda path=path: vpt.inspect(path),
            "predict": lambda path=path: vpt.predict(path, image),
            "evaluate": lambda path=path: vpt.evaluate(path, photos),
            "explain": lambda path=path: vpt.explain(path, image),
            "embed_to_file": lambda path=path: vpt.embed_to_file(path, photos, tmp_path / "1.csv", split="train"),
            "Bank": lambda path=path: Bank([path], backbone=backbone).preload(),
            "tune": lambda path=path: vpt.tune(
                photos, tmp_path / f"{path.stem}-out.safetensors", init=path, **ONE_EPOCH
            ),
            "vpt inspect": command("inspect", path),
            "vpt predict": command("predict", path, image),
            "vpt eval": command("eval", path, photos),
            "vpt explain": command("explain", path, image, "--out", tmp_path / "map.png"),
            "vpt embed": command("embed", path, photos, "--split", "train", "--out", tmp_path / "2.csv"),
            "vpt export": command("export", path, "--out", tmp_path / "a.task.safetensors"),
            "vpt serve": command("serve", path, "--port", "0"),
        }
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("vpt.backbones.loading.timm.create_model", no_download)
            patch.setattr("uvicorn.Server.run", lambda *_, **__: None)
            found += raw_errors(name, take_turns(entries, count), path, is_damaged=name in damaged)
    assert not found, "\n".join(found)


def no_download(name: str, **options: Any) -> Any:
    raise RuntimeError(f"nothing is fetched in this test: {name}")


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose checkpoint is left."""
    out = tmp_path_factory.mktemp("run") / "a.safetensors"
    vpt.tune(photos, out, **RUN)
    return out


@pytest.mark.parametrize("file", ["job.json", "result.json"])
def test_hostile_run_folders_are_refused_or_read(run: Path, photos: Path, tmp_path: Path, file: str) -> None:
    original = (run.with_suffix(".run") / file).read_bytes()
    texts = [(name, generators.content(text)) for name, text in generators.json_texts(json.loads(original))]
    inputs = inputs_of("run", [*generators.damaged(original, 4), *list(generators.no_files())[1:], *texts])
    found = []
    for number, (name, write) in enumerate(inputs):
        out = tmp_path / f"{number}.safetensors"
        shutil.copy(run, out)
        shutil.copytree(run.with_suffix(".run"), out.with_suffix(".run"))
        clear(out.with_suffix(".run") / file)
        write(out.with_suffix(".run") / file)
        options = ("--method", "linear", "--epochs", 1, "--batch-size", 16, "--val-fraction", 0)
        entries = {
            "tune": lambda out=out: vpt.tune(photos, out, **RUN),
            "vpt tune": command("tune", photos, "--out", out, *options),
        }
        turn, is_cut = take_turns(entries, number, always=0), name.startswith("cut to ")
        found += raw_errors(name, turn, is_damaged=is_cut)
    assert not found, "\n".join(found)


def test_hostile_checkpoints_are_refused(tmp_path: Path) -> None:
    model = vpt.attach(vpt.load_backbone(), "linear", 2)
    optimizer = torch.optim.SGD(model.trainable_parameters(), lr=0.1, momentum=0.9)
    progress = {"config": {"seed": 0}, "history": []}
    save_checkpoint(tmp_path / "whole.safetensors", model, optimizer, progress)
    original = (tmp_path / "whole.safetensors").read_bytes()
    damaged = generators.names_of_damage(original)
    texts = [
        (name, generators.content(serialize(parse(original), {"progress": text.decode()})))
        for name, text in generators.json_texts(progress)
    ]
    inputs = inputs_of("checkpoint", [*generators.damaged(original), *generators.no_files(), *texts])
    found = []
    for number, (name, write) in enumerate(inputs):
        path = tmp_path / f"{number}.safetensors"
        write(path)
        entries = {"load": lambda path=path: load_checkpoint(path, model, optimizer)}
        found += raw_errors(name, entries, path, is_damaged=name in damaged)
    assert not found, "\n".join(found)


def test_hostile_caches_are_written_again(photos: Path, tmp_path: Path) -> None:
    """Each has a checksum, so that a bit in the middle of pixels is noticed, too."""
    cache, found, files = tmp_path / "cache", [], {}
    train = load_dataset(photos, val_fraction=0, test_fraction=0).train
    model = vpt.attach(vpt.load_backbone(), "linear", 2)
    preprocessing, device = model.backbone.preprocessing, torch.device("cpu")

    network = BlockFeatureNetwork(model.backbone, device)

    def read_all() -> dict[str, Any]:
        decode = partial(decode_cached, train, preprocessing, cache_dir=cache, spill_dir=tmp_path)
        decoded = decode()
        whole = decode(whole_side=60).whole
        assert whole is not None
        examples = Examples(decoded.images, decoded.labels)
        streamed = DeviceDataset(Examples(stream, decoded.labels), preprocessing, device)
        dataset = DeviceDataset(examples, preprocessing, device)
        return {
            "pixels": decoded.images, "whole": np.concatenate([whole[index].ravel() for index in range(len(whole))]),
            "features": compute_features(model, dataset, False, cache).numpy(),
            "streamed": compute_features(model, streamed, False, cache).numpy(),
            "blocks": compute_block_features(network, dataset, path=cache / "blocks.npy"),
        }  # fmt: skip

    loader = ImageLoader([train.images], preprocessing, None, 0)
    stream = StreamedImages(loader, np.arange(len(train)), train.names, b"digest", cache)
    expected = read_all()
    files = {path.name: path.read_bytes() for path in sorted(cache.iterdir())}
    assert len(files) == 7
    for name, original in files.items():
        inputs = [*generators.damaged(original, 4), *list(generators.no_files())[1:]]
        if name.endswith(".json"):
            texts = generators.json_texts(json.loads(original))
            inputs += [(kind, generators.content(text)) for kind, text in texts]
        for kind, write in inputs_of("cache", inputs):
            clear(cache / name)
            write(cache / name)
            values: list[dict[str, Any]] = []
            found += raw_errors(f"{name}, {kind}", {"read": lambda values=values: values.append(read_all())})
            for key, array in (values[0] if values else {}).items():
                found += [] if np.array_equal(array, expected[key]) else [f"{name}, {kind}: other {key}"]
            clear(cache / name)
            (cache / name).write_bytes(original)
    assert not found, "\n".join(found)


def test_hostile_archives_are_refused(tuned: Path, tmp_path: Path) -> None:
    found, read = [], []
    for count, (name, write) in enumerate(inputs_of("archive", archive_files.archives(picture())), start=1):
        path = tmp_path / f"{count}.tar"
        write(path)
        entries = {
            "load_dataset": lambda path=path, name=name: read.append(
                (name, load_dataset(path, val_fraction=0, test_fraction=0))
            ),
            "evaluate": lambda path=path: vpt.evaluate(tuned, path),
            "tune": lambda path=path: vpt.tune(path, tmp_path / f"{path.stem}.safetensors", **RUN),
            "vpt data check": command("data", "check", path.stem + ".tar", "--data", tmp_path),
        }
        found += raw_errors(name, take_turns(entries, count))
    cut = [dataset.train.labels.tolist() for name, dataset in read if name.startswith("cut to ")]
    assert cut and all(labels == [0, 1] for labels in cut), "a part of an archive is read as the whole"
    assert not found, "\n".join(found)


def test_hostile_weights_are_refused(tuned: Path, photos: Path, tmp_path: Path) -> None:
    state = {name: tensor.clone() for name, tensor in vpt.load_backbone().module.state_dict().items()}
    found = []
    for count, (name, suffix, write) in enumerate(inputs_of("weights", generators.weights_files(state)), start=1):
        path = tmp_path / f"{count}{suffix}"
        write(path)
        entries = {
            "load_backbone": lambda path=path: vpt.load_backbone(weights=path),
            "vpt predict": command("predict", tuned, photos / "dark" / "0.png", "--weights", path),
        }
        turn, is_cut = take_turns(entries, count % 4 // 3, always=0), name.startswith("cut to ")
        found += raw_errors(name + suffix, turn, path, is_damaged=is_cut)
    assert not found, "\n".join(found)


def test_hostile_plans_are_refused(tmp_path: Path) -> None:
    found = []
    for count, (name, write) in enumerate(inputs_of("plan", generators.plans()), start=1):
        path = tmp_path / f"plan{count}.toml"
        write(path)
        entries = {
            "load_experiment": lambda path=path: load_experiment(path, for_estimate=True),
            "vpt bench plan": command("bench", "plan", path, "--images-per-second", 100),
        }
        found += raw_errors(name, take_turns(entries, count, always=0))
    assert not found, "\n".join(found)


def test_hostile_lists_are_refused(tuned: Path, tmp_path: Path) -> None:
    found = []
    for count, (name, file, write) in enumerate(inputs_of("list", generators.lists()), start=1):
        root = tmp_path / str(count)
        root.mkdir()
        for image in ("a.png", "b.png"):
            (root / image).write_bytes(picture())
        write(root / file)
        entries = {
            "load_dataset": lambda root=root: load_dataset(root, val_fraction=0, test_fraction=0),
            "evaluate": lambda root=root: vpt.evaluate(tuned, root),
            "vpt data check": command("data", "check", root.name, "--data", tmp_path),
        }
        if file != "train.txt":
            entries["predict"] = lambda root=root, file=file: vpt.predict(tuned, root / file)
            entries["vpt predict"] = command("predict", tuned, root / file)
        found += raw_errors(f"{file}, {name}", take_turns(entries, count))
    assert not found, "\n".join(found)


def test_hostile_requests_get_an_error(tuned: Path, tmp_path: Path) -> None:
    found: list[str] = []
    (tmp_path / "served").mkdir()
    shutil.copy(tuned, tmp_path / "served")
    application, inputs = create_app(Bank([tmp_path / "served"]), token=TOKEN), list(generators.requests(picture()))
    damaged = {f"task, {name}" for name in generators.names_of_damage(tuned.read_bytes())}
    for name, write in inputs_of("tuned file", generators.tuned_files(tuned.read_bytes()))[::3]:
        path = tmp_path / "task"
        clear(path)
        write(path)
        if path.is_file() and not path.is_symlink():
            inputs.append((f"task, {name}", "PUT", "/tasks/a", {}, path.read_bytes()))

    async def send(method: str, target: str, headers: dict[str, str], body: bytes) -> int:
        path, _, query = target.partition("?")
        sent: list[dict[str, Any]] = []
        messages: Iterator[dict[str, Any]] = iter([{"type": "http.request", "body": body}, {"type": "http.disconnect"}])

        async def receive() -> dict[str, Any]:
            return next(messages)

        async def respond(message: dict[str, Any]) -> None:
            sent.append(message)

        headers = {"authorization": f"Bearer {TOKEN}", **headers}
        raw = [(key.encode("latin-1"), value.encode("latin-1", "replace")) for key, value in headers.items()]
        scope = {
            "type": "http", "method": method, "path": path, "raw_path": path.encode(), "headers": raw,
            "query_string": query.encode(), "http_version": "1.1", "scheme": "http", "server": ("localhost", 80),
            "client": ("127.0.0.1", 1), "root_path": "",
        }  # fmt: skip
        await application(scope, receive, respond)
        return int(sent[0]["status"])

    async def send_all() -> None:
        async with application.router.lifespan_context(application):
            for name, method, path, headers, body in inputs:
                try:
                    status = await send(method, path, headers, body)
                except Exception as error:
                    found.append(f"{name}: {type(error).__name__}: {error}")
                    continue
                is_valid = name.startswith(("headers ", "task, ")) and name not in damaged
                if status >= 500 or (status < 400 and not is_valid):
                    found.append(f"{name}: status {status}")

    asyncio.run(send_all())
    count_tried(inputs=len(inputs), calls=len(inputs), raw=len(found))
    assert not found, "\n".join(found)
    assert len(inputs) >= COUNTS["request"]
