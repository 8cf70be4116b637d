"""Layers of transformers' vision transformers that are, and are not, those of one model of timm."""

from __future__ import annotations

import pytest
import torch

from vpt.conversion.split_layers import fuse, has_split_layers
from vpt.errors import SpecError


@pytest.mark.parametrize("prefix", ["", "vit.", "vit.encoder.", "dinov2.encoder.", "vision_model.encoder."])
def test_layers_of_a_vision_transformer_are_known(prefix: str) -> None:
    assert has_split_layers(f"{prefix}layers.3.mlp.fc1")
    assert not has_split_layers(f"{prefix}blocks.3.mlp.fc1")


@pytest.mark.parametrize(
    "prefix",
    ["text_model.encoder.", "clip.text_model.encoder.", "bert.encoder.", "roberta.encoder.", "model.decoder.",
     "language_model.", "wav2vec2.encoder."],
)  # fmt: skip
def test_layers_of_text_and_audio_models_are_others(prefix: str) -> None:
    assert not has_split_layers(f"{prefix}layers.3.mlp.fc1")
    assert not has_split_layers(f"{prefix}layer.3.intermediate.dense")


@pytest.mark.parametrize(
    "paths",
    [
        ("vit.encoder.layer.0.mlp.fc1", "teacher.encoder.layer.0.mlp.fc1"),  # of two models, the same block
        ("vit.encoder.layer.0.mlp.fc1", "teacher.encoder.layer.1.mlp.fc1"),
        ("layer.0.attention.attention.query", "layer.0.attention.q_proj"),  # old and new name of one layer
        ("layer.0.attention.output.dense", "layer.0.attention.o_proj"),
    ],
)
def test_layers_of_several_stacks_or_with_one_place_are_refused(paths: tuple[str, ...]) -> None:
    down, up = {path: torch.ones(2, 8) for path in paths}, {path: torch.ones(8, 2) for path in paths}
    with pytest.raises(SpecError, match=f"not those of one stack of blocks .*: {paths[1]}"):
        fuse(down, up)
