"""Tasks that come, change and go while they are served: by their files, and by requests with the token."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from helpers.serving import get, png, predict, refusal, running_server, wait_until
from vpt import attach, load_backbone, save
from vpt.errors import SpecError, StorageError, TunedFileError
from vpt.serving.bank import Bank
from vpt.serving.tuned_files import TaskReplacedError, TunedFile

TOKEN = "correct-horse-battery-staple"
AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def served(folder: Path, tmp_path: Path) -> Path:
    for name in ("animals", "probe"):
        shutil.copy(folder / f"{name}.safetensors", tmp_path)
    return tmp_path


def versions(folder: Path, count: int) -> list[Path]:
    """Files of one task with other weights and other class names each."""
    paths = []
    for number in range(count):
        model = attach(load_backbone(), "vpt(length=2)", 2, classes=(f"{number}a", f"{number}b"))
        with torch.no_grad():
            for weight in model.trainable_parameters():
                weight.normal_(std=0.5, generator=torch.Generator().manual_seed(number))
        paths.append(save(model, folder / f"{number}.safetensors"))
    return paths


def test_refresh_takes_over_files_that_come_change_and_go(folder, served, pictures):
    bank = Bank([served])
    assert bank.files.refresh() == []
    shutil.copy(folder / "plants.safetensors", served)
    assert bank.files.refresh() == ["added plants"]
    assert len(bank.predict([bank.make_request("plants", pictures[0])])[0].top) == 3
    shutil.copy(folder / "lora.safetensors", served / "next")
    (served / "next").replace(served / "plants.safetensors")
    assert bank.files.refresh() == ["replaced plants"]
    assert {name for name, _ in bank.predict([bank.make_request("plants", pictures[0])])[0].top} == {"in", "out"}
    (served / "plants.safetensors").unlink()
    assert bank.files.refresh() == ["removed plants"]
    with pytest.raises(SpecError, match="no task 'plants'"):
        bank.make_request("plants", pictures[0])
    assert len(bank._models) == 0  # models of files that are gone are gone


def test_refresh_with_an_unusable_file_keeps_the_old_one(folder, served, pictures):
    bank = Bank([served])
    expected = bank.predict([bank.make_request("animals", pictures[0])])
    whole = (folder / "plants.safetensors").read_bytes()
    (served / "animals.safetensors").write_bytes(whole[:-9])
    (line,) = bank.files.refresh()
    assert line.startswith("refused animals: ") and bank.files.refresh() == []
    assert bank.predict([bank.make_request("animals", pictures[0])]) == expected
    (served / "animals.safetensors").write_bytes(whole)
    assert bank.files.refresh() == ["replaced animals"]


def test_refresh_after_a_change_of_permissions_tries_a_refused_file_again(folder, served, monkeypatch):
    bank = Bank([served])
    shutil.copy(folder / "plants.safetensors", served)
    with monkeypatch.context() as patch:
        patch.setattr("vpt.serving.task_files.read_tuned_file", lambda path: path.open("nonsense"))
        assert [line.partition(":")[0] for line in bank.files.refresh()] == ["refused plants"]
    assert bank.files.refresh() == []
    (served / "plants.safetensors").chmod(0o600)
    assert bank.files.refresh() == ["added plants"]


def test_request_after_a_refused_replacement_of_an_unread_task_gets_the_reason(folder, served, pictures):
    bank = Bank([served])
    (served / "animals.safetensors").write_bytes((folder / "plants.safetensors").read_bytes()[:-9])
    with pytest.raises(TaskReplacedError):  # the folder has not been looked at
        bank.predict([bank.make_request("animals", pictures[0])])
    (line,) = bank.files.refresh()
    with pytest.raises(TunedFileError, match="replace it again") as found:
        bank.predict([bank.make_request("animals", pictures[0])])
    assert not isinstance(found.value, TaskReplacedError)
    assert str(found.value).endswith(line.removeprefix("refused animals: "))
    shutil.copy(folder / "plants.safetensors", served / "animals.safetensors")
    assert bank.files.refresh() == ["replaced animals"]
    assert len(bank.predict([bank.make_request("animals", pictures[0])])[0].top) == 3


def test_model_of_a_file_replaced_while_it_was_read_is_not_kept(folder, served):
    bank = Bank([served])
    file, read = bank.files["animals"], bank._models._read

    def read_late(late: TunedFile) -> Any:
        model = read(late)
        bank._models._read = read
        shutil.copy(folder / "plants.safetensors", served / "next")
        (served / "next").replace(served / "animals.safetensors")
        assert bank.files.refresh() == ["replaced animals"]
        return model

    bank._models._read = read_late
    with pytest.raises(TaskReplacedError):
        bank._models.get(file)
    assert list(bank._models._models) == [bank.files["animals"]]


def test_put_and_delete_of_tasks_need_the_token_and_take_effect_at_once(folder, served, pictures):
    plants, image = (folder / "plants.safetensors").read_bytes(), png(pictures[0])
    with running_server(Bank([served]), token=TOKEN, watch_seconds=600) as address:
        task = f"{address}/tasks/plants"
        assert request("PUT", task, {}, plants)[0] == 401
        status, text = request("PUT", task, AUTHORIZED, plants[:-9])
        assert status == 400 and str(served) not in text["error"]
        assert sorted(path.name for path in served.iterdir()) == ["animals.safetensors", "probe.safetensors"]
        assert request("PUT", task, AUTHORIZED, plants)[0] == 201
        assert len(predict(address, "plants", image, "", AUTHORIZED)["top"]) == 3
        status, described = request("PUT", task, AUTHORIZED, (folder / "lora.safetensors").read_bytes())
        assert (status, described["num_classes"]) == (200, 2)
        assert len(predict(address, "plants", image, "", AUTHORIZED)["top"]) == 2
        assert request("DELETE", task, AUTHORIZED)[0] == 204 and not (served / "plants.safetensors").exists()
        assert request("DELETE", task, AUTHORIZED)[0] == 404
        assert refusal(f"{task}", AUTHORIZED)[0] == 404
        for name in ("..", ".hidden", "a%00b", "x" * 101):
            assert request("PUT", f"{address}/tasks/{name}", AUTHORIZED, plants)[0] in (400, 404)
    with running_server(Bank([served])) as address:
        assert request("DELETE", f"{address}/tasks/animals", {})[0] == 403
        assert get(f"{address}/healthz") == get(f"{address}/readyz") == {"status": "ok"}


def test_put_and_delete_of_a_served_task_take_its_name_as_it_is(folder, served):
    shutil.copy(folder / "plants.safetensors", served / "photos (1).safetensors")
    lora = (folder / "lora.safetensors").read_bytes()
    with running_server(Bank([served]), token=TOKEN, watch_seconds=600) as address:
        status, described = request("PUT", f"{address}/tasks/photos%20(1)", AUTHORIZED, lora)
        assert (status, described["name"], described["num_classes"]) == (200, "photos (1)", 2)
        assert (served / "photos (1).safetensors").read_bytes() == lora
        assert request("DELETE", f"{address}/tasks/photos%20(1)", AUTHORIZED)[0] == 204
        assert request("PUT", f"{address}/tasks/photos%20(1)", AUTHORIZED, lora)[0] == 400  # it is new


def test_put_and_delete_leave_the_cache_of_the_hub_as_it_is(folder, tmp_path):
    snapshot = tmp_path / "models--owner--pets" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    cached = Path(shutil.copy(folder / "plants.safetensors", snapshot / "model.safetensors"))
    link = tmp_path / "own" / "plants.safetensors"
    link.parent.mkdir()
    link.symlink_to(cached)
    before, lora = cached.read_bytes(), (folder / "lora.safetensors").read_bytes()
    with running_server(Bank([cached, link.parent]), token=TOKEN, watch_seconds=600) as address:
        for method, body in (("PUT", lora), ("DELETE", None)):
            status, values = request(method, f"{address}/tasks/pets", AUTHORIZED, body)
            assert status == 400 and "lies in the cache of the Hugging Face Hub" in values["error"]
        assert request("PUT", f"{address}/tasks/plants", AUTHORIZED, lora)[0] == 200  # the link is the user's
    assert cached.read_bytes() == before and link.read_bytes() == lora
    (tmp_path / "linked").symlink_to(snapshot)
    with pytest.raises(TunedFileError, match="serve a copy in a folder of your own"):
        Bank([tmp_path / "linked"]).files.put("new", lora)
    assert [path.name for path in snapshot.iterdir()] == ["model.safetensors"]


def test_remove_of_a_file_that_the_system_protects_names_the_reason(served, monkeypatch):
    bank = Bank([served])

    def unlink(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "unlink", unlink)
    with pytest.raises(StorageError, match=r"animals\.safetensors could not be deleted: Permission denied; make its"):
        bank.files.remove("animals")
    assert "animals" in bank.files.current


def test_refresh_names_a_file_with_the_name_of_another_task_once(folder, served, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    shutil.copy(folder / "plants.safetensors", other)
    bank = Bank([other, served])
    for _ in range(2):  # also when it comes again
        second = Path(shutil.copy(folder / "animals.safetensors", other))
        (line,) = bank.files.refresh()
        assert line.startswith(f"refused animals: {second}: {served / 'animals.safetensors'} is also named animals; ")
        assert bank.files.refresh() == []
        assert bank.files["animals"].path.parent == served
        second.unlink()
        assert bank.files.refresh() == []
    shutil.copy(folder / "animals.safetensors", other)
    bank.files.refresh()
    (served / "animals.safetensors").unlink()
    assert bank.files.refresh() == ["replaced animals"] and bank.files["animals"].path == second


def request(method: str, address: str, headers: dict[str, str], body: bytes | None = None) -> tuple[int, Any]:
    """Status and JSON of the response to a request of any method."""
    import json
    from http.client import HTTPConnection
    from urllib.parse import urlsplit

    parts = urlsplit(address)
    connection = HTTPConnection(parts.netloc, timeout=60)
    connection.request(method, parts.path, body, headers)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, json.loads(content) if content else None


def test_predict_while_files_are_replaced_is_of_the_old_or_the_new_file(served, tmp_path_factory, pictures):
    paths, image = versions(tmp_path_factory.mktemp("versions"), 4), png(pictures[0])
    shutil.copy(paths[0], served / "changing.safetensors")
    bank = Bank([served])
    expected = []
    for path in paths:
        alone = Bank([path])
        (prediction,) = alone.predict([alone.make_request(path.stem, pictures[0])])
        expected.append({name: pytest.approx(value, abs=1e-4) for name, value in prediction.top})
    stop, predictions = threading.Event(), []

    def ask(address: str) -> None:
        while not stop.is_set():
            predictions.append(predict(address, "changing", image)["top"])

    with running_server(bank, watch_seconds=0.02) as address:
        clients = [threading.Thread(target=ask, args=(address,)) for _ in range(3)]
        for client in clients:
            client.start()
        for number in (1, 2, 3, 0, 1, 2, 3):
            shutil.copy(paths[number], served / "next")
            (served / "next").replace(served / "changing.safetensors")
            wait_until(lambda number=number: predictions and predictions[-1][0]["class"][0] == str(number))
        stop.set()
        for client in clients:
            client.join(60)
    assert all({one["class"]: one["probability"] for one in top} in expected for top in predictions)
    assert len({top[0]["class"][0] for top in predictions}) == 4


def test_name_that_is_too_long_in_bytes_is_refused(tmp_path: Path) -> None:
    from vpt.serving import server

    for longest in ("猫" * 47, "a" * 100):
        assert server._writable_task(SimpleNamespace(path_params={"task": longest}), "token", ()) == longest
    with pytest.raises(server.RequestError, match=r"ends in \.task, as files for exported graphs do"):
        server._writable_task(SimpleNamespace(path_params={"task": "pets.task"}), "token", ())
    request = SimpleNamespace(path_params={"task": "猫" * 48})
    with pytest.raises(server.RequestError, match="is no file name"):
        server._writable_task(request, "token", ())
