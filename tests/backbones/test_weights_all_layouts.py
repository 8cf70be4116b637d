"""What holds for every layout."""

from __future__ import annotations

import pytest

from helpers.published import PAPER, trained, vit, write_and_load
from vpt import load_backbone
from vpt.errors import BackboneError


def test_load_backbone_with_weights_for_a_loaded_backbone_is_refused(tmp_path):
    backbone = write_and_load(vit(), vit(make=trained).state_dict(), tmp_path / "w.pth")
    with pytest.raises(BackboneError, match="is loaded already"):
        load_backbone(backbone, weights=tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("name", "imagenet"),
    [
        *((name, False) for name, _ in PAPER),
        ("vit_base_patch16_224.mae", True),
        ("swin_base_patch4_window7_224.ms_in22k", True),
        ("convnext_base.fb_in22k", True),
        ("resnet50.tv_in1k", True),
    ],
)
def test_load_backbone_of_paper_names_sets_their_preprocessing(name, imagenet):
    """A file knows nothing of preprocessing: these are the names to load the paper's files under."""
    image = load_backbone(name, device="meta").preprocessing
    assert image.size == 224
    assert image.mean == ((0.485, 0.456, 0.406) if imagenet else (0.5, 0.5, 0.5))
