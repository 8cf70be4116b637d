"""Pretrained backbones: loading, freezing, their places, and the only imports of timm."""

from vpt.backbones.backbone import Backbone
from vpt.backbones.loading import DEFAULT, list_backbones, load_backbone

__all__ = ["DEFAULT", "Backbone", "list_backbones", "load_backbone"]
