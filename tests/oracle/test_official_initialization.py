"""The initial values of the official code, KMnP/vpt: their distribution on a ViT of 64 channels."""

from __future__ import annotations

import pytest
import torch
from oracle_files import read_oracle, tiny_vit
from torch import Tensor

from vpt import TunedModel, attach, load_backbone

METHODS = {
    "prepend": "vpt(length=50)",
    "projection": "vpt(length=50, projection=32)",
}
# File entry -> our tensor.
PROMPTS = {
    "prepend/enc.transformer.prompt_embeddings": "prompts.0.tokens",
    "prepend/enc.transformer.deep_prompt_embeddings": "prompts.1.tokens",
    "projection/enc.transformer.prompt_embeddings": "prompts.0.tokens",
    "projection/enc.transformer.deep_prompt_embeddings": "prompts.1.tokens",
}


def new_model(case: str) -> TunedModel:
    torch.manual_seed(0)
    return attach(load_backbone(tiny_vit(embed_dim=64)), METHODS[case], 100)


def assert_same_distribution(actual: Tensor, expected: Tensor) -> None:
    """The mean and standard deviation of many values are close, and so are the smallest and the largest.

    Args:
        actual: Values.
        expected: Mean, standard deviation, minimum and maximum of the official ones.
    """
    mean, std, smallest, largest = expected.tolist()
    assert float(actual.std()) == pytest.approx(std, rel=0.05, abs=1e-6)
    assert float(actual.mean()) == pytest.approx(mean, abs=0.1 * std + 1e-6)
    assert float(actual.min()) == pytest.approx(smallest, rel=0.25, abs=1e-6)
    assert float(actual.max()) == pytest.approx(largest, rel=0.25, abs=1e-6)


@pytest.mark.parametrize("entry", PROMPTS)
def test_prompts_begin_as_in_official_code(entry: str) -> None:
    tensor = new_model(entry.split("/")[0]).trainable_state_dict()[PROMPTS[entry]]
    assert_same_distribution(tensor.detach(), read_oracle("official_initialization").tensors[entry])
