"""Data-parallel training: two processes compute what one does."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from helpers.comparison import max_relative_difference
from helpers.families import images
from helpers.two_processes import CONFIG, examples, model, streamed_examples
from helpers.two_ranks import run_on_two_ranks
from vpt.tasks.classification import train

TESTS = Path(__file__).parents[1]


@pytest.mark.parametrize("augment", [None, "none", "random_resized_crop"], ids=["cache", "stream", "augmented stream"])
def test_train_in_two_processes_equals_one_process(tmp_path, augment):
    module = [sys.executable, "-m", "helpers.two_processes"]
    options = [augment] if augment else []
    run_on_two_ranks(lambda rank: [*module, tmp_path / f"{rank}.safetensors", *options], TESTS)
    alone, together = model(), model()
    if augment is None:
        train(alone, examples(), CONFIG)
    else:
        train(alone, streamed_examples(tmp_path / "alone", augment), CONFIG.replace(augment=augment))
    first, second = (load_file(tmp_path / f"{rank}.safetensors") for rank in range(2))
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    together.load_trainable_state_dict(first)
    assert max_relative_difference(together, alone) < 1e-5


def test_tuned_model_in_ddp_equals_plain_training(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=(tmp_path / "rendezvous").as_uri(), rank=0, world_size=1)
    try:
        tuned, plain = model(), model()
        wrapped = nn.parallel.DistributedDataParallel(tuned)
        labels = torch.tensor([0, 1, 2, 0])
        for network, mine in ((wrapped, tuned), (plain, plain)):
            optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
            network.train()
            for _ in range(3):
                optimizer.zero_grad()
                nn.functional.cross_entropy(network(images()), labels).backward()
                optimizer.step()
            assert len(mine.trainable_parameters()) == 5
        assert max_relative_difference(tuned, plain) < 1e-6
    finally:
        torch.distributed.destroy_process_group()
