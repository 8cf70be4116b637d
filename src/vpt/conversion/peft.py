"""LoRA in the layout of PEFT: a folder with adapter_model.safetensors and adapter_config.json.

A third file, vpt.json, holds what PEFT has no place for: classes, kind of labels, preprocessing, scores and license.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from vpt.attention.detection import detect_layout
from vpt.backbones.backbone import Backbone, classifier_prefixes
from vpt.conversion.official import zero_head
from vpt.conversion.settings import SETTINGS, Settings, read_settings, settings_json
from vpt.conversion.split_layers import CLASSIFIER, fuse, has_split_layers
from vpt.core.input_files import require_regular_file
from vpt.core.io import describe_write_error, write_atomic
from vpt.core.text import comma_list
from vpt.errors import SpecError, StorageError, TunedFileError, UnsupportedError
from vpt.methods.lora import LoRA
from vpt.model.attach import attach
from vpt.model.state_dict import check_shapes
from vpt.model.tuned_model import TunedModel

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
FILES = (CONFIG, TENSORS, SETTINGS)
_PREFIX = "base_model.model."
_MATRIX = re.compile(re.escape(_PREFIX) + r"(?P<path>.+)\.lora_(?P<matrix>[AB])\.weight")
_Targets = Literal["attention", "queries_values", "mlp", "all"]
_CHANGES_BACKBONE = ("pissa", "olora", "loftq", "corda", "lora_ga")  # starts that move a part of the backbone's weights


@torch.no_grad()
def write_peft(model: TunedModel, folder: Path, **record: Any) -> None:
    """Write a model of the method lora as a folder that `peft.PeftModel.from_pretrained` loads on timm's model.

    Args:
        model: The tuned model. Its head becomes timm's classifier, a module that PEFT saves whole.
        folder: The folder. A LoRA in it is replaced; an interrupted call leaves none.
        **record: `scores`, `split_options`, `protocol` and `license`, as `vpt.save` takes them.

    Raises:
        UnsupportedError: The method is another one, or timm has no place for the head.
        StorageError: The folder cannot be written.
    """
    method, classifier = model.method, classifier_prefixes(model.backbone.module)
    if not isinstance(method, LoRA):
        raise UnsupportedError(f"{method} is not LoRA, and PEFT's layout is written for LoRA alone; tune with lora")
    if not (isinstance(model.head, nn.Linear) and model.reads_backbone_feature and len(classifier) == 1):
        raise UnsupportedError(f"{method} on {model.backbone.name} has a head for which timm has no place")
    layers: dict[str, Any] = model.wrappers()
    changes = max(layer.changes for layer in layers.values())  # of a weight: 2 for queries and values in one
    tensors: dict[str, Tensor] = {
        f"{_PREFIX}{classifier[0]}{name}": weight for name, weight in model.head.named_parameters()
    }
    for path, layer in layers.items():
        for name, matrix in zip("AB", _matrices(layer, changes * method.rank), strict=True):
            tensors[f"{_PREFIX}{path}.lora_{name}.weight"] = matrix
    config = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": model.backbone.name,
        "inference_mode": True,
        "r": changes * method.rank,
        "lora_alpha": changes * method.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": list(layers),
        "modules_to_save": [classifier[0].removesuffix(".")],
    }
    content = safetensors.torch.save({name: x.cpu().contiguous() for name, x in tensors.items()}, {"format": "pt"})
    try:
        (folder / CONFIG).unlink(missing_ok=True)  # without it, no program reads the folder
    except OSError as error:
        raise StorageError(describe_write_error(folder / CONFIG, error)) from error
    write_atomic(folder / TENSORS, content)
    write_atomic(folder / SETTINGS, settings_json(model, **record))
    write_atomic(folder / CONFIG, json.dumps(config, indent=2).encode())


def _matrices(layer: Any, rank: int) -> tuple[Tensor, Tensor]:
    """Return A (rank, in) and B (out, rank) of a layer; terms that it lacks are zeros."""
    down = layer.down if layer.coefficients is None else layer.coefficients.unsqueeze(1) * layer.down
    up = layer.up
    if layer.changes == 2:  # queries and values of a layer that makes queries, keys and values
        queries, values = up.chunk(2)
        nothing = torch.zeros_like(queries)
        up = torch.cat([torch.cat(row, 1) for row in ((queries, nothing), (nothing, nothing), (nothing, values))])
    missing = rank - down.shape[0]
    return nn.functional.pad(down, (0, 0, 0, missing)), nn.functional.pad(up, (0, missing))


@torch.no_grad()
def read_peft(folder: Path, backbone: Backbone, classes: Sequence[str] | None = None) -> TunedModel:
    """Read a LoRA that PEFT saved for a timm model or a ViT of transformers, or that `write_peft` wrote.

    Layers of the nearest `targets` that PEFT left alone get a change of zero.

    Args:
        folder: The folder.
        backbone: The backbone, at the image size of vpt.json, where the folder has one.
        classes: Names of the classes. Default: those of vpt.json, or none, where the folder has the classifier;
            otherwise they are needed, and the head is all zeros.

    Returns:
        The tuned model in eval mode.

    Raises:
        TunedFileError: A file is damaged, or holds something else than a LoRA of this backbone, or of other weights.
        SpecError: The number of classes is another one than that of the classifier, or unknown.
    """
    config, tensors, settings = read_config(folder), _read_tensors(folder), read_settings(folder)
    if settings is not None:
        backbone = _with_settings(folder, backbone, settings)
        classes = settings.classes if classes is None else classes
    matrices: dict[str, dict[str, Tensor]] = {"A": {}, "B": {}}
    head = _pop_classifier(folder, backbone, tensors)
    for name, tensor in tensors.items():
        found = _MATRIX.fullmatch(name)
        if found is None:
            raise TunedFileError(
                f"{folder} has the tensor {name}, which is no low-rank change of a linear layer and not the classifier "
                f"of {backbone.name}; convert a LoRA without further trained tensors"
            )
        matrices[found["matrix"]][found["path"]] = tensor
    down, up = matrices["A"], matrices["B"]
    ranks = {len(tensor) if tensor.ndim else 0 for tensor in down.values()}
    if down.keys() != up.keys() or len(ranks) != 1 or 0 in ranks:
        raise TunedFileError(f"{folder} has ranks {sorted(ranks)} in its layers; convert a LoRA of one rank")
    (rank,) = ranks
    scale = config["lora_alpha"] / (math.sqrt(rank) if config.get("use_rslora") else rank)
    candidates: tuple[_Targets, ...] = ("attention", "mlp", "all")
    if all(map(has_split_layers, down)):
        down, up, only_queries_values = _fuse(folder, down, up)
        candidates = ("queries_values",) if only_queries_values else candidates
        rank = next(iter(up.values())).shape[1]
    method = _method_for(folder, backbone, rank, scale * rank, list(down), candidates)
    if not head and classes is None:
        raise SpecError(f"{folder} has no classifier; give the names of the classes, and a head of zeros is added")
    if head and (head.keys() != {"weight", "bias"} or head["weight"].ndim != 2):
        raise TunedFileError(f"{folder} has no weight and bias of a linear classifier; save the adapter again")
    number = len(head["weight"]) if head else len(classes or ())
    with torch.random.fork_rng(devices=[]):  # matrices of layers without a change, the same in each conversion
        torch.manual_seed(0)
        model = attach(backbone, method, number, classes=classes).eval()
    layers: dict[str, Any] = model.wrappers()
    own = {f"{path}.lora_A": layers[path].down for path in down} | {f"{path}.lora_B": layers[path].up for path in up}
    given = {f"{path}.lora_A": matrix for path, matrix in down.items()}
    given |= {f"{path}.lora_B": matrix for path, matrix in up.items()}
    if head:
        own |= dict(model.head.named_parameters())
        given |= head
    else:
        zero_head(model)
    try:
        check_shapes(own, given, "it")
    except SpecError as error:
        raise TunedFileError(f"{folder} does not fit {backbone.name} ({error}); give the backbone it is for") from error
    for name, tensor in own.items():
        tensor.copy_(given[name])
    if settings is not None:
        model.label_kind = settings.label_kind
    return model


def _pop_classifier(folder: Path, backbone: Backbone, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Remove the weight and the bias of the classifier from tensors, and return them; empty where there is none."""
    own = classifier_prefixes(backbone.module)
    names = [f"{_PREFIX}{prefix}{name}" for prefix in (*own, CLASSIFIER) for name in ("weight", "bias")]
    found = sorted({name.removeprefix(_PREFIX).rpartition(".")[0] for name in names if name in tensors})
    if len(found) > 1 or (found and len(own) > 1):  # a distilled DeiT gives the mean of two, each of its own token
        raise TunedFileError(
            f"{folder} is of a model with several classifiers ({', '.join(found)} here), for which one linear head "
            "cannot stand; save the adapter without modules_to_save"
        )
    return {name.rpartition(".")[2]: tensors.pop(name) for name in names if name in tensors}


