"""The tuned model: a shared frozen backbone, what a method owns, and a head. An ordinary `nn.Module`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vpt.backbone.class_token import ClassTokenBlock
from vpt.backbone.load import load_backbone
from vpt.backbone.record import Backbone
from vpt.backbone.sites import Sites
from vpt.backbone.trunk import features, probe_image, survey, trunk_of
from vpt.errors import FitError, SpecError
from vpt.methods.base import Method, Plan
from vpt.methods.catalogue import METHODS, parse_method


def attach(
    backbone: str | nn.Module | Backbone,
    method: str | Method,
    num_classes: int,
    *,
    classes: Sequence[str] | None = None,
) -> TunedModel:
    """Hang `method` on a frozen `backbone` with a fresh linear head of `num_classes` outputs.

    backbone: a timm name (weights are fetched), a timm model, or a `Backbone`. It is not changed, and its weights
        are shared: any number of tuned models can stand on one. `model.to(device)` gives a model weights of its own
        there; to share them on a GPU, move the backbone first.
    method: an object, or its text such as `vpt(length=10, depth="deep")`.
    classes: names of the classes, kept with the model.
    The head and prompts are initialised from torch's global generator: seed it for a reproducible start.
    Raises FitError where the method finds no place to hang or what it hung never runs.
    """
    if num_classes < 1:
        raise SpecError(f"num_classes is {num_classes}; a head needs at least one output")
    if classes is not None and len(classes) != num_classes:
        raise SpecError(f"{len(classes)} class names were given for {num_classes} classes; give one name each")
    return TunedModel(load_backbone(backbone), parse_method(method), num_classes, classes)


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
        self.classes = tuple(classes) if classes is not None else None

        trunk = trunk_of(backbone.module)
        sites = survey(trunk, backbone.preprocessing.size)
        plan = _plan(method, trunk, sites)
        training = {id(module) for path in plan.trains for module in trunk.get_submodule(path).modules()}
        theirs = list(trunk.modules())  # kept, so that no identity is used twice
        frozen = {id(module) for module in theirs} - training
        owned = {f"backbone.{name}": tensor for path in plan.trains for name, tensor in _take_over(trunk, path)}
        settled = {id(tensor) for _, tensor in _tensors(trunk)}
        hung = _hang(trunk, plan)
        if sites.narrow:
            _narrow(trunk, sites)

        self.added = nn.ModuleDict(plan.adds)
        self.head = nn.Linear(sites.width, num_classes)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)
        self.trunk = trunk
        self.sites = sites
        self.hangs_at = tuple(hung)
        self.to(next(trunk.parameters()).device)

        for prefix, module in [
            ("", self.added),
            ("head.", self.head),
            *((f"{p}.", m) for p, m in hung.items()),
        ]:
            for name, tensor in _tensors(module):
                if id(tensor) not in settled:
                    owned[prefix + name] = tensor
                    settled.add(id(tensor))
        where = {id(tensor): name for name, tensor in _tensors(self)}
        # Names in the file -> paths in this tree. They are addresses: what is owned was settled by identity above.
        self._owned = {name: where[id(tensor)] for name, tensor in owned.items()}
        self._frozen = tuple(name for name, module in trunk.named_modules() if id(module) in frozen)
        self.eval()
        self._fire(hung)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (batch, 3, size, size) -> logits (batch, classes)."""
        return self.head(self.features(images))  # type: ignore[no-any-return]

    def features(self, images: Tensor) -> Tensor:
        """Normalised images (batch, 3, size, size) -> what the head reads, (batch, d)."""
        return features(self.trunk, images).to(self.head.weight.dtype)

    def train(self, mode: bool = True) -> TunedModel:
        """As `nn.Module.train`, but what is frozen stays in eval mode: no dropout, no statistics updated."""
        super().train(mode)
        for name in self._frozen:
            self.trunk.get_submodule(name).training = False
        return self

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
                f"these tensors do not fit {self.method} with {self.head.out_features} classes: {', '.join(wrong)}"
            )
        for name, tensor in own.items():
            tensor.copy_(state[name])

    def owned_parameters(self) -> list[nn.Parameter]:
        """The parameters that train, for an optimizer."""
        return [tensor for tensor in self.owned_state().values() if isinstance(tensor, nn.Parameter)]

    @property
    def only_head_trains(self) -> bool:
        """Whether the feature of an image can never change, so that it may be computed once."""
        return {id(tensor) for tensor in self.owned_state().values()} == {id(w) for w in self.head.parameters()}

    def counts(self) -> Counts:
        """Total and trained parameters, as the paper counts them: buffers are not parameters."""
        return Counts(
            total=sum(weight.numel() for weight in self.parameters()),
            trained=sum(weight.numel() for weight in self.owned_parameters()),
        )

    def detach(self) -> nn.Module:
        """The backbone, exactly as it came: nothing was ever hung on it."""
        return self.backbone.module

    def _tensor(self, path: str) -> Tensor:
        module, _, name = path.rpartition(".")
        found: Tensor = getattr(self.get_submodule(module), name)
        return found

    @torch.no_grad()
    def _fire(self, hung: Mapping[str, nn.Module]) -> None:
        """Run one image and count: what hangs must be called, or it would silently train nothing."""
        if not hung:
            return
        fired: set[int] = set()
        handles = [module.register_forward_hook(lambda module, *_: fired.add(id(module))) for module in hung.values()]
        try:
            features(self.trunk, probe_image(self.trunk, self.backbone.preprocessing.size))
        finally:
            for handle in handles:
                handle.remove()
        silent = [path for path, module in hung.items() if id(module) not in fired]
        if silent:
            raise FitError(
                f"{self.method} hangs at {', '.join(silent)} of {self.backbone.name}, but the model never calls these "
                f"modules, so nothing would train; {_fitting(self.trunk, self.sites)}"
            )


