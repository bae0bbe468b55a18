"""Every routine behind `cpu.linear` gives the correctly rounded product, whichever machine runs the test."""

import pytest
import torch

from gpt_oss import native
from gpt_oss.torch import cpu

# Whether torch multiplies BF16 fast, and whether there are native kernels.
ROUTES = {"torch": (True, False), "both": (True, True), "native": (False, True), "widened": (False, False)}


@pytest.fixture(params=ROUTES)
def route(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    multiplies, with_native = ROUTES[request.param]
    if with_native and native.load() is None:
        pytest.skip("the native kernels are not built: make native")
    monkeypatch.setattr(cpu, "multiplies_bf16", lambda: multiplies)
    if not with_native:
        monkeypatch.setattr(native, "load", lambda: None)
    return str(request.param)


@pytest.mark.parametrize("rows", [1, 2, 15, 16, 17, 31, 128, 129])
@pytest.mark.parametrize(("k", "n"), [(64, 1), (96, 37), (33, 5), (2880, 65)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_products_are_rounded_once_per_sum(route: str, rows: int, k: int, n: int, with_bias: bool) -> None:
    x, weight = torch.randn(rows, k).bfloat16(), torch.randn(n, k).bfloat16()
    bias = torch.randn(n).bfloat16() if with_bias else None
    found = cpu.linear(x, weight, bias)
    exact = x.double() @ weight.double().T + (0 if bias is None else bias.double())
    assert found.dtype == torch.bfloat16 and found.shape == (rows, n)
    # Half a unit in the last of 8 bits, twice where torch adds the bias to a rounded product, and fp32's own error.
    product = (x.double() @ weight.double().T).abs()
    bound = 2**-8 * (exact.abs() + (product if route in ("torch", "both") else 0)) + 1e-5 * (
        x.double().abs() @ weight.double().abs().T
    )
    assert ((found.double() - exact).abs() <= bound).all()


@pytest.mark.parametrize("rows", [0, 1, 17, 129])
@pytest.mark.parametrize(("k", "n"), [(96, 37), (33, 5), (2880, 65)])
def test_wide_products_are_not_rounded(route: str, rows: int, k: int, n: int) -> None:
    x, weight = torch.randn(2, rows, k).bfloat16(), torch.randn(n, k).bfloat16()
    found = cpu.wide_linear(x, weight)
    error = (found.double() - x.double() @ weight.double().T).abs()
    assert found.dtype == torch.float32 and found.shape == (2, rows, n)
    assert (error <= 1e-5 * (x.double().abs() @ weight.double().abs().T)).all()
    assert cpu.wide_linear(x.double(), weight.double()).dtype == torch.float64


def test_leading_axes_are_kept(route: str) -> None:
    x, weight = torch.randn(2, 3, 64).bfloat16(), torch.randn(5, 64).bfloat16()
    assert torch.equal(cpu.linear(x, weight), cpu.linear(x.flatten(0, 1), weight).view(2, 3, 5))
    assert cpu.linear(x[:0], weight).shape == (0, 3, 5)


def test_strided_operands_are_read_rightly(route: str) -> None:
    x, weight = torch.randn(64, 4).bfloat16().T, torch.randn(64, 7).bfloat16().T
    packed = cpu.linear(x.contiguous(), weight.contiguous())
    assert torch.allclose(cpu.linear(x, weight).float(), packed.float(), rtol=2**-7, atol=1e-5)


def test_large_weights_are_widened_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "multiplies_bf16", lambda: False)
    monkeypatch.setattr(native, "load", lambda: None)
    x, weight, bias = torch.randn(3, 64).bfloat16(), torch.randn(10, 64).bfloat16(), torch.randn(10).bfloat16()
    whole = cpu.linear(x, weight, bias)
    monkeypatch.setattr(cpu, "WIDENED_ELEMENTS", 3 * 64)
    assert torch.allclose(cpu.linear(x, weight, bias).float(), whole.float(), rtol=2**-7, atol=1e-5)


def test_gradients_flow_on_every_route(route: str) -> None:
    x, weight = torch.randn(3, 64).bfloat16().requires_grad_(), torch.randn(5, 64).bfloat16().requires_grad_()
    cpu.linear(x, weight).float().sum().backward()
    assert torch.allclose(x.grad.float(), weight.detach().float().sum(0).expand(3, -1), atol=0.1)
    assert torch.allclose(weight.grad.float(), x.detach().float().sum(0).expand(5, -1), atol=0.1)
