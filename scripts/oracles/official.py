"""Stubs and configurations for KMnP/vpt, the official code of the paper, that its scripts share."""

from __future__ import annotations

from typing import Any

from authors import CLASSES, IMAGE_SIZE, PROMPTS, AttributeDict, Authors, restore_old_timm, stub


def official_authors() -> Authors:
    """The official files, ready to be imported."""
    authors = Authors("KMnP/vpt", ["src"])
    stub_missing_packages()
    return authors


def stub_missing_packages() -> None:
    """Packages of which the official models and trainer read nothing that changes a number."""
    stub("fvcore.common.config", CfgNode=AttributeDict)
    stub("ml_collections", ConfigDict=AttributeDict)
    for module in ("fvcore.common.checkpoint", "iopath.common.file_io", "simplejson", "termcolor", "turtle"):
        stub(module)
    restore_old_timm()


def official_config(transfer_type: str, **options: Any) -> AttributeDict:
    """The official default configuration of a classifier of tiny sizes.

    Args:
        transfer_type: MODEL.TRANSFER_TYPE.
        **options: Options of MODEL.PROMPT, and MLP_NUM of MODEL.
    """
    from src.configs.config import get_cfg

    config = get_cfg()
    config.MODEL.TRANSFER_TYPE = transfer_type
    config.MODEL.MLP_NUM = options.pop("MLP_NUM", 0)
    config.MODEL.ADAPTER.REDUCATION_FACTOR = 4
    config.DATA.FEATURE, config.DATA.CROPSIZE, config.DATA.NUMBER_CLASSES = "sup_vitb16", IMAGE_SIZE, CLASSES
    config.MODEL.PROMPT.NUM_TOKENS = PROMPTS
    config.MODEL.PROMPT.update(options)
    return config
