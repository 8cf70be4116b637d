"""Files on the Hugging Face Hub: addresses such as `hf://owner/name`, and what the errors of the Hub mean."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from vpt._version import __version__
from vpt.errors import SpecError, TunedFileError, VptError

CARD, DEFAULT_FILE = "README.md", "model.safetensors"
_ADDRESS = re.compile(r"(?:hf:/{1,2})?(?P<repo>[\w.-]+/[\w.-]+)(?:/(?P<file>[^@]+))?(?:@(?P<revision>.+))?")
_CACHED = re.compile(r"models--.+--(?P<name>[^/]+)/snapshots/[^/]+/" + re.escape(DEFAULT_FILE))
_LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"


@dataclass(frozen=True)
class HubAddress:
    """The address of a file on the Hub, `hf://owner/name[/file][@revision]`.

    Args:
        repo: Owner and name of the repository.
        file: Path of the file in it. Default: "model.safetensors".
        revision: A branch, a tag or a commit. Default: the branch "main".
    """

    repo: str
    file: str = DEFAULT_FILE
    revision: str | None = None

    def __str__(self) -> str:
        file = "" if self.file == DEFAULT_FILE else f"/{self.file}"
        return f"hf://{self.repo}{file}" + ("" if self.revision is None else f"@{self.revision}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an address; `hf://` in front may be missing.

        Args:
            text: The address.

        Returns:
            The address.

        Raises:
            SpecError: The text is none.
        """
        found = _ADDRESS.fullmatch(text)
        if found is None or ".." in (found["file"] or ""):
            raise SpecError(
                f"{text} is no address on the Hub; write hf://owner/name, hf://owner/name/file.safetensors, or one of "
                "them with @revision at its end"
            )
        return cls(found["repo"], found["file"] or DEFAULT_FILE, found["revision"])


def is_address(path: str | Path) -> bool:
    """Return True for an address on the Hub, False for a path on this machine.

    Args:
        path: The text, or what `pathlib` makes of it, which has one slash less.

    Returns:
        True or False.
    """
    return (path.as_posix() if isinstance(path, Path) else path).startswith("hf:/")


def local_path(path: str | Path, **options: Any) -> Path:
    """Return the path of a file on this machine. A file on the Hub is downloaded, unless it is in the cache already.

    Args:
        path: A path, or an address on the Hub.
        **options: Options of `huggingface_hub.hf_hub_download` for an address, such as `token` and `cache_dir`.

    Returns:
        The path.

    Raises:
        TunedFileError: The file cannot be fetched.
        SpecError: The address cannot be read.
    """
    if not is_address(path):
        return Path(path)
    address = HubAddress.parse(path.as_posix() if isinstance(path, Path) else path)
    import huggingface_hub

    with hub_errors(f"{address} cannot be fetched", TunedFileError):
        return Path(
            huggingface_hub.hf_hub_download(
                address.repo,
                address.file,
                revision=address.revision,
                library_name="vpt",
                library_version=__version__,
                **options,
            )
        )


def task_name(path: Path) -> str:
    """Return the name of the task of a tuned file.

    Args:
        path: The file on this machine, as `local_path` returns it.

    Returns:
        The name of the file without suffix. Files on the Hub have the same name in every repository, so that of a
        downloaded model.safetensors is the name of its repository.
    """
    found = _CACHED.fullmatch("/".join(path.parts[-4:]))
    return path.stem if found is None else found["name"]


@contextmanager
def hub_errors(what: str, kind: type[VptError]) -> Iterator[None]:
    """Raise errors of huggingface_hub as one of this library that says what to do.

    Args:
        what: What cannot be done, the beginning of the message.
        kind: Class of the error.

    Raises:
        VptError: Of that class.
        SpecError: An argument is of another type.
    """
    from huggingface_hub import errors

    try:
        yield
    except VptError:
        raise
    except errors.GatedRepoError as error:
        reason = f"its owner grants access by request; ask for it on the page of the repository, and {_LOG_IN}"
        raise kind(f"{what}: {reason}") from error
    except errors.RepositoryNotFoundError as error:
        reason = f"there is no such repository, or it is private; check the name, or {_LOG_IN}"
        raise kind(f"{what}: {reason}") from error
    except errors.RevisionNotFoundError as error:
        raise kind(f"{what}: the repository has no such revision; give a branch, a tag or a commit") from error
    except errors.LocalEntryNotFoundError as error:
        raise kind(f"{what}: the Hub does not respond, and the cache has no copy; check the connection") from error
    except errors.EntryNotFoundError as error:
        raise kind(f"{what}: the repository has no such file; write hf://owner/name/file.safetensors") from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise kind(f"{what}: the Hub refuses the token (status {status}); {_LOG_IN}, with one that may") from error
        raise kind(f"{what}: the Hub responds with status {status}; try again later") from error
    except ValueError as error:  # a name or a model card that the Hub refuses
        raise kind(f"{what}: {' '.join(str(error).split())}; correct what it names") from error
    except TypeError as error:  # an argument of another type
        raise SpecError(f"{what}: {error}; correct the arguments") from error
    except Exception as error:  # of its HTTP client, which has changed twice, and of the operating system
        raise kind(f"{what}: {type(error).__name__}: {error}; check the name and the connection") from error
