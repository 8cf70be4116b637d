"""Checks of the forms in which a model is saved and leaves this library."""

import copy

import torch
from torch import nn

from vpt.errors import UnsupportedError
from vpt.testing.case import (
    CLASSES,
    Case,
    clone_state,
    equal_states,
    expect,
    expect_close,
    logits_of,
)
from vpt.testing.registry import register


@register
def check_merge(case: Case) -> None:
    """Check that the merged weights give the same logits, or that `merge` refuses with the reason."""
    model, images = case.trained_model(), case.images()
    try:
        state = model.merge()
    except UnsupportedError as error:
        expect("cannot be" in str(error), f"merge() refuses without a reason: {error}")
        return
    plain = copy.deepcopy(case.module).eval()
    plain.reset_classifier(CLASSES)  # type: ignore[operator]
    plain.load_state_dict(state)
    expected = logits_of(model, images)
    expect_close(logits_of(plain.to(images), images), expected, 1e-5, "the merged model gives other logits")


@register
def check_plain(case: Case) -> None:
    """Check that the plain form gives the same logits, and that none of its tensors is the backbone's."""
    model, images = case.trained_model(), case.images()
    plain = model.plain()
    expect_close(logits_of(plain, images), logits_of(model, images), 1e-5, "the plain form gives other logits")
    own = {id(tensor) for tensor in (*plain.parameters(), *plain.buffers())}
    shared = own & {id(tensor) for tensor in (*model.parameters(), *model.buffers())}
    expect(not shared, f"{len(shared)} tensors of the plain form belong to the model")


@register
def check_state_dict(case: Case) -> None:
    """Check that each module stands once in the tree, and that another model loads `state_dict`."""
    model, images = case.trained_model(), case.images()
    state = model.state_dict()
    aliases, ties = _count_aliases(model), _count_aliases(case.module)
    expect(
        aliases <= ties,
        f"{aliases} modules stand twice in the tree; hold one of them with `vpt.methods.references.refer`",
    )
    pointers = [tensor.data_ptr() for tensor in state.values() if tensor.numel()]
    expect(len(set(pointers)) == len(pointers), "state_dict() contains a tensor under two names")
    expect(set(dict(model.named_parameters())) <= set(state), "state_dict() lacks a name of named_parameters()")
    other = case.eval_model(seed=1)
    other.load_state_dict(clone_state(state))
    expect(torch.equal(logits_of(other, images), logits_of(model, images)), "load_state_dict() gives other logits")


def _count_aliases(module: nn.Module) -> int:
    """Return how many modules stand in a further place of the tree."""
    return len(list(module.named_modules(remove_duplicate=False))) - len(list(module.modules()))


@register
def check_save_and_load(case: Case) -> None:
    """Check that a tuned file restores every bit of the tensors and of the logits."""
    model, images = case.trained_model(), case.images()
    again = case.save_and_load(model, "fp32")
    expect(again.method == model.method, f"{model.method} was read back as {again.method}")
    same_tensors = equal_states(again.trainable_state_dict(), model.trainable_state_dict())
    expect(same_tensors, "tensors differ after save and load")
    expect(torch.equal(logits_of(again, images), logits_of(model, images)), "logits differ after save and load")


@register
def check_fp16_file(case: Case) -> None:
    """Check that a tuned file in fp16 gives the same logits to rounding."""
    model, images = case.trained_model(), case.images()
    again = case.save_and_load(model, "fp16")
    expect_close(logits_of(again, images), logits_of(model, images), 2e-2, "fp16 storage changes the logits")


@register
def check_detach(case: Case) -> None:
    """Check that `detach` returns the backbone itself, unchanged."""
    output = case.backbone_output()
    expect(case.trained_model().detach() is case.module, "detach() gives another object than the backbone")
    expect(torch.equal(case.backbone_output(), output), "the backbone has another output after detach()")
