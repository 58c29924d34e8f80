"""The products of decoding, however they are cut."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from convmodel_cli.model import matrices, products
from convmodel_cli.model.gpt2 import GELU
from convmodel_cli.model.matrices import make_matrix

TOLERANCE = {"fp32": 1e-5, "bf16": 0.1, "int8": 0.2}  # of sums of 16 products of normal numbers


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


@pytest.mark.parametrize("by_onednn", [False, products._BF16_BY_ONEDNN])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_activations_come_with_the_product(monkeypatch: pytest.MonkeyPatch, precision: str, by_onednn: bool) -> None:
    monkeypatch.setattr(products, "_BF16_BY_ONEDNN", by_onednn)
    generator = torch.manual_seed(0)
    weight, bias, x = (torch.randn(shape, generator=generator) for shape in ((16, 48), (48,), (5, 16)))
    exact = x @ weight + bias
    for gelu in {None, *GELU.values()}:
        expected = exact if gelu is None else functional.gelu(exact, approximate=gelu)
        for rows in (1, 5):
            found = make_matrix(weight, bias, precision, gelu)(x[:rows]).float()
            torch.testing.assert_close(found, expected[:rows], atol=TOLERANCE[precision], rtol=1e-2)
