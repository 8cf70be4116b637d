"""Methods on the families they claim keep the whole contract."""

from __future__ import annotations

import pytest
from families import FAMILIES, PROMPTED, backbone_of

from vpt import METHODS, FitError, Full, Linear, Method, Plan, attach
from vpt.backbone.sites import Sites
from vpt.testing import CHECKS, Check, check_compile, check_method

DEEP, SHALLOW = "vpt(length=3)", "vpt(length=3, depth=shallow)"
# One family for each thing that differs: attention, place of tokens, pooling. test_exact has them all.
VARIED = ("vit", "vit-distilled", "dinov2-reg", "dinov3", "rope-mixed", "beit", "siglip")
CASES = [
    *((DEEP, family) for family in PROMPTED),
    *((SHALLOW, family) for family in VARIED),
    *(("vpt(length=3, form=textbook)", family) for family in ("vit", "dinov3")),
    *(("linear", family) for family in ("vit", "resnet", "swin")),
    *(("full", family) for family in ("vit", "eva02", "beit", "resnet", "convnext", "swin")),
]
COMPILED = [(DEEP, "vit"), (DEEP, "dinov3"), (DEEP, "beit"), (SHALLOW, "dinov3-cls"), ("full", "resnet")]


@pytest.mark.parametrize(("method", "family"), CASES, ids=lambda value: value)
@pytest.mark.parametrize("check", [c for c in CHECKS if c is not check_compile], ids=lambda check: check.__name__)
def test_contract(check: Check, method: str, family: str) -> None:
    check(method, backbone_of(family))


@pytest.mark.parametrize(("method", "family"), COMPILED, ids=lambda value: value)
def test_compile(method: str, family: str) -> None:  # takes a second each, so not on every family
    check_compile(method, backbone_of(family))


def test_backbone_in_any_state_comes_back_in_it() -> None:
    backbone = backbone_of("resnet")
    backbone.module.train()
    backbone.module.layer2.eval()
    next(backbone.module.parameters()).requires_grad_(False)
    for check in CHECKS:
        if check.__name__ in ("check_frozen", "check_detach"):
            check("linear", backbone)
            check("full", backbone)


class _Mean(Linear):
    """A method of someone else's: linear under another name."""

    name = "mean"


class _Leaks(Linear):
    """A faulty one: it trains the very weights of the shared backbone."""

    name = "leaks"

    def plan(self, trunk, sites: Sites) -> Plan:
        trunk.norm.weight.requires_grad_(True)
        return super().plan(trunk, sites)


class _Silent(Linear):
    """A faulty one: it hangs where the model never passes."""

    name = "silent"

    def plan(self, trunk, sites: Sites) -> Plan:
        return Plan(wraps={"pos_drop.unused": lambda module: module})


def test_contract_is_open_to_other_methods(monkeypatch) -> None:
    monkeypatch.setitem(METHODS, "mean", _Mean)
    check_method(_Mean(), backbone_of("vit"))


def test_contract_finds_faults() -> None:
    from vpt.testing import check_frozen, check_only_owned_trains

    with pytest.raises(AssertionError, match="norm.weight.requires_grad is True"):
        check_only_owned_trains(_Leaks(), backbone_of("vit"))
    with pytest.raises(AssertionError, match="changed the backbone's weights"):
        check_frozen(_Leaks(), backbone_of("vit"))


def test_what_is_never_called_is_refused() -> None:
    backbone = backbone_of("vit")
    backbone.module.pos_drop.add_module("unused", type(backbone.module.pos_drop)())
    with pytest.raises(FitError, match=r"hangs at pos_drop\.unused .* never calls .* methods that fit: vpt, linear, full"):
        attach(backbone, _Silent(), 3)


@pytest.mark.parametrize("family", [name for name, family in FAMILIES.items() if not family.prompts])
def test_prompts_are_refused_where_no_blocks_are_known(family: str) -> None:
    with pytest.raises(FitError, match="methods that fit: linear, full"):
        attach(backbone_of(family), DEEP, 3)


def test_prompts_are_refused_where_blocks_tie_tokens_to_places_in_an_unknown_way() -> None:
    import timm
    from families import TINY

    model = timm.create_model("eva02_tiny_patch14_224", num_classes=0, use_post_norm=True, **TINY)
    with pytest.raises(FitError, match="EvaBlockPostNorm ties every token to a place"):
        attach(model, DEEP, 3)


@pytest.mark.parametrize("kind", [Linear, Full])
def test_methods_are_objects_too(kind: type[Method]) -> None:
    assert attach(backbone_of("vit"), kind(), 3).method == kind()
