"""The exponential moving average of the weights that train: timm's `ModelEmaV3`, without the frozen backbone."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from vpt.model.tuned_model import TunedModel


class WeightAverage:
    """An exponential moving average of the trainable state of a model.

    The decay rises with the steps as in timm: step n averages with at most 1 - n ** (-2 / 3), the first copies.
    """

    def __init__(self, model: TunedModel, decay: float) -> None:
        """Begin at the weights of a model.

        Args:
            model: The model, on its device.
            decay: Largest decay, below 1.
        """
        self._model = model
        tensors = (tensor.detach() for tensor in model.trainable_state_dict().values())  # of the same memory
        self._weights = nn.ParameterList(nn.Parameter(tensor, requires_grad=False) for tensor in tensors)
        self._average = ModelEmaV3(self._weights, decay=decay, use_warmup=True)

    def update(self, step: int) -> None:
        """Take the weights of the model into the average.

        Args:
            step: Number of optimizer steps so far.
        """
        self._average.update(self._weights, step=step)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the average by the names of `TunedModel.trainable_state_dict`; the tensors are not copies."""
        return dict(zip(self._model.trainable_state_dict(), self._average.module, strict=True))

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a saved average.

        Args:
            state: The tensors of `state_dict`.
        """
        for name, tensor in self.state_dict().items():
            tensor.copy_(state[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Let the model have the average within a `with` block."""
        trained = {name: tensor.detach().clone() for name, tensor in self._model.trainable_state_dict().items()}
        self._model.load_trainable_state_dict(self.state_dict())
        try:
            yield
        finally:
            self._model.load_trainable_state_dict(trained)
