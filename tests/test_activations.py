"""The activation of GPT-2 in bf16 against the exact one."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import gelu

from convmodel_cli.model import activations
from convmodel_cli.model.activations import tanh_gelu_

_WIDTH = 96
_LARGEST_SHARE = 2**-8  # that rounding to bf16 once takes off, or adds


def _values() -> Tensor:
    """More rows than are computed at once, and numbers that leave nothing of the activation or all of it."""
    rows = 2 * activations._VALUES_AT_ONCE // _WIDTH + 5
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
    values = _values()
    assert tanh_gelu_(values).data_ptr() == values.data_ptr()
