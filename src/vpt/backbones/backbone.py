"""A backbone: a pretrained timm model, its preprocessing, and a fingerprint of its weights."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Self

import torch
from PIL import Image
from torch import Tensor, nn

from vpt.backbones._transform import make_transform
from vpt.data.preprocessing import Preprocessing


@dataclass(frozen=True)
class Backbone:
    """A pretrained model and its preprocessing. vpt never changes the model.

    Attributes:
        module: The timm model.
        name: The timm name, or the class name of a model made by hand.
        preprocessing: The preprocessing of its images.
        notes: Remarks on loading, such as unused keys of a weights file.
    """

    module: nn.Module
    name: str
    preprocessing: Preprocessing
    notes: tuple[str, ...] = ()

    def fingerprint(self) -> str:
        """Return the SHA-256 over the names, shapes, types and bytes of all weights but the classifier's.

        A backbone cast to another dtype, or with resized positions, has another fingerprint.

        Returns:
            "sha256:" and 64 hexadecimal digits.
        """
        classifier, state = classifier_prefixes(self.module), self.module.state_dict()
        return f"sha256:{digest_tensors(item for item in state.items() if not item[0].startswith(classifier))}"

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
