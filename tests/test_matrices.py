"""The products of decoding, however they are cut."""

from __future__ import annotations

import pytest
import torch

from convmodel_cli.model import matrices
from convmodel_cli.model.matrices import make_matrix


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("size", "parts"), [(48, 3), (50, 5), (53, 53), (67, 1)])
def test_a_row_in_parts_is_the_row(monkeypatch: pytest.MonkeyPatch, size: int, parts: int, transposed: bool) -> None:
    monkeypatch.setattr(matrices, "SHUNS_MKL", True)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    shape = (size, 16) if transposed else (16, size)
    stored = torch.randn(shape, generator=torch.manual_seed(0))
    weight, bias, x = stored.T if transposed else stored, torch.randn(size), torch.randn(4, 16)
    with_bias, without = make_matrix(weight, bias, "fp32"), make_matrix(weight, None, "fp32")
    assert matrices._parts(size) == parts
    for rows in (x[:1], x):
        torch.testing.assert_close(with_bias(rows), rows @ weight + bias)
        torch.testing.assert_close(without(rows), rows @ weight)
    stored.mul_(2.0)  # a model that is trained takes its decoding with it
    torch.testing.assert_close(without(x[:1]), x[:1] @ weight)
