"""Files of every method share one bank, and one batch of them is predicted as each alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from vpt import METHODS, attach, load, load_backbone, save
from vpt.errors import UnsupportedError
from vpt.serving.bank import Bank
from vpt.serving.multi_task import TaskAdapter

SPECS = {
    "gated": "gated(length=3)",
    "lora": "lora(rank=2, rank_dropout=0.5)",
    "adapter": "adapter(position=post, init=houlsby, scale=channel)",
    "sidetune": "sidetune(network=test_convnext)",
}
OPTIONS = [
    "vpt(length=4, rank=2)",
    "vpt(length=4, fourier=0.5)",
    "vpt(length=4, init=tokens)",
    "vpt(length=4, init=vipamin)",
    "vpt(length=4, attention=zero_init)",
    "cross(length=4, gate=true)",
    "cross(length=4) + bias",
    "prefix(length=4, shared=true)",
    "prefix(length=4, prune=0.5)",
]
HEADS = {  # of vpt(length=4)
    "blocks": "multi_block(blocks=last4)",
    "all": "multi_block(blocks=2+5-6, features=std)",
    "joined": "multi_block(blocks=last4, pooled=true)",
}
# Change weights of the backbone, the number of tokens, or the feature.
APART = {"bias", "norm", "ssf", "full", "partial", "class_token", "gated", "sidetune", "lora", "head2toe"}


def test_bank_with_every_method_predicts_one_batch_as_each_file_alone(tmp_path: Path, pictures: list[Any]) -> None:
    backbone = load_backbone()
    names = {name: SPECS.get(name, name) for name in METHODS} | {f"option{i}": spec for i, spec in enumerate(OPTIONS)}
    names |= dict.fromkeys(HEADS, "vpt(length=4)")
    models, pixels = {}, torch.stack([backbone.transform()(picture) for picture in pictures])
    for seed, (name, spec) in enumerate(names.items()):
        try:
            model = attach(backbone, spec, 2, classes=("a", "b"), head=HEADS.get(name))
        except UnsupportedError:
            assert name == "sidetune"  # its network wants larger images than those of the embedded backbone
            continue
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weight in model.trainable_parameters():
                weight.add_(0.2 * torch.randn(weight.shape, generator=generator))
        model(pixels).sum().backward()
        model.before_step(1.0)  # for methods that act during training
        save(model, tmp_path / f"{name}.safetensors")
        models[name] = model.eval()
    bank = Bank([tmp_path])
    tasks = list(bank.tasks)
    requests = [bank.make_request(name, pictures[i % 6]) for i, name in enumerate([*tasks, *tasks])]
    for i, prediction in enumerate(bank.predict(requests)):
        assert prediction.task == tasks[i % len(tasks)]
        with torch.no_grad():
            alone = models[prediction.task](pixels[i % 6 : i % 6 + 1]).softmax(1)[0].tolist()
        assert dict(prediction.top) == pytest.approx(dict(zip("ab", alone, strict=True)), abs=1e-4)
    apart = {name for name in tasks if not isinstance(bank._models.get(bank.files.current[name]), TaskAdapter)}
    assert apart == {*APART & {*tasks}, "adapter", "option6"}
    assert load(tmp_path / "cross.safetensors", backbone).method == METHODS["cross"]()
