"""The compiled kernels of ELU against torch in float32, bit for bit."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from dualfid_robot.policies import activations
from dualfid_robot.policies.activations import activation_backward_, affine


@pytest.fixture(params=["compiled", "torch"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "torch":
        monkeypatch.setattr(activations, "compiled_kernels", lambda: None)
    elif activations.compiled_kernels() is None:
        pytest.skip("Numba is not installed")
    return str(request.param)


@pytest.mark.parametrize("columns", [1, 64, 250])
def test_affine_and_elu_in_bfloat16(kind: str, columns: int) -> None:
    generator = torch.Generator().manual_seed(columns)
    x, weight = (torch.randn(n, 60, generator=generator).bfloat16() for n in (300, columns))
    bias = torch.randn(columns, generator=generator).bfloat16()
    y = affine(x, weight, bias, "elu", torch.empty(300, columns, dtype=torch.bfloat16))
    exact = nn.functional.elu(x.double() @ weight.double().t() + bias.double())
    # before ELU a rounding of the product and one of the sum, each 2^-9 of its size, and one behind
    size = (x.double().abs() @ weight.double().abs().t() + bias.double().abs()).sqrt() + exact.abs() + 1.0
    assert ((y.double() - exact).abs() <= 3 * 2.0**-8 * size).all()


def test_compiled_elu_to_the_bit(kind: str) -> None:
    """Every bfloat16, in both directions."""
    if kind == "torch":
        pytest.skip("it rounds differently")
    kernels = activations.compiled_kernels()
    assert kernels is not None
    every = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(torch.bfloat16).view(256, 256)
    every = torch.where(every.isnan(), torch.tensor(math.nan, dtype=torch.bfloat16), every)
    y, bias = every.clone(), torch.zeros(256)
    kernels.add_bias_and_elu(y.view(torch.int16).numpy(), bias.numpy())
    expected = nn.functional.elu(every.float()).bfloat16()
    assert torch.equal(y.isnan(), every.isnan()) and torch.equal(y.nan_to_num(), expected.nan_to_num())


@pytest.mark.parametrize("activation", ["elu", "tanh", "relu", "identity"])
def test_backward_against_autograd(kind: str, activation: str) -> None:
    x = torch.randn(200, 30, generator=torch.Generator().manual_seed(0))
    grad = torch.randn(200, 30, generator=torch.Generator().manual_seed(1)).bfloat16()
    y = (x if activation == "identity" else getattr(nn.functional, activation)(x)).bfloat16()
    wide = y.float()
    slope = {
        "elu": torch.where(wide < 0.0, wide + 1.0, 1.0),
        "tanh": 1.0 - wide.square(),
        "relu": (wide > 0.0).float(),
        "identity": torch.ones_like(wide),
    }[activation]
    expected, sums = grad.float() * slope, torch.empty(30)
    activation_backward_(grad, y, activation, sums)
    torch.testing.assert_close(grad.float(), expected, rtol=2.0**-8, atol=0.0)
    # torch rounds the sums to bfloat16 too
    assert ((sums - expected.sum(0)).abs() <= 2.0**-8 * expected.abs().sum(0)).all()
