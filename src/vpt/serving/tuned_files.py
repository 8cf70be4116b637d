"""Tuned files by name, and the backbones that they share."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import nn

from vpt.backbones import Backbone
from vpt.core.text import pluralize, refuse
from vpt.errors import TunedFileError, VptError
from vpt.model.tuned_file import Header, backbone_for, inspect

BackboneKey = tuple[str, int]


def backbone_key(header: Header) -> BackboneKey:
    """Return fingerprint and image size. Weights without positions have one fingerprint at every size.

    Args:
        header: Header of a tuned file.

    Returns:
        The key of its backbone.
    """
    return header.fingerprint, header.preprocessing.size


def read_headers(paths: Iterable[Path]) -> tuple[dict[str, Path], dict[str, Header]]:
    """Return files and headers by name.

    Args:
        paths: Tuned files, and folders of them.

    Returns:
        The files and their headers, by name of the file without suffix.

    Raises:
        TunedFileError: There is no file, or files have no header or equal names. The message names every such file.
    """
    files: dict[str, Path] = {}
    headers: dict[str, Header] = {}
    faults = []
    for given in paths:
        found = sorted(given.glob("*.safetensors")) if given.is_dir() else [given]
        if not found:
            faults.append(f"{given}: a folder without *.safetensors files")
        for path in found:
            if path.stem in files:
                faults.append(f"{path}: {files[path.stem]} is also named {path.stem}; rename one of them")
                continue
            try:
                headers[path.stem] = inspect(path)
                files[path.stem] = path
            except TunedFileError as error:
                faults.append(str(error))
    refuse(faults, f"{pluralize(len(faults), 'file')} cannot be used", error=TunedFileError)
    if not files:
        raise TunedFileError("no tuned file was given; create one with `vpt tune DATA --out FILE`")
    return files, headers


def load_backbones(
    files: Mapping[str, Path],
    headers: Mapping[str, Header],
    backbone: str | nn.Module | Backbone | None = None,
    weights: Path | None = None,
) -> dict[BackboneKey, Backbone]:
    """Load each backbone once.

    Args:
        files: Tuned files by name.
        headers: Their headers.
        backbone: A backbone or its name. Default: that of the files.
        weights: Local weights of the backbone. Default: those that timm downloads.

    Returns:
        The backbones by key.

    Raises:
        TunedFileError: Files were made for another backbone, or it cannot be loaded. The message names every such file.
    """
    names: defaultdict[tuple[str, int], list[str]] = defaultdict(list)
    for name, header in headers.items():
        names[header.backbone, header.preprocessing.size].append(name)
    loaded: dict[BackboneKey, Backbone] = {}
    faults = []
    for (asked, size), group in names.items():
        try:
            found = backbone_for(files[group[0]], headers[group[0]], backbone, weights)
            fingerprint = found.fingerprint()
        except VptError as error:
            faults += [f"{files[name]}: {error}" for name in group]
            continue
        loaded[fingerprint, size] = found
        faults += [
            f"{files[name]}: made for {asked} with {headers[name].fingerprint[:19]}..., but the backbone is "
            f"{found.name} with {fingerprint[:19]}...; weights, dtype and image size ({size} px) must be equal"
            for name in group
            if headers[name].fingerprint != fingerprint
        ]
    refuse(faults, f"{pluralize(len(faults), 'file')} cannot be used", error=TunedFileError)
    return loaded