def _with_settings(folder: Path, backbone: Backbone, settings: Settings) -> Backbone:
    own, given = backbone.preprocessing, settings.preprocessing
    if (own.size, own.channels) != (given.size, given.channels):
        raise TunedFileError(
            f"{folder / SETTINGS} is of {given.channels} channels of {given.size} px, and {backbone.name} takes "
            f"{own.channels} of {own.size} px; load it with image_size={given.size}"
        )
    if settings.fingerprint not in (None, backbone.fingerprint()):
        raise TunedFileError(
            f"{folder} was made for {settings.fingerprint}, but this is {backbone.name} with "
            f"{backbone.fingerprint()}; load the same weights"
        )
    return replace(backbone, preprocessing=given)


def read_config(folder: Path) -> Mapping[str, Any]:
    """Read and check the configuration of a LoRA of PEFT.

    Args:
        folder: The folder.

    Returns:
        The values by PEFT's names; `lora_alpha` is a float.

    Raises:
        TunedFileError: It is damaged, or that of another method, or of a form of LoRA that is not supported.
    """
    path = require_regular_file(folder / CONFIG, "configuration", "give a folder that PEFT saved", TunedFileError)
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if config["peft_type"] != "LORA":
            raise TunedFileError(f"{path} is of the method {config['peft_type']}; only PEFT's LORA can be converted")
        alpha = float(config["lora_alpha"])
        if not 0 < alpha < math.inf:
            raise ValueError(f"lora_alpha is {alpha}, no number above 0")
        start = str(config.get("init_lora_weights", True)).lower()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        if isinstance(error, TunedFileError):
            raise
        raise TunedFileError(f"{path} is damaged ({error!r}); save the adapter again") from error
    patterns = [name for name in ("rank_pattern", "alpha_pattern") if config.get(name)]
    if patterns:
        raise TunedFileError(f"{path} has a {patterns[0]}; only a LoRA with one rank and one alpha can be converted")
    if start.startswith(_CHANGES_BACKBONE):
        raise TunedFileError(
            f"{path} begins at {start}, which changes the backbone's own weights; save it from PEFT as a plain LoRA, "
            "with path_initial_model_for_weight_conversion"
        )
    return config | {"lora_alpha": alpha}  # type: ignore[no-any-return]


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    path = require_regular_file(folder / TENSORS, "LoRA", "save it from PEFT as safetensors", TunedFileError)
    try:
        found = safetensors.torch.load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise TunedFileError(f"{path} is damaged or no safetensors file ({error}); fetch it again") from error
    broken = [name for name, tensor in found.items() if not bool(tensor.isfinite().all())]
    if broken:
        raise TunedFileError(f"{path} holds NaN or infinity in {comma_list(broken)}; train it again")
    return found


def _fuse(
    folder: Path, down: dict[str, Tensor], up: dict[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor], bool]:
    try:
        return fuse(down, up)
    except SpecError as error:
        raise TunedFileError(
            f"{folder} is no LoRA of a ViT of transformers: {error}; save the adapter again"
        ) from error


def _method_for(
    folder: Path, backbone: Backbone, rank: int, alpha: float, paths: Sequence[str], candidates: Sequence[_Targets]
) -> LoRA:
    """Return the LoRA with the fewest layers among which all the given ones are."""
    layout = detect_layout(backbone.module, backbone.preprocessing)
    for targets in candidates:
        method = LoRA(rank=rank, alpha=alpha, targets=targets)
        try:
            known = method.plan(backbone.module, layout).wrappers.keys()
        except UnsupportedError:
            continue
        if known >= set(paths):
            return method
    raise TunedFileError(
        f"{folder} changes the layer {paths[0]}, and {backbone.name} has no such linear layer in its blocks; give the "
        "timm model that the LoRA was trained on"
    )
