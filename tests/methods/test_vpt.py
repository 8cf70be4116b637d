"""Both forms of VPT compute what the paper writes down.

The reference is written here anew, from the paper alone: concatenate [CLS, P, E], run timm's own block, discard.
It shares no line with vpt's wrappers, and never sees an attention from inside, but for telling it that prompts have
no place in the image.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from helpers.families import FAMILIES, PROMPTED, backbone_of, images, model_of
from vpt import VPT, TunedModel, attach

P = 3
LABELS = torch.tensor([0, 1, 2, 1])


class Reference(nn.Module):
    """Textbook VPT on a timm model without classifier, by hooks on its blocks."""

    def __init__(
        self, model: Any, prompts: list[nn.Parameter], head: nn.Linear, masks: list[Tensor] | None = None
    ) -> None:
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        self.prompts = nn.ParameterList(prompt.detach().clone() for prompt in prompts)
        self.head = nn.Linear(head.in_features, head.out_features)
        self.head.load_state_dict(head.state_dict())
        self.masks = masks
        self.prefix = int(model.num_prefix_tokens)
        blocks = list(model.blocks)
        deep = len(prompts) > 1
        for index, block in enumerate(blocks):
            if deep or index == 0:
                block.register_forward_pre_hook(self._concatenate(index), with_kwargs=True)
            if deep or index == len(blocks) - 1:
                block.register_forward_hook(self._discard)
            block.register_forward_pre_hook(self._widen_shared_bias, with_kwargs=True)
            attention = getattr(block, "attn", None)
            if hasattr(attention, "num_prefix_tokens"):  # rotary positions begin behind the prefix
                attention.num_prefix_tokens += P
            if getattr(attention, "relative_position_bias_table", None) is not None:
                attention._get_rel_pos_bias = self._widened(attention._get_rel_pos_bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.model.forward_head(self.model.forward_features(x), pre_logits=True))

    def _concatenate(self, index: int) -> Any:
        def hook(block: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Any]) -> Any:
            x = args[0]
            prompts = self.prompts[index].expand(len(x), -1, -1)
            if self.masks is not None:
                prompts = prompts * self.masks[index]
            return (torch.cat([x[:, : self.prefix], prompts, x[:, self.prefix :]], dim=1), *args[1:]), kwargs

        return hook

    def _discard(self, block: nn.Module, args: Any, x: Tensor) -> Tensor:
        return torch.cat([x[:, : self.prefix], x[:, self.prefix + P :]], dim=1)

    def _widen_shared_bias(self, block: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        if kwargs.get("shared_rel_pos_bias") is not None:
            kwargs["shared_rel_pos_bias"] = self._wide(kwargs["shared_rel_pos_bias"])
        return args, kwargs

    def _widened(self, bias: Any) -> Any:
        return lambda: self._wide(bias())

    def _wide(self, bias: Tensor) -> Tensor:
        """The same bias between image tokens, zero to and from prompts."""
        n = bias.shape[-1]
        image = torch.tensor([i if i < self.prefix else i + P for i in range(n)])
        wide = bias.new_zeros(*bias.shape[:-2], n + P, n + P)
        wide[..., image[:, None], image] = bias
        return wide


class FixedMask(nn.Dropout):
    """Dropout whose mask is known."""

    def __init__(self, mask: Tensor) -> None:
        super().__init__(0.5)
        self.mask = mask

    def forward(self, x: Tensor) -> Tensor:
        return x * self.mask


def tuned(family: str, **options: Any) -> TunedModel:
    torch.manual_seed(0)
    model = attach(backbone_of(family), VPT(length=P, **options), 3).eval()
    with torch.no_grad():  # as large as tokens are, or prompts would hardly matter
        for weight in model.trainable_parameters():
            weight.normal_()
    return model


def prompts_of(model: TunedModel) -> list[nn.Parameter]:
    return [weight for name, weight in model.trainable_state_dict().items() if name.startswith("prompts.")]


def assert_equal(actual: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    assert actual.shape == expected.shape
    assert float((actual - expected).norm() / expected.norm()) < tolerance


def compare(model: TunedModel, reference: Reference) -> None:
    results = []
    for network, prompts in ((model, prompts_of(model)), (reference, list(reference.prompts))):
        logits = network(images())
        loss = cross_entropy(logits, LABELS)
        gradients = torch.autograd.grad(loss, [*prompts, network.head.weight, network.head.bias])
        results.append([logits.detach(), loss.detach(), *gradients])
    assert len(results[0]) == len(results[1])
    for actual, expected in zip(*results, strict=True):
        assert_equal(actual, expected)


@pytest.mark.parametrize("impl", ["kv", "concat"])
@pytest.mark.parametrize("depth", ["deep", "shallow"])
@pytest.mark.parametrize("family", PROMPTED)
def test_vpt_of_each_depth_and_impl_equals_reference(family: str, depth: str, impl: str) -> None:
    model = tuned(family, depth=depth, impl=impl, dropout=0.0)
    assert len(prompts_of(model)) == (3 if depth == "deep" else 1)
    compare(model.train(), Reference(model_of(family), prompts_of(model), model.head))


@pytest.mark.parametrize("depth", ["deep", "shallow"])
@pytest.mark.parametrize("family", PROMPTED)
def test_vpt_with_fixed_dropout_mask_equals_reference(family: str, depth: str) -> None:
    model = tuned(family, depth=depth, dropout=0.5).train()
    masks = [(torch.rand(len(LABELS), P, 32) < 0.5) * 2.0 for _ in prompts_of(model)]
    for own, mask in zip(model.added_modules["prompts"], masks, strict=True):
        own.dropout = FixedMask(mask)
    compare(model, Reference(model_of(family), prompts_of(model), model.head, masks))


@pytest.mark.parametrize("family", PROMPTED)
def test_vpt_backward_gives_the_backbone_no_gradient(family: str) -> None:
    model = tuned(family)
    model.train()
    cross_entropy(model(images()), LABELS).backward()
    trainable = {id(weight) for weight in model.trainable_parameters()}
    assert all((weight.grad is not None) == (id(weight) in trainable) for weight in model.parameters())
    assert all(weight.grad is None for weight in model.backbone.module.parameters())


def test_prompt_dropout_differs_per_sample_in_training_only() -> None:
    model = tuned("vit", dropout=0.5)
    twice = images(1).expand(2, -1, -1, -1)
    with torch.no_grad():
        first, second = model.train()(twice)
        assert not torch.equal(first, second)
        # The same batch twice: two rows of one batch may differ by rounding, whatever BLAS does with them.
        assert torch.equal(model.eval()(twice), model(twice))
        assert torch.allclose(*model(twice), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_linear_features_equal_timm_pre_logits(family: str) -> None:
    backbone = backbone_of(family)
    model = attach(backbone, "linear", 3)
    timms: Any = backbone.module
    with torch.no_grad():
        assert_equal(model.features(images()), timms.forward_head(timms.forward_features(images()), pre_logits=True))


@pytest.mark.parametrize("family", PROMPTED)
def test_last_block_computes_only_cls_where_the_head_reads_only_cls(family: str) -> None:
    model = attach(backbone_of(family), "linear", 3)
    assert model.layout.supports_kv_prompts == FAMILIES[family].supports_kv_prompts
    assert model.layout.cls_only == FAMILIES[family].cls
    tokens: list[int] = []
    model.trunk.blocks[-1].register_forward_hook(lambda block, args, out: tokens.append(out.shape[1]))
    model(images(1))
    assert (tokens == [1]) == FAMILIES[family].cls


@pytest.mark.parametrize("family", ["vit", "dinov3", "beit"])
def test_kv_impl_sends_no_prompts_through_the_mlp(family: str) -> None:
    lengths: dict[str, set[int]] = {}
    for impl in ("kv", "concat"):
        model = tuned(family, impl=impl)
        mlps = [module for name, module in model.trunk.named_modules() if name.endswith("mlp")][:-1]
        assert len(mlps) == 2
        seen = lengths.setdefault(impl, set())
        for mlp in mlps:
            mlp.register_forward_pre_hook(lambda mlp, args, seen=seen: seen.add(args[0].shape[1]))
        model(images(1))
    (kv,), (concat,) = lengths["kv"], lengths["concat"]
    assert concat == kv + P


def test_prompts_at_init_lie_in_the_range_of_the_paper() -> None:
    torch.manual_seed(0)
    model = attach(backbone_of("vit"), VPT(length=50), 3)
    bound = (6 / (3 * 8**2 + 32)) ** 0.5
    for prompts in prompts_of(model):
        assert bound * 0.98 < float(prompts.detach().abs().max()) <= bound
        assert abs(float(prompts.detach().mean())) < 0.05 * bound
