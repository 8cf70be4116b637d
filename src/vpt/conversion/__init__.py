"""Conversion from and to the files of other libraries: the paper's own code, and LoRA of PEFT."""

from vpt.conversion.official import read_official_prompts
from vpt.conversion.peft import read_peft, write_peft

__all__ = ["read_official_prompts", "read_peft", "write_peft"]
