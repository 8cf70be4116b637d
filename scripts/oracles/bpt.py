"""Oracles of WangYZ1608/BPT: deep prompts that are a product of two matrices.

python scripts/oracles/bpt.py --repo CLONE --commit SHA

The start of the second matrix needs files that are not published, so it is replaced; all weights are drawn here anyway.
"""

from __future__ import annotations

from authors import CLASSES, VIT_SIZES, Authors, draw_images, prepare, record, stub

NUM_PROMPTS, CHANNELS = 4, 3  # their prompts form a square


def main() -> None:
    authors = Authors("WangYZ1608/BPT", ["Models"])
    stub("torchsummaryX")
    from Models.bpt_deep import PromptVisionTransformer

    PromptVisionTransformer._init_weights = lambda self, convolutions: None
    model = PromptVisionTransformer(
        num_prompts=NUM_PROMPTS, channels=CHANNELS, num_classes=CLASSES, qkv_bias=True, **VIT_SIZES
    ).eval()
    model.forward = lambda images: model.head(model.forward_features(images))  # theirs expects a second output
    prepare(model, "random_vectors", "conv1x1", "head.")
    authors.save("bpt", record(model, draw_images()))


if __name__ == "__main__":
    main()
