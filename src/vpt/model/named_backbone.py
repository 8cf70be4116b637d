"""The backbone that a tuned file names, at the image size of the file."""

from pathlib import Path

from torch import nn

from vpt.backbones import embedded
from vpt.backbones.backbone import Backbone
from vpt.backbones.loading import load_backbone
from vpt.errors import BackboneError, SpecError, TunedFileError
from vpt.model.header import Header


def backbone_for(
    path: Path, header: Header, backbone: str | nn.Module | Backbone | None = None, weights: Path | None = None
) -> Backbone:
    """Load the backbone that a tuned file names, at the file's image size.

    Args:
        path: The tuned file.
        header: Its header.
        backbone: Another name, or the backbone itself. Default: the name in the file.
        weights: File with local weights of the backbone. Default: timm's download.

    Returns:
        The backbone.

    Raises:
        TunedFileError: The name in the file is not in timm's own list, or the file reads other than 3 channels.
        BackboneError: The backbone cannot be loaded.
    """
    if backbone is None:
        check_backbone_name(path, header)
    size, channels = header.preprocessing.size, header.preprocessing.channels
    if channels != 3 and (backbone is None or isinstance(backbone, str)):
        raise TunedFileError(f"{path} reads {channels} channels; give the timm model, made with in_chans={channels}")
    try:
        if not (backbone is None or isinstance(backbone, str)):
            return load_backbone(backbone, weights=weights)
        return load_backbone_of_size(backbone or header.backbone, size, weights)
    except (BackboneError, SpecError) as error:
        raise BackboneError(f"{path} cannot get its backbone: {error}") from error


def load_backbone_of_size(name: str, size: int, weights: Path | None = None) -> Backbone:
    """Load a backbone at an image size.

    Args:
        name: Its name.
        size: Side of the input in pixels.
        weights: File with local weights of the backbone. Default: timm's download.

    Returns:
        The backbone. At the size that it has anyway, positions are not interpolated.
    """
    # Of the embedded model it is known without making the model, which takes a sixth of a second.
    own = embedded.IMAGE_SIZE if name == embedded.NAME else load_backbone(name, device="meta").preprocessing.size
    return load_backbone(name, weights=weights, image_size=None if own == size else size)


def check_backbone_name(path: Path, header: Header) -> None:
    """Refuse a backbone that timm reads as a place, which a stranger may have chosen.

    Args:
        path: The tuned file.
        header: Its header.

    Raises:
        TunedFileError: The name in the file is not in timm's own list.
    """
    if ":" in header.backbone:
        raise TunedFileError(
            f"{path} asks for the backbone {header.backbone}, which is not in timm's own list; if you trust that "
            "place, give it as the backbone yourself"
        )
