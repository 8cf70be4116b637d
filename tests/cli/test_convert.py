"""`vpt convert`: what it reads beside the file that it converts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from helpers.command_line import vpt
from vpt import inspect


def test_class_list_with_a_byte_order_mark_has_the_names_alone(tmp_path: Path) -> None:
    torch.save({"shallow_prompt": np.zeros((1, 2, 128), np.float32)}, tmp_path / "prompt_ep1.pth")
    (tmp_path / "names.txt").write_text("cat\ndog\n", encoding="utf-8-sig")  # as editors of Windows write it
    options = ["--backbone", "vit_nano_patch12_48", "--classes", tmp_path / "names.txt"]
    vpt("convert", tmp_path / "prompt_ep1.pth", *options, "--out", tmp_path / "start.safetensors")
    assert inspect(tmp_path / "start.safetensors").classes == ("cat", "dog")
