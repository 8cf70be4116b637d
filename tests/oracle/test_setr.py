"""The decode head of SETR that upsamples progressively: logits and gradients."""

from __future__ import annotations

import torch
from oracle_files import CLASSES, Tensors, assert_close, read_oracle
from oracle_names import renamed

from vpt.heads.dense import SetrPup, upsample


def setr(tensors: Tensors) -> Tensors:
    """fudan-zvg/SETR: four convolutions with batch norm and one that gives the scores.

    A bias before a batch norm changes nothing, and mmseg's own layer of scores is never called.
    """
    unused = ("conv_seg.", *(f"conv_{index}.bias" for index in range(4)))
    return renamed(
        {name: tensor for name, tensor in tensors.items() if not name.startswith(unused)},
        (r"^conv_4\.", "scores."),
        (r"^conv_(\d)\.", r"stages.\1.0."),
        (r"^syncbn_fc_(\d)\.", r"stages.\1.1."),
        (r"^", "main."),
    )


def test_setr_pup_equals_authors_code() -> None:
    oracle = read_oracle("setr_pup")
    tokens = oracle.tensors["tokens"]
    decoder = SetrPup(channels=4).build([tokens.shape[2]], CLASSES).train()
    decoder.load_state_dict(setr(oracle.group("weights")))
    feature_map = tokens[:, 1:].transpose(1, 2).unflatten(2, (2, 2))
    logits = upsample(decoder([feature_map]), oracle.tensors["logits"].shape[2:])
    assert_close("logits", logits, oracle.tensors["logits"])
    weights, expected = dict(decoder.named_parameters()), setr(oracle.group("gradients"))
    assert sorted(weights) == sorted(expected)
    gradients = torch.autograd.grad((logits * oracle.tensors["direction"]).sum(), list(weights.values()))
    for name, gradient in zip(weights, gradients, strict=True):
        assert_close(f"the gradient of {name}", gradient, expected[name])
