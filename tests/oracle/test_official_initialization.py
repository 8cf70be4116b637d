"""The initial values of the official code, KMnP/vpt: their distribution on a ViT of 64 channels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracle_files import assert_close, attach_with_weights, read_oracle, tiny_vit
from oracle_names import official_vit
from torch import Tensor

from vpt import TunedModel, attach, load_backbone
from vpt.model.readout import Pooled
from vpt.training import Examples, class_prototypes

METHODS = {
    "prepend": "vpt(length=50)",
    "projection": "vpt(length=50, projection=32)",
    "prepend_pixel": "vpt(length=50, location=prepend_pixel, depth=shallow)",
    "concat_channel": "vpt(length=50, location=concat_channel, depth=shallow)",
    "mlp": "mlp(layers=3)",
}
# File entry -> our tensor.
TENSORS = {
    "prepend/enc.transformer.prompt_embeddings": "prompts.0.tokens",
    "prepend/enc.transformer.deep_prompt_embeddings": "prompts.1.tokens",
    "projection/enc.transformer.prompt_embeddings": "prompts.0.tokens",
    "projection/enc.transformer.deep_prompt_embeddings": "prompts.1.tokens",
    "projection/enc.transformer.prompt_proj.weight": "prompts.0.projection.weight",
    "prepend_pixel/enc.transformer.prompt_embeddings": "prompts.0.patches",
    "concat_channel/enc.transformer.prompt_embeddings": "patch_embed.proj.channels",
    # Their patch projection is drawn anew as a whole, then the channels of the image are read from the checkpoint.
    "concat_channel/enc.transformer.embeddings.patch_embeddings.weight": "patch_embed.proj.further",
    "prepend/head.last_layer.weight": "head.weight",
    "prepend/head.last_layer.bias": "head.bias",
    "mlp/head.projection.0.weight": "head.0.weight",
    "mlp/head.projection.2.weight": "head.2.weight",
    "mlp/head.projection.2.bias": "head.2.bias",
    "mlp/head.projection.4.weight": "head.4.weight",
    "mlp/head.last_layer.weight": "head.8.weight",
    "mlp/head.last_layer.bias": "head.8.bias",
}


def new_model(case: str) -> TunedModel:
    torch.manual_seed(0)
    return attach(load_backbone(tiny_vit(embed_dim=64)), METHODS[case], 100, head=Pooled(init="kaiming"))


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


def test_new_head_begins_as_in_official_code() -> None:
    head = new_model("mlp").new_head()
    expected = read_oracle("official_initialization").tensors["mlp/head.last_layer.bias"]
    assert_same_distribution(head.get_submodule("8").bias.detach(), expected)  # type: ignore[arg-type, union-attr, operator]


@pytest.mark.parametrize("entry", TENSORS)
def test_tensor_begins_as_in_official_code(entry: str) -> None:
    tensor = new_model(entry.split("/")[0]).trainable_state_dict()[TENSORS[entry]]
    assert_same_distribution(tensor.detach(), read_oracle("official_initialization").tensors[entry])


def test_prototypes_are_class_tokens_before_the_final_norm() -> None:
    oracle = read_oracle("official_prototypes")
    model = attach_with_weights(tiny_vit(), "linear", official_vit(oracle.group("weights")))
    examples = Examples(oracle.tensors["pixels"].numpy(), np.array([0, 1, 2, 3, 4]))
    assert_close("prototypes", class_prototypes(model, examples), oracle.tensors["class_tokens"][:, -1])
