"""The embedded default: a small ViT inside the package, pretrained on images this project draws itself.

1.6 million parameters, 48x48 pixels. `docs/embedded.md` has its recipe and its figures.
"""

from pathlib import Path

from timm.models.vision_transformer import VisionTransformer

NAME = "vit_nano_patch12_48"
WEIGHTS = Path(__file__).with_name(f"{NAME}.safetensors")
IMAGE_SIZE = 48


def create_model(image_size: int | None = None) -> VisionTransformer:
    """The architecture, with random weights and no classifier."""
    model = VisionTransformer(
        img_size=image_size or IMAGE_SIZE, patch_size=12, embed_dim=128, depth=8, num_heads=4, num_classes=0
    )
    model.pretrained_cfg = {
        "architecture": NAME,
        "input_size": (3, IMAGE_SIZE, IMAGE_SIZE),
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        "interpolation": "bilinear",
        "crop_pct": 1.0,
        "classifier": "head",
    }
    return model
