"""The tuned model: a shared frozen backbone, what a method owns, and a head. An ordinary `nn.Module`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vpt.attention.detection import Features, probe_image, survey, trunk_of
from vpt.attention.kv_attention import Attend
from vpt.backbones.activation_checkpointing import recompute
from vpt.backbones.backbone import Backbone, classifier_prefixes
from vpt.backbones.layout import Sites
from vpt.backbones.loading import load_backbone
from vpt.errors import FitError, SpecError, VptError
from vpt.heads.dense import DenseHead, enlarged, parse_head
from vpt.heads.feature_maps import maps_of
from vpt.methods.base import WHOLE, Method, Plan
from vpt.methods.prompts import PromptKeys
from vpt.methods.registry import METHODS, parse_method
from vpt.model.injection import first_changed, hang, merged, modules_that_train, narrow, take_over, tensors
from vpt.model.split_forward import Resumed


def attach(
    backbone: str | nn.Module | Backbone,
    method: str | Method,
    num_classes: int,
    *,
    classes: Sequence[str] | None = None,
    head: str | DenseHead | None = None,
    recompute_blocks: bool = False,
) -> TunedModel:
    """Hang `method` on a frozen `backbone` with a fresh head of `num_classes` outputs.

    backbone: a timm name (weights are fetched), a timm model, or a `Backbone`. It is not changed, and its weights
        are shared: any number of tuned models can stand on one. `model.to(device)` gives a model weights of its own
        there; to share them on a GPU, move the backbone first.
    method: an object, or its text such as `vpt(length=10, depth="deep")` or `vpt(length=50) + bias`.
    classes: names of the classes, kept with the model.
    head: None classifies whole images; a dense head, such as `setr_pup`, `linear` or `fpn(channels=128)`, gives every
        pixel its class (semantic segmentation; `vpt.heads.dense`).
    recompute_blocks: keep no activations of the blocks for the backward pass but compute them again there: a third
        more operations in training, for a fraction of the memory. The results are the same.
    The head and prompts are initialised from torch's global generator: seed it for a reproducible start.
    Raises FitError where the method finds no place to hang or what it hung never runs.
    """
    dense = None if head is None else parse_head(head)
    model = TunedModel(load_backbone(backbone), parse_method(method), num_classes, classes, dense)
    if recompute_blocks:
        recompute(model.trunk, model.sites.blocks)
    return model


@dataclass(frozen=True)
class Counts:
    """Parameters of a tuned model. total: backbone, method and head. trained: what the method owns, and the head."""

    total: int
    trained: int

    @property
    def share(self) -> float:
        """trained / total, between 0 and 1."""
        return self.trained / self.total


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

        trunk = trunk_of(backbone.module)
        device = next(trunk.parameters()).device  # now: what is about to hang may come first, and is made on the CPU
        sites = survey(trunk, backbone.preprocessing)
        if dense is not None:  # every patch is read, and the class token is not
            sites = replace(sites, reads_class_token=False, narrow=False)
        plan = _plan(method, trunk, sites)
        if dense is not None:
            _check_dense(method, plan, dense, sites)
        theirs = dict(trunk.named_modules())  # kept, so that no identity is used twice
        frozen = {id(module) for module in theirs.values()} - modules_that_train(trunk, plan)
        owned = {f"backbone.{name}": tensor for path in plan.trains for name, tensor in take_over(trunk, path)}
        settled = {id(tensor) for _, tensor in tensors(trunk)}
        hung = hang(trunk, plan)
        if sites.narrow and plan.pool is None:
            narrow(trunk, sites)
        network: nn.Module
        make_head: Callable[[int, int], nn.Module]
        if dense is None:
            network = Features(trunk, plan.pool)
            make_head = plan.head or _linear
        else:
            network, shapes = maps_of(trunk, sites, dense.depths)
            make_head = partial(_decoder, dense, [channels for channels, _ in shapes])
        if WHOLE in plan.wraps:
            network = hung[WHOLE] = plan.wraps[WHOLE](network)

        self.added = nn.ModuleDict(plan.adds)
        self._make_head = make_head
        self.width = plan.features * sites.width  # of what the head reads of an image, (batch, width)
        self.head = make_head(self.width, num_classes)
        self.network = network
        self.sites = sites
        self.first_changed = first_changed(plan, sites)
        self.pools_otherwise = plan.pool is not None  # than the backbone does
        self.hangs_at = tuple(path or "images" for path in hung)
        # Lists, not registered: these modules already stand in the tree, where they hang.
        self._places, self._hung = list(theirs.items()), list(hung.items())
        self.to(device)

        for prefix, module in [
            ("", self.added),
            ("head.", self.head),
            *((f"{p}." if p else p, m) for p, m in hung.items()),
        ]:
            for name, tensor in tensors(module):
                if id(tensor) not in settled:
                    owned[prefix + name] = tensor
                    settled.add(id(tensor))
        where = {id(tensor): name for name, tensor in tensors(self)}
        # Names in the file -> paths in this tree. They are addresses: what is owned was settled by identity above.
        self._owned = {name: where[id(tensor)] for name, tensor in owned.items()}
        self._frozen = tuple(name for name, module in self.named_modules() if id(module) in frozen)
        self.eval()
        if dense is not None:
            self._check_maps(shapes)
        self._fire(hung)

    @property
    def trunk(self) -> nn.Module:
        """The backbone's structure with what hangs on it."""
        return next(part for part in self.network.modules() if hasattr(part, "trunk")).get_submodule("trunk")

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (batch, 3, size, size) -> logits (batch, classes), or (batch, classes, size, size)."""
        logits: Tensor = self.head(self.features(images))
        return logits if self.dense is None else enlarged(logits, images.shape[-2:])

    def every_logits(self, images: Tensor) -> tuple[Tensor, ...]:
        """Of a dense model: its logits as `forward` gives them, followed by those of its auxiliary heads."""
        found = self.head.every(self.features(images))  # type: ignore[operator]
        return tuple(enlarged(logits, images.shape[-2:]) for logits in found)

    def auxiliary_heads(self) -> nn.ModuleList:
        """Of a dense model: its heads that only training reads; empty otherwise."""
        return nn.ModuleList() if self.dense is None else self.head.auxiliary_heads()  # type: ignore[operator]

    def features(self, images: Tensor) -> Any:
        """Normalised images (batch, 3, size, size) -> what the head reads: (batch, d), or maps where dense."""
        read, kind = self.network(images), next(self.head.parameters()).dtype
        return read.to(kind) if self.dense is None else tuple(map_.to(kind) for map_ in read)

    def train(self, mode: bool = True) -> TunedModel:
        """As `nn.Module.train`, but what is frozen stays in eval mode: no dropout, no statistics updated."""
        super().train(mode)
        for name in self._frozen:
            self.get_submodule(name).training = False
        return self

    def new_head(self) -> nn.Module:
        """Another head like this model's own, of its dtype and on its device, drawn from torch's global generator."""
        return self._make_head(self.width, self.num_classes).to(next(self.head.parameters()))

    def owned_state(self) -> dict[str, Tensor]:
        """What the method and the head own: names as they stand in the file -> tensors (not copies)."""
        return {name: self._tensor(path) for name, path in self._owned.items()}

    def kept_state(self) -> dict[str, Tensor]:
        """What of it a tuned file keeps: all but auxiliary heads, which only training reads."""
        spare = {id(tensor) for _, tensor in tensors(self.auxiliary_heads())}
        return {name: tensor for name, tensor in self.owned_state().items() if id(tensor) not in spare}

    @torch.no_grad()
    def load_owned_state(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of `owned_state`. Raises SpecError, naming the tensors, when names or shapes differ."""
        own = self.owned_state()
        wrong = sorted(own.keys() ^ state.keys())
        wrong += [
            f"{name} {tuple(state[name].shape)} for {tuple(own[name].shape)}"
            for name in sorted(own.keys() & state.keys())
            if state[name].shape != own[name].shape
        ]
        if wrong:
            raise SpecError(
                f"these tensors do not fit {self.method} with {self.num_classes} classes: {', '.join(wrong)}"
            )
        for name, tensor in own.items():
            tensor.copy_(state[name])

    def owned_parameters(self) -> list[nn.Parameter]:
        """The parameters that train, for an optimizer."""
        return [tensor for tensor in self.owned_state().values() if isinstance(tensor, nn.Parameter)]

    @property
    def only_head_trains(self) -> bool:
        """Whether the feature of an image can never change, so that it may be computed once."""
        return {id(weight) for weight in self.owned_parameters()} == {id(w) for w in self.head.parameters()}

    def prompt_keys(self) -> dict[str, PromptKeys] | None:
        """Place of an attention -> the further keys it is given, where that and the head are all that was learned.

        Such models can answer side by side in one batch (`vpt.serving.multi_task`): all else is frozen. Empty
        where only the head trains; None where a method does more, or the head reads otherwise than the backbone's own.
        """
        keys = {
            path: module.extra
            for path, module in self._hung
            if isinstance(module, Attend) and not module.floating and isinstance(module.extra, PromptKeys)
        }
        learned = [self.head, *(own.prompts for own in keys.values() if isinstance(own.prompts, nn.Module))]
        known = {id(tensor) for module in learned for _, tensor in tensors(module)}
        everything = len(keys) == len(self._hung) and all(id(own) in known for own in self.owned_state().values())
        if not everything or self.pools_otherwise or self.dense is not None:
            return None
        return keys if all(own.share == 1 for own in keys.values()) else None

    def resumed(self) -> Resumed | None:
        """The network from the first block on that can change in training.

        None where that is the first of all, or where blocks change the shape of what they are given (ConvNets).
        """
        whole = self.first_changed == 0 or self.sites.kind not in ("tokens", "windows")
        if whole or not isinstance(self.network, Features):
            return None
        return Resumed(self.network, self.sites.blocks, self.first_changed, self.sites.image.size)

    def begin_at(self, prototypes: Tensor) -> None:
        """Start from the mean feature of each class, (classes, d), where the method's `init` asks for it."""
        if self.method.needs_prototypes:
            with torch.no_grad():
                self.method.begin_at(prototypes, self.added)

    def counts(self) -> Counts:
        """Total and trained parameters, as the paper counts them: buffers are not parameters."""
        return Counts(
            total=sum(weight.numel() for weight in self.parameters()),
            trained=sum(weight.numel() for weight in self.owned_parameters()),
        )

    def merge(self) -> dict[str, Tensor]:
        """The tuned model as a plain timm state dict: what hangs is folded into the weights, the head put in place.

        `timm.create_model(name, num_classes=n).load_state_dict(...)` then gives the same answers without vpt.
        Raises FitError where the method is no re-parameterisation, or its head is not linear.
        """
        state = merged(dict(self._places), dict(self._hung))
        classifier = classifier_prefixes(self.backbone.module)
        if not isinstance(state, dict):
            raise FitError(
                f"{self.method} cannot be folded into the weights of {self.backbone.name}: what hangs at {state[0]} "
                "is no linear change of a weight; lora, ssf, bias, norm, partial, full, class_token and linear can"
            )
        if not isinstance(self.head, nn.Linear) or len(classifier) != 1 or self.pools_otherwise:
            raise FitError(
                f"{self.method} on {self.backbone.name} has a head for which timm has no place; it cannot be merged"
            )
        weights = {f"{classifier[0]}{name}": tensor.detach().clone() for name, tensor in self.head.named_parameters()}
        return {**state, **weights}

    def detach(self) -> nn.Module:
        """The backbone, exactly as it came: nothing was ever hung on it."""
        return self.backbone.module

    def _tensor(self, path: str) -> Tensor:
        module, _, name = path.rpartition(".")
        found: Tensor = getattr(self.get_submodule(module), name)
        return found

    @torch.no_grad()
    def _check_maps(self, shapes: Sequence[tuple[int, int]]) -> None:
        """Run one image: maps of another shape than promised would be read as something that they are not."""
        size = self.backbone.preprocessing.size
        found = [tuple(map_.shape) for map_ in self.network(probe_image(self.trunk, size))]
        wanted = [(1, channels, *(-(-size // stride),) * 2) for channels, stride in shapes]
        if found != wanted:
            raise FitError(
                f"{self.method} on {self.backbone.name} gives maps of {found} at {size} px where {wanted} belong; "
                "choose an image size that its strides divide, or another method"
            )

    def demand_classifier(self, task: str) -> None:
        """Raise FitError, naming the `task`, where this model classifies pixels instead of images."""
        if self.dense is not None:
            raise FitError(f"{task} is for models that classify images; this one segments them, with {self.dense}")

    def counts_by_part(self) -> dict[str, int]:
        """Trained parameters of the head, of its auxiliary heads, and of the method: all else that is learned."""
        spare = self.auxiliary_heads().parameters()
        counts = {"head": sum(weight.numel() for weight in self.head.parameters()), "auxiliary": 0}
        counts["auxiliary"] = sum(weight.numel() for weight in spare)
        counts["method"] = self.counts().trained - counts["head"]
        counts["head"] -= counts["auxiliary"]
        return counts

    def _fire(self, hung: Mapping[str, nn.Module]) -> None:
        """Run one image and look: what hangs must take part, or it would silently train nothing."""
        if not hung:
            return
        called: set[int] = set()
        handles = [module.register_forward_hook(lambda module, *_: called.add(id(module))) for module in hung.values()]
        image = probe_image(self.trunk, self.backbone.preprocessing.size)
        try:
            with torch.no_grad():
                self.network(image)
        finally:
            for handle in handles:
                handle.remove()
        silent = [
            path for path, module in hung.items() if id(module) not in called and not self._reaches(module, image)
        ]
        if silent:
            raise FitError(
                f"{self.method} hangs at {', '.join(silent)} of {self.backbone.name}, but the model never calls these "
                f"modules, so nothing would train; {_fitting(self.trunk, self.sites)}"
            )

    def _reaches(self, module: nn.Module, image: Tensor) -> bool:
        """Whether the feature depends on a module that is not called: attention may read its weight instead."""
        weights = [weight for weight in module.parameters() if weight.requires_grad]
        if not weights:
            return False
        with torch.enable_grad():
            total = sum(part.sum() for part in self.network(image))  # over samples, or over maps
            gradients = torch.autograd.grad(total, weights, allow_unused=True)
        return any(gradient is not None for gradient in gradients)


def _linear(width: int, num_classes: int) -> nn.Linear:
    head = nn.Linear(width, num_classes)
    nn.init.normal_(head.weight, std=0.01)
    nn.init.zeros_(head.bias)
    return head


def _decoder(dense: DenseHead, channels: Sequence[int], _: int, num_classes: int) -> nn.Module:
    return dense.build(channels, num_classes)


def _check_dense(method: Method, plan: Plan, dense: DenseHead, sites: Sites) -> None:
    """Raises FitError where a method is made for one feature per image, or the head for another backbone."""
    for clash, reason in (
        (plan.head is not None, "it has a head of its own, for one feature per image"),
        (plan.pool is not None, "it pools the tokens to one feature; leave output at its default"),
        (WHOLE in plan.wraps, "it changes the image or the feature as a whole, and a dense head reads maps in place"),
    ):
        if clash:
            raise FitError(f"{method} does not go with the dense head {dense}: {reason}")
    if dense.pyramid and sites.kind == "tokens":
        raise FitError(f"the head {dense} needs maps of several resolutions, and a plain transformer has one: setr_pup")


def _plan(method: Method, trunk: nn.Module, sites: Sites) -> Plan:
    try:
        return method.plan(trunk, sites)
    except FitError as error:
        raise FitError(f"{method} does not fit {type(trunk).__name__}: {error}; {_fitting(trunk, sites)}") from error


def _fitting(trunk: nn.Module, sites: Sites) -> str:
    """The methods of the catalogue that find a place, for the end of an error."""
    fit = []
    with torch.random.fork_rng(devices=[]):
        for name, kind in METHODS.items():
            try:
                kind().plan(trunk, sites)
            except VptError:  # a side network may not take such small images
                continue
            fit.append(name)
    return f"methods that fit: {', '.join(fit)}"