def _plan(method: Method, trunk: nn.Module, sites: Sites) -> Plan:
    try:
        return method.plan(trunk, sites)
    except FitError as error:
        raise FitError(f"{method} does not fit {type(trunk).__name__}: {error}; {_fitting(trunk, sites)}") from error


def _fitting(trunk: nn.Module, sites: Sites) -> str:
    """The methods of the catalogue that find a place, for the end of an error."""
    fit = []
    for name, kind in METHODS.items():
        try:
            kind().plan(trunk, sites)
        except FitError:
            continue
        fit.append(name)
    return f"methods that fit: {', '.join(fit)}"


def _take_over(trunk: nn.Module, path: str) -> Iterator[tuple[str, Tensor]]:
    """Replace every weight and buffer below `path` by a copy of the method's own; yields their names in the trunk.

    Weights that the backbone ties stay tied.
    """
    copies: dict[nn.Parameter, nn.Parameter] = {}  # by identity, as tensors hash
    for name, module in trunk.get_submodule(path).named_modules(prefix=path):
        for key, weight in list(module.named_parameters(recurse=False)):
            tied = weight in copies
            if not tied:
                copies[weight] = nn.Parameter(weight.detach().clone())
            setattr(module, key, copies[weight])
            if not tied:
                yield f"{name}.{key}".lstrip("."), getattr(module, key)
        for key, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, key, buffer.clone())
            if key not in module._non_persistent_buffers_set:  # made anew with the model, never saved
                yield f"{name}.{key}".lstrip("."), getattr(module, key)


def _hang(trunk: nn.Module, plan: Plan) -> dict[str, nn.Module]:
    """Put every wrap in its place; path -> what hangs there now."""
    hung = {}
    # Deepest first: once a block is wrapped, what is inside it has another path.
    for path in sorted(plan.wraps, key=lambda path: path.count("."), reverse=True):
        hung[path] = plan.wraps[path](trunk.get_submodule(path))
        trunk.set_submodule(path, hung[path])
    return hung


def _narrow(trunk: nn.Module, sites: Sites) -> None:
    """Let the last block compute CLS alone, unless a method has put something of its own in that block's place."""
    path = sites.blocks[-1]
    block = trunk.get_submodule(path)
    layout = sites.layout(block)
    if layout is not None:
        trunk.set_submodule(path, ClassTokenBlock(block, layout))


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()
