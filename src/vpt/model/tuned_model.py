"""The tuned model: a shared frozen backbone, the trainable modules of a method, and a head."""

import copy
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from vpt.attention.detection import FeatureExtractor
from vpt.attention.forward_state import empty_caches
from vpt.backbones.backbone import Backbone
from vpt.backbones.layout import BackboneLayout
from vpt.errors import DataError, SpecError, UnsupportedError
from vpt.methods.base import Method
from vpt.methods.init_inputs import InitInputs
from vpt.model.header import class_names
from vpt.model.hub_model import HubModel
from vpt.model.injection import (
    check_all_called,
    check_planned,
    first_modified_block,
    inject,
    named_tensors,
    trainable_tensors,
)
from vpt.model.label_kinds import LabelKind, SingleLabel
from vpt.model.plain import match_dtype
from vpt.model.readout import Pooled, Readout
from vpt.model.split_forward import SplitForward
from vpt.model.state_dict import accept_equal_weights, names_in_backbone, use_one_name_per_tensor


class TunedModel(HubModel):
    """A frozen backbone, the trainable modules of a method, and a head: an ordinary `nn.Module`.

    Exactly the tensors that do not belong to the backbone are trained and saved. They are identified by object
    identity at injection, never by name. Use `attach` or `load` to make one; the constructor leaves it in eval mode.

    In eval mode, several threads may use a model at once. Training and attaching need a thread to themselves.

    Args:
        backbone: The backbone.
        method: The method.
        num_classes: Number of classes, at least 1.
        classes: Names of the classes. Default: none.
        readout: The outputs that the head reads. Default: the pooled feature.
        state: Tensors to be loaded later; their names and shapes are compared before memory is allocated.

    Attributes:
        head: The head.
        label_kind: The kind of labels that the outputs stand for. Default: one class for each image.
        class_colors: Color of each class in pictures of masks, such as "0072b2". Default: those of its name and number.
        network: Normalized images (batch, 3, size, size) -> the head's input.
        width: Channels of the head's input, (batch, width), where images are classified.
        layout: The layout of the trunk.
        added_modules: The modules that the method's wrappers share.
        injected_modules: Paths of the injected modules.
        first_modified_block: Index of the first block that depends on a trained or injected module.
        reads_backbone_feature: True if the head reads the pooled feature that the backbone itself would give.

    Raises:
        SpecError: The number of classes is no positive integer, or classes or `state` do not fit it.
        UnsupportedError: The backbone does not have what the method or the readout needs.
    """

    def __init__(
        self,
        backbone: Backbone,
        method: Method,
        num_classes: int,
        classes: Sequence[str] | None = None,
        readout: Readout | None = None,
        state: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(num_classes, (int, np.integer)) or num_classes < 1:
            raise SpecError(f"num_classes is {num_classes!r}; a head needs a whole number of outputs, at least one")
        self.backbone = backbone
        self.method = method
        self.num_classes: int = int(num_classes)
        self.classes: tuple[str, ...] | None = None if classes is None else class_names(classes, self.num_classes)
        self.label_kind: LabelKind = SingleLabel()
        self.class_colors: tuple[str, ...] | None = None
        self.split_options: dict[str, Any] = {}  # of the file that the model is loaded from
        self.readout: Readout = readout or Pooled()
        check = None if state is None else partial(check_planned, state, method, self.num_classes)
        injected = inject(backbone, method, self.readout, check)
        injection = injected.injection
        self.layout: BackboneLayout = injected.layout
        self.added_modules: nn.ModuleDict = nn.ModuleDict(injection.modules)
        self._make_head = injected.make_head
        self._fixed_image_size: bool = injection.fixed_image_size
        self._penalty, self._before_step = injection.penalty, injection.before_step
        self.width: int = injection.num_pooled * self.layout.feature_width
        self.head: nn.Module = injected.make_head(self.width, self.num_classes)
        self.network: nn.Module = injected.network
        self.first_modified_block: int = first_modified_block(injection, self.layout)
        self.reads_backbone_feature: bool = injection.pool is None and isinstance(self.readout, Pooled)
        self.injected_modules: tuple[str, ...] = tuple(path or "images" for path in injected.wrappers)
        # Dicts, not registered: these modules are already in the tree.
        self._original_modules, self._wrappers = injected.original_modules, injected.wrappers
        self.to(next(backbone.module.parameters()).device)  # new modules are made on the CPU
        trainable = trainable_tensors(injected, self.added_modules, self.head)
        path_by_id = {id(tensor): name for name, tensor in named_tensors(self)}
        # Names in the file -> paths in this tree. They are addresses: ownership was decided by identity above.
        self._trainable_paths = {name: path_by_id[id(tensor)] for name, tensor in trainable.items()}
        self._frozen_modules = tuple(name for name, module in self.named_modules() if id(module) in injected.frozen_ids)
        use_one_name_per_tensor(self)
        self._frozen_paths = names_in_backbone(self, backbone)
        accept_equal_weights(self, backbone)
        self.eval()
        self.readout.verify(method, self.network, self.trunk, self.layout)
        check_all_called(injected, self.trunk, str(method), backbone)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # Frozen tensors are copied, too: a moving average multiplies all of its own, and must not reach the backbone.
        copied = type(self).__new__(type(self))
        memo |= {id(self): copied, **empty_caches(self)}
        copied.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return copied

    @property
    def is_dense(self) -> bool:
        """True if the model gives every pixel a class, False if it gives every image one."""
        return self.readout.is_dense

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits.

        Args:
            images: Normalized images (batch, 3, size, size).

        Returns:
            (batch, classes), or (batch, classes, size, size) where the head is dense.

        Raises:
            UnsupportedError: This is a replica of `nn.DataParallel`.
        """
        if getattr(self, "_is_replica", False):
            raise UnsupportedError(
                "nn.DataParallel does not copy modules that others refer to, such as prompts; use "
                "DistributedDataParallel, with one process for each GPU"
            )
        return self.readout.resize_logits(self.head(self.features(images)), images.shape[-2:])

    def logits_with_auxiliary(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the logits of a dense model and of its auxiliary heads.

        Args:
            images: Normalized images (batch, 3, size, size).

        Returns:
            The logits of `forward`, then those of each auxiliary head, all (batch, classes, size, size).
        """
        found = self.head.with_auxiliary(self.features(images))  # type: ignore[operator]
        return tuple(self.readout.resize_logits(logits, images.shape[-2:]) for logits in found)

    def features(self, images: Tensor) -> Any:
        """Return the input of the head.

        Args:
            images: Normalized images (batch, 3, size, size).

        Returns:
            Features (batch, width), or a tuple of feature maps where the head is dense.

        Raises:
            DataError: The method is made for images of one size, and these have another.
        """
        size, (height, width) = self.layout.preprocessing.size, images.shape[-2:]
        if self._fixed_image_size and (height, width) != (size, size):
            raise DataError(
                f"images are {height}x{width} px, and {self.method} learns parameters for the patches of {size}x{size} "
                "px; resize them, or attach to a backbone of their size"
            )
        return match_dtype(self.network(images), self.head)

    def train(self, mode: bool = True) -> Self:
        """Set the mode as `nn.Module.train` does, but leave the frozen modules in eval mode.

        Frozen modules apply no dropout and update no statistics.

        Args:
            mode: True for training, False for evaluation. Default: True.

        Returns:
            This model.
        """
        super().train(mode)
        for name in self._frozen_modules:
            self.get_submodule(name).training = False
        return self

    def wrappers(self) -> dict[str, nn.Module]:
        """Return the injected modules: path in the trunk -> the module that replaced the one there."""
        return dict(self._wrappers)

    def split_forward(self) -> SplitForward | None:
        """Return the network split at the first block that changes in training.

        Returns:
            The split network. None where it would begin with the first block, where blocks change the shape of their
            input (ConvNets), and where the head reads more than the last block.
        """
        nothing_frozen = self.first_modified_block == 0 or self.layout.kind not in ("tokens", "windows")
        if nothing_frozen or not isinstance(self.network, FeatureExtractor):
            return None
        return SplitForward(self.network, self.layout.blocks, self.first_modified_block, self.layout.preprocessing)

    @torch.no_grad()
    def initialize(self, inputs: InitInputs) -> None:
        """Initialize from the training images, if the method asks for it (`method.init_inputs`).

        Args:
            inputs: Properties of the training images, see `vpt.training.collect_init_inputs`.
        """
        if self.method.init_inputs:
            self.method.initialize(inputs, self.added_modules)

    def penalty(self) -> Tensor | None:
        """Return the scalar that the method adds to the training loss, or None if it adds none."""
        return None if self._penalty is None else self._penalty()

    def before_step(self, done: float) -> None:
        """Run the method's hook after the backward pass, before `optimizer.step()`.

        Call it in a training loop of your own if the method has such a hook, as pruning does. With a gradient scaler,
        unscale the gradients first (`scaler.unscale_`).

        Args:
            done: Fraction of all training steps that are done after this one, above 0 and at most 1.
        """
        if self._before_step is not None:
            self._before_step(done)

    def detach(self) -> nn.Module:
        """Return the backbone, which was never changed."""
        return self.backbone.module

    def require_classifier(self, task: str) -> None:
        """Check that this model gives every image a class.

        Args:
            task: Name of the operation, for the message.

        Raises:
            UnsupportedError: The model gives every pixel a class.
        """
        if self.is_dense:
            mismatch = f"this one segments them, with {self.readout}"
            raise UnsupportedError(f"{task} is for models that classify images; {mismatch}")
