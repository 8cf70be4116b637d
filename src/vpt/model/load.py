"""Load a tuned file."""

from pathlib import Path

from torch import nn

from vpt.backbones.backbone import Backbone
from vpt.model.tuned_file import load_as
from vpt.model.tuned_model import TunedModel


def load(
    path: str | Path, backbone: str | nn.Module | Backbone | None = None, *, known_fingerprint: str | None = None
) -> TunedModel:
    """Read a tuned file and attach it to its backbone.

    Args:
        path: The file, or its address on the Hugging Face Hub, `hf://owner/name[/file][@revision]`.
        backbone: The backbone: a timm model, a `Backbone` or a name. Several files share one backbone if they are
            given the same object. Default: the one named in the file, whose weights are downloaded.
        known_fingerprint: Fingerprint of that backbone, for callers that load many files. Default: computed, which
            reads every weight.

    Returns:
        The tuned model in eval mode.

    Raises:
        TunedFileError: The file is damaged or altered, holds NaN or infinity, or was made for another backbone.
    """
    return load_as(TunedModel, path, backbone, known_fingerprint)
