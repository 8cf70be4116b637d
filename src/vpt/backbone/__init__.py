"""Pretrained backbones: loading, freezing, their places, and the only imports of timm."""

from vpt.backbone.load import DEFAULT, known_backbones, load_backbone, skeleton
from vpt.backbone.record import Backbone

__all__ = ["DEFAULT", "Backbone", "known_backbones", "load_backbone", "skeleton"]
