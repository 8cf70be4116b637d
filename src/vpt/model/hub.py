"""Tuned files on the Hugging Face Hub."""

from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi, ModelCard

from vpt._version import __version__
from vpt.core.hub import CARD, HubAddress, hub_errors
from vpt.errors import StorageError
from vpt.model.card import model_card
from vpt.model.tuned_file import require_unaltered


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
        has_card = prepare_repository(api, address, card, private)
        operations = [CommitOperationAdd(address.file, str(file))]
        if replace_card or not has_card:
            operations.append(CommitOperationAdd(CARD, card.encode()))
        message = commit_message or f"Upload {address.file} with vpt {__version__}"
        commit = api.create_commit(address.repo, operations, commit_message=message, revision=address.revision)
        return str(commit.commit_url)


def prepare_repository(api: HfApi, address: HubAddress, card: str, private: bool | None) -> bool:
    """Make a repository and a branch where they are missing.

    Args:
        api: The Hub.
        address: The address of the file that is to be written.
        card: The model card.
        private: True makes a new repository private, and refuses one that is public.

    Returns:
        True if the branch has a card already.

    Raises:
        StorageError: `private` is True and the repository is public.
    """
    is_new = not api.revision_exists(address.repo, address.revision or "main")
    if is_new:
        ModelCard(card).validate()  # first, or a card that the Hub refuses would leave an empty repository
    api.create_repo(address.repo, private=private, exist_ok=True)
    if private and not api.repo_info(address.repo).private:  # asked now, as somebody else may have made it
        raise StorageError(
            f"the model is not written to {address}, as the repository is public; make it private in its settings on "
            "the Hub, or leave out private"
        )
    if is_new and address.revision is not None:
        api.create_branch(address.repo, branch=address.revision, exist_ok=True)
    return bool(api.file_exists(address.repo, CARD, revision=address.revision))
