"""`vpt push`."""

from pathlib import Path

import click

from vpt.cli.options import json_option, option, print_result
from vpt.cli.paths import PATH


@click.command()
@click.argument("file", type=PATH)
@click.argument("repository")
@option("--private", "Make a new repository private, and refuse a public one.", is_flag=True)
@option("--replace-card", "Replace a README.md that is there already.", is_flag=True)
@json_option
def command(file: Path, repository: str, private: bool, replace_card: bool, as_json: bool) -> None:
    """Write a tuned FILE and a model card to a REPOSITORY on the Hugging Face Hub, owner/name.

    The file is named model.safetensors there; owner/name/pets.safetensors gives it another name, and @branch at the
    end another branch. The token is that of `hf auth login`, or of the variable HF_TOKEN.

    \b
    vpt push photos.safetensors owner/photos
    vpt predict hf://owner/photos new.jpg
    """
    from vpt.core.hub import HubAddress
    from vpt.model.hub import push

    address = HubAddress.parse(repository)
    url = push(file, address, private=private or None, replace_card=replace_card)
    print_result(as_json, {"file": str(file), "address": str(address), "commit": url}, [f"{address}: {url}"])
