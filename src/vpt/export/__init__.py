"""One graph of a frozen backbone for any number of tasks, whose prompts and heads are inputs of the graph."""

from vpt.export.backbone import export_backbone
from vpt.export.task import export_task

__all__ = ["export_backbone", "export_task"]
