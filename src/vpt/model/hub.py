"""Tuned files on the Hugging Face Hub: the calls that users of huggingface_hub know."""

import tempfile
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi, ModelCard
from torch import nn

from vpt._version import __version__
from vpt.backbones.backbone import Backbone
from vpt.core.hub import CARD, DEFAULT_FILE, HubAddress, hub_errors, local_path
from vpt.core.io import write_atomic
from vpt.errors import SpecError, StorageError
from vpt.model.card import model_card
from vpt.model.tuned_file import load, require_unaltered, save
from vpt.model.tuned_model import TunedModel


def push(
    file: Path,
    address: HubAddress,
    *,
    private: bool | None = None,
    replace_card: bool = False,
    token: str | bool | None = None,
    commit_message: str | None = None,
) -> str:
    """Write a tuned file and its model card to the Hub, in one commit. A missing repository or branch is made.

    Args:
        file: The tuned file.
        address: The file on the Hub; its revision is a branch.
        private: True makes a new repository private, and refuses one that is public. Default: what its owner has set.
        replace_card: True replaces a README.md that is there already. Default: False.
        token: The token. Default: that of `hf auth login`, or of the variable HF_TOKEN.
        commit_message: The message. Default: names the file and this version.

    Returns:
        The URL of the commit.

    Raises:
        TunedFileError: The file is damaged, or no tuned file.
        StorageError: The Hub does not take it, or `private` is True and the repository is public.
    """
    require_unaltered(file)
    card = model_card(file, address)
    with hub_errors(f"{file} cannot be written to {address}", StorageError):
        api = HfApi(token=token, library_name="vpt", library_version=__version__)
        is_new = not api.revision_exists(address.repo, address.revision or "main")
        if is_new:
            ModelCard(card).validate()  # first, or a card that the Hub refuses would leave an empty repository
        api.create_repo(address.repo, private=private, exist_ok=True)
        if private and not api.repo_info(address.repo).private:  # asked now, as somebody else may have made it
            raise StorageError(
                f"{file} is not written to {address}, as the repository is public; make it private in its settings on "
                "the Hub, or leave out private"
            )
        if is_new and address.revision is not None:
            api.create_branch(address.repo, branch=address.revision, exist_ok=True)
        operations = [CommitOperationAdd(address.file, str(file))]
        if replace_card or not api.file_exists(address.repo, CARD, revision=address.revision):
            operations.append(CommitOperationAdd(CARD, card.encode()))
        message = commit_message or f"Upload {address.file} with vpt {__version__}"
        commit = api.create_commit(address.repo, operations, commit_message=message, revision=address.revision)
        return str(commit.commit_url)


def save_pretrained(model: nn.Module, save_directory: str | Path, **options: Any) -> Path:
    """Write a model as a folder: model.safetensors, the tuned file, and README.md, its model card, unless it is there.

    Args:
        model: A tuned model, or a wrapper with one inside.
        save_directory: The folder.
        **options: Options of `vpt.save`, such as `scores` and `license`.

    Returns:
        The tuned file.
    """
    file = save(model, Path(save_directory) / DEFAULT_FILE, **options)
    if not file.with_name(CARD).exists():
        write_atomic(file.with_name(CARD), model_card(file).encode())
    return file


def push_to_hub(
    model: nn.Module,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | bool | None = None,
    branch: str | None = None,
    commit_message: str | None = None,
    **options: Any,
) -> str:
    """Write a model and its card to the Hub. `vpt.model.hub.push` does it for a tuned file.

    Args:
        model: A tuned model, or a wrapper with one inside.
        repo_id: Owner and name of the repository, `owner/name`. A missing repository is made.
        private: True makes a new repository private, and refuses one that is public. Default: what its owner has set.
        token: The token. Default: that of `hf auth login`, or of the variable HF_TOKEN.
        branch: The branch. A missing one is made. Default: "main".
        commit_message: The message. Default: names the file and this version.
        **options: Options of `vpt.save`, such as `scores` and `license`.

    Returns:
        The URL of the commit.
    """
    address = HubAddress.parse(repo_id if branch is None else f"{repo_id}@{branch}")
    with tempfile.TemporaryDirectory() as folder:
        file = save(model, Path(folder) / DEFAULT_FILE, **options)
        return push(file, address, private=private, token=token, commit_message=commit_message)


def from_pretrained(
    pretrained_model_name_or_path: str | Path,
    *,
    revision: str | None = None,
    backbone: str | nn.Module | Backbone | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
) -> TunedModel:
    """Load a model that `save_pretrained`, `push_to_hub` or `vpt push` wrote.

    Args:
        pretrained_model_name_or_path: A folder with model.safetensors, or `owner/name` on the Hub.
        revision: A branch, a tag or a commit on the Hub. Default: the branch "main".
        backbone: As for `vpt.load`. Default: the one named in the file.
        token: The token. Default: that of `hf auth login`, or of the variable HF_TOKEN.
        cache_dir: The folder of downloaded files. Default: that of huggingface_hub.
        local_files_only: True reads a copy in that folder, without a network. Default: False.
        force_download: True downloads a file that is in that folder already. Default: False.

    Returns:
        The model in eval mode.

    Raises:
        SpecError: There is no such folder and the name is none of the Hub; or a revision comes with a folder.
    """
    folder = Path(pretrained_model_name_or_path)
    if not folder.is_dir():
        address = HubAddress.parse(str(pretrained_model_name_or_path) + (f"@{revision}" if revision else ""))
        options: dict[str, Any] = {"token": token, "cache_dir": cache_dir, "local_files_only": local_files_only}
        return load(local_path(str(address), force_download=force_download, **options), backbone)
    if revision is not None:
        raise SpecError(f"{folder} is a folder, which has no revision {revision!r}; leave revision out")
    return load(folder / DEFAULT_FILE, backbone)
