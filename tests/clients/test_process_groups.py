"""Two processes train as one does: DDP and FSDP2 of torch, and accelerate."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from helpers.free_port import free_port
from vpt import TunedModel, attach, load_backbone

BATCH = 8


def make_model() -> TunedModel:
    torch.manual_seed(0)
    return attach(load_backbone("vit_nano_patch12_48"), "vpt(length=3, dropout=0)", 4)


def train(model: nn.Module, part: slice, accelerator: Accelerator | None = None) -> None:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(BATCH, 3, 48, 48, generator=generator)[part]
    labels = torch.randint(4, (BATCH,), generator=generator)[part]
    optimizer = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=0.5)
    if accelerator is not None:
        model, optimizer = accelerator.prepare(model, optimizer)
    for _ in range(3):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward() if accelerator is None else accelerator.backward(loss)
        optimizer.step()


def shard(model: TunedModel) -> None:
    mesh = init_device_mesh("cpu", (2,))
    for block in model.trunk.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)


def run_process(rank: int, kind: str, port: int, out: Path) -> None:
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in names.items()}
    accelerator = Accelerator(cpu=True) if kind == "accelerate" else None
    if accelerator is None:
        dist.init_process_group("gloo")
    assert dist.get_world_size() == 2
    model = make_model()
    if kind == "fsdp2":
        shard(model)
    half = BATCH // 2
    wrapped = DistributedDataParallel(model) if kind == "ddp" else model
    train(wrapped, slice(rank * half, (rank + 1) * half), accelerator)
    full = {name: getattr(weight, "full_tensor", lambda one=weight: one)() for name, weight in trained(model).items()}
    if rank == 0:
        save_file({name: weight.detach().contiguous() for name, weight in full.items()}, out)
    dist.destroy_process_group()


def trained(model: TunedModel) -> dict[str, Tensor]:
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


@pytest.mark.parametrize("kind", ["ddp", "fsdp2", "accelerate"])
def test_two_processes_train_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    out = tmp_path / "weights.safetensors"
    mp.spawn(run_process, args=(kind, free_port(), out), nprocs=2)
    model = make_model()
    train(model, slice(None))
    found = load_file(out)
    assert found.keys() == trained(model).keys()
    for name, weight in trained(model).items():
        torch.testing.assert_close(found[name], weight.detach(), rtol=1e-4, atol=1e-5)
