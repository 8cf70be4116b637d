"""What every script of this folder needs to run the authors' own code and to record what it computes.

A script takes the authors' files from a local clone at a commit (`git archive`), imports them unmodified, builds a tiny
model, draws every weight from a fixed seed, and writes one safetensors file per case: `images`, `direction`, `logits`,
`features`, `weights/NAME` for every tensor of the model, and `gradients/NAME` for every learned one, all under the
authors' names. The gradients are those of `(logits * direction).sum()`. The metadata holds the repository, the commit,
and the SHA-256 of every file that was imported.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

FILES = Path(__file__).parents[2] / "tests" / "oracle" / "files"
# The tiny ViT of all scripts: images of 8 px, patches of 4, two blocks, two heads.
IMAGE_SIZE, PATCH_SIZE, WIDTH, DEPTH, HEADS, MLP_RATIO, CLASSES, PROMPTS = 8, 4, 8, 2, 2, 2, 5, 2
VIT_SIZES = {
    "img_size": IMAGE_SIZE, "patch_size": PATCH_SIZE, "embed_dim": WIDTH, "depth": DEPTH, "num_heads": HEADS,
    "mlp_ratio": MLP_RATIO,
}  # fmt: skip
DERIVED_BUFFERS = ("attn_mask", "relative_position_index", "num_batches_tracked")  # follow from the sizes, or count


class Authors:
    """The authors' files at one commit, importable while this process runs."""

    def __init__(self, repository: str, paths: Sequence[str]) -> None:
        parser = argparse.ArgumentParser(description=f"Write the oracle files of {repository}.")
        parser.add_argument("--repo", type=Path, required=True, help=f"local clone of {repository}, bare or not")
        parser.add_argument("--commit", required=True, help="commit to run, 40 hexadecimal digits")
        parser.add_argument("--out", type=Path, default=FILES, help="folder of the files; default: %(default)s")
        arguments = parser.parse_args()
        self.repository, self.commit, self.out = repository, arguments.commit, arguments.out
        self._folder = tempfile.TemporaryDirectory()
        self.root = Path(self._folder.name).resolve()
        archive = subprocess.run(
            ["git", "-C", arguments.repo, "archive", arguments.commit, *paths], check=True, stdout=subprocess.PIPE
        )
        subprocess.run(["tar", "x", "-C", self.root], input=archive.stdout, check=True)
        sys.path.insert(0, str(self.root))

    def imported_files(self) -> dict[str, str]:
        """Path -> SHA-256 of the authors' files that were imported."""
        files = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
        paths = sorted(Path(file) for file in files if file and Path(file).is_relative_to(self.root))
        return {str(path.relative_to(self.root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}

    def save(self, name: str, tensors: dict[str, Tensor], **details: Any) -> None:
        """Write one file."""
        # In one entry, for safetensors writes several in a random order.
        source = {"repository": self.repository, "commit": self.commit, "files": self.imported_files(), **details}
        path = self.out / f"{name}.safetensors"
        contiguous = {key: tensor.detach().clone().contiguous() for key, tensor in tensors.items()}
        save_file(contiguous, path, metadata={"source": json.dumps(source)})
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


class _Anything:
    """Stands for any class or function of a package that is not installed and whose results nothing reads."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return args[0] if len(args) == 1 and callable(args[0]) else self  # a decorator leaves what it decorates

    def __getattr__(self, name: str) -> Any:
        return _Anything()


class _StubModule(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything


def stub(module: str, **attributes: Any) -> None:
    """Put a module in the place of one that is not installed, and of its parents."""
    parts = module.split(".")
    for end in range(1, len(parts) + 1):
        name = ".".join(parts[:end])
        if not isinstance(sys.modules.get(name), _StubModule):
            sys.modules[name] = _StubModule(name)
            sys.modules[name].__path__ = []  # type: ignore[attr-defined]
    for name, value in attributes.items():
        setattr(sys.modules[module], name, value)


def restore_old_timm() -> None:
    """Give timm the module paths of the versions that the authors used."""
    import timm.layers.helpers
    import timm.models.layers

    sys.modules["timm.models.layers.helpers"] = timm.layers.helpers


class AttributeDict(dict[str, Any]):
    """A dict whose keys are attributes too: stands for `CfgNode` and `ConfigDict`."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def clone(self) -> AttributeDict:
        return AttributeDict(
            {key: value.clone() if isinstance(value, AttributeDict) else value for key, value in self.items()}
        )


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@torch.no_grad()
def perturb(model: nn.Module, seed: int = 0) -> None:
    """Draw every parameter and running statistic anew, so that no branch is zero and no scale is one."""
    random = generator(seed)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if not tensor.is_floating_point() or "mask" in name:
            continue
        if tensor.dim() > 1 and name.endswith("weight"):
            tensor.normal_(std=1 / math.sqrt(tensor[0].numel()), generator=random)
        elif tensor.dim() == 1 and name.endswith(("weight", "running_var", "temp", "scale_1", "scale_2")):
            tensor.uniform_(0.5, 1.5, generator=random)
        else:
            tensor.normal_(std=0.5, generator=random)


def draw_images(size: int = IMAGE_SIZE, count: int = 2) -> Tensor:
    return torch.randn(count, 3, size, size, generator=generator(1))


def record(model: Any, images: Tensor) -> dict[str, Tensor]:
    """The tensors of a file: what a model with a `head` computes, and its gradients.

    Parameters that require a gradient are the learned ones; one that the authors' code never reads has none.
    """
    features: list[Tensor] = []
    head = getattr(model.head, "fc", model.head)
    handle = head.register_forward_pre_hook(lambda module, inputs: features.append(inputs[0]))
    logits = model(images)
    handle.remove()
    direction = torch.randn(logits.shape, generator=generator(2))
    learned = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    gradients = torch.autograd.grad((logits * direction).sum(), list(learned.values()), allow_unused=True)
    return {
        "images": images,
        "direction": direction,
        "features": features[0],
        "logits": logits,
        **{f"weights/{name}": x for name, x in model.state_dict().items() if not name.endswith(DERIVED_BUFFERS)},
        **{f"gradients/{name}": value for name, value in zip(learned, gradients, strict=True) if value is not None},
    }


def prepare(model: nn.Module, *parts: str) -> None:
    """Draw every weight, and let the parameters learn whose names contain one of the parts."""
    perturb(model)
    for name, weight in model.named_parameters():
        weight.requires_grad_(any(part in name for part in parts))


@contextmanager
def recorded_dropout(seed: int = 3) -> Iterator[dict[str, Tensor]]:
    """Replace the random masks of dropout by seeded ones, and keep them: `dropout/i` for the i-th call.

    A mask holds 0 or 1 / (1 - p), so it tells p as well.
    """
    masks: dict[str, Tensor] = {}
    random, original = generator(seed), nn.functional.dropout

    def dropout(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if not training or p == 0:
            return x
        mask = torch.empty(x.shape).bernoulli_(1 - p, generator=random) / (1 - p)
        masks[f"dropout/{len(masks)}"] = mask
        return x * mask

    nn.functional.dropout = dropout  # type: ignore[assignment]
    try:
        yield masks
    finally:
        nn.functional.dropout = original


def record_training(model: Any) -> dict[str, Tensor]:
    """What `record` gives of a model in train mode, and the masks of its dropout."""
    with recorded_dropout() as masks:
        tensors = record(model, draw_images())
    return {**tensors, **masks}
