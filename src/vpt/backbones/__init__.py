"""Pretrained backbones: loading, freezing, their places, and the only imports of timm."""

from vpt.backbones.backbone import Backbone
from vpt.backbones.loading import DEFAULT, known_backbones, load_backbone, skeleton

__all__ = ["DEFAULT", "Backbone", "known_backbones", "load_backbone", "skeleton"]
