"""The tuned model: a shared frozen backbone, what a method owns, and a head. An ordinary `nn.Module`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vpt.backbone.load import load_backbone
from vpt.backbone.recompute import recompute
from vpt.backbone.record import Backbone, classifier_prefixes
from vpt.backbone.sites import Sites
from vpt.backbone.stem import Resumed
from vpt.backbone.trunk import Features, probe_image, survey, trunk_of
from vpt.errors import FitError, SpecError, VptError
from vpt.hanging import first_changed, hang, merged, modules_that_train, narrow, take_over, tensors
from vpt.methods.base import WHOLE, Method, Plan
from vpt.methods.catalogue import METHODS, parse_method


def attach(
    backbone: str | nn.Module | Backbone,
    method: str | Method,
    num_classes: int,
    *,
    classes: Sequence[str] | None = None,
    recompute_blocks: bool = False,
) -> TunedModel:
    """Hang `method` on a frozen `backbone` with a fresh head of `num_classes` outputs.

    backbone: a timm name (weights are fetched), a timm model, or a `Backbone`. It is not changed, and its weights
        are shared: any number of tuned models can stand on one. `model.to(device)` gives a model weights of its own
        there; to share them on a GPU, move the backbone first.
    method: an object, or its text such as `vpt(length=10, depth="deep")` or `vpt(length=50) + bias`.
    classes: names of the classes, kept with the model.
    recompute_blocks: keep no activations of the blocks for the backward pass but compute them again there: a third
        more operations in training, for a fraction of the memory. The results are the same.
    The head and prompts are initialised from torch's global generator: seed it for a reproducible start.
    Raises FitError where the method finds no place to hang or what it hung never runs.
    """
    if num_classes < 1:
        raise SpecError(f"num_classes is {num_classes}; a head needs at least one output")
    if classes is not None and len(classes) != num_classes:
        raise SpecError(f"{len(classes)} class names were given for {num_classes} classes; give one name each")
    model = TunedModel(load_backbone(backbone), parse_method(method), num_classes, classes)
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
    """Normalised images (batch, 3, size, size) -> logits (batch, classes).

    What is not the backbone's trains and is saved, and nothing else: ownership is settled by identity when the
    method is hung, never by a name. Made by `attach` or `load`.
    """

    def __init__(
        self, backbone: Backbone, method: Method, num_classes: int, classes: Sequence[str] | None = None
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.method = method
        self.num_classes = num_classes
        self.classes = tuple(classes) if classes is not None else None

        trunk = trunk_of(backbone.module)
        sites = survey(trunk, backbone.preprocessing)
        plan = _plan(method, trunk, sites)
        theirs = dict(trunk.named_modules())  # kept, so that no identity is used twice
        frozen = {id(module) for module in theirs.values()} - modules_that_train(trunk, plan)
        owned = {f"backbone.{name}": tensor for path in plan.trains for name, tensor in take_over(trunk, path)}
        settled = {id(tensor) for _, tensor in tensors(trunk)}
        hung = hang(trunk, plan)
        if sites.narrow and plan.pool is None:
            narrow(trunk, sites)
        network: nn.Module = Features(trunk, plan.pool)
        if WHOLE in plan.wraps:
            network = hung[WHOLE] = plan.wraps[WHOLE](network)

        self.added = nn.ModuleDict(plan.adds)
        self._make_head = plan.head or _linear
        self.head = self._make_head(sites.width, num_classes)
        self.network = network
        self.sites = sites
        self.first_changed = first_changed(plan, sites)
        self.hangs_at = tuple(path or "images" for path in hung)
        # Lists, not registered: these modules already stand in the tree, where they hang.
        self._places, self._hung = list(theirs.items()), list(hung.items())
        self.to(next(trunk.parameters()).device)

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
        self._fire(hung)

    @property
    def trunk(self) -> nn.Module:
        """The backbone's structure with what hangs on it."""
        return next(part for part in self.network.modules() if isinstance(part, Features)).trunk

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (batch, 3, size, size) -> logits (batch, classes)."""
        return self.head(self.features(images))  # type: ignore[no-any-return]

    def features(self, images: Tensor) -> Tensor:
        """Normalised images (batch, 3, size, size) -> what the head reads, (batch, d)."""
        return self.network(images).to(next(self.head.parameters()).dtype)  # type: ignore[no-any-return]

    def train(self, mode: bool = True) -> TunedModel:
        """As `nn.Module.train`, but what is frozen stays in eval mode: no dropout, no statistics updated."""
        super().train(mode)
        for name in self._frozen:
            self.get_submodule(name).training = False
        return self

    def new_head(self) -> nn.Module:
        """Another head like this model's own, of its dtype and on its device, drawn from torch's global generator."""
        return self._make_head(self.sites.width, self.num_classes).to(next(self.head.parameters()))

    def owned_state(self) -> dict[str, Tensor]:
        """What trains and is saved: names as they stand in the file -> tensors (not copies)."""
        return {name: self._tensor(path) for name, path in self._owned.items()}

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
        if not isinstance(self.head, nn.Linear) or len(classifier) != 1:
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
            gradients = torch.autograd.grad(self.network(image).sum(), weights, allow_unused=True)
        return any(gradient is not None for gradient in gradients)


def _linear(width: int, num_classes: int) -> nn.Linear:
    head = nn.Linear(width, num_classes)
    nn.init.normal_(head.weight, std=0.01)
    nn.init.zeros_(head.bias)
    return head


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
