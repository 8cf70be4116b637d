"""Checks of a new model and of its training: shapes, seeds, gradients, modes, and the frozen backbone."""

from __future__ import annotations

import torch
from torch import nn

from vpt.backbones import load_backbone
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
    features_of,
    generator,
    logits_of,
    loss_of,
    make_batch,
    new_model,
    random_images,
    requires_grad_flags,
    train_model,
    training_modes,
)


def check_shapes(method: str | Method, backbone: BackboneLike, head: str | None = None) -> None:
    """Check that each image gives one row of logits, which does not depend on the other images.

    Args:
        method: The method or its text.
        backbone: The backbone, or a timm model.
        head: Text of the head. Default: a linear layer on the pooled feature.
    """
    model, images = eval_model(method, backbone, head), random_images(backbone)
    logits = logits_of(model, images)
    size = images.shape[2:] if model.is_dense else ()
    expect(logits.shape == (len(images), CLASSES, *size), f"logits have shape {tuple(logits.shape)}")
    if not model.is_dense:
        features = features_of(model, images)
        expect(features.shape == (len(images), model.width), f"features have shape {tuple(features.shape)}")
    expect_close(logits_of(model, images[1:2]), logits[1:2], 1e-4, "an image alone gives other logits than in a batch")


def check_seed(method: str | Method, backbone: BackboneLike, head: str | None = None) -> None:
    """Check that the same seed gives the same initial weights, and another seed others.

    Args:
        method: The method or its text.
        backbone: The backbone, or a timm model.
        head: Text of the head. Default: a linear layer on the pooled feature.
    """
    first, again, other = (eval_model(method, backbone, head, seed) for seed in (0, 0, 1))
    expect(
        equal_states(first.trainable_state_dict(), again.trainable_state_dict()), "one seed gave two initializations"
    )
    expect(
        not equal_states(first.trainable_state_dict(), other.trainable_state_dict()),
        "two seeds gave one initialization",
    )


def check_trainable_weights_matter(method: str | Method, backbone: BackboneLike, head: str | None = None) -> None:
    """Check that the features depend on the trained weights outside the head, if there are any.

    Args:
        method: The method or its text.
        backbone: The backbone, or a timm model.
        head: Text of the head. Default: a linear layer on the pooled feature.
    """
    model, images = eval_model(method, backbone, head), random_images(backbone)
    head_ids = {id(weight) for weight in model.head.parameters()}
    non_head = [weight for weight in model.trainable_parameters() if id(weight) not in head_ids]
    expect(model.only_head_trains == (not non_head), "only_head_trains is wrong")
    if not non_head:
        return
    before = features_of(model, images)
    with torch.no_grad():
        for weight in non_head:
            weight.add_(0.5 * torch.randn(weight.shape, generator=generator(3)).to(weight))
    expect(not torch.equal(features_of(model, images), before), "the features do not depend on the method's weights")


def check_identity_at_init(method: str | Method, backbone: BackboneLike, head: str | None = None) -> None:
    """Check that a method with `identity_at_init` starts with the features of the frozen backbone.

    Args:
        method: The method or its text.
        backbone: The backbone, or a timm model.
        head: Text of the head. Default: a linear layer on the pooled feature.
    """
    model = eval_model(method, backbone, head)
    if not model.method.identity_at_init:
        return
    images, frozen = random_images(backbone), eval_model("linear", backbone, head)
    actual, expected = features_of(model, images), features_of(frozen, images)
    expect_close(actual, expected, 1e-5, "the method sets identity_at_init but changes the feature before training")


def check_only_trainable_gets_gradients(method: str | Method, backbone: BackboneLike, head: str | None = None) -> None:
    """Check that gradients reach all trainable tensors and no others.

    Args:
        method: The method or its text.
        backbone: The backbone, or a timm model.
        head: Text of the head. Default: a linear layer on the pooled feature.
    """
    model = new_model(method, backbone, head)
    trainable_ids = {id(weight) for weight in model.trainable_parameters()}
    for name, weight in model.named_parameters():
        expect(weight.requires_grad == (id(weight) in trainable_ids), f"{name}.requires_grad is {weight.requires_grad}")
    before = clone_state(model.trainable_state_dict())
    loss_of(model, *make_batch(backbone)).backward()
    for name, weight in model.named_parameters():
        if id(weight) in trainable_ids:
            expect(weight.grad is not None, f"no gradient reaches {name}")
            expect(bool(torch.isfinite(weight.grad).all()), f"the gradient of {name} is not finite")  # type: ignore[arg-type]
        else:
            expect(weight.grad is None, f"a gradient reaches {name}, which is frozen")
    train_model(model, backbone)
    for name, tensor in model.trainable_state_dict().items():
        if isinstance(tensor, nn.Parameter):
            expect(not torch.equal(tensor, before[name]), f"{name} is trainable but training never changes it")


def check_frozen(method: str | Method, backbone: BackboneLike, head: str | None = None) -> None:
    """Check that training leaves the backbone unchanged: weights, flags, modes, names, module tree and output.

    Args:
        method: The method or its text.
        backbone: The backbone, or a timm model.
        head: Text of the head. Default: a linear layer on the pooled feature.
    """
    module, images = load_backbone(backbone).module, random_images(backbone)
    weights, flags, modes, answer = (
        clone_state(module.state_dict()),
        requires_grad_flags(module),
        training_modes(module),
        backbone_output(module, images),
    )
    train_model(eval_model(method, backbone, head), backbone)
    expect(list(module.state_dict()) == list(weights), "the backbone has other weight names than before")
    expect(equal_states(module.state_dict(), weights), "training changed the backbone's weights or statistics")
    expect(requires_grad_flags(module) == flags, "requires_grad of the backbone's weights was changed")
    expect(training_modes(module) == modes, "modules of the backbone, or their train or eval mode, were changed")
    expect(torch.equal(backbone_output(module, images), answer), "the backbone has another output than before")


def check_modes(method: str | Method, backbone: BackboneLike, head: str | None = None) -> None:
    """Check that a new model is in train mode, and that frozen modules are always in eval mode.

    Args:
        method: The method or its text.
        backbone: The backbone, or a timm model.
        head: Text of the head. Default: a linear layer on the pooled feature.
    """
    model = new_model(method, backbone, head)
    expect(model.training and model.head.training, "a new model or its head is not in train mode")
    for name, module in model.trunk.named_modules():
        weights = list(module.parameters(recurse=False))
        if weights and not any(weight.requires_grad for weight in weights):
            expect(not module.training, f"{name or 'the trunk'} is frozen but in train mode")
    model.eval()
    expect(not any(training_modes(model).values()), "eval() leaves modules in train mode")


def check_learns(method: str | Method, backbone: BackboneLike, head: str | None = None) -> None:
    """Check that an ordinary PyTorch training loop lowers the loss.

    Args:
        method: The method or its text.
        backbone: The backbone, or a timm model.
        head: Text of the head. Default: a linear layer on the pooled feature.
    """
    model = eval_model(method, backbone, head)
    with torch.no_grad():
        before = float(loss_of(model, *make_batch(backbone)))
    train_model(model, backbone, steps=8)
    with torch.no_grad():
        after = float(loss_of(model, *make_batch(backbone)))
    expect(after < before, f"the loss went from {before:.4f} to {after:.4f}")
