"""The dual linear layer against autograd on the written-out expression, numerical derivatives and PEFT's LoRA."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from dualfid_robot.errors import ConfigError
from dualfid_robot.policies.activations import ACTIVATIONS, elu_
from dualfid_robot.policies.dual_linear import DualLinear

REFERENCE = {"elu": nn.functional.elu, "tanh": torch.tanh, "relu": torch.relu, "identity": lambda y: y}


def trained_layer(in_features: int, out_features: int, rank: int, activation: str, seed: int = 0) -> DualLinear:
    """A float64 layer whose adapter is not zero any more."""
    generator = torch.Generator().manual_seed(seed)
    layer = DualLinear(in_features, out_features, rank, alpha=3.0, activation=activation, generator=generator).double()
    with torch.no_grad():
        for p in (layer.bias, layer.bias_delta, layer.lora_b):
            p.normal_(generator=generator)
    return layer


def reference(layer: DualLinear, x: Tensor, n_low: int) -> Tensor:
    adapter = layer.lora_b if layer.lora_a is None else layer.scaling * layer.lora_b @ layer.lora_a
    low = x[:n_low] @ layer.weight.T + layer.bias
    high = x[n_low:] @ (layer.weight + adapter).T + layer.bias + layer.bias_delta
    return REFERENCE[layer.activation](torch.cat((low, high)))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("n_low", [0, 2, 5])
@pytest.mark.parametrize("rank", [2, 4])  # with 4 outputs, rank 4 means a full-rank adapter
def test_gradients_against_numerical_derivatives(activation: str, n_low: int, rank: int) -> None:
    layer = trained_layer(3, 4, rank, activation)
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    names = [name for name, _ in layer.named_parameters()]

    def run(x: Tensor, *parameters: Tensor) -> Tensor:
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x, n_low))

    assert torch.autograd.gradcheck(run, (x, *layer.parameters()))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("n_low", [0, 1, 60, 100])
@pytest.mark.parametrize("out_features", [6, 40])
def test_outputs_and_gradients_against_autograd(activation: str, n_low: int, out_features: int) -> None:
    layer = trained_layer(30, out_features, 6, activation)
    x = torch.randn(100, 30, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(100, out_features, dtype=torch.float64)
    inputs = [x, *layer.parameters()]
    ours, expected = layer(x, n_low), reference(layer, x, n_low)
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)
    got = torch.autograd.grad((ours * weights).sum(), inputs, allow_unused=True)
    want = torch.autograd.grad((expected * weights).sum(), inputs, allow_unused=True, materialize_grads=True)
    for ours_grad, wanted in zip(got, want, strict=True):
        torch.testing.assert_close(
            torch.zeros_like(wanted) if ours_grad is None else ours_grad, wanted, rtol=1e-10, atol=1e-10
        )


def test_high_rows_equal_peft_lora() -> None:
    """PEFT's own LoRA on an nn.Linear with the same weights and scaling: outputs and all gradients."""
    peft = pytest.importorskip("peft")
    layer = trained_layer(12, 20, 4, "identity")
    assert layer.lora_a is not None
    with torch.no_grad():
        layer.bias_delta.zero_()  # PEFT's LoRA does not adapt biases
    config = peft.LoraConfig(r=4, lora_alpha=3.0, target_modules=["0"], use_rslora=True, bias="all")
    model = peft.get_peft_model(nn.Sequential(nn.Linear(12, 20)).double(), config)
    lora = model.base_model.model[0]
    with torch.no_grad():
        lora.base_layer.weight.copy_(layer.weight)
        lora.base_layer.bias.copy_(layer.bias)
        lora.lora_A["default"].weight.copy_(layer.lora_a)
        lora.lora_B["default"].weight.copy_(layer.lora_b)
    lora.base_layer.weight.requires_grad_(True)
    theirs = [
        lora.base_layer.weight,
        lora.base_layer.bias,
        lora.lora_A["default"].weight,
        lora.lora_B["default"].weight,
    ]
    for p in theirs:
        p.data = p.data.double()
    assert lora.scaling["default"] == pytest.approx(layer.scaling)

    x, g = torch.randn(50, 12, dtype=torch.float64), torch.randn(50, 20, dtype=torch.float64)
    y_ours, y_theirs = layer(x, 0), model(x)
    torch.testing.assert_close(y_ours, y_theirs)
    ours = torch.autograd.grad((y_ours * g).sum(), [layer.weight, layer.bias, layer.lora_a, layer.lora_b])
    for a, b in zip(ours, torch.autograd.grad((y_theirs * g).sum(), theirs), strict=True):
        torch.testing.assert_close(a, b)


