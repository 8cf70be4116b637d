"""Prompts of the paper's own code: equal logits, a start of training, and files that are refused."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from helpers.families import TINY, backbone_of, images
from vpt import load, save
from vpt.conversion import read_official_prompts
from vpt.errors import SpecError, TunedFileError

WIDTH, BLOCKS, LENGTH = TINY["embed_dim"], TINY["depth"], 4


def arrays(blocks: int = BLOCKS, width: int = WIDTH) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    prompts = rng.normal(size=(blocks, LENGTH, width)).astype(np.float32)
    return {"shallow_prompt": prompts[:1]} | ({"deep_prompt": prompts[1:]} if blocks > 1 else {})


def official_feature(backbone: Any, content: dict[str, Any], pixels: Tensor) -> Tensor:
    """`PromptedTransformer.forward` of the paper's code, with timm's blocks."""
    x = backbone.norm_pre(backbone._pos_embed(backbone.patch_embed(pixels)))
    shallow = torch.tensor(content["shallow_prompt"]).expand(len(x), -1, -1)
    x = torch.cat([x[:, :1], shallow, x[:, 1:]], dim=1)
    for index, block in enumerate(backbone.blocks):
        if index and "deep_prompt" in content:
            deep = torch.tensor(content["deep_prompt"][index - 1]).expand(len(x), -1, -1)
            x = torch.cat([x[:, :1], deep, x[:, 1 + LENGTH :]], dim=1)
        x = block(x)
    return backbone.norm(x)[:, 0]  # type: ignore[no-any-return]


@pytest.mark.parametrize("blocks", [BLOCKS, 1])
@pytest.mark.parametrize("zipped", [True, False])
@torch.no_grad()
def test_prompts_of_official_file_give_its_feature(tmp_path: Path, blocks: int, zipped: bool) -> None:
    content, path, backbone = arrays(blocks), tmp_path / "prompt_ep100.pth", backbone_of("vit")
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    if not zipped:  # as NumPy 1 wrote it, in the time of that code
        path.write_bytes(path.read_bytes().replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    model = read_official_prompts(path, backbone, ["cat", "dog"])
    assert model.method.depth == ("deep" if blocks > 1 else "shallow")  # type: ignore[attr-defined]
    expected = official_feature(backbone.module, content, images())
    assert (model.features(images()) - expected).abs().max() <= 1e-5 * expected.abs().max()
    again = load(save(model, tmp_path / "start.safetensors"), backbone)
    assert torch.equal(again(images()), torch.zeros(len(images()), 2)) and again.classes == ("cat", "dog")


def test_file_with_code_is_refused_and_never_run(tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "harm",)

    for name, content in (("zip.pth", {"shallow_prompt": Attack()}), ("bare.pth", Attack())):
        torch.save(content, tmp_path / name)
        with pytest.raises(TunedFileError, match="could run code, so it is not read"):
            read_official_prompts(tmp_path / name, backbone_of("vit"), ["a"])
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Attack(), protocol=2))
    with pytest.raises(TunedFileError):
        read_official_prompts(tmp_path / "plain.pth", backbone_of("vit"), ["a"])
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "holds nothing, not the arrays shallow_prompt"),
        ({"deep_prompt": np.zeros((2, 4, 32), np.float32)}, "holds deep_prompt, not"),
        ({"shallow_prompt": np.zeros((4, 32), np.float32)}, "holds shallow_prompt, not"),
        ({"shallow_prompt": np.full((1, 4, 32), np.nan, np.float32)}, "holds shallow_prompt, not"),
        (nn.Linear(2, 2).state_dict(), "holds weight, bias, not"),
    ],
)
def test_file_without_prompts_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(TunedFileError, match=message):
        read_official_prompts(tmp_path / "other.pth", backbone_of("vit"), ["a"])


@pytest.mark.parametrize(
    ("shallow", "deep"),
    [((1, 4, 32), (2, 4, 8)), ((1, 4, 32), (2, 3, 32)), ((1, 1, 32), (2, 4, 32)), ((2, 4, 32), (1, 4, 32))],
)
def test_prompts_of_several_shapes_are_refused(tmp_path: Path, shallow: Any, deep: Any) -> None:
    content = {"shallow_prompt": np.zeros(shallow, np.float32), "deep_prompt": np.zeros(deep, np.float32)}
    torch.save(content, tmp_path / "prompts.pth")
    with pytest.raises(TunedFileError, match=r"prompts of the shapes \(., ., .*\), not \(1, p, d\)"):
        read_official_prompts(tmp_path / "prompts.pth", backbone_of("vit"), ["a"])


@pytest.mark.parametrize(("blocks", "width"), [(BLOCKS, 8), (BLOCKS - 1, WIDTH), (BLOCKS + 1, WIDTH)])
def test_prompts_of_another_backbone_are_refused(tmp_path: Path, blocks: int, width: int) -> None:
    torch.save(arrays(blocks, width), tmp_path / "prompts.pth")
    with pytest.raises(SpecError, match=f"width {width} for {blocks} blocks, and .* takes width {WIDTH} for {BLOCKS}"):
        read_official_prompts(tmp_path / "prompts.pth", backbone_of("vit"), ["a"])
