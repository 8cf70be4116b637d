"""Checks of a trained model: counts, files, merging, copies, precision and compilation."""

from __future__ import annotations

import copy

import torch
from torch import nn

from vpt.attention.detection import structural_copy
from vpt.backbones import load_backbone
from vpt.errors import UnsupportedError
from vpt.methods.base import Method
from vpt.testing.support import (
    CLASSES,
    BackboneLike,
    backbone_output,
    clone_state,
    equal_states,
    eval_model,
    expect,
    expect_close,
    logits_of,
    loss_of,
    make_batch,
    random_images,
    save_and_load,
    train_model,
    trained_model,
)


def check_merge(method: str | Method, backbone: BackboneLike, head: str | None = None) -> None:
    """Check that the merged weights give the same logits, or that `merge` refuses with the reason.

    Args:
        method: The method or its text.
        backbone: The backbone, or a timm model.
        head: Text of the head. Default: a linear layer on the pooled feature.
    """
    model, images = trained_model(method, backbone, head), random_images(backbone)
    try:
        state = model.merge()
    except UnsupportedError as error:
        expect("cannot be" in str(error), f"merge() refuses without a reason: {error}")
        return
    plain = copy.deepcopy(load_backbone(backbone).module).eval()
    plain.reset_classifier(CLASSES)  # type: ignore[operator]
    plain.load_state_dict(state)
    with torch.no_grad():
        expect_close(plain.to(images)(images), logits_of(model, images), 1e-5, "the merged model gives other logits")


def check_counts(method: str | Method, backbone: BackboneLike, head: str | None = None) -> None:
    """Check the numbers of parameters.

    Args:
        method: The method or its text.
        backbone: The backbone, or a timm model.
        head: Text of the head. Default: a linear layer on the pooled feature.
    """
    model = eval_model(method, backbone, head)
    trainable = {
        name: tensor for name, tensor in model.trainable_state_dict().items() if isinstance(tensor, nn.Parameter)
    }
    added = sum(tensor.numel() for name, tensor in trainable.items() if not name.startswith("backbone."))
    encoder = sum(weight.numel() for weight in structural_copy(load_backbone(backbone).module).parameters())
    counts = model.counts()
    expect(counts.trainable == sum(tensor.numel() for tensor in trainable.values()), f"trained is {counts.trainable}")
    expect(counts.total == encoder + added, f"total is {counts.total}, not {encoder} + {added}")


def check_state_dict(method: str | Method, backbone: BackboneLike, head: str | None = None) -> None:
    """Check that `state_dict` names each tensor once, and that another model loads it.

    Args:
        method: The method or its text.
        backbone: The backbone, or a timm model.
        head: Text of the head. Default: a linear layer on the pooled feature.
    """
    model, images = trained_model(method, backbone, head), random_images(backbone)
    state = model.state_dict()
    pointers = [tensor.data_ptr() for tensor in state.values() if tensor.numel()]
    expect(len(set(pointers)) == len(pointers), "state_dict() contains a tensor under two names")
    expect(set(dict(model.named_parameters())) <= set(state), "state_dict() lacks a name of named_parameters()")
    other = eval_model(method, backbone, head, seed=1)
    other.load_state_dict(clone_state(state))
    expect(torch.equal(logits_of(other, images), logits_of(model, images)), "load_state_dict() gives other logits")


def check_save_and_load(method: str | Method, backbone: BackboneLike, head: str | None = None) -> None:
    """Check that a tuned file restores every bit of the tensors and of the logits.

    Args:
        method: The method or its text.
        backbone: The backbone, or a timm model.
        head: Text of the head. Default: a linear layer on the pooled feature.
    """
    model, images = trained_model(method, backbone, head), random_images(backbone)
    again = save_and_load(model, backbone, "fp32")
    expect(again.method == model.method, f"{model.method} was read back as {again.method}")
    expect(
        equal_states(again.trainable_state_dict(), model.trainable_state_dict()), "tensors differ after save and load"
    )
    expect(torch.equal(logits_of(again, images), logits_of(model, images)), "logits differ after save and load")


def check_fp16_file(method: str | Method, backbone: BackboneLike, head: str | None = None) -> None:
    """Check that a tuned file in fp16 gives the same logits to rounding.

    Args:
        method: The method or its text.
        backbone: The backbone, or a timm model.
        head: Text of the head. Default: a linear layer on the pooled feature.
    """
    model, images = trained_model(method, backbone, head), random_images(backbone)
    again = save_and_load(model, backbone, "fp16")
    expect_close(logits_of(again, images), logits_of(model, images), 2e-2, "fp16 storage changes the logits")


