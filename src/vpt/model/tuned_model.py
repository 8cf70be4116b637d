"""The tuned model: a shared frozen backbone, what a method owns, and a head. An ordinary `nn.Module`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vpt.attention.detection import FeatureExtractor, detect_layout, probe_image, structural_copy
from vpt.attention.kv_attention import KVAttention
from vpt.backbones.activation_checkpointing import enable_activation_checkpointing
from vpt.backbones.backbone import Backbone, classifier_prefixes
from vpt.backbones.layout import BackboneLayout
from vpt.backbones.loading import load_backbone
from vpt.errors import SpecError, UnsupportedError, VptError
from vpt.heads.dense import DenseHead, parse_head, upsample
from vpt.heads.feature_maps import build_feature_maps
from vpt.methods.base import NETWORK, Injection, Method
from vpt.methods.prompts import PromptKeys
from vpt.methods.registry import METHODS, parse_method
from vpt.model.injection import (
    clone_trainable,
    first_modified_block,
    inject,
    merge_weights,
    named_tensors,
    trainable_module_ids,
    use_class_token_block,
)
from vpt.model.split_forward import SplitForward


def attach(
    backbone: str | nn.Module | Backbone,
    method: str | Method,
    num_classes: int,
    *,
    classes: Sequence[str] | None = None,
    head: str | DenseHead | None = None,
    activation_checkpointing: bool = False,
) -> TunedModel:
    """Hang `method` on a frozen `backbone` with a fresh head of `num_classes` outputs.

    backbone: a timm name (weights are fetched), a timm model, or a `Backbone`. It is not changed, and its weights
        are shared: any number of tuned models can stand on one. `model.to(device)` gives a model weights of its own
        there; to share them on a GPU, move the backbone first.
    method: an object, or its text such as `vpt(length=10, depth="deep")` or `vpt(length=50) + bias`.
    classes: names of the classes, kept with the model.
    head: None classifies whole images; a dense head, such as `setr_pup`, `linear` or `fpn(channels=128)`, gives every
        pixel its class (semantic segmentation; `vpt.heads.dense`).
    activation_checkpointing: keep no activations of the blocks for the backward pass but compute them again there: a third
        more operations in training, for a fraction of the memory. The results are the same.
    The head and prompts are initialized from torch's global generator: seed it for a reproducible start.
    Raises UnsupportedError where the method finds no place to hang or what it hung never runs.
    """
    dense = None if head is None else parse_head(head)
    model = TunedModel(load_backbone(backbone), parse_method(method), num_classes, classes, dense)
    if activation_checkpointing:
        enable_activation_checkpointing(model.trunk, model.layout.blocks)
    return model


@dataclass(frozen=True)
class Counts:
    """Parameters of a tuned model. total: backbone, method and head. trainable: what the method owns, and the head."""

    total: int
    trainable: int

    @property
    def fraction(self) -> float:
        """trainable / total, between 0 and 1."""
        return self.trainable / self.total


class TunedModel(nn.Module):
    """Normalised images (batch, 3, size, size) -> logits (batch, classes), or (batch, classes, size, size) where dense.

    What is not the backbone's trains and is saved, and nothing else: ownership is settled by identity when the
    method is hung, never by a name. Made by `attach` or `load`.
    """

    def __init__(
        self,
        backbone: Backbone,
        method: Method,
        num_classes: int,
        classes: Sequence[str] | None = None,
        dense: DenseHead | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(num_classes, (int, np.integer)) or num_classes < 1:
            raise SpecError(f"num_classes is {num_classes!r}; a head needs a whole number of outputs, at least one")
        if classes is not None and len(classes) != num_classes:
            raise SpecError(f"{len(classes)} class names were given for {num_classes} classes; give one name each")
        self.backbone = backbone
        self.method = method
        self.num_classes = int(num_classes)
        self.classes = tuple(classes) if classes is not None else None
        self.dense = dense

        trunk = structural_copy(backbone.module)
        device = next(trunk.parameters()).device  # now: what is about to hang may come first, and is made on the CPU
        layout = detect_layout(trunk, backbone.preprocessing)
        if dense is not None:  # every patch is read, and the class token is not
            layout = replace(layout, reads_class_token=False, cls_only=False)
        injection = _plan_injection(method, trunk, layout)
        if dense is not None:
            _check_dense(method, injection, dense, layout)
        original_modules = dict(trunk.named_modules())  # kept, so that no identity is used twice
        frozen_ids = {id(module) for module in original_modules.values()} - trainable_module_ids(trunk, injection)
        trainable = {
            f"backbone.{name}": tensor for path in injection.trainable for name, tensor in clone_trainable(trunk, path)
        }
        shared_ids = {id(tensor) for _, tensor in named_tensors(trunk)}
        injected = inject(trunk, injection)
        if layout.cls_only and injection.pool is None:
            use_class_token_block(trunk, layout)
        network: nn.Module
        make_head: Callable[[int, int], nn.Module]
        if dense is None:
            network = FeatureExtractor(trunk, injection.pool)
            make_head = injection.make_head or _linear_head
        else:
            network, shapes = build_feature_maps(trunk, layout, dense.auxiliary_depths)
            make_head = partial(_build_decoder, dense, [channels for channels, _ in shapes])
        if NETWORK in injection.wrappers:
            network = injected[NETWORK] = injection.wrappers[NETWORK](network)

        self.added_modules = nn.ModuleDict(injection.modules)
        self._make_head = make_head
        self.width = injection.num_pooled * layout.width  # of what the head reads of an image, (batch, width)
        self.head = make_head(self.width, num_classes)
        self.network = network
        self.layout = layout
        self.first_modified_block = first_modified_block(injection, layout)
        self.has_custom_pool = injection.pool is not None  # than the backbone does
        self.injected_modules = tuple(path or "images" for path in injected)
        # Lists, not registered: these modules already stand in the tree, where they hang.
        self._original_modules, self._injected = list(original_modules.items()), list(injected.items())
        self.to(device)

        for prefix, module in [
            ("", self.added_modules),
            ("head.", self.head),
            *((f"{path}." if path else path, module) for path, module in injected.items()),
        ]:
            for name, tensor in named_tensors(module):
                if id(tensor) not in shared_ids:
                    trainable[prefix + name] = tensor
                    shared_ids.add(id(tensor))
        path_by_id = {id(tensor): name for name, tensor in named_tensors(self)}
        # Names in the file -> paths in this tree. They are addresses: what is owned was settled by identity above.
        self._trainable_paths = {name: path_by_id[id(tensor)] for name, tensor in trainable.items()}
        self._frozen_modules = tuple(name for name, module in self.named_modules() if id(module) in frozen_ids)
        self.eval()
        if dense is not None:
            self._check_maps(shapes)
        self._check_all_called(injected)

    @property
    def trunk(self) -> nn.Module:
        """The backbone's structure with what hangs on it."""
        return next(module for module in self.network.modules() if hasattr(module, "trunk")).get_submodule("trunk")

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (batch, 3, size, size) -> logits (batch, classes), or (batch, classes, size, size)."""
        logits: Tensor = self.head(self.features(images))
        return logits if self.dense is None else upsample(logits, images.shape[-2:])

    def logits_with_auxiliary(self, images: Tensor) -> tuple[Tensor, ...]:
        """Of a dense model: its logits as `forward` gives them, followed by those of its auxiliary heads."""
        found = self.head.with_auxiliary(self.features(images))  # type: ignore[operator]
        return tuple(upsample(logits, images.shape[-2:]) for logits in found)

    def auxiliary_heads(self) -> nn.ModuleList:
        """Of a dense model: its heads that only training reads; empty otherwise."""
        return nn.ModuleList() if self.dense is None else self.head.auxiliary_heads()  # type: ignore[operator]

    def features(self, images: Tensor) -> Any:
        """Normalised images (batch, 3, size, size) -> what the head reads: (batch, d), or maps where dense."""
        features, dtype = self.network(images), next(self.head.parameters()).dtype
        return features.to(dtype) if self.dense is None else tuple(feature_map.to(dtype) for feature_map in features)

    def train(self, mode: bool = True) -> TunedModel:
        """As `nn.Module.train`, but what is frozen stays in eval mode: no dropout, no statistics updated."""
        super().train(mode)
        for name in self._frozen_modules:
            self.get_submodule(name).training = False
        return self

    def new_head(self) -> nn.Module:
        """Another head like this model's own, of its dtype and on its device, drawn from torch's global generator."""
        return self._make_head(self.width, self.num_classes).to(next(self.head.parameters()))

    def trainable_state_dict(self) -> dict[str, Tensor]:
        """What the method and the head own: names as they stand in the file -> tensors (not copies)."""
        return {name: self._tensor(path) for name, path in self._trainable_paths.items()}

    def inference_state_dict(self) -> dict[str, Tensor]:
        """What of it a tuned file keeps: all but auxiliary heads, which only training reads."""
        auxiliary_ids = {id(tensor) for _, tensor in named_tensors(self.auxiliary_heads())}
        return {name: tensor for name, tensor in self.trainable_state_dict().items() if id(tensor) not in auxiliary_ids}

    @torch.no_grad()
    def load_trainable_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of `trainable_state_dict`. Raises SpecError, naming the tensors, when names or shapes differ."""
        own = self.trainable_state_dict()
        mismatched = sorted(own.keys() ^ state.keys())
        mismatched += [
            f"{name} {tuple(state[name].shape)} for {tuple(own[name].shape)}"
            for name in sorted(own.keys() & state.keys())
            if state[name].shape != own[name].shape
        ]
        if mismatched:
            raise SpecError(
                f"these tensors do not fit {self.method} with {self.num_classes} classes: {', '.join(mismatched)}"
            )
        for name, tensor in own.items():
            tensor.copy_(state[name])

    def trainable_parameters(self) -> list[nn.Parameter]:
        """The parameters that train, for an optimizer."""
        return [tensor for tensor in self.trainable_state_dict().values() if isinstance(tensor, nn.Parameter)]

    @property
    def only_head_trains(self) -> bool:
        """Whether the feature of an image can never change, so that it may be computed once."""
        return {id(weight) for weight in self.trainable_parameters()} == {id(w) for w in self.head.parameters()}

    def prompt_keys(self) -> dict[str, PromptKeys] | None:
        """Place of an attention -> the further keys it is given, where that and the head are all that was learned.

        Such models can answer side by side in one batch (`vpt.serving.multi_task`): all else is frozen. Empty
        where only the head trains; None where a method does more, or the head reads otherwise than the backbone's own.
        """
        keys = {
            path: module.kv_prompts
            for path, module in self._injected
            if isinstance(module, KVAttention)
            and not module.num_positionless
            and isinstance(module.kv_prompts, PromptKeys)
        }
        learned = [self.head, *(key.prompts for key in keys.values() if isinstance(key.prompts, nn.Module))]
        known = {id(tensor) for module in learned for _, tensor in named_tensors(module)}
        only_prompts_and_head = len(keys) == len(self._injected) and all(
            id(tensor) in known for tensor in self.trainable_state_dict().values()
        )
        if not only_prompts_and_head or self.has_custom_pool or self.dense is not None:
            return None
        return keys if all(key.windows_per_image == 1 for key in keys.values()) else None

    def split_forward(self) -> SplitForward | None:
        """The network from the first block on that can change in training.

        None where that is the first of all, or where blocks change the shape of what they are given (ConvNets).
        """
        nothing_frozen = self.first_modified_block == 0 or self.layout.kind not in ("tokens", "windows")
        if nothing_frozen or not isinstance(self.network, FeatureExtractor):
            return None
        return SplitForward(self.network, self.layout.blocks, self.first_modified_block, self.layout.preprocessing.size)

    def init_from_prototypes(self, prototypes: Tensor) -> None:
        """Start from the mean feature of each class, (classes, d), where the method's `init` asks for it."""
        if self.method.needs_prototypes:
            with torch.no_grad():
                self.method.init_from_prototypes(prototypes, self.added_modules)

    def counts(self) -> Counts:
        """Total and trained parameters, as the paper counts them: buffers are not parameters."""
        return Counts(
            total=sum(weight.numel() for weight in self.parameters()),
            trainable=sum(weight.numel() for weight in self.trainable_parameters()),
        )

    def merge(self) -> dict[str, Tensor]:
        """The tuned model as a plain timm state dict: what hangs is folded into the weights, the head put in place.

        `timm.create_model(name, num_classes=n).load_state_dict(...)` then gives the same answers without vpt.
        Raises UnsupportedError where the method is no re-parameterisation, or its head is not linear.
        """
        state = merge_weights(dict(self._original_modules), dict(self._injected))
        classifier = classifier_prefixes(self.backbone.module)
        if not isinstance(state, dict):
            raise UnsupportedError(
                f"{self.method} cannot be folded into the weights of {self.backbone.name}: what hangs at {state[0]} "
                "is no linear change of a weight; lora, ssf, bias, norm, partial, full, class_token and linear can"
            )
        if not isinstance(self.head, nn.Linear) or len(classifier) != 1 or self.has_custom_pool:
            raise UnsupportedError(
                f"{self.method} on {self.backbone.name} has a head for which timm has no place; it cannot be merged"
            )
        weights = {f"{classifier[0]}{name}": tensor.detach().clone() for name, tensor in self.head.named_parameters()}
        return {**state, **weights}

    def detach(self) -> nn.Module:
        """The backbone, exactly as it came: nothing was ever hung on it."""
        return self.backbone.module

    def _tensor(self, path: str) -> Tensor:
        module, _, name = path.rpartition(".")
        tensor: Tensor = getattr(self.get_submodule(module), name)
        return tensor

    @torch.no_grad()
    def _check_maps(self, shapes: Sequence[tuple[int, int]]) -> None:
        """Run one image: maps of another shape than promised would be read as something that they are not."""
        size = self.backbone.preprocessing.size
        found = [tuple(feature_map.shape) for feature_map in self.network(probe_image(self.trunk, size))]
        expected = [(1, channels, *(-(-size // stride),) * 2) for channels, stride in shapes]
        if found != expected:
            raise UnsupportedError(
                f"{self.method} on {self.backbone.name} gives maps of {found} at {size} px where {expected} belong; "
                "choose an image size that its strides divide, or another method"
            )

    def require_classifier(self, task: str) -> None:
        """Raise UnsupportedError, naming the `task`, where this model classifies pixels instead of images."""
        if self.dense is not None:
            raise UnsupportedError(
                f"{task} is for models that classify images; this one segments them, with {self.dense}"
            )

    def counts_by_component(self) -> dict[str, int]:
        """Trained parameters of the head, of its auxiliary heads, and of the method: all else that is learned."""
        auxiliary = self.auxiliary_heads().parameters()
        counts = {"head": sum(weight.numel() for weight in self.head.parameters()), "auxiliary": 0}
        counts["auxiliary"] = sum(weight.numel() for weight in auxiliary)
        counts["method"] = self.counts().trainable - counts["head"]
        counts["head"] -= counts["auxiliary"]
        return counts

    def _check_all_called(self, injected: Mapping[str, nn.Module]) -> None:
        """Run one image and look: what hangs must take part, or it would silently train nothing."""
        if not injected:
            return
        called: set[int] = set()
        handles = [
            module.register_forward_hook(lambda module, *_: called.add(id(module))) for module in injected.values()
        ]
        image = probe_image(self.trunk, self.backbone.preprocessing.size)
        try:
            with torch.no_grad():
                self.network(image)
        finally:
            for handle in handles:
                handle.remove()
        never_called = [
            path
            for path, module in injected.items()
            if id(module) not in called and not self._affects_output(module, image)
        ]
        if never_called:
            raise UnsupportedError(
                f"{self.method} hangs at {', '.join(never_called)} of {self.backbone.name}, but the model never calls these "
                f"modules, so nothing would train; {_supported_methods(self.trunk, self.layout)}"
            )

    def _affects_output(self, module: nn.Module, image: Tensor) -> bool:
        """Whether the feature depends on a module that is not called: attention may read its weight instead."""
        weights = [weight for weight in module.parameters() if weight.requires_grad]
        if not weights:
            return False
        with torch.enable_grad():
            total = sum(features.sum() for features in self.network(image))  # over samples, or over maps
            gradients = torch.autograd.grad(total, weights, allow_unused=True)
        return any(gradient is not None for gradient in gradients)


def _linear_head(width: int, num_classes: int) -> nn.Linear:
    head = nn.Linear(width, num_classes)
    nn.init.normal_(head.weight, std=0.01)
    nn.init.zeros_(head.bias)
    return head


def _build_decoder(dense: DenseHead, channels: Sequence[int], _: int, num_classes: int) -> nn.Module:
    return dense.build(channels, num_classes)


def _check_dense(method: Method, injection: Injection, dense: DenseHead, layout: BackboneLayout) -> None:
    """Raises UnsupportedError where a method is made for one feature per image, or the head for another backbone."""
    for invalid, reason in (
        (injection.make_head is not None, "it has a head of its own, for one feature per image"),
        (injection.pool is not None, "it pools the tokens to one feature; leave output at its default"),
        (
            NETWORK in injection.wrappers,
            "it changes the image or the feature as a whole, and a dense head reads maps in place",
        ),
    ):
        if invalid:
            raise UnsupportedError(f"{method} does not go with the dense head {dense}: {reason}")
    if dense.needs_pyramid and layout.kind == "tokens":
        raise UnsupportedError(
            f"the head {dense} needs maps of several resolutions, and a plain transformer has one: setr_pup"
        )


def _plan_injection(method: Method, trunk: nn.Module, layout: BackboneLayout) -> Injection:
    try:
        return method.plan(trunk, layout)
    except UnsupportedError as error:
        raise UnsupportedError(
            f"{method} does not fit {type(trunk).__name__}: {error}; {_supported_methods(trunk, layout)}"
        ) from error


def _supported_methods(trunk: nn.Module, layout: BackboneLayout) -> str:
    """The methods of the catalogue that find a place, for the end of an error."""
    supported = []
    with torch.random.fork_rng(devices=[]):
        for name, kind in METHODS.items():
            try:
                kind().plan(trunk, layout)
            except VptError:  # a side network may not take such small images
                continue
            supported.append(name)
    return f"methods that fit: {', '.join(supported)}"
