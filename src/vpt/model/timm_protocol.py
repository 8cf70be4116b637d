"""The interface of timm's tools: its data configuration, groups of parameters, intermediate features."""

import re
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from vpt.attention.class_token_block import ClassTokenBlock
from vpt.attention.windows import PromptedWindowAttention
from vpt.backbones.backbone import Backbone
from vpt.backbones.layout import BackboneLayout
from vpt.errors import SpecError, UnsupportedError
from vpt.methods.base import Method
from vpt.methods.prompt_tokens import InsertPrompts
from vpt.model.label_kinds import LabelKind, Regression


class TimmProtocol(nn.Module):
    """Base of a tuned model that has timm's attributes and methods as its backbone does."""

    backbone: Backbone
    method: Method
    layout: BackboneLayout
    num_classes: int
    classes: tuple[str, ...] | None
    label_kind: LabelKind
    class_colors: tuple[str, ...] | None
    network: nn.Module
    width: int
    head: nn.Module
    injected_modules: tuple[str, ...]
    _make_head: Callable[[int, int], nn.Module]

    @property
    def trunk(self) -> nn.Module:
        """The backbone's module tree with the injected modules."""
        return next(module for module in self.network.modules() if hasattr(module, "trunk")).get_submodule("trunk")

    @property
    def pretrained_cfg(self) -> dict[str, Any]:
        """The backbone's configuration with this model's preprocessing, as `resolve_model_data_config` reads it."""
        images, config = self.layout.preprocessing, getattr(self.backbone.module, "pretrained_cfg", None) or {}
        own: dict[str, Any] = {name: getattr(images, name) for name in ("mean", "std", "interpolation")}
        own |= {"input_size": (images.channels, images.size, images.size), "num_classes": self.num_classes}
        crop = ("squash", 1.0) if images.resize == "squash" else ("center", images.crop_fraction)
        own |= {"crop_mode": crop[0], "crop_pct": crop[1], "classifier": "head"}
        return {name: value for name, value in config.items() if not name.startswith("test_")} | own

    default_cfg = pretrained_cfg  # the older name

    @property
    def num_features(self) -> int:
        """Channels of the backbone's last tokens or map."""
        return int(self.trunk.num_features)  # type: ignore[arg-type]

    def new_head(self) -> nn.Module:
        """Return a new head like this model's own, drawn from torch's global generator."""
        return self._make_head(self.width, self.num_classes).to(next(self.head.parameters()))

    def get_classifier(self) -> nn.Module:
        """Return the head."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the head by a new one for at least one class; the method alone chooses what it pools."""
        if num_classes < 1 or global_pool is not None:
            options = f"num_classes={num_classes}, global_pool={global_pool!r}"
            raise SpecError(f"reset_classifier({options}) needs a class and no pooling; `features` is without a head")
        if isinstance(self.label_kind, Regression) and num_classes != 1:
            raise SpecError(f"reset_classifier({num_classes}): the model predicts a number; give 1, or a new model")
        self.num_classes, self.classes, self.class_colors = num_classes, None, None
        self.label_kind = type(self.label_kind)()  # temperature, thresholds or scale were those of the old labels
        self.head = self.new_head().train(self.training)

    def no_weight_decay(self) -> set[str]:
        """Return the names of the parameters that the backbone's authors trained without weight decay."""
        prefix, find = self._trunk_prefix(), getattr(self.trunk, "no_weight_decay", set)
        return {prefix + name for name in find()} & {name for name, _ in self.named_parameters()}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Return timm's patterns that sort parameters into layers; the method's and the head's come last."""
        prefix = re.escape(self._trunk_prefix())

        def inside(spec: Any) -> Any:
            if isinstance(spec, str):
                return f"{prefix}(?:{spec.replace('^', '')})"
            return spec and [(inside(pattern), order) for pattern, order in spec]

        groups = self.trunk.group_matcher(coarse=coarse)  # type: ignore[operator]
        return {name: inside(spec) for name, spec in groups.items()}

    def forward_intermediates(self, x: Tensor, *args: Any, **options: Any) -> Any:
        """Return the outputs of blocks as the backbone's own does; raise UnsupportedError if prompts are in them."""
        inside = any(isinstance(module, (InsertPrompts, PromptedWindowAttention)) for module in self.modules())
        if inside or "images" in self.injected_modules:
            advice = "vpt with its default depth and impl leaves the tokens between blocks as they are"
            raise UnsupportedError(f"{self.method} has no map of a block's output, for its prompts are in it; {advice}")
        last = [module for module in self.modules() if isinstance(module, ClassTokenBlock)]
        for block in last:
            block.attention.num_queries = None
        try:
            return self.trunk.forward_intermediates(x, *args, **options)  # type: ignore[operator]
        finally:
            for block in last:
                block.attention.num_queries = 1

    def _trunk_prefix(self) -> str:
        trunk = self.trunk
        return next(f"{name}." for name, module in self.named_modules() if module is trunk)