def test_both_policies_start_equal_to_the_bit() -> None:
    layer = DualLinear(60, 256, 8, 8.0, "elu")
    x = torch.randn(500, 60)
    for dtype in (torch.float32, torch.bfloat16):
        assert torch.equal(layer(x, 500, dtype), layer(x, 0, dtype))


def test_low_rows_have_no_gradient_on_the_adapter() -> None:
    layer = trained_layer(7, 20, 3, "elu").float()
    x = torch.randn(30, 7)
    layer(x, 12)[:12].square().sum().backward()  # a loss on the low rows of a mixed batch
    for p in (layer.lora_a, layer.lora_b, layer.bias_delta):
        assert p is not None and p.grad is not None and not p.grad.any()
    assert layer.weight.grad is not None and layer.weight.grad.any()
    layer.zero_grad()
    layer(x, 30).sum().backward()  # a batch of low rows only
    assert layer.lora_a is not None
    assert layer.lora_a.grad is layer.lora_b.grad is layer.bias_delta.grad is None


def test_rank_stabilised_scale_keeps_the_adapters_size() -> None:
    """With random factors, the root mean square of s·B·A does not depend on the rank."""
    sizes = []
    for rank in (2, 8, 32):
        layer = DualLinear(200, 300, rank, alpha=8.0, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            layer.lora_b.normal_()
        merged = layer.merged()
        sizes.append((merged.weight_high - merged.weight_low).square().mean().sqrt().item())
    assert max(sizes) < 1.1 * min(sizes)


def test_bfloat16_products_with_float32_gradients() -> None:
    layer = trained_layer(60, 128, 8, "elu").float()
    x = torch.randn(400, 60, requires_grad=True)
    weights = torch.randn(400, 128)
    exact = torch.autograd.grad((layer(x, 150) * weights).sum(), [x, *layer.parameters()])
    y = layer(x, 150, torch.bfloat16)
    assert y.dtype == torch.bfloat16
    narrow = torch.autograd.grad((y * weights.bfloat16()).sum(), [x, *layer.parameters()])
    for a, b in zip(narrow, exact, strict=True):
        assert a.dtype == torch.float32
        assert ((a - b).norm() / b.norm()).item() < 0.02  # a few roundings of 2^-9 each


def test_elu_against_aten() -> None:
    y = torch.cat((torch.linspace(-100.0, 100.0, 4001), torch.linspace(-1e-3, 1e-3, 2001), torch.tensor([math.inf])))
    for dtype, tolerance in ((torch.float32, 1.2e-7), (torch.float64, 2.3e-16)):
        ours, theirs = elu_(y.to(dtype, copy=True)), nn.functional.elu(y.to(dtype))
        torch.testing.assert_close(ours, theirs, rtol=0.0, atol=tolerance)
    assert torch.isnan(elu_(torch.tensor([math.nan]))).all()


def test_bad_settings_are_named() -> None:
    with pytest.raises(ConfigError, match="'gelu': must be one of elu, tanh, relu, identity"):
        DualLinear(2, 3, 1, 1.0, "gelu")
    with pytest.raises(ConfigError, match="rank = 0"):
        DualLinear(2, 3, 0, 1.0)
