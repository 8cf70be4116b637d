"""Methods on the families they claim keep the whole contract."""

from __future__ import annotations

import pytest
import timm

from families import FAMILIES, TINY, backbone_of
from vpt import METHODS, Full, Linear, Method, Plan, attach
from vpt.backbone.sites import Sites
from vpt.errors import FitError
from vpt.testing import CHECKS, Check, check_compile, check_detach, check_frozen, check_method, check_only_owned_trains

DEEP, SHALLOW = "vpt(length=3)", "vpt(length=3, depth=shallow)"
# One family for each thing that differs: attention, place of tokens, pooling. test_exact has every family.
CASES = [
    *((DEEP, family) for family in ("vit", "vit-distilled", "vit-parallel", "dinov2-reg", "dinov3", "eva02-unfused")),
    *((DEEP, family) for family in ("rope-mixed", "beit", "beit-shared", "siglip")),
    *((SHALLOW, family) for family in ("vit", "dinov3-cls", "beit", "siglip")),
    ("vpt(length=3, form=textbook)", "dinov3"),
    *(("linear", family) for family in ("vit", "convnext")),
    *(("full", family) for family in ("vit", "eva02", "resnet", "swin")),
]
COMPILED = [(DEEP, "dinov3"), (DEEP, "beit"), (SHALLOW, "vit")]


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
    for check in (check_frozen, check_detach):
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
    with pytest.raises(AssertionError, match=r"norm\.weight\.requires_grad is True"):
        check_only_owned_trains(_Leaks(), backbone_of("vit"))
    with pytest.raises(AssertionError, match="changed the backbone's weights"):
        check_frozen(_Leaks(), backbone_of("vit"))


def test_what_is_never_called_is_refused() -> None:
    backbone = backbone_of("vit")
    backbone.module.pos_drop.add_module("unused", type(backbone.module.pos_drop)())
    with pytest.raises(
        FitError, match=r"hangs at pos_drop\.unused .* never calls .* methods that fit: vpt, linear, full"
    ):
        attach(backbone, _Silent(), 3)


@pytest.mark.parametrize("family", [name for name, family in FAMILIES.items() if not family.prompts])
def test_prompts_are_refused_where_no_blocks_are_known(family: str) -> None:
    with pytest.raises(FitError, match="methods that fit: linear, full"):
        attach(backbone_of(family), DEEP, 3)


def test_prompts_are_refused_where_blocks_tie_tokens_to_places_in_an_unknown_way() -> None:

    model = timm.create_model("eva02_tiny_patch14_224", num_classes=0, use_post_norm=True, **TINY)
    with pytest.raises(FitError, match="EvaBlockPostNorm ties every token to a place"):
        attach(model, DEEP, 3)


@pytest.mark.parametrize("kind", [Linear, Full])
def test_methods_are_objects_too(kind: type[Method]) -> None:
    assert attach(backbone_of("vit"), kind(), 3).method == kind()
