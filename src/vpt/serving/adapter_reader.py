"""Models of tuned files, read fast where files differ in their values alone.

To inject a method into a backbone and to verify it takes a tenth of a second, for a file of some kilobytes. Files of
prompts and a head that agree in method, head and number of classes are read into one model, of which each task keeps
its prompts and its head.
"""

import copy
import threading
from collections import OrderedDict
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from vpt.attention.joint_attention import GatedPrompts, KeyValues
from vpt.backbones import Backbone
from vpt.model.load import load
from vpt.model.tuned_file import Header, load_values
from vpt.model.tuned_model import TunedModel
from vpt.serving.model_cache import Model
from vpt.serving.multi_task import TaskAdapter
from vpt.serving.tuned_files import TunedFile, backbone_key

_MAX_MODELS = 32  # each shares the weights of the backbone


class AdapterReader:
    """Reader of the models of tuned files. It is thread-safe."""

    def __init__(self, cache_size: int = _MAX_MODELS) -> None:
        """Create a reader.

        Args:
            cache_size: Number of models that stay in memory, so that files of their kind are read into them; at most
                32. Default: 32.
        """
        self._max_models = min(cache_size, _MAX_MODELS)
        self._models: OrderedDict[tuple[Any, ...], TunedModel] = OrderedDict()  # those that values are read into
        self._lock = threading.Lock()

    @torch.inference_mode(False)  # injection is verified with gradients
    def read(self, file: TunedFile, backbone: Backbone) -> Model:
        """Return the model of a file.

        Args:
            file: The file.
            backbone: Its backbone.

        Returns:
            The adapter of the task, or the tuned model if its method does more. A file that cannot be used raises
            TunedFileError.
        """
        key = _key(file.header)
        with self._lock:
            if key in self._models:
                self._models.move_to_end(key)
                load_values(file.path, file.header, self._models[key])
                again = TaskAdapter.from_model(self._models[key])
                assert again is not None  # as of the first file of this kind
                return _copy(again)
        model = load(file.path, backbone, known_fingerprint=file.header.fingerprint)
        adapter = TaskAdapter.from_model(model)
        if adapter is None or adapter.modules or not all(map(_is_value, adapter.kv_prompts.values())):
            return adapter or model
        found = _copy(adapter)
        with self._lock:
            self._models[key] = model
            while len(self._models) > self._max_models:
                self._models.popitem(last=False)
        return found


def _key(header: Header) -> tuple[Any, ...]:
    """Return what files agree in that can be read into one model."""
    return (*backbone_key(header), header.format, header.method, header.head, header.num_classes, header.preprocessing)


def _is_value(prompts: object) -> bool:
    return isinstance(prompts, Tensor | GatedPrompts | KeyValues)


def _copy(adapter: TaskAdapter) -> TaskAdapter:
    """Return an adapter of values and a head with a memory of its own."""
    prompts = {path: _clone(each) for path, each in adapter.kv_prompts.items()}
    return replace(adapter, kv_prompts=prompts, head=copy.deepcopy(adapter.head))


def _clone(prompts: Any) -> Any:
    return prompts.clone() if isinstance(prompts, Tensor) else type(prompts)(*map(_clone, prompts))
