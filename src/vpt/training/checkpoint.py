"""Checkpoints: everything that an epoch leaves to the next, in one safetensors file with a checksum."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save

from vpt.core.damage import damage_named
from vpt.core.io import write_atomic
from vpt.core.legacy_keys import upgrade
from vpt.errors import SpecError, TunedFileError
from vpt.model.header import KEY, NO_CHECKSUM, checksum_of_file, seal
from vpt.model.tuned_model import TunedModel


def save_checkpoint(
    path: Path,
    model: TunedModel,
    optimizer: torch.optim.Optimizer,
    progress: dict[str, Any],
    **states: Mapping[str, torch.Tensor],
) -> None:
    """Write a checkpoint. The old file or the new one exists at any moment.

    Args:
        path: The file.
        model: The model, of which the trainable state is saved.
        optimizer: The optimizer.
        progress: JSON values that are saved beside the tensors.
        **states: Other weights of the model, by the names of `trainable_state_dict`.
    """
    tensors = {f"model.{name}": tensor.detach().cpu().clone() for name, tensor in model.trainable_state_dict().items()}
    for index, parameter in enumerate(model.trainable_parameters()):
        for key, value in optimizer.state[parameter].items():
            if isinstance(value, torch.Tensor):
                tensors[f"optimizer.{index}.{key}"] = value.detach().cpu().clone()
    for key, state in states.items():
        tensors |= {f"{key}.{name}": tensor.detach().cpu().clone() for name, tensor in state.items()}
    text = json.dumps({"checksum": NO_CHECKSUM, "progress": progress})
    write_atomic(path, seal(save(tensors, {KEY: text})))


def load_checkpoint(
    path: Path, model: TunedModel, optimizer: torch.optim.Optimizer, *states: str
) -> tuple[dict[str, Any], dict[str, dict[str, torch.Tensor]]]:
    """Load a checkpoint into a model and its optimizer.

    Args:
        path: The file.
        model: The model.
        optimizer: The optimizer.
        *states: Names of other weights of the model.

    Returns:
        The JSON values of `save_checkpoint`, and the other weights by their names; {} for those that are not saved.

    Raises:
        TunedFileError: The file is damaged, or of another method.
    """
    with damage_named(path, "checkpoint", "delete it to begin anew", TunedFileError):
        try:
            with safe_open(path, framework="np") as file:
                texts = file.metadata()
            tensors = load_file(path)
        except SafetensorError as error:
            raise ValueError(str(error)) from error
        if KEY in texts:
            values = json.loads(texts[KEY])
            if values["checksum"] != checksum_of_file(path):
                raise ValueError("its checksum differs")
        else:  # earlier versions wrote no checksum
            values = {"progress": json.loads(texts["progress"])}
        progress = upgrade("checkpoint", values["progress"])
        progress = {
            "config": dict(progress["config"]),
            "crop_version": int(progress.get("crop_version", 1)),  # earlier versions did not write it
            "history": [dict(record) for record in progress["history"]],
        }
    try:
        model.load_trainable_state_dict(_with_prefix(tensors, "model."))
    except SpecError as error:
        raise TunedFileError(f"the checkpoint {path} is of another run ({error}); delete it to begin anew") from error
    for index, parameter in enumerate(model.trainable_parameters()):
        optimizer.state[parameter] = {
            # AdamW counts its steps on the CPU, whatever the device
            name: tensor if name == "step" else tensor.to(parameter.device)
            for name, tensor in _with_prefix(tensors, f"optimizer.{index}.").items()
        }
    return progress, {key: _with_prefix(tensors, f"{key}.") for key in states}


def _with_prefix(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
