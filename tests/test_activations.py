"""The activation of GPT-2 in bf16 against the exact one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import gelu
from transformers import GPT2Config
from transformers.models.gpt2.modeling_gpt2 import GPT2MLP

from convmodel_cli.model import activations
from convmodel_cli.model.activations import tanh_gelu_
from convmodel_cli.model.gpt2_packed import _inner

_WIDTH = 96
_LARGEST_SHARE = 2**-8  # that rounding to bf16 once takes off, or adds


def _values() -> Tensor:
    """More rows than are computed at once, and numbers that leave nothing of the activation or all of it."""
    rows = 2 * activations._VALUES_A_THREAD * torch.get_num_threads() // _WIDTH + 5
    values = torch.linspace(-12, 12, rows * _WIDTH).bfloat16()
    values[:4] = torch.tensor([0.0, -3e4, 3e4, 1e-30])
    return values.view(rows, _WIDTH)


def test_activation_and_its_gradient_are_rounded_alone() -> None:
    values, grad = _values(), torch.tensor([1.0, -0.5, 3.0]).repeat(_WIDTH // 3).bfloat16()
    exact = values.double().requires_grad_()
    expected = gelu(exact, approximate="tanh")
    expected.backward(grad.double().expand_as(exact))

    x = values.clone().requires_grad_()
    output = tanh_gelu_(x + 0)
    output.backward(grad.expand_as(x))

    assert torch.isfinite(output).all() and exact.grad is not None and x.grad is not None
    torch.testing.assert_close(output.double(), expected, rtol=_LARGEST_SHARE, atol=1e-6)
    # The derivative crosses 0, where fp32 leaves it an error that is no share of it; it is rounded twice.
    torch.testing.assert_close(x.grad.double(), exact.grad, rtol=2 * _LARGEST_SHARE, atol=1e-5)


def test_activation_takes_the_place_of_its_input() -> None:
    values = _values().requires_grad_() + 0
    output = tanh_gelu_(values)
    assert output is values and output.data_ptr() == values.data_ptr()


@pytest.mark.parametrize("frozen", ["nothing", "layer", "all"])
def test_wide_layer_and_its_gradients_are_close_to_exact_ones(frozen: str) -> None:
    torch.manual_seed(0)
    mlp = GPT2MLP(64, GPT2Config(n_embd=16))
    nn.init.normal_(mlp.c_fc.weight)
    nn.init.normal_(mlp.c_fc.bias)
    mlp.requires_grad_(frozen == "nothing")
    x = torch.randn(40, 16).bfloat16().requires_grad_(frozen != "all")
    output = _inner(mlp, x, "tanh", torch.bfloat16)

    weight, bias, seen = (
        tensor.detach().bfloat16().double().requires_grad_() for tensor in (mlp.c_fc.weight, mlp.c_fc.bias, x)
    )
    expected = gelu(seen @ weight + bias, approximate="tanh")
    assert _distance(output, expected) < 0.01
    if frozen == "all":
        assert not output.requires_grad
        return
    grad = torch.randn(40, 64).bfloat16()
    output.backward(grad)
    expected.backward(grad.double())
    assert _distance(x.grad, seen.grad) < 0.01
    if frozen == "nothing":
        assert _distance(mlp.c_fc.weight.grad, weight.grad) < 0.01
        assert _distance(mlp.c_fc.bias.grad, bias.grad) < 0.01


def _distance(found: Tensor | None, expected: Tensor | None) -> float:
    assert found is not None and expected is not None
    return float((found.detach().double() - expected.detach()).norm() / expected.detach().norm())
