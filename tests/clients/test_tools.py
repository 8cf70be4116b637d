"""Tools that take models apart, or train them, find in ours what they find in a plain PyTorch model."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from captum.attr import IntegratedGradients, LayerGradCam
from safetensors.torch import load_file, load_model, save_file, save_model
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from skorch import NeuralNetClassifier
from timm.utils import ModelEmaV3
from torch import Tensor
from torchao.quantization import Int8WeightOnlyConfig, quantize_

from vpt import TunedModel, attach, load_backbone

SIZE, CLASSES = 48, 3
SKORCH_OPTIONS: dict[str, Any] = {
    "criterion": torch.nn.CrossEntropyLoss, "max_epochs": 2, "batch_size": -1, "train_split": None, "verbose": 0,
}  # fmt: skip


def make_model(method: str = "vpt(length=4, dropout=0)") -> TunedModel:
    torch.manual_seed(0)
    model = attach(load_backbone("vit_nano_patch12_48"), method, CLASSES)
    with torch.no_grad():
        for weight in model.trainable_parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return model


def data(count: int = 12) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, SIZE, SIZE, generator=generator), torch.arange(count) % CLASSES


def trained(model: TunedModel) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in model.named_parameters() if weight.requires_grad}


def train_plainly(model: Any, rate: float, epochs: int, images: Tensor, labels: Tensor) -> None:
    optimizer = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=rate)
    for _ in range(epochs):
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()


def test_captum_on_the_plain_form_equals_gradients_by_hand() -> None:
    model, (images, labels) = make_model().eval(), data(2)
    plain = model.plain()
    attributions = IntegratedGradients(plain).attribute(images, target=labels, n_steps=8, method="riemann_middle")
    by_hand = torch.zeros_like(images)
    for step in range(8):
        inputs = (images * (step + 0.5) / 8).requires_grad_()
        chosen = model(inputs).gather(1, labels[:, None]).sum()
        by_hand += torch.autograd.grad(chosen, inputs)[0] / 8
    torch.testing.assert_close(attributions, (images * by_hand).to(attributions.dtype), rtol=1e-3, atol=1e-5)


def test_grad_cam_of_the_last_block_equals_gradients_by_hand() -> None:
    model, (images, labels) = make_model().eval(), data(2)
    plain = model.plain()
    layer = plain.network.trunk.blocks[-1].norm1
    maps = LayerGradCam(plain, layer).attribute(images, target=labels)
    outputs: list[Tensor] = []
    with layer.register_forward_hook(lambda module, args, out: outputs.append(out.requires_grad_())):
        chosen = plain(images.requires_grad_()).gather(1, labels[:, None]).sum()
    (gradient,) = torch.autograd.grad(chosen, outputs)
    assert outputs[0].shape[1] == 1 + (SIZE // 12) ** 2  # every token, not the class token alone
    expected = (gradient.mean(2, keepdim=True) * outputs[0]).sum(1, keepdim=True)
    torch.testing.assert_close(maps, expected.detach(), rtol=1e-4, atol=1e-6)


@torch.no_grad()
def test_quantized_plain_form_equals_one_with_rounded_weights() -> None:
    model, (images, _) = make_model().eval(), data()
    quantized, rounded = model.plain(), model.plain()
    quantize_(quantized, Int8WeightOnlyConfig())
    layers = [path for path, module in rounded.named_modules() if isinstance(module, torch.nn.Linear)]
    for path in layers:
        rounded.get_submodule(path).weight.copy_(quantized.get_submodule(path).weight.dequantize())
    expected, found = model(images), quantized(images)
    torch.testing.assert_close(found, rounded(images), rtol=1e-4, atol=1e-5)
    assert not torch.equal(found, expected)
    assert (found - expected).abs().max() < 0.05 * expected.abs().max()


def test_dynamically_quantized_plain_form_answers_nearly_alike() -> None:
    model, (images, _) = make_model().eval(), data()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torchao follows torch.ao; others still call it
        quantized = torch.ao.quantization.quantize_dynamic(model.plain(), {torch.nn.Linear}, torch.qint8)
    with torch.no_grad():
        expected, found = model(images), quantized(images)
    assert not torch.equal(found, expected)
    assert (found - expected).abs().max() < 0.1 * expected.abs().max()


def test_average_of_timm_equals_the_formula() -> None:
    model = make_model()
    average = ModelEmaV3(model, decay=0.9)
    expected = trained(model)
    for _ in range(3):
        train_plainly(model, 0.1, 1, *data())
        average.update(model)
        expected = {name: 0.9 * expected[name] + 0.1 * weight for name, weight in trained(model).items()}
    for name, weight in trained(average.module).items():
        torch.testing.assert_close(weight, expected[name], rtol=1e-5, atol=1e-6)


def test_skorch_trains_as_a_plain_loop() -> None:
    images, labels = data()
    net = NeuralNetClassifier(make_model(), lr=0.1, **SKORCH_OPTIONS)
    net.fit(images.numpy(), labels.numpy())
    plain = make_model()
    train_plainly(plain, 0.1, 2, images, labels)
    for name, weight in trained(net.module_).items():
        torch.testing.assert_close(weight, trained(plain)[name], rtol=1e-4, atol=1e-5)


def test_grid_search_of_scikit_learn_scores_as_plain_loops() -> None:
    (images, labels), rates, folds = data(), [1e-6, 0.2], StratifiedKFold(2)

    def loss_of(net: Any, images: Any, labels: Any) -> float:  # that of scikit-learn clips probabilities
        return float(F.cross_entropy(net.forward(images), torch.from_numpy(labels)))

    net = NeuralNetClassifier(make_model(), **SKORCH_OPTIONS)
    search = GridSearchCV(net, {"lr": rates}, cv=folds, scoring=loss_of).fit(images.numpy(), labels.numpy())
    for index, rate in enumerate(rates):
        for fold, (train, test) in enumerate(folds.split(images, labels)):
            plain = make_model()
            train_plainly(plain, rate, 2, images[train], labels[train])
            with torch.no_grad():
                loss = F.cross_entropy(plain.eval()(images[test]), labels[test])
            assert search.cv_results_[f"split{fold}_test_score"][index] == pytest.approx(float(loss), rel=1e-5)


def test_compiled_model_trains_as_the_model() -> None:
    images, labels = data()
    model, plain = make_model(), make_model()
    train_plainly(torch.compile(model, backend="aot_eager"), 0.1, 2, images, labels)
    train_plainly(plain, 0.1, 2, images, labels)
    for name, weight in trained(model).items():
        torch.testing.assert_close(weight, trained(plain)[name], rtol=1e-4, atol=1e-6)


def test_safetensors_saves_and_loads_the_whole_model(tmp_path) -> None:
    model, (images, _) = make_model().eval(), data(2)
    save_file(model.state_dict(), tmp_path / "state.safetensors")  # which refuses a tensor of two names
    stored = load_file(tmp_path / "state.safetensors")
    assert all(torch.equal(stored[name], weight) for name, weight in model.named_parameters())
    save_model(model, str(tmp_path / "whole.safetensors"))
    again = make_model().eval()
    with torch.no_grad():
        for weight in again.trainable_parameters():
            weight.zero_()
    load_model(again, str(tmp_path / "whole.safetensors"))
    assert torch.equal(again(images), model(images))


def test_deep_copy_after_functional_calls_is_whole() -> None:
    from torch.func import functional_call

    model, (images, _) = make_model().eval(), data(2)
    expected = model(images)
    functional_call(model, {name: weight + 1 for name, weight in trained(model).items()}, (images,))
    assert torch.equal(copy.deepcopy(model)(images), expected)
