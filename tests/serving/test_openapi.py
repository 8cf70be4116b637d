"""The OpenAPI description names every route, and responses fit it."""

from __future__ import annotations

import json
from importlib.resources import files
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from starlette.routing import Route

from helpers.serving import get, png, predict, running_server
from vpt.serving.bank import Bank
from vpt.serving.server import _TASK_NAME, create_app

DESCRIPTION = json.loads(files("vpt.serving").joinpath("openapi.json").read_text(encoding="utf-8"))


def test_openapi_description_names_every_route_and_method(folder) -> None:
    routes = {
        (route.path, method.lower())
        for route in create_app(Bank([folder])).routes
        if isinstance(route, Route) and not route.path.endswith((".js", ".css")) and route.path != "/"
        for method in (route.methods or set()) - {"HEAD"}
    }
    described = {(path, name) for path, entry in DESCRIPTION["paths"].items() for name in entry if name != "parameters"}
    assert described == routes


def test_responses_fit_the_openapi_description(folder, pictures) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    with running_server(Bank([folder])) as address:
        assert get(f"{address}/openapi.json") == DESCRIPTION
        responses = {"DescribedTask": [get(f"{address}/tasks/{name}") for name in ("animals", "scenes", "probe")]}
        responses["Classification"] = [predict(address, "animals", png(pictures[0]))]
        responses["Segmentation"] = [predict(address, "scenes", png(pictures[0]))]
    for name, found in responses.items():
        schema = {**DESCRIPTION, "$ref": f"#/components/schemas/{name}"}
        for response in found:
            jsonschema.validate(response, schema)


def test_405_names_all_methods_of_the_path(folder) -> None:
    with running_server(Bank([folder])) as address:
        for path, entry in DESCRIPTION["paths"].items():
            with pytest.raises(HTTPError) as caught:
                urlopen(Request(address + path.replace("{task}", "animals"), method="PATCH"), timeout=60)
            with caught.value as error:
                allowed = {name.strip().lower() for name in error.headers["Allow"].split(",")} - {"head"}
            assert (error.code, allowed) == (405, entry.keys() - {"parameters"}), path


def test_task_names_of_the_description_are_those_that_the_server_takes() -> None:
    assert DESCRIPTION["components"]["parameters"]["Task"]["schema"]["pattern"] == _TASK_NAME.pattern


def test_form_is_described_with_the_type_of_its_file() -> None:
    """A field without a type is sent as text, which is no image."""
    form = DESCRIPTION["paths"]["/predict/{task}"]["post"]["requestBody"]["content"]["multipart/form-data"]
    assert form["encoding"].keys() == form["schema"]["properties"].keys() == {"image"}
    assert form["encoding"]["image"]["contentType"] == "image/png"
