"""BitFit: only the biases train (Ben Zaken et al., 2022; paper, section 4, baseline "Bias")."""

from dataclasses import dataclass

from torch import nn

from vpt.backbones.layout import BackboneLayout, parameter_paths
from vpt.errors import UnsupportedError
from vpt.methods.base import Injection, Method

# What torch's and timm's layers call what they add: a linear layer's own, and attention's, kept apart from it.
_BIAS_NAMES = ("bias", "q_bias", "k_bias", "v_bias")
_REL_POS_TABLE = "relative_position_bias_table"


@dataclass(frozen=True)
class Bias(Method, name="bias", optimizer="adamw", learning_rate=2e-3, identity_at_init=True):
    """Every bias of the backbone trains.

    Args:
        rel_pos_bias: Train the tables of relative positions (Swin, BEiT) too. They are no biases of a layer, but the
            paper's code counts them as such: of its 200,760 on Swin-B they are 63,544. Default: False.
    """

    rel_pos_bias: bool = False

    def plan(self, trunk: nn.Module, layout: BackboneLayout) -> Injection:
        """Plan to train every bias; raise UnsupportedError if there is none."""
        names = (*_BIAS_NAMES, _REL_POS_TABLE) if self.rel_pos_bias else _BIAS_NAMES
        biases = parameter_paths(trunk, lambda _, name: name in names)
        if not biases:
            raise UnsupportedError("its layers have no biases")
        return Injection(trainable=biases)
