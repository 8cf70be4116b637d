"""Attach a method to a backbone by name or text."""

from collections import Counter
from collections.abc import Sequence

from torch import nn

from vpt.backbones import Backbone, load_backbone
from vpt.backbones.activation_checkpointing import enable_activation_checkpointing
from vpt.core.text import comma_list
from vpt.errors import SpecError
from vpt.heads.dense import DenseHead
from vpt.methods.base import Method
from vpt.methods.registry import parse_method
from vpt.model.readout import Readout, parse_readout
from vpt.model.tuned_model import TunedModel


def attach(
    backbone: str | nn.Module | Backbone,
    method: str | Method,
    num_classes: int,
    *,
    classes: Sequence[str] | None = None,
    head: str | DenseHead | Readout | None = None,
    activation_checkpointing: bool = False,
) -> TunedModel:
    """Attach a method and a new head to a frozen backbone.

    The backbone is not changed and its weights are shared: any number of tuned models can use one. `model.to(device)`
    gives a model weights of its own there; to share them on a GPU, move the backbone first. The head and the prompts
    are initialized from torch's global generator: seed it for a reproducible start.

    Args:
        backbone: A timm name (the weights are downloaded), a timm model, or a `Backbone`.
        method: A method or its text, such as `vpt(length=10, depth="deep")` or `vpt(length=50) + bias`.
        num_classes: Number of classes, at least 1.
        classes: Names of the classes, saved with the model. Default: none.
        head: Text of the head: a dense head such as `setr_pup`, `linear` or `fpn(channels=128)` gives every pixel a
            class (semantic segmentation); `multi_block(blocks=last4, features=cls+mean)` gives every image a class
            from the features of several blocks. Default: a linear layer on the pooled feature.
        activation_checkpointing: Recompute the activations of the blocks in the backward pass: a third more
            operations in training, for a fraction of the memory. The results are the same. Default: False.

    Returns:
        The tuned model in train mode; its frozen modules are in eval mode.

    Raises:
        UnsupportedError: The backbone does not have what the method needs, or an injected module is never called.
        SpecError: An argument cannot be read.
        BackboneError: The backbone cannot be loaded.
    """
    if repeated := sorted(name for name, count in Counter(classes or ()).items() if count > 1):
        raise SpecError(f"several classes have the name {comma_list(list(map(repr, repeated)))}; give each its own")
    model = TunedModel(load_backbone(backbone), parse_method(method), num_classes, classes, parse_readout(head))
    if activation_checkpointing:
        enable_activation_checkpointing(model.trunk, model.layout.blocks)
    return model.train()
