"""The methods of a tuned model that huggingface_hub defines for all models: save, load and push."""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from fnmatch import fnmatch
from inspect import signature
from pathlib import Path
from typing import Any, ClassVar, Self

from huggingface_hub import HfApi, ModelCard, ModelHubMixin
from torch import nn

from vpt._version import __version__
from vpt.backbones.backbone import Backbone
from vpt.core.hub import CARD, DEFAULT_FILE, HubAddress, hub_errors, local_path
from vpt.core.io import write_atomic
from vpt.core.text import did_you_mean
from vpt.errors import SpecError, StorageError
from vpt.model.card import model_card
from vpt.model.hub import prepare_repository
from vpt.model.portable import Portable
from vpt.model.tuned_file import load_as, save

_CONFIG = "config.json"


class HubModel(Portable, ModelHubMixin, library_name="vpt"):
    """Base of a tuned model with the methods of huggingface_hub's `ModelHubMixin`.

    A tuned file holds its own configuration and card data. The methods therefore ask for no config.json, which the
    mixin's own demand even without a network.
    """

    # Without a value here, the mixin makes one of the arguments of the constructor, and copies the backbone for it.
    _hub_mixin_config: ClassVar[dict[str, Any]] = {}  # type: ignore[misc]

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        config: Any = None,
        repo_id: str | None = None,
        push_to_hub: bool = False,
        model_card_kwargs: Mapping[str, Any] | None = None,
        **push_to_hub_kwargs: Any,
    ) -> str | None:
        """Write the model as a folder: model.safetensors, and README.md, its model card, unless it is there.

        Args:
            save_directory: The folder.
            config: Content of a config.json, a dict or a dataclass, for other programs. Default: no such file.
            repo_id: Owner and name of the repository, for `push_to_hub`. Default: the name of the folder.
            push_to_hub: True also writes the model to the Hub. Default: False.
            model_card_kwargs: Options of `vpt.save` that the card shows, such as `scores` and `license`. Default: none.
            **push_to_hub_kwargs: Options of `push_to_hub`.

        Returns:
            The URL of the commit on the Hub, or None without `push_to_hub`. A SpecError is raised for an argument that
            cannot be used.
        """
        folder = Path(save_directory)
        self._write_folder(folder, None, config, model_card_kwargs)
        if not push_to_hub:
            return None
        options = {"config": config, "model_card_kwargs": model_card_kwargs, **push_to_hub_kwargs}
        return self.push_to_hub(repo_id or folder.name, **options)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        config: Any = None,
        commit_message: str | None = None,
        private: bool | None = None,
        token: str | bool | None = None,
        branch: str | None = None,
        create_pr: bool | None = None,
        allow_patterns: list[str] | str | None = None,
        ignore_patterns: list[str] | str | None = None,
        delete_patterns: list[str] | str | None = None,
        model_card_kwargs: Mapping[str, Any] | None = None,
    ) -> str:
        """Write the model and its card to the Hub, in one commit. A missing repository or branch is made.

        A card that is there already is kept; give `delete_patterns="README.md"` to replace it.

        Args:
            repo_id: Owner and name of the repository, `owner/name`; a name alone is one of the token's owner.
            config: Content of a config.json, a dict or a dataclass, for other programs. Default: no such file.
            commit_message: The message. Default: names the file and this version.
            private: True makes a new repository private, and refuses one that is public. Default: what its owner has
                set.
            token: The token. Default: that of `hf auth login`, or of the variable HF_TOKEN.
            branch: The branch. Default: "main".
            create_pr: True opens a pull request with the commit. Default: False.
            allow_patterns: Write only files that match one of these. Default: all.
            ignore_patterns: Write no file that matches one of these. Default: all are written.
            delete_patterns: Delete files of the repository that match one of these, in the same commit. Default: none.
            model_card_kwargs: Options of `vpt.save` that the card shows, such as `scores` and `license`. Default: none.

        Returns:
            The URL of the commit.

        Raises:
            StorageError: The Hub does not take it, or `private` is True and the repository is public.
            SpecError: An argument cannot be used.
        """
        ignored, deleted = _to_list(ignore_patterns), _to_list(delete_patterns)
        if not isinstance(repo_id, str):
            raise SpecError(f"repo_id is {repo_id!r}; give the owner and the name of a repository, owner/name")
        repo_id = repo_id.removeprefix("hf://")
        what = f"{repo_id} cannot be written"
        with hub_errors(what, StorageError):
            api = HfApi(token=token, library_name="vpt", library_version=__version__)
            address = HubAddress(repo_id if "/" in repo_id else f"{api.whoami()['name']}/{repo_id}", revision=branch)
        with tempfile.TemporaryDirectory() as name:
            card = self._write_folder(Path(name), address, config, model_card_kwargs)
            with hub_errors(what, StorageError):
                has_card = prepare_repository(api, address, card, private)
                if has_card and not any(fnmatch(CARD, each) for each in deleted):
                    ignored.append(CARD)
                commit = api.upload_folder(
                    repo_id=address.repo,
                    folder_path=name,
                    commit_message=commit_message or f"Upload {address.file} with vpt {__version__}",
                    revision=branch,
                    create_pr=create_pr,
                    allow_patterns=allow_patterns,
                    ignore_patterns=ignored,
                    delete_patterns=deleted,
                )
                return str(commit.commit_url)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        **model_kwargs: Any,
    ) -> Self:
        """Load a model that `save_pretrained`, `push_to_hub` or `vpt push` wrote.

        Args:
            pretrained_model_name_or_path: A folder with model.safetensors, or `owner/name` on the Hub.
            force_download: True downloads a file that is in the cache already. Default: False.
            token: The token. Default: that of `hf auth login`, or of the variable HF_TOKEN.
            cache_dir: The folder of downloaded files. Default: that of huggingface_hub.
            local_files_only: True reads a copy in that folder, without a network. Default: False.
            revision: A branch, a tag or a commit on the Hub. Default: the branch "main".
            **model_kwargs: `backbone`, as for `vpt.load`. Default: the one named in the file.

        Returns:
            The model in eval mode.

        Raises:
            SpecError: There is no such folder and the name is none of the Hub; or a revision comes with a folder.
        """
        return cls._from_pretrained(
            model_id=str(pretrained_model_name_or_path),
            revision=revision,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
            token=token,
            **model_kwargs,
        )

    def generate_model_card(self, **options: Any) -> ModelCard:
        """Return the model card that `save_pretrained` writes.

        Args:
            **options: Options of `vpt.save` that the card shows, such as `scores` and `license`.

        Returns:
            The card.
        """
        with tempfile.TemporaryDirectory() as name:
            return ModelCard(self._write_folder(Path(name), None, None, options))

    def _save_pretrained(self, save_directory: Path, **options: Any) -> None:
        save(self, save_directory / DEFAULT_FILE, **options)

    @classmethod
    def _from_pretrained(  # type: ignore[override]  # another argument is an error
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        backbone: str | nn.Module | Backbone | None = None,
    ) -> Self:
        folder = Path(model_id)
        if not folder.is_dir():
            address = HubAddress.parse(model_id + (f"@{revision}" if revision else ""))
            options: dict[str, Any] = {"token": token, "cache_dir": cache_dir, "local_files_only": local_files_only}
            return load_as(cls, local_path(str(address), force_download=force_download, **options), backbone)
        if revision is not None:
            raise SpecError(f"{folder} is a folder, which has no revision {revision!r}; leave revision out")
        return load_as(cls, folder / DEFAULT_FILE, backbone)

    def _write_folder(
        self, folder: Path, address: HubAddress | None, config: Any, options: Mapping[str, Any] | None
    ) -> str:
        """Write the files of a folder or a repository, and return the text of its card."""
        known = list(signature(save).parameters)[2:]
        for option in options or {}:
            if option not in known:
                raise SpecError(f"model_card_kwargs has {option!r}, which is no option; {did_you_mean(option, known)}")
        text = "" if config is None else _config_json(config)
        self._save_pretrained(folder, **(options or {}))
        if text:
            write_atomic(folder / _CONFIG, text.encode())
        card = model_card(folder / DEFAULT_FILE, address)
        if not (folder / CARD).exists():
            write_atomic(folder / CARD, card.encode())
        return card


def _to_list(patterns: list[str] | str | None) -> list[str]:
    return [patterns] if isinstance(patterns, str) else [*(patterns or ())]


def _config_json(config: Any) -> str:
    try:
        values = asdict(config) if is_dataclass(config) and not isinstance(config, type) else config
        return json.dumps(values, sort_keys=True, indent=2)
    except (TypeError, ValueError, RecursionError) as error:  # another type, a cycle, or a nesting as deep
        raise SpecError(
            f"config cannot be written as JSON: {error}; give a dict of texts, numbers and lists"
        ) from error
