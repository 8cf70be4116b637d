"""The tensors of a tuned model that do not belong to its backbone, and their numbers."""

from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter

import torch
from torch import Tensor, nn

from vpt.backbones.backbone import Backbone
from vpt.methods.base import Method
from vpt.model.injection import named_tensors
from vpt.model.state_dict import check_shapes, unlike_backbone


@dataclass(frozen=True)
class Counts:
    """Parameters of a tuned model, as the paper counts them: buffers are not parameters.

    Attributes:
        total: Parameters of the backbone, the method and the head.
        trainable: Parameters of the method and the head.
    """

    total: int
    trainable: int

    @property
    def fraction(self) -> float:
        """The trainable fraction, between 0 and 1."""
        return self.trainable / self.total


class TrainableState(nn.Module):
    """Base of a tuned model that knows which of its tensors train."""

    backbone: Backbone
    method: Method
    num_classes: int
    head: nn.Module
    added_modules: nn.ModuleDict
    _trainable_paths: dict[str, str]
    _frozen_paths: dict[str, str]

    def auxiliary_heads(self) -> nn.ModuleList:
        """Return the heads that only training reads; empty unless the head is dense and has some."""
        return getattr(self.head, "auxiliary_heads", nn.ModuleList)()

    def trainable_state_dict(self) -> dict[str, Tensor]:
        """Return the tensors of the method and the head, under their names in a tuned file; they are not copies."""
        return {name: attrgetter(path)(self) for name, path in self._trainable_paths.items()}

    def inference_state_dict(self) -> dict[str, Tensor]:
        """Return the tensors that a tuned file contains: all trainable ones but those of auxiliary heads."""
        auxiliary_ids = {id(tensor) for _, tensor in named_tensors(self.auxiliary_heads())}
        return {name: tensor for name, tensor in self.trainable_state_dict().items() if id(tensor) not in auxiliary_ids}

    @torch.no_grad()
    def load_trainable_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Copy tensors into this model.

        Args:
            state: Tensors with the names and shapes of `trainable_state_dict()`.

        Raises:
            SpecError: Names or shapes differ, and the message lists the tensors; or the method has no use for a value,
                and this model must not be used.
        """
        own = self.trainable_state_dict()
        check_shapes(own, state, f"{self.method} with {self.num_classes} classes")
        for name, tensor in own.items():
            tensor.copy_(state[name])
        self.method.check_values(self.added_modules)
        training = self.training
        self.train().train(training)  # what modules keep of their weights between passes in eval mode is forgotten

    def unlike_backbone(self) -> list[str]:
        """Return the names of the backbone's weights of which this model has a copy of its own with other values."""
        return unlike_backbone(self, self.backbone, self._frozen_paths)

    def trainable_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that train, for an optimizer."""
        return [tensor for tensor in self.trainable_state_dict().values() if isinstance(tensor, nn.Parameter)]

    @property
    def only_head_trains(self) -> bool:
        """True if the features of an image never change in training, so that they can be computed once."""
        return {id(weight) for weight in self.trainable_parameters()} == {id(w) for w in self.head.parameters()}

    def counts(self) -> Counts:
        """Return the numbers of parameters."""
        trainable = sum(weight.numel() for weight in self.trainable_parameters())
        return Counts(total=sum(weight.numel() for weight in self.parameters()), trainable=trainable)

    def counts_by_component(self) -> dict[str, int]:
        """Return the trained parameters of the `head`, of its `auxiliary` heads and of the `method`."""
        auxiliary = sum(weight.numel() for weight in self.auxiliary_heads().parameters())
        head = sum(weight.numel() for weight in self.head.parameters())
        return {"head": head - auxiliary, "auxiliary": auxiliary, "method": self.counts().trainable - head}