def check_detach(method: str | Method, backbone: BackboneLike, head: str | None = None) -> None:
    """Check that `detach` returns the backbone itself, unchanged.

    Args:
        method: The method or its text.
        backbone: The backbone, or a timm model.
        head: Text of the head. Default: a linear layer on the pooled feature.
    """
    module, images = load_backbone(backbone).module, random_images(backbone)
    answer = backbone_output(module, images)
    back = trained_model(method, backbone, head).detach()
    expect(back is module, "detach() gives another object than the backbone")
    expect(torch.equal(backbone_output(back, images), answer), "the backbone has another output after detach()")


def check_two_tasks(method: str | Method, backbone: BackboneLike, head: str | None = None) -> None:
    """Check that training one model leaves another on the same backbone unchanged.

    Args:
        method: The method or its text.
        backbone: The backbone, or a timm model.
        head: Text of the head. Default: a linear layer on the pooled feature.
    """
    first, second, images = (
        eval_model(method, backbone, head, 0),
        eval_model(method, backbone, head, 1),
        random_images(backbone),
    )
    answer = logits_of(second, images)
    train_model(first, backbone)
    expect(torch.equal(logits_of(second, images), answer), "training one task disturbed another")


def check_deepcopy(method: str | Method, backbone: BackboneLike, head: str | None = None) -> None:
    """Check that a deep copy gives the same logits and penalty, and trains independently.

    Args:
        method: The method or its text.
        backbone: The backbone, or a timm model.
        head: Text of the head. Default: a linear layer on the pooled feature.
    """
    model, images = trained_model(method, backbone, head), random_images(backbone)
    answer, copied = logits_of(model, images), copy.deepcopy(model)
    expect(torch.equal(logits_of(copied, images), answer), "the copy gives other logits")
    expect(
        list(copied.trainable_state_dict()) == list(model.trainable_state_dict()),
        "the copy has other trainable tensors",
    )
    penalty = model.penalty()
    if penalty is not None:
        expect(
            penalty.dim() == 0 and penalty.requires_grad, "the penalty is no scalar, or depends on no trained weight"
        )
        expect(torch.equal(copied.penalty(), penalty), "the copy has another penalty")  # type: ignore[arg-type]
    train_model(copied, backbone)
    if penalty is not None:
        expect(torch.equal(model.penalty(), penalty), "training the copy changed the penalty of the original")  # type: ignore[arg-type]
        expect(not torch.equal(copied.penalty(), penalty), "the penalty of the copy is that of the original")  # type: ignore[arg-type]
    expect(not torch.equal(logits_of(copied, images), answer), "the copy does not train")
    expect(torch.equal(logits_of(model, images), answer), "training the copy changed the original")


def check_mixed_precision(method: str | Method, backbone: BackboneLike, head: str | None = None) -> None:
    """Check that logits and gradients under bf16 autocast are finite and close.

    Args:
        method: The method or its text.
        backbone: The backbone, or a timm model.
        head: Text of the head. Default: a linear layer on the pooled feature.
    """
    model, (images, labels) = eval_model(method, backbone, head), make_batch(backbone)
    answer = logits_of(model, images)
    with torch.autocast(images.device.type, torch.bfloat16):
        rounded = model(images).float()
    expect_close(rounded.detach(), answer, 0.15, "bf16 changes the logits")
    with torch.autocast(images.device.type, torch.bfloat16):
        loss_of(model, images, labels).backward()
    for name, weight in model.named_parameters():
        if weight.grad is not None:
            expect(bool(torch.isfinite(weight.grad).all()), f"in bf16 the gradient of {name} is not finite")


def check_compile(method: str | Method, backbone: BackboneLike, head: str | None = None) -> None:
    """Check that torch.compile captures the model as one graph with the same logits.

    Args:
        method: The method or its text.
        backbone: The backbone, or a timm model.
        head: Text of the head. Default: a linear layer on the pooled feature.
    """
    model, images = trained_model(method, backbone, head), random_images(backbone)
    torch.compiler.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    expect_close(logits_of(compiled, images), logits_of(model, images), 1e-5, "the compiled model gives other logits")
