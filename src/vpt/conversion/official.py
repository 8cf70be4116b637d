"""Prompts of the paper's own code, which writes a file `prompt_ep*.pth` after each epoch.

Such a file holds the prompts as NumPy arrays. It has no head and names neither backbone nor classes.
"""

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vpt.backbones.backbone import Backbone
from vpt.core.input_files import require_regular_file
from vpt.core.text import comma_list
from vpt.data.preprocessing import NORMALIZATIONS
from vpt.errors import SpecError, TunedFileError
from vpt.methods.vpt import VPT
from vpt.model.attach import attach
from vpt.model.tuned_model import TunedModel

# All that a pickled array of floats names. NumPy 2 has moved the function; a file has the name of its time.
_RECONSTRUCT: Any = np.empty(0).__reduce__()[0]
_ARRAYS: list[Any] = [
    np.ndarray, np.dtype, type(np.dtype(np.float32)), type(np.dtype(np.float64)),
    (_RECONSTRUCT, "numpy.core.multiarray._reconstruct"), (_RECONSTRUCT, "numpy._core.multiarray._reconstruct"),
]  # fmt: skip


@torch.no_grad()
def read_official_prompts(path: Path, backbone: Backbone, classes: Sequence[str]) -> TunedModel:
    """Read the prompts of a file `prompt_ep*.pth`, as a start of training.

    Nothing in the file is executed. Images are prepared as in that code on VTAB-1k: squashed to the input, bilinear,
    with ImageNet's mean and standard deviation.

    Args:
        path: The file.
        backbone: The backbone that the prompts were trained on.
        classes: Names of the classes of the head, which is all zeros.

    Returns:
        The tuned model in eval mode.

    Raises:
        TunedFileError: The file is damaged, holds other Python objects, or no prompts.
        SpecError: The prompts do not fit the backbone.
    """
    prompts = _read_prompts(path)
    mean, std = NORMALIZATIONS["imagenet"]
    images = replace(backbone.preprocessing, mean=mean, std=std, interpolation="bilinear", resize="squash")
    method = VPT(length=prompts[0].shape[0], depth="deep" if len(prompts) > 1 else "shallow")
    model = attach(replace(backbone, preprocessing=images), method, len(classes), classes=classes).eval()
    own: list[Any] = list(model.added_modules["prompts"].children())
    width, own_width = prompts[0].shape[1], own[0].tokens.shape[1]
    if (len(prompts), width) != (len(own), own_width):
        raise SpecError(
            f"{path} has prompts of width {width} for {len(prompts)} blocks, and {backbone.name} takes width "
            f"{own_width} for {len(own)}; give the backbone that they were trained on (prompts with a projection "
            "cannot be read, as the file lacks its weights)"
        )
    for each, tokens in zip(own, prompts, strict=True):
        each.tokens.copy_(tokens)
    zero_head(model)
    return model


def zero_head(model: TunedModel) -> None:
    """Set a head that nobody has trained to zeros: all classes are equally likely.

    Args:
        model: The model.
    """
    for weight in model.head.parameters():
        nn.init.zeros_(weight)


def _read_prompts(path: Path) -> list[Tensor]:
    """Return the prompts of each block, (p, d)."""
    require_regular_file(path, "file of prompts", "give a prompt_ep*.pth of the paper's code", TunedFileError)
    try:
        with torch.serialization.safe_globals(_ARRAYS):
            content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise TunedFileError(
            f"{path} holds Python objects besides arrays, which could run code, so it is not read; give the "
            "prompt_ep*.pth of the paper's code"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise TunedFileError(f"{path} is no readable PyTorch file ({error}); fetch it again") from error
    found = content if isinstance(content, Mapping) else {}
    arrays = [found[name] for name in ("shallow_prompt", "deep_prompt") if name in found]
    if "shallow_prompt" not in found or not all(map(_is_prompts, arrays)):
        raise TunedFileError(
            f"{path} holds {comma_list(list(map(str, found))) or 'nothing'}, not the arrays shallow_prompt (1, p, d) "
            "and deep_prompt (blocks - 1, p, d); give a prompt_ep*.pth of the paper's code"
        )
    if len(arrays[0]) != 1 or len({array.shape[1:] for array in arrays}) != 1:
        shapes = comma_list([str(array.shape) for array in arrays])
        raise TunedFileError(
            f"{path} has prompts of the shapes {shapes}, not (1, p, d) and (blocks - 1, p, d); give a prompt_ep*.pth "
            "of the paper's code"
        )
    return [torch.as_tensor(each, dtype=torch.float32) for array in arrays for each in array]


def _is_prompts(array: object) -> bool:
    return (
        isinstance(array, np.ndarray)
        and array.ndim == 3
        and 0 not in array.shape
        and array.dtype.kind == "f"
        and bool(np.isfinite(array).all())
    )
