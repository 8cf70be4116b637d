"""The base of all readouts, which reads the pooled feature."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from vpt.attention.detection import FeatureExtractor
from vpt.backbones.layout import BackboneLayout
from vpt.heads.dense import init_classifier
from vpt.methods.base import Injection, Method

MakeHead = Callable[[int, int], nn.Module]


@dataclass(frozen=True)
class Readout:
    """Base of all readouts: reads the pooled feature, (batch, d).

    Attributes:
        is_dense: True where every pixel gets a class, False where every image does.
    """

    is_dense: ClassVar[bool] = False

    def adapt(self, trunk: nn.Module, layout: BackboneLayout) -> BackboneLayout:
        """Return the layout that a method plans for.

        Args:
            trunk: The trunk.
            layout: Its layout.

        Returns:
            The layout in which the outputs that this readout reads are marked as read.

        Raises:
            UnsupportedError: The backbone has no such outputs.
        """
        return layout

    def check(self, method: Method, injection: Injection, layout: BackboneLayout) -> None:
        """Check that a method and this readout go together.

        Args:
            method: The method, for the message.
            injection: The injection that the method planned.
            layout: The layout that `adapt` returned.

        Raises:
            UnsupportedError: The method replaces what this readout reads, or the readout needs another backbone.
        """

    def connect(self, trunk: nn.Module, layout: BackboneLayout, injection: Injection) -> tuple[nn.Module, MakeHead]:
        """Build the network in front of the head, and the function that makes a head.

        Args:
            trunk: The trunk with its injected modules.
            layout: The layout that `adapt` returned.
            injection: The injection that the method planned.

        Returns:
            The network from normalized images (batch, 3, size, size) to the head's input, and a function
            (width of that input, classes) -> head.
        """
        return FeatureExtractor(trunk, injection.pool), injection.make_head or linear_head

    def verify(self, method: Method, network: nn.Module, trunk: nn.Module, layout: BackboneLayout) -> None:
        """Run the network on one image and check the shape of its output.

        Args:
            method: The method, for the message.
            network: The network that `connect` built.
            trunk: The trunk inside it.
            layout: The layout that `adapt` returned.

        Raises:
            UnsupportedError: The output has another shape than the head expects.
        """

    def resize_logits(self, logits: Tensor, size: Sequence[int]) -> Tensor:
        """Return the logits at the size in which they are compared with labels.

        Args:
            logits: The output of the head.
            size: Height and width of the images in pixels.

        Returns:
            (batch, classes) as given, or (batch, classes, height, width) where every pixel gets a class.
        """
        return logits

    def for_inference(self) -> "Readout":
        """Return the readout that a tuned file records: without what only training reads."""
        return self

    def spec(self, *, full: bool = False) -> str | None:
        """Return the text of this readout.

        Args:
            full: Write out every field. Default: only the fields that differ from their default.

        Returns:
            The text that `attach(head=...)` takes; None for the default.
        """
        return None

    def __str__(self) -> str:
        return self.spec() or "linear"


def linear_head(width: int, num_classes: int) -> nn.Linear:
    """Return a linear layer with small random weights and zero biases.

    Args:
        width: Channels of the input.
        num_classes: Channels of the output.

    Returns:
        The layer.
    """
    return init_classifier(nn.Linear(width, num_classes))
