"""Prompts that all images of a task share, as one forward pass of a backbone for several tasks needs them."""

from torch import nn

from vpt.attention.kv_attention import KVAttention
from vpt.methods.kv_prompts import PromptKeys
from vpt.model.injection import named_tensors
from vpt.model.tuned_model import TunedModel


def shared_prompts(model: TunedModel) -> dict[str, PromptKeys] | None:
    """Return the prompts of a model that has learned nothing but prompts of attention and a head.

    Args:
        model: The model.

    Returns:
        Path of an attention -> its prompts; empty where only the head trains. None where the method does more or the
        head reads another feature. None too where prompts depend on the image: each image has its own, so nothing is
        shared between the images of a task.
    """
    wrappers = model.wrappers()
    keys = {
        path: module.kv_prompts
        for path, module in wrappers.items()
        if isinstance(module, KVAttention) and not module.num_positionless and type(module.kv_prompts) is PromptKeys
    }
    learned = [model.head, *(key.prompts for key in keys.values() if isinstance(key.prompts, nn.Module))]
    known = {id(tensor) for module in learned for _, tensor in named_tensors(module)}
    known |= {id(key.gate) for key in keys.values() if key.gate is not None}
    trained = model.trainable_state_dict().values()
    only_prompts_and_head = len(keys) == len(wrappers) and all(id(tensor) in known for tensor in trained)
    if not only_prompts_and_head or not model.reads_backbone_feature:
        return None
    return keys if all(key.windows_per_image == 1 for key in keys.values()) else None
