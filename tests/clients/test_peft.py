"""A LoRA of the library PEFT inside the backbone: prompts see its change of the queries, keys and values."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from helpers.families import images, model_of
from vpt import TunedModel, attach
from vpt.errors import UnsupportedError

DEEP, CONCATENATED = "vpt(length=3)", "vpt(length=3, impl=concat)"


def prompted(model: nn.Module, method: str) -> TunedModel:
    torch.manual_seed(0)
    return attach(model, method, 3).eval()


def with_lora(family: str) -> Any:
    torch.manual_seed(1)
    config = LoraConfig(r=2, lora_alpha=4, target_modules=["qkv"], init_lora_weights=False)
    return get_peft_model(model_of(family), config).eval()


@pytest.mark.parametrize("family", ["vit", "vit-qknorm"])
def test_prompts_beside_a_lora_of_peft_equal_concatenation(family: str) -> None:
    peft_model = with_lora(family)
    wrapped = peft_model.base_model.model
    assert "lora_A" in dict(wrapped.blocks[0].attn.qkv.named_children())
    tuned = prompted(wrapped, DEEP)
    assert not tuned.layout.supports_kv_prompts
    concatenated, without = prompted(wrapped, CONCATENATED), prompted(model_of(family), DEEP)
    for model in (concatenated, without):
        model.load_trainable_state_dict(tuned.trainable_state_dict())
    with torch.no_grad():
        logits = tuned(images())
        assert torch.allclose(logits, concatenated(images()), rtol=1e-5, atol=1e-5)
        assert (logits - without(images())).abs().max() > 1e-3
    merged = prompted(peft_model.merge_and_unload(), DEEP)  # plain layers again, with PEFT's change inside
    assert merged.layout.supports_kv_prompts
    merged.load_trainable_state_dict(tuned.trainable_state_dict())
    with torch.no_grad():
        assert torch.allclose(logits, merged(images()), rtol=1e-4, atol=1e-4)


def test_prompts_beside_a_lora_of_peft_in_rotary_attention_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="EvaBlock ties every token to a place in the image"):
        attach(with_lora("dinov3").base_model.model, DEEP, 3)
