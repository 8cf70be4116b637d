"""The parameter counts the paper gives (README of the paper's restatement, "Counts to reproduce exactly")."""

from __future__ import annotations

import pytest

from vpt import Backbone, TunedModel, attach
from vpt.backbones import load_backbone


@pytest.fixture(scope="module")
def vit_b() -> Backbone:
    return load_backbone("vit_base_patch16_224", device="meta")


def prompts(model: TunedModel) -> int:
    return sum(weight.numel() for name, weight in model.trainable_state_dict().items() if name.startswith("prompts."))


def test_vit_b_without_head_has_the_parameter_count_of_the_paper(vit_b):
    assert sum(weight.numel() for weight in vit_b.module.parameters()) == 85_798_656


def test_counts_of_100_deep_prompts_equal_the_paper(vit_b):
    counts = attach(vit_b, "vpt(length=100)", 6).counts()
    assert (counts.total, counts.trainable) == (86_724_870, 926_214)
    assert counts.fraction == pytest.approx(0.01068, abs=1e-5)


@pytest.mark.parametrize(("depth", "expected"), [("deep", 460_800), ("shallow", 38_400)])
def test_counts_of_50_prompts_equal_the_paper(vit_b, depth, expected):
    model = attach(vit_b, f"vpt(length=50, depth={depth})", 10)
    assert prompts(model) == expected
    assert model.counts().trainable == expected + 10 * 768 + 10


def test_counts_of_kv_and_concat_prompts_are_equal(vit_b):
    exact, textbook = (attach(vit_b, f"vpt(impl={impl})", 6) for impl in ("kv", "concat"))
    assert exact.counts() == textbook.counts()
    assert list(exact.trainable_state_dict()) == list(textbook.trainable_state_dict())


def test_counts_of_linear_and_full_equal_the_paper(vit_b):
    head = 6 * 768 + 6
    assert attach(vit_b, "linear", 6).counts().trainable == head
    full = attach(vit_b, "full", 6).counts()
    assert full.trainable == full.total == 85_798_656 + head


def test_load_backbone_on_meta_device_holds_no_memory(vit_b):
    assert all(weight.is_meta for weight in vit_b.module.parameters())
    assert vit_b.preprocessing.size == 224


@pytest.mark.parametrize(("k", "expected"), [(1, 7_089_408), (2, 14_177_280), (4, 28_353_024)])
def test_counts_of_partial_equal_the_paper(vit_b, k, expected):
    assert attach(vit_b, f"partial(k={k})", 10).counts().trainable - (10 * 768 + 10) == expected


@pytest.mark.parametrize(("method", "expected"), [("bias", 102_912), ("adapter(reduction=8)", 1_779_840)])
def test_counts_of_bias_and_adapter_equal_the_paper(vit_b, method, expected):
    assert attach(vit_b, method, 10).counts().trainable - (10 * 768 + 10) == expected


def test_counts_on_swin_b_equal_the_paper():
    swin_b = load_backbone("swin_base_patch4_window7_224", device="meta")
    head = 10 * 1024 + 10
    assert sum(weight.numel() for weight in swin_b.module.parameters()) == 86_743_224
    tables, plain = (
        attach(swin_b, f"bias(rel_pos_bias={tables})", 10).counts().trainable - head for tables in ("true", "false")
    )
    assert (tables, tables - plain) == (200_760, 63_544)
    widths = 2 * 128 + 2 * 256 + 18 * 512 + 2 * 1024
    assert prompts(attach(swin_b, "vpt(length=50)", 10)) == 50 * widths
    assert prompts(attach(swin_b, "vpt(length=50, depth=shallow)", 10)) == 50 * 128


@pytest.mark.parametrize("name", ["convnext_base", "resnet50"])
def test_counts_of_padding_prompts_equal_the_added_pixels(name):
    network = load_backbone(name, device="meta")
    linear = attach(network, "linear", 10).counts().trainable
    counts = [
        attach(network, f"vpt(length={p}, location=pad, depth=shallow)", 10).counts().trainable for p in (1, 5, 11)
    ]
    assert [count - linear for count in counts] == [3 * ((224 + 2 * p) ** 2 - 224**2) for p in (1, 5, 11)]
    assert counts[1] - linear == 13_740


# Classes of the 24 tasks of the paper's table 1 (VTAB-1k in its order, then FGVC), and the prompt lengths it chose.
CLASSES = (100, 102, 47, 102, 37, 10, 397, 2, 10, 45, 5, 8, 6, 6, 4, 16, 16, 18, 9, 200, 555, 102, 120, 196)
DEEP = (10, 10, 10, 1, 1, 50, 5, 100, 100, 10, 1, 50, 200, 100, 50, 10, 50, 200, 200, 10, 50, 5, 100, 200)
SHALLOW = (100, 5, 1, 200, 50, 200, 1, 5, 50, 50, 10, 100, 200, 100, 100, 100, 100, 200, 200, 100, 50, 100, 100, 100)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("full", 24.02),
        ("linear", 1.02),
        ("partial(k=1)", 3.00),
        ("mlp(layers=3)", 1.35),
        ("sidetune", 3.69),
        ("bias", 1.05),
        ("vpt(depth=shallow, length={shallow})", 1.04),
        ("vpt(length={deep})", 1.18),
    ],
)
def test_counts_of_24_tasks_equal_the_total_parameters_of_the_paper(vit_b, method, expected):
    encoder = 85_798_656
    if method == "full":  # a backbone for each task, and none that is shared
        encoder = 0
    # What a task owns grows by one row of its head with each class, so few models tell it for all 24.
    tasks = list(zip(CLASSES, DEEP, SHALLOW, strict=True))
    trainable: dict[str, int] = {}

    def trained(text: str, classes: int) -> int:
        key = f"{text} {classes}"
        if key not in trainable:
            trainable[key] = attach(vit_b, text, classes).counts().trainable
        return trainable[key]

    total = 0
    for classes, deep, shallow in tasks:
        text = method.format(deep=deep, shallow=shallow)
        total += trained(text, 2) + (classes - 2) * (
            trained(method.format(deep=1, shallow=1), 3) - trained(method.format(deep=1, shallow=1), 2)
        )
    assert round((encoder + total) / 85_798_656, 2) == expected
