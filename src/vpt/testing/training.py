"""Checks of what a model computes and how it trains."""

import copy

import torch
from torch import nn

from vpt.attention.detection import structural_copy
from vpt.testing.case import (
    CLASSES,
    Case,
    clone_state,
    equal_states,
    expect,
    expect_close,
    features_of,
    logits_of,
    loss_of,
    requires_grad_flags,
    training_modes,
)
from vpt.testing.registry import register


@register
def check_shapes(case: Case) -> None:
    """Check that each image gives one row of logits, which does not depend on the other images."""
    model, images = case.eval_model(), case.images()
    logits = logits_of(model, images)
    size = images.shape[2:] if model.is_dense else ()
    expect(logits.shape == (len(images), CLASSES, *size), f"logits have shape {tuple(logits.shape)}")
    if not model.is_dense:
        features = features_of(model, images)
        expect(features.shape == (len(images), model.width), f"features have shape {tuple(features.shape)}")
    expect_close(logits_of(model, images[1:2]), logits[1:2], 1e-4, "an image alone gives other logits than in a batch")


@register
def check_seed(case: Case) -> None:
    """Check that the same seed gives the same initial weights, and another seed others."""
    first, again, other = (case.eval_model(seed).trainable_state_dict() for seed in (0, 0, 1))
    expect(equal_states(first, again), "one seed gave two initializations")
    expect(not equal_states(first, other), "two seeds gave one initialization")


@register
def check_trainable_weights_matter(case: Case) -> None:
    """Check that the features depend on the trained weights outside the head, if there are any."""
    model, images = case.eval_model(), case.images()
    head_ids = {id(weight) for weight in model.head.parameters()}
    non_head = [weight for weight in model.trainable_parameters() if id(weight) not in head_ids]
    expect(model.only_head_trains == (not non_head), "only_head_trains is wrong")
    if not non_head:
        return
    before, generator = features_of(model, images), torch.Generator()
    with torch.no_grad():
        for weight in non_head:
            weight.add_(0.5 * torch.randn(weight.shape, generator=generator.manual_seed(3)).to(weight))
    expect(not torch.equal(features_of(model, images), before), "the features do not depend on the method's weights")


@register
def check_identity_at_init(case: Case) -> None:
    """Check that a method with `identity_at_init` starts with the features of the frozen backbone."""
    model = case.eval_model()
    if not model.method.identity_at_init:
        return
    images, frozen = case.images(), Case("linear", case.backbone, case.head).eval_model()
    actual, expected = features_of(model, images), features_of(frozen, images)
    expect_close(actual, expected, 1e-5, "the method sets identity_at_init but changes the feature before training")


@register
def check_only_trainable_gets_gradients(case: Case) -> None:
    """Check that gradients reach all trainable tensors and no others."""
    model = case.new_model()
    trainable_ids = {id(weight) for weight in model.trainable_parameters()}
    for name, weight in model.named_parameters():
        expect(weight.requires_grad == (id(weight) in trainable_ids), f"{name}.requires_grad is {weight.requires_grad}")
    before = clone_state(model.trainable_state_dict())
    loss_of(model, *case.batch()).backward()
    for name, weight in model.named_parameters():
        if id(weight) in trainable_ids:
            expect(weight.grad is not None, f"no gradient reaches {name}")
            expect(bool(torch.isfinite(weight.grad).all()), f"the gradient of {name} is not finite")  # type: ignore[arg-type]
        else:
            expect(weight.grad is None, f"a gradient reaches {name}, which is frozen")
    case.train(model)
    for name, tensor in model.trainable_state_dict().items():
        if isinstance(tensor, nn.Parameter):
            expect(not torch.equal(tensor, before[name]), f"{name} is trainable but training never changes it")


@register
def check_frozen(case: Case) -> None:
    """Check that training leaves the backbone unchanged: weights, flags, modes, names, module tree and output."""
    module = case.module
    weights, flags = clone_state(module.state_dict()), requires_grad_flags(module)
    modes, output = training_modes(module), case.backbone_output()
    case.train(case.eval_model())
    expect(list(module.state_dict()) == list(weights), "the backbone has other weight names than before")
    expect(equal_states(module.state_dict(), weights), "training changed the backbone's weights or statistics")
    expect(requires_grad_flags(module) == flags, "requires_grad of the backbone's weights was changed")
    expect(training_modes(module) == modes, "modules of the backbone, or their train or eval mode, were changed")
    expect(torch.equal(case.backbone_output(), output), "the backbone has another output than before")


