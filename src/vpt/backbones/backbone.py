"""A backbone: a pretrained timm model, its preprocessing, and a fingerprint of its weights."""

import copy
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import torch
from PIL import Image
from torch import Tensor, nn

from vpt.backbones._transform import make_transform
from vpt.core.text import comma_list, pluralize
from vpt.data.preprocessing import Preprocessing


@dataclass(frozen=True)
class Backbone:
    """A pretrained model and its preprocessing. vpt never changes the model.

    Attributes:
        module: The timm model.
        name: The timm name, or the class name of a model made by hand.
        preprocessing: The preprocessing of its images.
        notes: Remarks on loading, such as unused keys of a weights file.
        source: Fingerprint of the weights before `load_backbone` resized positions or cast them; None where it did
            neither.
        versions: Numbers of writes to each weight when this object was made. Default: counted.
        loaded: Where there is a `source`, the `weights_digest` that belongs to it. Default: computed.
        file: The weights file that a user gave instead of timm's download. Default: none.
    """

    module: nn.Module
    name: str
    preprocessing: Preprocessing
    notes: tuple[str, ...] = ()
    source: str | None = None
    versions: Mapping[str, int] | None = field(default=None, repr=False, compare=False)
    loaded: str | None = field(default=None, repr=False, compare=False)
    file: Path | None = field(default=None, compare=False)

    @property
    def origin(self) -> str:
        """The name, and the weights file that a user gave."""
        return self.name if self.file is None else f"{self.name} of {self.file}"

    def __post_init__(self) -> None:
        """Count the writes to the weights so far."""
        if self.versions is None:
            object.__setattr__(self, "versions", _count_writes(self.module))  # the dataclass is frozen
        if self.source is not None and self.loaded is None:
            object.__setattr__(self, "loaded", self.weights_digest())

    def fingerprint(self) -> str:
        """Return the identity of the weights: it depends neither on the image size nor on the format of a file.

        The SHA-256 is over the names, shapes, types and bytes of all weights but the classifier's, under timm's names,
        before positions are resized and weights are cast. A timm model at hand is taken as it is, and so are weights
        that were written to after they were loaded.

        Returns:
            "sha256:" and 64 hexadecimal digits.
        """
        if self.source is not None and not self.changed_weights():
            return self.source
        digest = self.weights_digest()
        return self.source if self.source is not None and digest == self.loaded else digest

    def weights_digest(self) -> str:
        """Return the SHA-256 of `fingerprint` over the weights as they are in memory, resized and cast.

        Returns:
            "sha256:" and 64 hexadecimal digits.
        """
        return fingerprint_of(self.module, self.module.state_dict())

    def changed_weights(self) -> list[str]:
        """Return the names of the weights that were written to since this object was made.

        An optimizer and `load_state_dict` write to weights; moving and casting a model does not count.

        Returns:
            The names.
        """
        before = self.versions or {}
        return [name for name, now in _count_writes(self.module).items() if now > before.get(name, now)]

    def describe_change(self, names: Sequence[str]) -> str:
        """Return the warning about weights that were written to.

        Args:
            names: Their names, as `changed_weights` returns them.

        Returns:
            One line, with advice.
        """
        return (
            f"{pluralize(len(names), 'weight')} of the backbone {self.name} ({comma_list(names, 3)}) were written to "
            "after it was loaded; where their values changed, so did the predictions of every model that shares them; "
            "train and load_state_dict what `trainable_parameters()` returns, or attach to `backbone.copy()`, which "
            "has weights of its own"
        )

    def copy(self) -> Self:
        """Return a backbone with weights of its own, for a model whose backbone is to be changed.

        Returns:
            The copy.
        """
        source = self.source if self.source is None or self.fingerprint() == self.source else None
        return replace(self, module=copy.deepcopy(self.module), source=source, versions=None, loaded=None)

    def accept_writes(self) -> None:
        """Count the writes to the weights anew, after writes that left the values as they were."""
        object.__setattr__(self, "versions", _count_writes(self.module))  # the dataclass is frozen

    def transform(self, train: bool = False) -> Callable[[Image.Image], torch.Tensor]:
        """Return the preprocessing as a torchvision v2 transform, for `ImageFolder` and `DataLoader`.

        The tensors are those that vpt computes itself.

        Args:
            train: Flip half of the images horizontally, as `augment="flip"` does. Default: False.

        Returns:
            Pillow image of any mode and size -> normalized float32 (3, size, size).
        """
        return make_transform(self.preprocessing, train)  # type: ignore[no-any-return]

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # frozen, and the point of it is to be shared


def _count_writes(module: nn.Module) -> dict[str, int]:
    """Return how often each weight was written to in place, as torch counts; 0 for those that it does not count."""
    state = module.state_dict(keep_vars=True)
    return {name: 0 if tensor.is_inference() else tensor._version for name, tensor in state.items()}


def fingerprint_of(model: nn.Module, state: Mapping[str, Tensor]) -> str:
    """Return the fingerprint of weights.

    Args:
        model: A timm model, which knows its classifier.
        state: The weights under the names of the model.

    Returns:
        "sha256:" and 64 hexadecimal digits.
    """
    classifier = classifier_prefixes(model)
    return f"sha256:{digest_tensors(item for item in state.items() if not item[0].startswith(classifier))}"


def digest_tensors(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Return the SHA-256 over the names, shapes, types and bytes of tensors.

    Args:
        tensors: Names and tensors; their order does not matter.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors, key=lambda item: item[0]):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def classifier_prefixes(model: nn.Module) -> tuple[str, ...]:
    """Return the prefixes of the weight names of a timm model's classifier, from its `pretrained_cfg`.

    Args:
        model: The timm model.

    Returns:
        The prefixes, such as ("head.",); empty where timm names none.
    """
    config = getattr(model, "pretrained_cfg", None) or {}
    names = config.get("classifier") or ()
    return tuple(f"{name}." for name in ((names,) if isinstance(names, str) else names))
