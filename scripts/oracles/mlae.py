"""Oracles of jie040109/MLAE: a linear layer with learned coefficients of rank-1 terms, in eval and in train mode.

python scripts/oracles/mlae.py --repo CLONE --commit SHA
"""

from __future__ import annotations

import torch
from authors import Authors, generator, recorded_dropout, stub
from torch import Tensor

INPUTS, OUTPUTS, RANK = 6, 4, 3


def main() -> None:
    authors = Authors("jie040109/MLAE", ["mlae.py"])
    stub("transformers")
    from mlae import MLAE_Linear

    for name, training in (("mlae", False), ("mlae_train", True)):
        layer = MLAE_Linear(INPUTS, OUTPUTS, r=RANK, drop_rate=0.5, merge_weights=False)
        for index, weight in enumerate(layer.parameters()):
            weight.data.normal_(generator=generator(index))
        layer.train(training)
        x = torch.randn(5, INPUTS, generator=generator(9))
        with recorded_dropout() as masks:
            out: Tensor = layer(x)
        learned = {"lora_A": layer.lora_A, "lora_B": layer.lora_B, "lora_lamda": layer.lora_lamda}
        gradients = torch.autograd.grad(out.square().sum(), list(learned.values()))
        authors.save(name, {
            "x": x, "out": out, **masks,
            **{f"weights/{key}": value for key, value in layer.state_dict().items()},
            **{f"gradients/{key}": value for key, value in zip(learned, gradients, strict=True)},
        })  # fmt: skip


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
