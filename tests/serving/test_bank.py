"""The bank: many files, one backbone, predictions as `vpt.load` gives them."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from helpers.families import model_of, resized
from vpt import attach, load, load_backbone, save
from vpt.errors import SpecError, TunedFileError
from vpt.serving.adapter_reader import AdapterReader
from vpt.serving.bank import Bank
from vpt.serving.model_cache import ModelCache
from vpt.serving.predictions import MaskPrediction
from vpt.serving.tuned_files import TaskReplacedError
from vpt.tasks.segmentation.sliding_window import InferenceConfig, predict_classes


def test_bank_predict_of_mixed_batch_equals_single_files(folder, pictures):
    bank, backbone = Bank([folder]), load_backbone()
    names = ["animals", "scenes", "plants", "probe", "biased", "deeper", "lora", "ssf", "plants", "animals"]
    predictions = bank.predict([bank.make_request(name, pictures[i % 6]) for i, name in enumerate(names)])
    assert [prediction.task for prediction in predictions] == names
    for i, (name, prediction) in enumerate(zip(names, predictions, strict=True)):
        model, image = load(folder / f"{name}.safetensors", backbone), pictures[i % 6]
        if isinstance(prediction, MaskPrediction):
            assert name == "scenes"
            pixels = torch.from_numpy(np.asarray(image).transpose(2, 0, 1).copy())
            mask = predict_classes(model, pixels, InferenceConfig()).numpy()
            assert np.array_equal(prediction.mask, mask)
            assert dict(prediction.top) == {
                model.classes[k]: pytest.approx((mask == k).mean()) for k in np.unique(mask)
            }
            continue
        preprocessing = model.backbone.preprocessing
        pixels = torch.from_numpy(preprocessing.resize_image(image))[None]
        with torch.no_grad():
            expected = model(preprocessing.normalize(pixels)).softmax(1)[0]
        assert prediction.top[0][1] == max(probability for _, probability in prediction.top)
        assert dict(prediction.top) == {
            c: pytest.approx(float(p), abs=1e-4) for c, p in zip(model.classes, expected, strict=True)
        }


def test_bank_with_all_tasks_holds_the_backbone_once(folder, pictures):
    bank = Bank([folder])
    bank.predict([bank.make_request(name, pictures[0]) for name in bank.tasks])
    (backbone,) = bank._backbones.values()
    theirs = {weight.data_ptr() for weight in backbone.module.parameters()}
    (multi_task,) = bank._multi_task.values()
    models = [bank._models.get(file) for file in bank.files.current.values()]
    networks = [multi_task.network, *(model.trunk for model in models if hasattr(model, "trunk"))]
    assert len(networks) == 5  # of what mixes, and of each task that does not
    for network in networks:
        shared = sum(weight.numel() for weight in network.parameters() if weight.data_ptr() in theirs)
        assert shared > 0.99 * sum(weight.numel() for weight in backbone.module.parameters())


def test_bank_with_cache_size_evicts_and_reloads_tasks(folder, pictures, monkeypatch):
    reads, read = [], AdapterReader.read
    monkeypatch.setattr(AdapterReader, "read", lambda self, *args: reads.append(args) or read(self, *args))
    bank = Bank([folder], cache_size=2)
    first = bank.predict([bank.make_request("animals", pictures[0])])
    for name in bank.tasks:
        bank.predict([bank.make_request(name, pictures[0])])
        assert len(bank._models) <= 2
    before = len(reads)
    assert bank.predict([bank.make_request("animals", pictures[0])]) == first
    assert len(reads) == before + 1  # the file was read again


def test_make_request_of_unknown_task_suggests_the_nearest(folder, pictures):
    with pytest.raises(SpecError, match=r"no task 'animal'; did you mean 'animals'"):
        Bank([folder]).make_request("animal", pictures[0])


def test_bank_of_faulty_files_names_all(folder, tmp_path):
    shutil.copy(folder / "animals.safetensors", tmp_path / "animals.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(TunedFileError, match="3 files cannot be used") as caught:
        Bank([folder, tmp_path, tmp_path / "empty"])
    for words in ("is also named animals", "broken.safetensors is damaged", "a folder without"):
        assert words in str(caught.value)
    with pytest.raises(TunedFileError, match="no tuned file was given"):
        Bank([])


def test_bank_of_files_with_another_backbone_is_refused(folder, tmp_path):
    path = tmp_path / "animals.safetensors"
    raw = (folder / "animals.safetensors").read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    other = re.sub("sha256:[0-9a-f]{64}", f"sha256:{64 * '0'}", header["__metadata__"]["vpt"])
    header["__metadata__"]["vpt"] = other
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + size :])
    with pytest.raises(TunedFileError, match=r"1 file cannot be used:\n.*animals.*made for"):
        Bank([path])


def test_bank_predict_with_damaged_task_predictions_the_others(folder, tmp_path, pictures):
    for name in ("animals", "plants"):
        shutil.copy(folder / f"{name}.safetensors", tmp_path)
    raw = bytearray((tmp_path / "plants.safetensors").read_bytes())
    raw[-1] ^= 1
    (tmp_path / "plants.safetensors").write_bytes(raw)
    bank = Bank([tmp_path])
    predictions = dict(
        bank.iter_predictions([bank.make_request(name, pictures[0]) for name in ("plants", "animals", "plants")])
    )
    assert isinstance(predictions[0], TunedFileError) and isinstance(predictions[2], TunedFileError)
    assert predictions[1] == Bank([folder]).predict([bank.make_request("animals", pictures[0])])[0]
    with pytest.raises(TunedFileError, match="altered or damaged"):
        bank.preload()


def test_bank_with_given_backbone_uses_it(tmp_path, pictures):
    backbone = load_backbone(model_of("vit"))
    save(attach(backbone, "vpt(length=2)", 2), tmp_path / "one.safetensors")
    bank = Bank([tmp_path], backbone=backbone)
    progress = []
    bank.preload(lambda done, total: progress.append((done, total)))
    assert progress == [(1, 1)] and len(bank.predict([bank.make_request("one", pictures[0])])[0].top) == 2
    with pytest.raises(TunedFileError, match="cannot be used"):  # its name is no name of timm's, or its weights differ
        Bank([tmp_path], weights=tmp_path / "none.safetensors")


def test_bank_with_cache_size_of_0_is_refused(folder):
    with pytest.raises(SpecError, match="cache_size is 0"):
        Bank([folder], cache_size=0)


@dataclass(frozen=True)
class NamedFile:
    """What the cache needs of a tuned file."""

    name: str

    def check(self) -> None:
        pass


def test_model_cache_keeps_the_models_that_were_used_last() -> None:
    read: list[str] = []
    cache: Any = ModelCache(2, lambda file: read.append(file.name) or file.name)  # type: ignore[attr-defined,func-returns-value]
    for name in "ABACA":
        assert cache.get(NamedFile(name)) == name
    assert read == ["A", "B", "C"] and len(cache) == 2
    cache.get(NamedFile("B"))
    assert read[-1] == "B"


def test_bank_predict_of_replaced_file_is_refused(folder, tmp_path, pictures):
    path = tmp_path / "task.safetensors"
    shutil.copy(folder / "animals.safetensors", path)
    bank = Bank([path])
    request = bank.make_request("task", pictures[0])
    shutil.copy(folder / "plants.safetensors", path)
    with pytest.raises(TaskReplacedError, match="has changed since the request was made"):
        bank.predict([request])
    assert bank.files.refresh() == ["replaced task"]
    assert bank.predict([bank.make_request("task", pictures[0])])[0].top[0][0] in ("oak", "rose", "fern")


@pytest.mark.parametrize("family", ["swin", "convnext"])
def test_bank_with_one_backbone_at_two_sizes_predicts_with_both(family, tmp_path, pictures, monkeypatch):
    """Weights without positions have one fingerprint at every size."""
    monkeypatch.setattr(
        "vpt.serving.tuned_files.backbone_for", lambda path, header, *_: resized(family, header.preprocessing.size)
    )
    names = {"small": 32, "large": 64}
    expected = {}
    for name, size in names.items():
        model = attach(resized(family, size), "linear", 2)
        save(model, tmp_path / f"{name}.safetensors")
        pixels = torch.from_numpy(model.backbone.preprocessing.resize_image(pictures[0]))[None]
        with torch.no_grad():
            expected[name] = model(model.backbone.preprocessing.normalize(pixels)).softmax(1)[0].max()
    bank = Bank([tmp_path])
    assert len({header.fingerprint for header in bank.tasks.values()}) == 1
    for prediction in bank.predict([bank.make_request(name, pictures[0]) for name in names]):
        assert prediction.top[0][1] == pytest.approx(float(expected[prediction.task]), abs=1e-4)
