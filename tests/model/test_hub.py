"""Tuned files on the Hub: huggingface_hub as it is, against a stand-in of its server that HF_ENDPOINT names.

huggingface_hub reads that variable when it is imported, so the commands run in one process of their own.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from helpers.hub_server import TOKEN, Hub, serve_hub, write_tuned
from vpt import inspect
from vpt.errors import ExitCode

_RUN = """
import contextlib, io, json, os, sys
from vpt.cli import main
import vpt.core.hub, vpt.serving.bank
import huggingface_hub, vpt  # now, so that its log goes to the stderr of this process
for step in json.load(sys.stdin):
    out, err, code = io.StringIO(), io.StringIO(), 0
    os.environ.pop("HF_TOKEN", None)
    os.environ.update(step["env"])
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            if isinstance(step["do"], str):
                print(eval(step["do"]))
            else:
                main(step["do"])
        except SystemExit as left:
            code = left.code
        except vpt.VptError as error:
            code = str(error)
    print(json.dumps({"out": out.getvalue(), "err": err.getvalue(), "code": code}), flush=True)
"""


LOAD = "vpt.load('hf://owner/photos')"
STOP = "__import__('urllib.request').request.urlopen(os.environ['HF_ENDPOINT'] + '/stop').status"


def run(steps: dict[str, tuple[Any, str]], url: str, home: Path) -> tuple[dict[str, dict[str, Any]], str]:
    """Outputs of commands (lists of words) and Python expressions (texts), each with a token; and the log."""
    env = {**os.environ, "HF_ENDPOINT": url, "HF_HOME": str(home), "HF_HUB_ETAG_TIMEOUT": "2", "HF_DEBUG": "1"}
    env["HF_HUB_DISABLE_XET"] = "1"  # another protocol of upload, in place of LFS, that the stand-in does not speak
    content = json.dumps([{"do": what, "env": {"HF_TOKEN": token} if token else {}} for what, token in steps.values()])
    done = subprocess.run([sys.executable, "-c", _RUN], input=content, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return dict(zip(steps, map(json.loads, done.stdout.splitlines()), strict=True)), done.stderr


def download(repo: str) -> str:
    return f"vpt.core.hub.local_path('hf://{repo}')"


@dataclass
class Session:
    """What commands said, and what the Hub holds after them."""

    hub: Hub
    said: dict[str, dict[str, Any]]
    log: str
    tuned: Path


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """One process after the other would import torch each time, so all commands run in one."""
    folder = tmp_path_factory.mktemp("hub")
    tuned, image = write_tuned(folder), folder / "new.png"
    Image.fromarray(np.zeros((48, 48, 3), np.uint8)).save(image)
    push = ["push", str(tuned)]
    own_license = write_tuned(folder / "own", "Ours: see LICENSE.txt\n")
    refused = write_tuned(folder / "refused", "Apache-2.0")  # not one of those that the stand-in knows
    damaged = folder / "damaged.safetensors"
    *content, last = tuned.read_bytes()
    damaged.write_bytes(bytes([*content, last ^ 1]))
    with serve_hub() as hub:
        for name in (
            "owner/empty",
            "owner/gated",
            "owner/carded",
            "owner/public",
            "owner/kept",
            "owner/replaced",
            "owner/asked",
        ):
            hub.create(name)
        for name in ("owner/carded", "owner/kept"):
            hub.commit(name, "main", {"README.md": b"mine"})
        hub.commit("owner/replaced", "main", {"README.md": b"mine", "NOTES.md": b"old"})
        hub.gated.add("owner/gated")
        hub.contested.add("owner/contested")
        steps: dict[str, tuple[Any, str]] = {
            "push": ([*push, "owner/photos", "--json"], TOKEN),
            "push pets": ([*push, "owner/photos/pets.safetensors"], TOKEN),
            "keep card": ([*push, "owner/carded"], TOKEN),
            "replace card": ([*push, "owner/carded", "--replace-card"], TOKEN),
            "inspect": (["inspect", "hf://owner/photos", "--json"], ""),
            "predict": (["predict", "hf://owner/photos", str(image), "--json"], ""),
            "vpt.predict": (f"vpt.predict('hf://owner/photos/pets.safetensors@main', {str(image)!r}).to_dict()", ""),
            "from_pretrained": ("vpt.TunedModel.from_pretrained('owner/photos').classes", ""),
            "push_to_hub": (f"{LOAD}.push_to_hub('owner/again', model_card_kwargs={{'license': 'MIT'}})", TOKEN),
            "push with token": (f"{LOAD}.push_to_hub('owner/given', token={TOKEN!r})", ""),
            "fetch without token": ("vpt.TunedModel.from_pretrained('owner/given', token=False).classes", ""),
            "push to a name": (f"{LOAD}.push_to_hub('named', config={{'task': 'pets'}})", TOKEN),
            "push to a branch": (f"{LOAD}.push_to_hub('owner/named', branch='dev', ignore_patterns='*.md')", TOKEN),
            "keep card of model": (f"{LOAD}.push_to_hub('owner/kept')", TOKEN),
            "replace card of model": (f"{LOAD}.push_to_hub('owner/replaced', delete_patterns='*.md')", TOKEN),
            "pull request": (f"{LOAD}.push_to_hub('owner/asked', create_pr=True)", TOKEN),
            "save and push": (
                f"{LOAD}.save_pretrained({str(folder / 'both')!r}, push_to_hub=True, repo_id='owner/both', "
                "private=True, allow_patterns=['*.safetensors'])",
                TOKEN,
            ),
            "from cache": ("vpt.TunedModel.from_pretrained('owner/photos', local_files_only=True).classes", ""),
            "push private": ([*push, "owner/secret", "--private"], TOKEN),
            "push private again": ([*push, "owner/secret", "--private"], TOKEN),
            "push own license": (["push", str(own_license), "owner/licensed"], TOKEN),
            "push branch of new": ([*push, "owner/branched@a/b"], TOKEN),
            "push branch of carded": ([*push, "owner/carded@dev"], TOKEN),
            "push main": ([*push, "owner/main@main"], TOKEN),
            "serve": (
                "[*vpt.serving.bank.Bank([vpt.core.hub.local_path('hf://owner/photos/pets.safetensors')]).tasks]",
                "",
            ),
            "serve two": (
                f"[*vpt.serving.bank.Bank([{download('owner/photos')}, {download('owner/again')}]).tasks]",
                "",
            ),
            "push private to public": ([*push, "owner/public", "--private"], TOKEN),
            "push model to public": (f"{LOAD}.push_to_hub('owner/public', private=True)", TOKEN),
            "push model, no owner": (f"{LOAD}.push_to_hub('owner/a/b')", TOKEN),
            "push model, wrong token": (f"{LOAD}.push_to_hub('owner/photos', token='hf_wrong')", ""),
            "push private to contested": ([*push, "owner/contested", "--private"], TOKEN),
            "push refused card": (["push", str(refused), "owner/refused@dev"], TOKEN),
            "push damaged": (["push", str(damaged), "owner/damaged"], TOKEN),
            "missing": (["inspect", "hf://owner/missing"], TOKEN),
            "missing, no token": (["inspect", "hf://owner/missing"], ""),
            "no file": (["inspect", "hf://owner/empty"], TOKEN),
            "no revision": (["inspect", "hf://owner/photos@v9"], TOKEN),
            "gated": (["inspect", "hf://owner/gated"], ""),
            "no address": (["inspect", "hf://photos"], ""),
            "wrong token": ([*push, "owner/photos"], "hf_wrong"),
            "stop": (STOP, ""),
            "cached": (["inspect", "hf://owner/photos"], TOKEN),
            "from_pretrained, cached": ("vpt.TunedModel.from_pretrained('owner/photos').classes", TOKEN),
            "unreachable": (["inspect", "hf://owner/other"], TOKEN),
        }
        return Session(hub, *run(steps, hub.url, folder / "home"), tuned)


def test_commands_and_calls_take_addresses(done: Session) -> None:
    codes = {name: step["code"] for name, step in done.said.items()}
    succeeded = list(codes)[: list(codes).index("serve two") + 1]
    assert {codes[name] for name in succeeded} == {0} and codes["cached"] == 0, done.said
    assert codes["from_pretrained, cached"] == 0, done.said["from_pretrained, cached"]
    said = {name: step["out"] for name, step in done.said.items()}
    address = json.loads(said["push"])
    assert address["address"] == "hf://owner/photos"
    assert address["commit"].startswith(f"{done.hub.url}/owner/photos/commit/")
    assert said["push pets"].startswith("hf://owner/photos/pets.safetensors: http")
    assert json.loads(said["inspect"])["checksum"] == inspect(done.tuned).checksum
    assert ast.literal_eval(said["vpt.predict"]) == json.loads(said["predict"])
    assert ast.literal_eval(said["from_pretrained"]) == ("cat", "dog")
    assert said["push with token"].startswith(f"{done.hub.url}/owner/given/commit/")
    assert ast.literal_eval(said["fetch without token"]) == ("cat", "dog")
    assert ast.literal_eval(said["serve"]) == ["pets"]
    assert ast.literal_eval(said["serve two"]) == ["photos", "again"]


def test_pushed_files_and_card_are_on_the_hub(done: Session) -> None:
    files = done.hub.head("owner/photos")
    assert files["model.safetensors"] == files["pets.safetensors"] == done.tuned.read_bytes()
    assert any(request.startswith("PUT /blobs/") for request in done.hub.requests)
    card = files["README.md"].decode()
    assert 'vpt.load("hf://owner/photos")' in card and "| top1 | test | 90.00 % |" in card
    own_license = yaml.safe_load(done.hub.head("owner/licensed")["README.md"].decode().split("---")[1])
    assert (own_license["license"], own_license["license_name"]) == ("other", "ours-see-license.txt")
    assert done.hub.private == {"owner/secret", "owner/both"}
    assert done.hub.head("owner/secret").keys() == files.keys() - {"pets.safetensors"}
    assert "\nlicense: mit\n" in done.hub.head("owner/again")["README.md"].decode()


def test_pushed_models_have_the_options_of_the_mixin(done: Session) -> None:
    hub, both = done.hub, {"model.safetensors", "README.md"}
    assert hub.head("owner/named").keys() == both | {"config.json"}
    assert json.loads(hub.head("owner/named")["config.json"]) == {"task": "pets"}
    assert done.said["push to a name"]["out"].startswith(f"{hub.url}/owner/named/commit/")
    _, branch = hub.files("owner/named", "dev") or ("", {})
    assert branch == hub.head("owner/named")  # the file is equal, and the card was left out
    assert hub.head("owner/kept").keys() == hub.head("owner/replaced").keys() == both
    assert hub.head("owner/kept")["README.md"] == b"mine"
    assert b"# replaced" in hub.head("owner/replaced")["README.md"]
    assert hub.head("owner/asked") == {} and (hub.files("owner/asked", "refs/pr/1") or ("", {}))[1].keys() == both
    assert hub.head("owner/both").keys() == {"model.safetensors"}
    assert done.said["save and push"]["out"].startswith(f"{hub.url}/owner/both/commit/")
    assert {path.name for path in (done.tuned.parent / "both").iterdir()} == both


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("push model to public", "the model is not written to hf://owner/public, as the repository is public"),
        ("push model, no owner", "owner/a/b cannot be written: "),
        ("push model, wrong token", "owner/photos cannot be written: the Hub refuses the token (status"),
    ],
)
def test_pushed_models_that_the_hub_refuses_say_why(done: Session, step: str, message: str) -> None:
    assert str(done.said[step]["code"]).startswith(message), done.said[step]


def test_push_that_is_refused_leaves_the_hub_as_it_was(done: Session) -> None:
    assert done.hub.head("owner/public") == done.hub.head("owner/contested") == {}
    assert {"owner/damaged", "owner/refused"}.isdisjoint(done.hub.repos)


def test_push_keeps_a_card_that_its_owner_wrote(done: Session) -> None:
    cards = [files["README.md"] for files in done.hub.repos["owner/carded"].values() if "model.safetensors" in files]
    assert cards[0] == b"mine" and b"# carded" in cards[1] and len(cards) == 2


def test_push_to_a_missing_branch_makes_it_from_main(done: Session) -> None:
    (_, new), (_, dev) = (
        done.hub.files("owner/branched", "a/b") or ("", {}),
        done.hub.files("owner/carded", "dev") or ("", {}),
    )
    assert new.keys() == {"model.safetensors", "README.md"} and done.hub.head("owner/branched") == {}
    assert dev == done.hub.head("owner/carded")
    assert done.hub.head("owner/main").keys() == new.keys()


@pytest.mark.parametrize(
    ("step", "code", "message"),
    [
        ("missing", ExitCode.TUNED_FILE, "hf://owner/missing cannot be fetched: there is no such repository, or it is"),
        ("missing, no token", ExitCode.TUNED_FILE, "check the name, or log in with `hf auth login`, or set HF_TOKEN"),
        ("no file", ExitCode.TUNED_FILE, "the repository has no such file; write hf://owner/name/file.safetensors"),
        ("no revision", ExitCode.TUNED_FILE, "hf://owner/photos@v9 cannot be fetched: the repository has no such"),
        ("gated", ExitCode.TUNED_FILE, "its owner grants access by request; ask for it on the page of the repository"),
        ("no address", ExitCode.USAGE, "hf://photos is no address on the Hub; write hf://owner/name"),
        ("wrong token", ExitCode.STORAGE, "cannot be written to hf://owner/photos: the Hub refuses the token (status"),
        (
            "push private to public",
            ExitCode.STORAGE,
            "is not written to hf://owner/public, as the repository is public",
        ),
        (
            "push private to contested",
            ExitCode.STORAGE,
            "is not written to hf://owner/contested, as the repository is public",
        ),
        ("push refused card", ExitCode.STORAGE, '"license" must be one of the known; correct what it names'),
        ("push damaged", ExitCode.TUNED_FILE, "damaged.safetensors was altered or damaged after it was written"),
        (
            "unreachable",
            ExitCode.TUNED_FILE,
            "the Hub does not respond, and the cache has no copy; check the connection",
        ),
    ],
)
def test_errors_of_the_hub_say_what_to_do(done: Session, step: str, code: ExitCode, message: str) -> None:
    found = done.said[step]
    assert found["code"] == code, found
    assert any(line.startswith("error: ") and message in line for line in found["err"].splitlines()), found


def test_token_is_in_no_output_and_no_log(done: Session) -> None:
    assert "(authenticated: True)" in done.log  # it is at its most talkative
    text = json.dumps(done.said) + done.log
    assert TOKEN not in text and "hf_wrong" not in text
