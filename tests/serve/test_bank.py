"""The bank: many files, one backbone, answers as `vpt.load` gives them."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from families import model_of, resized
from vpt import attach, load, load_backbone, save
from vpt.errors import ArtifactError, SpecError
from vpt.serving.bank import Bank, Segmented
from vpt.tasks.segmentation.sliding_window import Inference, classes_of


def test_a_mixed_batch_answers_as_the_files_one_by_one(folder, pictures):
    bank, backbone = Bank([folder]), load_backbone()
    names = ["animals", "scenes", "plants", "probe", "biased", "deeper", "lora", "ssf", "plants", "animals"]
    answers = bank.answer([bank.request(name, pictures[i % 6]) for i, name in enumerate(names)])
    assert [answer.task for answer in answers] == names
    for i, (name, answer) in enumerate(zip(names, answers, strict=True)):
        model, image = load(folder / f"{name}.safetensors", backbone), pictures[i % 6]
        if isinstance(answer, Segmented):
            assert name == "scenes"
            pixels = torch.from_numpy(np.asarray(image).transpose(2, 0, 1).copy())
            mask = classes_of(model, pixels, Inference()).numpy()
            assert np.array_equal(answer.mask, mask)
            assert dict(answer.found) == {model.classes[k]: pytest.approx((mask == k).mean()) for k in np.unique(mask)}
            continue
        preprocessing = model.backbone.preprocessing
        pixels = torch.from_numpy(preprocessing.fit(image))[None]
        with torch.no_grad():
            expected = model(preprocessing.normalise(pixels)).softmax(1)[0]
        assert answer.top[0][1] == max(share for _, share in answer.top)
        assert dict(answer.top) == {
            c: pytest.approx(float(p), abs=1e-4) for c, p in zip(model.classes, expected, strict=True)
        }


def test_the_backbone_is_in_memory_once(folder, pictures):
    bank = Bank([folder])
    bank.answer([bank.request(name, pictures[0]) for name in bank.tasks])
    (backbone,) = bank._backbones.values()
    theirs = {weight.data_ptr() for weight in backbone.module.parameters()}
    (mixed,) = bank._mixed.values()
    networks = [mixed.network, *(task.trunk for task in bank._loaded.values() if hasattr(task, "trunk"))]
    assert len(networks) == 5  # of what mixes, and of each task that does not
    for network in networks:
        shared = sum(weight.numel() for weight in network.parameters() if weight.data_ptr() in theirs)
        assert shared > 0.99 * sum(weight.numel() for weight in backbone.module.parameters())


def test_what_was_used_least_recently_makes_room_and_comes_back(folder, pictures):
    bank = Bank([folder], capacity=2)
    first = bank.answer([bank.request("animals", pictures[0])])
    for name in bank.tasks:
        bank.answer([bank.request(name, pictures[0])])
        assert len(bank._loaded) <= 2
    assert "animals" not in bank._loaded
    assert bank.answer([bank.request("animals", pictures[0])]) == first


def test_an_unknown_task_is_named_with_the_nearest(folder, pictures):
    with pytest.raises(SpecError, match=r"no task 'animal'; did you mean 'animals'"):
        Bank([folder]).request("animal", pictures[0])


def test_faults_of_files_are_named_all_at_once(folder, tmp_path):
    shutil.copy(folder / "animals.safetensors", tmp_path / "animals.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtifactError, match="3 files cannot be used") as caught:
        Bank([folder, tmp_path, tmp_path / "empty"])
    for words in ("is also named animals", "broken.safetensors is damaged", "a folder without"):
        assert words in str(caught.value)
    with pytest.raises(ArtifactError, match="no tuned file was given"):
        Bank([])


def test_files_of_another_backbone_are_named_before_serving(folder, tmp_path):
    path = tmp_path / "animals.safetensors"
    raw = (folder / "animals.safetensors").read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    header["__metadata__"]["vpt"] = header["__metadata__"]["vpt"].replace("sha256:", "sha256:0", 1)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + size :])
    with pytest.raises(ArtifactError, match=r"1 file cannot be used:\n.*animals.*made for"):
        Bank([path])


def test_one_bad_task_spoils_no_other(folder, tmp_path, pictures):
    for name in ("animals", "plants"):
        shutil.copy(folder / f"{name}.safetensors", tmp_path)
    raw = bytearray((tmp_path / "plants.safetensors").read_bytes())
    raw[-1] ^= 1
    (tmp_path / "plants.safetensors").write_bytes(raw)
    bank = Bank([tmp_path])
    answers = dict(bank.answers([bank.request(name, pictures[0]) for name in ("plants", "animals", "plants")]))
    assert isinstance(answers[0], ArtifactError) and isinstance(answers[2], ArtifactError)
    assert answers[1] == Bank([folder]).answer([bank.request("animals", pictures[0])])[0]
    with pytest.raises(ArtifactError, match="altered or damaged"):
        bank.preload()


def test_a_backbone_at_hand(tmp_path, pictures):
    backbone = load_backbone(model_of("vit"))
    save(attach(backbone, "vpt(length=2)", 2), tmp_path / "one.safetensors")
    bank = Bank([tmp_path], backbone=backbone)
    heard = []
    bank.preload(lambda done, total: heard.append((done, total)))
    assert heard == [(1, 1)] and len(bank.answer([bank.request("one", pictures[0])])[0].top) == 2
    with pytest.raises(ArtifactError, match="cannot be used"):  # its name is no name of timm's, or its weights differ
        Bank([tmp_path], weights=tmp_path / "none.safetensors")


def test_a_capacity_of_nothing_is_refused(folder):
    with pytest.raises(SpecError, match="capacity is 0"):
        Bank([folder], capacity=0)


def test_a_file_that_was_replaced_meanwhile_is_not_served(folder, tmp_path, pictures):
    place = tmp_path / "task.safetensors"
    shutil.copy(folder / "animals.safetensors", place)
    bank = Bank([place])
    shutil.copy(folder / "plants.safetensors", place)
    with pytest.raises(ArtifactError, match="another file than when it was first read"):
        bank.answer([bank.request("task", pictures[0])])


@pytest.mark.parametrize("family", ["swin", "convnext"])
def test_one_backbone_at_two_sizes(family, tmp_path, pictures, monkeypatch):
    """Weights without positions have one fingerprint at every size."""
    monkeypatch.setattr(
        "vpt.serving.bank.backbone_for", lambda path, header, **_: resized(family, header.preprocessing.size)
    )
    names = {"small": 32, "large": 64}
    expected = {}
    for name, size in names.items():
        model = attach(resized(family, size), "linear", 2)
        save(model, tmp_path / f"{name}.safetensors")
        pixels = torch.from_numpy(model.backbone.preprocessing.fit(pictures[0]))[None]
        with torch.no_grad():
            expected[name] = model(model.backbone.preprocessing.normalise(pixels)).softmax(1)[0].max()
    bank = Bank([tmp_path])
    assert len({header.fingerprint for header in bank.tasks.values()}) == 1
    for answer in bank.answer([bank.request(name, pictures[0]) for name in names]):
        assert answer.top[0][1] == pytest.approx(float(expected[answer.task]), abs=1e-4)
