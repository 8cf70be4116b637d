"""Full fine-tuning: every weight of the backbone trains (paper, section 4, baseline "Full")."""

from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn
from torchvision.ops import StochasticDepth  # type: ignore[import-untyped]

from vpt.backbones.layout import BackboneLayout
from vpt.errors import SpecError, UnsupportedError
from vpt.methods.base import Injection, Method


@dataclass(frozen=True)
class Full(Method, name="full", optimizer="adamw", learning_rate=5e-4, identity_at_init=True):
    """Everything trains. The tuned file holds a whole backbone.

    Args:
        dropout: Probability of dropout in training, after the embedding and twice in every MLP. The paper's code has
            0.1 on ViT. Default: 0.
        drop_path: Probability, in training, that the last block leaves a branch out for an image. It rises linearly
            from 0 at the first block. The paper's code has 0.5 on Swin-B. Default: 0.
    """

    dropout: float = 0.0
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        for name in ("dropout", "drop_path"):
            if not 0 <= getattr(self, name) < 1:
                raise SpecError(f"{name} is {getattr(self, name)}; it must be at least 0 and below 1")

    def plan(self, trunk: nn.Module, layout: BackboneLayout) -> Injection:
        """Plan to train every parameter of the trunk; raise UnsupportedError if it has no place for dropout."""
        paths = [path for path, _ in trunk.named_modules()]
        rates = {path: self.dropout for path in paths if path.endswith(("pos_drop", "mlp.drop1", "mlp.drop2"))}
        branches: dict[str, float] = {}
        for index, block in enumerate(layout.blocks):
            rate = self.drop_path * index / max(1, len(layout.blocks) - 1)
            branches |= {path: rate for path in paths if path.startswith(f"{block}.drop_path")}
        for name, found in (("dropout", rates), ("drop_path", branches)):
            if getattr(self, name) and not any(found.values()):
                raise UnsupportedError(f"it has no layers for {name}; leave {name} at 0")
        layers: dict[str, nn.Module] = {path: nn.Dropout(rate) for path, rate in rates.items() if rate}
        layers |= {path: StochasticDepth(rate, "row") for path, rate in branches.items() if rate}
        return Injection(("",), wrappers={path: partial(_TrainingOnly, layer) for path, layer in layers.items()})

    def spec(self, *, full: bool = False) -> str:
        """Return the method string. If both options are 0, it omits them, as run ids are hashes of it."""
        return super().spec(full=full and bool(self.dropout or self.drop_path))


class _TrainingOnly(nn.Sequential):
    """A layer without weights that acts in training, in place of one that did not."""

    def __init__(self, layer: nn.Module, replaced: nn.Module) -> None:
        super().__init__(layer)

    def merged_state(self) -> dict[str, Tensor]:
        return {}
