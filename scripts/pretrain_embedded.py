"""Pretrain the backbone that ships inside vpt, on pictures this script draws itself.

    python scripts/pretrain_embedded.py --out src/vpt/backbones/vit_nano_patch12_48.safetensors

192 invented classes: characters of a few strokes, blobs, and gratings. Each picture shows one of them, turned, scaled,
moved, redrawn by a shaking hand, in light colors on a dark and cloudy ground. The network learns to name the class,
and where, how large and how turned it is. No picture is drawn twice; no photograph, no foreign weights and no
downstream task is involved. A killed run goes on from `--work`.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from vpt.backbones import embedded

SIZE = embedded.IMAGE_SIZE
GLYPHS, BLOBS, GRATINGS = 128, 48, 16
CLASSES = GLYPHS + BLOBS + GRATINGS
STROKES, POINTS = 3, 20  # at most, per character; samples along a stroke
POSE = 5  # x, y, log scale, cos and sin of the angle


class ImageGenerator:
    """Draws labeled pictures; its classes are fixed by a seed of their own."""

    def __init__(self, seed: int) -> None:
        rng = torch.Generator().manual_seed(seed)
        # A character: up to three cubic Bezier strokes in the square -1..1; an absent stroke repeats the first.
        self.strokes = torch.rand(GLYPHS, STROKES, 4, 2, generator=rng) * 2 - 1
        absent = torch.arange(STROKES) >= torch.randint(1, STROKES + 1, (GLYPHS, 1), generator=rng)
        self.strokes[absent] = self.strokes[:, :1].expand(-1, STROKES, -1, -1)[absent]
        # A blob: a radius that varies with the angle in six harmonics.
        amplitudes = torch.tensor([0.0, 0.35, 0.3, 0.25, 0.2, 0.15])
        self.harmonics = torch.randn(BLOBS, 6, generator=rng) * amplitudes
        self.phases = torch.rand(BLOBS, 6, generator=rng) * 2 * math.pi
        # A grating: two waves, each with a frequency and a direction.
        self.waves = torch.rand(GRATINGS, 2, 2, generator=rng) * torch.tensor([7.0, math.pi]) + torch.tensor([3.0, 0.0])
        t = torch.linspace(0, 1, POINTS)
        self.bernstein = torch.stack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3], 1)
        axis = (torch.arange(SIZE) + 0.5) / SIZE * 2 - 1
        self.grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1).view(1, SIZE * SIZE, 2)

    def draw(self, n: int) -> tuple[Tensor, Tensor, Tensor]:
        """n pictures (n, 3, SIZE, SIZE) in -1..1, labels (n,), poses (n, POSE); drawn from torch's global generator."""
        labels = torch.randint(CLASSES, (n,))
        angle = torch.randn(n) * 0.3
        scale = torch.empty(n).uniform_(0.55, 0.95)
        center = (torch.rand(n, 2) * 2 - 1) * (1.05 - scale[:, None])
        turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).view(n, 2, 2)
        shear = torch.eye(2) + torch.randn(n, 2, 2) * 0.1
        local = (self.grid - center[:, None]) @ (turn @ shear) / scale[:, None, None]  # pixels, seen from the figure
        mask = torch.empty(n, SIZE * SIZE)
        glyph, blob = labels < GLYPHS, (labels >= GLYPHS) & (labels < GLYPHS + BLOBS)
        grating = labels >= GLYPHS + BLOBS
        mask[glyph] = self._glyphs(labels[glyph], local[glyph], scale[glyph])
        mask[blob] = self._blobs(labels[blob] - GLYPHS, local[blob])
        mask[grating] = self._gratings(labels[grating] - GLYPHS - BLOBS, local[grating])
        pose = torch.cat([center, scale.log()[:, None], angle.cos()[:, None], angle.sin()[:, None]], 1)
        return self._color(mask.view(n, 1, SIZE, SIZE)), labels, pose

    def _glyphs(self, labels: Tensor, local: Tensor, scale: Tensor) -> Tensor:
        strokes = self.strokes[labels] + torch.randn(len(labels), STROKES, 4, 2) * 0.06
        points = (self.bernstein @ strokes).flatten(1, 2) * 0.85
        distance = torch.cdist(local, points).amin(2)
        width = torch.empty(len(labels), 1).uniform_(0.08, 0.2)
        soft = 1.6 / (SIZE * scale[:, None])
        return torch.sigmoid((width - distance) / soft)

    def _blobs(self, labels: Tensor, local: Tensor) -> Tensor:
        theta = torch.atan2(local[..., 1], local[..., 0])[..., None]
        order = torch.arange(1, 7)
        waves = (self.harmonics[labels][:, None] * torch.cos(theta * order + self.phases[labels][:, None])).sum(-1)
        return torch.sigmoid((0.75 * torch.exp(waves * 0.8).clamp(0.3, 1.3) - local.norm(dim=-1)) * 20)

    def _gratings(self, labels: Tensor, local: Tensor) -> Tensor:
        frequency, direction = self.waves[labels].unbind(-1)
        axes = torch.stack([direction.cos(), direction.sin()], -1)
        phase = torch.rand(len(labels), 1, 2) * 2 * math.pi
        return torch.sigmoid(torch.sin(local @ axes.transpose(1, 2) * frequency[:, None] + phase).sum(-1) * 2.5)

    def _color(self, mask: Tensor) -> Tensor:
        n = len(mask)
        background, foreground = torch.rand(n, 3, 1, 1) * 0.9 - 1, torch.rand(n, 3, 1, 1) * 0.9 + 0.1
        clouds = F.interpolate(torch.randn(n, 3, 5, 5), SIZE, mode="bicubic") * torch.rand(n, 1, 1, 1) * 0.15
        image = background + clouds + mask * (foreground - background)
        return (image + torch.randn_like(image) * torch.rand(n, 1, 1, 1) * 0.08).clamp(-1, 1)


