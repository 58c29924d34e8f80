"""The products of decoding, however they are cut."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch.nn import functional

from convmodel_cli.model import matrices, products
from convmodel_cli.model.gpt2 import GELU
from convmodel_cli.model.matrices import make_matrix


@pytest.mark.parametrize(("copied", "gelu"), [(0, "none"), (2**20, "tanh")])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("size", "parts"), [(48, 3), (50, 5), (53, 53), (67, 1)])
def test_a_row_in_parts_is_the_row(
    monkeypatch: pytest.MonkeyPatch, size: int, parts: int, transposed: bool, copied: int, gelu: str
) -> None:
    monkeypatch.setattr(matrices, "SHUNS_MKL", True)
    monkeypatch.setattr(matrices, "_COPIED", copied)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    shape = (size, 16) if transposed else (16, size)
    stored = torch.randn(shape, generator=torch.manual_seed(0))
    weight, bias, x = stored.T if transposed else stored, torch.randn(size), torch.randn(4, 16)
    with_bias, without = make_matrix(weight, bias, "fp32"), make_matrix(weight, None, "fp32")
    assert matrices._parts(size) == parts
    for rows in (x[:1], x):
        torch.testing.assert_close(with_bias(rows), rows @ weight + bias)
        torch.testing.assert_close(without(rows), rows @ weight)
    result = torch.empty(1, size)
    writing = matrices.writing_to(result, with_bias)
    activated = matrices.writing_to(result, make_matrix(weight, bias, "fp32", gelu))
    assert (writing is None) == (activated is None) == (parts == 1)
    if writing is not None and activated is not None:
        for row in x.split(1):
            assert writing(row) is result
            torch.testing.assert_close(result, row @ weight + bias)
            assert activated(row) is result
            torch.testing.assert_close(result, functional.gelu(row @ weight + bias, approximate=gelu))
    before = x[:1] @ weight
    stored.mul_(2.0)
    in_one_piece = parts == 1 or (transposed and parts == size)  # as they are
    torch.testing.assert_close(without(x[:1]), before if copied and not in_one_piece else 2 * before)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8", "int8 of small matrices"])
@pytest.mark.parametrize(("inner", "outer"), [(16, 48), (37, 53), (40, 64)])
def test_each_precision_gives_the_product(
    monkeypatch: pytest.MonkeyPatch, precision: str, inner: int, outer: int
) -> None:
    small = precision.endswith("small matrices")
    monkeypatch.setattr(matrices, "_SMALL", 2**18 if small else 0)
    weight, bias = drawn(inner, outer), drawn(outer)
    matrix = make_matrix(weight, bias, precision.split()[0])
    if precision.startswith("int8") and matrices._MULTIPLIES_INT8:
        expected = matrices._Int8Weights if small and inner % 16 == 0 else matrices._Int8Row
        assert type(cast(Any, matrix)._single) is expected
    for rows in (1, 1, 3, 31, 64, 300):  # a row twice: nothing behind it counts
        x = drawn(rows, inner)
        exact = x @ weight + bias
        error = (matrix(x).float() - exact).square().mean().sqrt() / exact.square().mean().sqrt()
        assert error < (1e-6 if precision == "fp32" else 0.02)


@pytest.mark.parametrize("by_onednn", [False, True])
@pytest.mark.parametrize(("few", "size"), [(0, 48), (2**16, 48), (2**16, 47)])
@pytest.mark.parametrize("gelu", sorted(set(GELU.values())))
def test_an_activation_comes_with_the_product(
    monkeypatch: pytest.MonkeyPatch, gelu: str, few: int, size: int, by_onednn: bool
) -> None:
    monkeypatch.setattr(matrices, "_FEW_RESULTS", few)
    monkeypatch.setattr(products, "_BF16_BY_ONEDNN", by_onednn and products._BF16_BY_ONEDNN)
    inner = torch.linspace(-3, -1.5, size).to(torch.bfloat16).double()  # where the two differ by up to 5e-4
    expected = functional.gelu(inner, approximate=gelu).expand(5, -1)
    weight = functional.pad(inner[None].float(), (0, 0, 0, 15))  # (16, size)
    for precision in ("fp32", "bf16"):
        for rows in (1, 5):
            found = make_matrix(weight, torch.zeros(size), precision, gelu)(torch.ones(rows, 16))
            torch.testing.assert_close(found.double(), expected[:rows], atol=1e-4, rtol=2**-9)


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.manual_seed(sum(shape)))
