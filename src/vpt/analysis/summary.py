"""What a method would do to a backbone, found without loading weights."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from vpt.attention.class_token_block import ClassTokenBlock
from vpt.backbones import meta_backbone
from vpt.model.tuned_model import TunedModel, attach


@dataclass(frozen=True)
class MethodSummary:
    """What was found.

    injected_modules: paths in the timm model. total, trainable: parameters, head: those of the head. file_bytes: of the tuned
    file's tensors in fp32. computation: how it is computed.
    """

    backbone: str
    method: str
    classes: int
    image_size: int
    injected_modules: tuple[str, ...]
    total: int
    trainable: int
    head: int
    file_bytes: int
    computation: str

    @property
    def trainable_fraction(self) -> float:
        """trainable / total."""
        return self.trainable / self.total

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            **asdict(self),
            "injected_modules": list(self.injected_modules),
            "trainable_fraction": self.trainable_fraction,
        }


def summarize(
    backbone: str, method: str, classes: int, image_size: int | None = None, head: str | None = None
) -> MethodSummary:
    """Inject `method` into the bare structure of `backbone` (a timm name).

    head: as for `attach`, whose errors these are.
    """
    meta = meta_backbone(backbone, image_size)
    model = attach(meta, method, classes, head=head)
    counts = model.counts()
    return MethodSummary(
        backbone=backbone,
        method=str(model.method),
        classes=classes,
        image_size=meta.preprocessing.size,
        injected_modules=model.injected_modules,
        total=counts.total,
        trainable=counts.trainable,
        head=sum(weight.numel() for weight in model.head.parameters()),
        file_bytes=sum(tensor.numel() * tensor.element_size() for tensor in model.inference_state_dict().values()),
        computation=_describe_computation(model)
        if model.injected_modules
        else "the head alone"
        if model.only_head_trains
        else "the model as it is",
    )


def _describe_computation(model: TunedModel) -> str:
    """By what stands in the tree."""
    modules = list(model.network.modules())
    found = {
        "prompts as keys and values": any(getattr(module, "kv_prompts", None) is not None for module in modules),
        "the last block computes CLS alone": any(isinstance(module, ClassTokenBlock) for module in modules),
    }
    return "; ".join(text for text, there in found.items() if there) or "as timm computes it"