def init_weights(backbone: Any) -> None:
    """Start weights for a narrow network: with timm's (std 0.02 for any width) it hardly learns for 400 steps."""
    for module in backbone.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
    nn.init.normal_(backbone.pos_embed, std=0.4)  # as strong as the patches it is added to
    nn.init.normal_(backbone.cls_token, std=0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=4800)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path("scratch/pretraining.pt"), help="checkpoint")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    generator = ImageGenerator(options.seed)
    backbone = embedded.create_model()
    init_weights(backbone)
    heads = nn.Linear(backbone.num_features, CLASSES + POSE)
    parameters = [*backbone.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=0.0, weight_decay=0.05, betas=(0.9, 0.98))
    start = 0
    if options.work.exists():
        saved: dict[str, Any] = torch.load(options.work, weights_only=True)
        start = saved["step"]
        backbone.load_state_dict(saved["backbone"])
        heads.load_state_dict(saved["heads"])
        optimizer.load_state_dict(saved["optimizer"])
    start_time, running_sums = time.monotonic(), torch.zeros(3)
    for step in range(start, options.steps):
        torch.manual_seed(options.seed * 1_000_003 + step)  # so that a resumed run draws what an unbroken one would
        warmup = min(1.0, (step + 1) / 300)
        for group in optimizer.param_groups:
            group["lr"] = options.lr * warmup * 0.5 * (1 + math.cos(math.pi * step / options.steps))
        images, labels, poses = generator.draw(options.batch)
        outputs = heads(backbone(images))
        class_loss = F.cross_entropy(outputs[:, :CLASSES], labels, label_smoothing=0.05)
        pose_loss = F.smooth_l1_loss(outputs[:, CLASSES:], poses)
        optimizer.zero_grad()
        (class_loss + 2 * pose_loss).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        accuracy = (outputs[:, :CLASSES].argmax(1) == labels).float().mean()
        running_sums += torch.stack([class_loss.detach(), pose_loss.detach(), accuracy])
        if (step + 1) % 100 == 0:
            name, pose, top1 = (running_sums / 100).tolist()
            seconds_left = (time.monotonic() - start_time) / (step + 1 - start) * (options.steps - step - 1)
            print(f"step {step + 1}/{options.steps}  class {name:.3f}  top-1 {100 * top1:.1f} %  pose {pose:.4f}  "
                  f"{seconds_left:.0f} s left", flush=True)  # fmt: skip
            running_sums.zero_()
        if (step + 1) % 500 == 0:
            state = {"step": step + 1, "backbone": backbone.state_dict(), "heads": heads.state_dict(),
                     "optimizer": optimizer.state_dict()}  # fmt: skip
            options.work.parent.mkdir(parents=True, exist_ok=True)
            torch.save(state, options.work.with_suffix(".part"))
            options.work.with_suffix(".part").replace(options.work)
    save_file({name: weight.half().contiguous() for name, weight in backbone.state_dict().items()}, options.out)


if __name__ == "__main__":
    main()
