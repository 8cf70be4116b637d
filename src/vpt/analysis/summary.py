"""What a method would do to a backbone, found without loading weights."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from vpt.attention.class_token_block import ClassTokenBlock
from vpt.backbones import skeleton
from vpt.heads.dense import parse_head
from vpt.methods.registry import parse_method
from vpt.model.tuned_model import TunedModel


@dataclass(frozen=True)
class Check:
    """What was found.

    hangs_at: paths in the timm model. total, trained: parameters, head: those of the head. file_bytes: of the tuned
    file's tensors in fp32. form: how it is computed.
    """

    backbone: str
    method: str
    classes: int
    image_size: int
    hangs_at: tuple[str, ...]
    total: int
    trained: int
    head: int
    file_bytes: int
    form: str

    @property
    def share(self) -> float:
        """trained / total."""
        return self.trained / self.total

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "hangs_at": list(self.hangs_at), "share": self.share}


def check(backbone: str, method: str, classes: int, image_size: int | None = None, head: str | None = None) -> Check:
    """Hang `method` on the bare structure of `backbone` (a timm name).

    head: as for `attach`, whose errors these are.
    """
    bare = skeleton(backbone, image_size)
    model = TunedModel(bare, parse_method(method), classes, dense=None if head is None else parse_head(head))
    counts = model.counts()
    return Check(
        backbone=backbone,
        method=str(model.method),
        classes=classes,
        image_size=bare.preprocessing.size,
        hangs_at=model.hangs_at,
        total=counts.total,
        trained=counts.trained,
        head=sum(weight.numel() for weight in model.head.parameters()),
        file_bytes=sum(tensor.numel() * tensor.element_size() for tensor in model.kept_state().values()),
        form=_form(model) if model.hangs_at else "the head alone" if model.only_head_trains else "the model as it is",
    )


def _form(model: TunedModel) -> str:
    """By what stands in the tree."""
    modules = list(model.network.modules())
    found = {
        "prompts as keys and values": any(getattr(part, "extra", None) is not None for part in modules),
        "the last block computes CLS alone": any(isinstance(part, ClassTokenBlock) for part in modules),
    }
    return "; ".join(text for text, there in found.items() if there) or "as timm computes it"
