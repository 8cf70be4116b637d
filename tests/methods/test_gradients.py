"""No gradient is computed that nobody reads: counted on the products of the backward pass itself."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode

from helpers.families import TINY, backbone_of, images
from vpt import attach

LABELS = torch.tensor([0, 1, 2, 1])
WIDTH = TINY["embed_dim"]
ROWS = len(LABELS) * 17  # all tokens of the batch: CLS and 16 patches each


class RecordProducts(TorchDispatchMode):
    """Keeps (rows, columns) of the left factor and of the result of every matrix product, and all convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
        self.convolutions = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name in ("mm", "addmm"):
            left = args[0] if name == "mm" else args[1]
            self.seen.append((tuple(left.shape), tuple(out.shape)))
        self.convolutions += name == "convolution_backward"
        return out


def backward(method: str) -> RecordProducts:
    torch.manual_seed(0)
    model = attach(backbone_of("vit"), method, 3).train()
    loss = cross_entropy(model(images()), LABELS)
    with RecordProducts() as products:
        loss.backward()
    return products


# Of the three blocks the last computes CLS alone. A block sends gradients of all tokens through the MLP's two layers
# and the projection; through q, k and v only if something before it learns.
@pytest.mark.parametrize(
    ("depth", "through_mlp", "through_qkv"), [("deep", 2, 1), ("shallow", 2, 2), ("2-3", 1, 0), ("3-3", 0, 0)]
)
def test_backward_with_prompts_stops_at_the_first_prompted_block(
    depth: str, through_mlp: int, through_qkv: int
) -> None:
    products = backward(f"vpt(length=3, dropout=0, depth={depth})")
    assert products.convolutions == 0, "a gradient went into the embedding"
    rows = ROWS if depth != "shallow" else ROWS + 3 * len(LABELS)
    of_all_tokens = Counter(left[1] for left, _ in products.seen if left[0] == rows)
    assert of_all_tokens[3 * WIDTH] == through_qkv
    assert of_all_tokens[4 * WIDTH] == through_mlp


@pytest.mark.parametrize("method", ["vpt(length=3)", "vpt(length=3, depth=shallow)", "linear", "mlp"])
def test_backward_of_each_method_computes_no_frozen_weight_gradient(method: str) -> None:
    shapes = {tuple(weight.shape) for weight in backbone_of("vit").module.parameters() if weight.dim() == 2}
    assert len(shapes) >= 4
    if method == "mlp":  # its hidden layers are as large as the projections
        shapes.discard((WIDTH, WIDTH))
    made = {out for _, out in backward(method).seen}
    assert not made & (shapes | {shape[::-1] for shape in shapes})


def test_backward_of_linear_computes_only_the_head_gradient() -> None:
    products = backward("linear")
    assert [out for _, out in products.seen] == [(3, WIDTH)]
