"""Summary of a method on a backbone, computed without loading weights."""

from dataclasses import asdict, dataclass
from typing import Any

from vpt.attention.class_token_block import ClassTokenBlock
from vpt.backbones import load_backbone
from vpt.model.attach import attach
from vpt.model.tuned_model import TunedModel


@dataclass(frozen=True)
class MethodSummary:
    """Injected modules and costs of a method on a backbone.

    Args:
        backbone: Name of the backbone.
        method: Text of the method.
        classes: Number of classes.
        image_size: Input side in pixels.
        injected_modules: Paths in the timm model.
        total: Number of parameters.
        trainable: Number of trainable parameters.
        head: Number of parameters of the head.
        file_bytes: Size of the tensors of the tuned file in fp32.
        computation: Description of the computation.
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
        """Trainable parameters as a fraction of all parameters."""
        return self.trainable / self.total

    def to_dict(self) -> dict[str, Any]:
        """Return the summary as JSON values.

        Returns:
            Field name to value.
        """
        modules = list(self.injected_modules)
        return {**asdict(self), "injected_modules": modules, "trainable_fraction": self.trainable_fraction}


def summarize(
    backbone: str, method: str, classes: int, image_size: int | None = None, head: str | None = None
) -> MethodSummary:
    """Attach a method to a backbone without weights. The errors are those of `attach`.

    Args:
        backbone: A timm model name.
        method: Text of the method.
        classes: Number of classes.
        image_size: Input side in pixels. Default: that of the backbone.
        head: Head for segmentation. Default: a classifier.

    Returns:
        The summary.
    """
    meta = load_backbone(backbone, image_size=image_size, device="meta")
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
        file_bytes=sum(tensor.nbytes for tensor in model.inference_state_dict().values()),
        computation=_describe_computation(model),
    )


def _describe_computation(model: TunedModel) -> str:
    if not model.injected_modules:
        return "only the head" if model.only_head_trains else "the unchanged model"
    modules, found = list(model.network.modules()), []
    if any(getattr(module, "kv_prompts", None) is not None for module in modules):
        found.append("prompts as keys and values")
    if any(isinstance(module, ClassTokenBlock) for module in modules):
        found.append("the last block computes the class token only")
    return "; ".join(found) or "that of timm"
