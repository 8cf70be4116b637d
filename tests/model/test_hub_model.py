"""Models, cards and addresses of the Hub, without its server."""

from __future__ import annotations

import json
import re
import threading
from dataclasses import dataclass
from inspect import signature as inspect_signature
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelHubMixin

from helpers.hub_server import write_tuned
from vpt import TunedModel, attach, inspect, load_backbone
from vpt.core.hub import HubAddress, hub_errors
from vpt.errors import SpecError, StorageError, TunedFileError
from vpt.model.card import model_card


@pytest.fixture
def tuned(tmp_path: Path) -> Path:
    return write_tuned(tmp_path)


@pytest.mark.parametrize("name", ["save_pretrained", "push_to_hub", "from_pretrained"])
def test_signature_of_tuned_model_equals_that_of_the_mixin(name: str) -> None:
    own, theirs = (dict(inspect_signature(getattr(kind, name)).parameters) for kind in (TunedModel, ModelHubMixin))
    for gone in ("resume_download", "proxies"):  # before version 1
        theirs.pop(gone, None)
    assert issubclass(TunedModel, ModelHubMixin)
    assert [(each.name, each.kind) for each in own.values()] == [(each.name, each.kind) for each in theirs.values()]
    defaults = {each.name for each in own.values() if each.default != theirs[each.name].default}
    # Our message names the file and the version; `private` had another default before version 0.27.
    assert defaults <= {"commit_message", "private"}


def test_mixin_makes_no_copy_of_the_backbone() -> None:
    backbone = load_backbone("vit_nano_patch12_48")
    model = attach(backbone, "bias", 2)
    assert model.backbone is backbone and not vars(model).get("_hub_mixin_config")
    assert str(model.generate_model_card(license="MIT").data.license) == "mit"


def test_saved_folder_loads_and_has_a_card(tmp_path: Path, tuned: Path) -> None:
    folder = tmp_path / "folder"
    model = attach("vit_nano_patch12_48", "bias", 3).eval()
    assert model.save_pretrained(folder, model_card_kwargs={"license": "MIT"}) is None
    again = TunedModel.from_pretrained(folder)
    assert str(again.method) == str(model.method) and inspect(folder / "model.safetensors").license == "MIT"
    assert "3 outputs (single_label), without names" in (folder / "README.md").read_text()
    (folder / "README.md").write_text("mine")
    model.save_pretrained(folder)
    assert (folder / "README.md").read_text() == "mine"
    with pytest.raises(SpecError, match="is a folder, which has no revision 'v1'"):
        TunedModel.from_pretrained(folder, revision="v1")
    with pytest.raises(SpecError, match="is no address on the Hub"):
        TunedModel.from_pretrained(str(tmp_path / "nothing"))
    with pytest.raises(TunedFileError, match=r"model\.safetensors does not exist"):
        TunedModel.from_pretrained(tmp_path)
    with pytest.raises(TypeError, match="bakbone"):
        TunedModel.from_pretrained(folder, bakbone="vit_nano_patch12_48")


def test_card_names_backbone_data_scores_with_interval_and_license(tuned: Path) -> None:
    run_dir = tuned.with_suffix(".run")
    run_dir.mkdir()
    record = {
        "metrics": {"test_top1": 0.9}, "data": "pets|`</x>`\n---", "images": {"train": 80, "test": 20},
        "job": {"config": {"epochs": 7, "learning_rate": 0.5, "ema": None}},
    }  # fmt: skip
    (run_dir / "result.json").write_text(json.dumps(record))
    text = model_card(tuned, HubAddress("owner/photos"))
    front = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    assert front is not None
    metadata = yaml.safe_load(front[1])
    assert metadata["license"] == "cc-by-4.0" and metadata["pipeline_tag"] == "image-classification"
    (result,) = metadata["model-index"]
    assert result["results"][0]["metrics"][0] == {"type": "accuracy", "value": 0.9}
    assert "| top1 | test | 90.00 % | 69.9 to 97.2 % | 20 |" in text  # Wilson's interval of 18 of 20
    assert "| mae | test | 0.25 |" in text
    for part in (
        "`vit_nano_patch12_48`",
        "80 train, 20 test images",
        "cat, dog",
        "epochs 7, learning_rate 0.5",
        "CC-BY-4.0",
    ):
        assert part in text, part
    use = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert use is not None and len(use[1].splitlines()) <= 6
    (run_dir / "result.json").write_text(json.dumps({**record, "metrics": {"test_top1": 0.1}}))  # of another training
    assert "The data of the training are not recorded" in model_card(tuned)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("owner/name", HubAddress("owner/name")),
        ("hf://owner/name@v1", HubAddress("owner/name", revision="v1")),
        ("hf:/owner/na.me/a/b.safetensors@refs/pr/1", HubAddress("owner/na.me", "a/b.safetensors", "refs/pr/1")),
    ],
)
def test_address_of_each_form_is_read(text: str, address: HubAddress) -> None:
    assert HubAddress.parse(text) == address and HubAddress.parse(str(address)) == address


@pytest.mark.parametrize(
    "text", ["hf://owner", "hf://", "hf:///owner/name", "hf://owner/name@", "a b/c", "a/b/../c", "https://x.y/z/a"]
)
def test_address_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match="is no address on the Hub"):
        HubAddress.parse(text)


@dataclass
class Uncopied:
    lock: Any


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model_card_kwargs": {"licence": "MIT"}}, "has 'licence', which is no option; did you mean 'license'"),
        ({"config": {"task": {1, 2}}}, "config cannot be written as JSON"),
        ({"config": Uncopied(threading.Lock())}, "config cannot be written as JSON"),
        ({"repo_id": 3}, "repo_id is 3; give the owner"),
    ],
)
def test_wrong_argument_of_a_push_is_told_as_one(options: dict[str, Any], message: str) -> None:
    model = attach("vit_nano_patch12_48", "bias", 2).eval()
    with pytest.raises(SpecError, match=message):
        model.push_to_hub(**{"repo_id": "owner/a", **options})


def test_argument_of_another_type_is_no_fault_of_the_connection() -> None:
    message = "cannot be written: expected str; correct the arguments"
    with pytest.raises(SpecError, match=message), hub_errors("owner/a cannot be written", StorageError):
        raise TypeError("expected str")
