"""LoRA of transformers' vision transformers, whose queries, keys and values are three layers, in timm's layout."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from vpt.errors import SpecError

CLASSIFIER = "classifier."
# Text and audio models of transformers, alone or beside a vision model, have blocks with some of these names, too.
_PATH = re.compile(
    r"(?!.*(?:text|bert|decoder|language|wav2vec|audio))"
    r"(?P<stack>(?:.+\.)?layers?)\.(?P<block>\d+)\.(?P<layer>.+)"
)
# Names in a block, of transformers 4 and 5 -> timm's, and for thirds of its layer qkv their index.
_LAYERS = {
    "attention.attention.query": ("attn.qkv", 0), "attention.q_proj": ("attn.qkv", 0),
    "attention.attention.key": ("attn.qkv", 1), "attention.k_proj": ("attn.qkv", 1),
    "attention.attention.value": ("attn.qkv", 2), "attention.v_proj": ("attn.qkv", 2),
    "attention.output.dense": ("attn.proj", None), "attention.o_proj": ("attn.proj", None),
    "intermediate.dense": ("mlp.fc1", None), "mlp.fc1": ("mlp.fc1", None),
    "output.dense": ("mlp.fc2", None), "mlp.fc2": ("mlp.fc2", None),
}  # fmt: skip


def has_split_layers(path: str) -> bool:
    """Return True for the path of a layer in a block of transformers.

    Args:
        path: The path.

    Returns:
        True or False.
    """
    found = _PATH.fullmatch(path)
    return found is not None and found["layer"] in _LAYERS


def fuse(down: Mapping[str, Tensor], up: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor], bool]:
    """Return the same changes as changes of timm's layers.

    The change of qkv has a block of A and B for each changed third; with queries and values B is [B_q 0; 0 0; 0 B_v].

    Args:
        down: Matrices A (rank, in) by path.
        up: Matrices B (out, rank) by path.

    Returns:
        Matrices A and B by timm's paths, all of one rank, and False; or, if nothing but queries and values changes,
        A (2 rank, in) and B (2 out, rank) of the thirds, one below the other, and True.

    Raises:
        SpecError: Queries, keys and values of a block differ in shape; or the layers are of several stacks of blocks,
            or two have the same place in timm's model.
    """
    thirds: dict[str, dict[int | None, str]] = {}
    stacks: set[str] = set()
    for path in down:
        found = _PATH.fullmatch(path)
        assert found is not None
        stacks.add(found["stack"])
        name, third = _LAYERS[found["layer"]]
        other = thirds.setdefault(f"blocks.{found['block']}.{name}", {}).setdefault(third, path)
        if len(stacks) > 1 or other != path:
            raise SpecError(f"its layers are not those of one stack of blocks ({', '.join(sorted(stacks))}): {path}")
    for name, paths in thirds.items():
        shapes = {tuple(matrices[path].shape) for matrices in (down, up) for path in paths.values()}
        if len(shapes) > 2 or any(len(shape) != 2 for shape in shapes):
            raise SpecError(f"the changes in {name} have the shapes {sorted(shapes)}, not one shape of A and one of B")
    if all(paths.keys() == {0, 2} for paths in thirds.values()):
        stacked = [
            {name: torch.cat([matrices[paths[0]], matrices[paths[2]]]) for name, paths in thirds.items()}
            for matrices in (down, up)
        ]
        return stacked[0], stacked[1], True
    rank = max(len(paths) for paths in thirds.values()) * next(iter(down.values())).shape[0]
    fused_down = {name: torch.cat([down[path] for path in paths.values()]) for name, paths in thirds.items()}
    fused_up = {
        name: _block_matrix({third: up[path] for third, path in paths.items()}) for name, paths in thirds.items()
    }
    for name, matrix in fused_down.items():
        missing = rank - len(matrix)
        fused_down[name] = torch.nn.functional.pad(matrix, (0, 0, 0, missing))
        fused_up[name] = torch.nn.functional.pad(fused_up[name], (0, missing))
    return fused_down, fused_up, False


def _block_matrix(thirds: Mapping[int | None, Tensor]) -> Tensor:
    """Return B of qkv from those of its thirds, or that of another layer as it is."""
    if None in thirds:
        return thirds[None]
    rows = ([up if third == row else torch.zeros_like(up) for third, up in thirds.items()] for row in range(3))
    return torch.cat([torch.cat(row, 1) for row in rows])