@register
def check_modes(case: Case) -> None:
    """Check that a new model is in train mode, and that frozen modules are always in eval mode."""
    model = case.new_model()
    expect(model.training and model.head.training, "a new model or its head is not in train mode")
    for name, module in model.trunk.named_modules():
        weights = list(module.parameters(recurse=False))
        if weights and not any(weight.requires_grad for weight in weights):
            expect(not module.training, f"{name or 'the trunk'} is frozen but in train mode")
    model.eval()
    expect(not any(training_modes(model).values()), "eval() leaves modules in train mode")


@register
def check_learns(case: Case) -> None:
    """Check that an ordinary PyTorch training loop lowers the loss."""
    model = case.eval_model()
    before = float(loss_of(model, *case.batch()).detach())
    case.train(model, steps=8)
    after = float(loss_of(model, *case.batch()).detach())
    expect(after < before, f"the loss went from {before:.4f} to {after:.4f}")


@register
def check_counts(case: Case) -> None:
    """Check the numbers of parameters."""
    model = case.eval_model()
    state = model.trainable_state_dict()
    sizes = {name: tensor.numel() for name, tensor in state.items() if isinstance(tensor, nn.Parameter)}
    added = sum(size for name, size in sizes.items() if not name.startswith("backbone."))
    encoder = sum(weight.numel() for weight in structural_copy(case.module).parameters())
    counts = model.counts()
    expect(counts.trainable == sum(sizes.values()), f"trained is {counts.trainable}")
    expect(counts.total == encoder + added, f"total is {counts.total}, not {encoder} + {added}")


@register
def check_two_tasks(case: Case) -> None:
    """Check that training one model leaves another on the same backbone unchanged."""
    first, second, images = case.eval_model(seed=0), case.eval_model(seed=1), case.images()
    before = logits_of(second, images)
    case.train(first)
    expect(torch.equal(logits_of(second, images), before), "training one task disturbed another")


@register
def check_deepcopy(case: Case) -> None:
    """Check that a deep copy gives the same logits and penalty, and trains independently."""
    model, images = case.trained_model(), case.images()
    before, copied = logits_of(model, images), copy.deepcopy(model)
    expect(torch.equal(logits_of(copied, images), before), "the copy gives other logits")
    same_names = list(copied.trainable_state_dict()) == list(model.trainable_state_dict())
    expect(same_names, "the copy has other trainable tensors")
    penalty = model.penalty()
    if penalty is not None:
        is_scalar = penalty.dim() == 0 and penalty.requires_grad
        expect(is_scalar, "the penalty is no scalar, or depends on no trained weight")
        expect(torch.equal(copied.penalty(), penalty), "the copy has another penalty")  # type: ignore[arg-type]
    case.train(copied)
    if penalty is not None:
        expect(torch.equal(model.penalty(), penalty), "training the copy changed the penalty of the original")  # type: ignore[arg-type]
        expect(not torch.equal(copied.penalty(), penalty), "the penalty of the copy is that of the original")  # type: ignore[arg-type]
    expect(not torch.equal(logits_of(copied, images), before), "the copy does not train")
    expect(torch.equal(logits_of(model, images), before), "training the copy changed the original")
    with torch.no_grad():
        for weight in copied.parameters():  # as a moving average does, also to frozen ones
            weight.mul_(0.5)
    expect(torch.equal(logits_of(model, images), before), "writing to the weights of the copy changed the original")


@register
def check_mixed_precision(case: Case) -> None:
    """Check that logits and gradients under bf16 autocast are finite and close."""
    model, (images, labels) = case.eval_model(), case.batch()
    before = logits_of(model, images)
    with torch.autocast(images.device.type, torch.bfloat16):
        expect_close(logits_of(model, images).float(), before, 0.15, "bf16 changes the logits")
        loss_of(model, images, labels).backward()
    for name, weight in model.named_parameters():
        if weight.grad is not None:
            expect(bool(torch.isfinite(weight.grad).all()), f"in bf16 the gradient of {name} is not finite")


@register
def check_compile(case: Case) -> None:
    """Check that torch.compile captures the model as one graph with the same logits."""
    model, images = case.trained_model(), case.images()
    torch.compiler.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    expect_close(logits_of(compiled, images), logits_of(model, images), 1e-5, "the compiled model gives other logits")
