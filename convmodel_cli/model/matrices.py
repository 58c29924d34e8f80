"""Products of a few rows with a large matrix: what decoding spends its time on, in each precision."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from convmodel_cli.model.products import SHUNS_MKL, linear, multiply, packed

Matrix = Callable[[Tensor], Tensor]  # (rows, in) -> (rows, out)

_gelu: Callable[..., Tensor] = functional.gelu  # its type hides `out`

_MOST_PARTS = 64
_LARGEST_INT8 = 127
_COPIED = 2**20  # up to so many weights the parts of a row are copies
_SMALL = 2**18  # up to so many weights `_Int8Row` takes longer to begin than to multiply
_FEW_RESULTS = 2**16  # up to so many oneDNN takes longer for an activation than torch's own kernel, with two threads
_WEIGHTS_AT_ONCE = 16  # in which `_Int8Weights` reads a row, also beyond its end
# Without VNNI the kernel adds up products in 16 bits, which do not hold them.
_MULTIPLIES_INT8 = torch.cpu._is_vnni_supported() and "fbgemm" in torch.backends.quantized.supported_engines


def make_matrix(weight: Tensor, bias: Tensor | None, precision: str, gelu: str | None = None) -> Matrix:
    """x -> x @ weight + bias for a weight of shape (in, out); then the GELU that torch calls "none" or "tanh", if any.

    "int8" rounds each column of the weight on a scale of its own.
    """
    if precision == "bf16":
        return _Bf16(weight, bias, gelu)
    if precision == "int8":
        return _Int8(weight, bias, gelu)
    return _activated(_Plain(weight, bias), gelu)


def make_head(weight: Tensor, precision: str) -> Matrix:
    """As `make_matrix`, for logits: their common part, which tells nothing but may be large, is kept from rounding."""
    if precision == "fp32":
        return make_matrix(weight, None, precision)
    common = weight.mean(dim=1, keepdim=True)
    return _Centred(make_matrix(weight - common, None, precision), common)


def writing_to(result: Tensor, matrix: Matrix) -> Matrix | None:
    """The product of a single row, always in this tensor (1, out) of fp32; None if no kernel does that.

    The next row overwrites it, and no gradient passes.
    """
    return matrix.writing_to(result) if isinstance(matrix, _Plain | _Activated) else None


class _Plain:
    """The weight as it is, in either layout: (in, out), or a view of (out, in).

    Where MKL takes one thread for a single row, however large the matrix, the row is made of parts; those of small
    matrices are copies, which are read faster.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight = weight
        self._bias = bias
        size = weight.shape[1]
        count = _parts(size) if SHUNS_MKL and weight.device.type == "cpu" else 1
        self._parts = weight.unflatten(1, (count, size // count)).movedim(1, 0) if count > 1 else None
        if self._parts is not None and weight.numel() <= _COPIED:
            self._parts = self._parts.contiguous()
        self._part_biases = None if bias is None else bias.view(count, 1, -1)

    def __call__(self, x: Tensor) -> Tensor:
        if self._parts is None or len(x) > 1:
            return multiply(x, self._weight, self._bias)
        row = x.expand(len(self._parts), 1, -1)
        if self._part_biases is None:
            return torch.bmm(row, self._parts).view(1, -1)
        return torch.baddbmm(self._part_biases, row, self._parts).view(1, -1)

    def writing_to(self, result: Tensor) -> Matrix | None:
        parts, biases = self._parts, self._part_biases
        if parts is None or biases is None:
            return None
        count, by_parts = len(parts), result.view(len(parts), 1, -1)

        def product(x: Tensor) -> Tensor:
            torch.baddbmm(biases, x.expand(count, 1, -1), parts, out=by_parts)
            return result

        return product


def _parts(size: int) -> int:
    """How many equal parts a row of results has, at least one for each thread; 1 if it has no such parts."""
    return next((n for n in range(torch.get_num_threads(), _MOST_PARTS + 1) if size % n == 0), 1)


class _Bf16:
    def __init__(self, weight: Tensor, bias: Tensor | None, gelu: str | None) -> None:
        # (out, in), which is the faster layout for few rows where none is packed
        self._weight = packed(weight.T.to(torch.bfloat16).contiguous())
        self._bias = None if bias is None else bias.to(torch.bfloat16)
        self._gelu = gelu

    def __call__(self, x: Tensor) -> Tensor:
        return linear(x.to(torch.bfloat16), self._weight, self._bias, self._gelu)


@dataclass(frozen=True, slots=True)
class _Activated:
    matrix: Matrix
    gelu: str

    def __call__(self, x: Tensor) -> Tensor:
        product = self.matrix(x)
        if product.numel() > _FEW_RESULTS:
            return functional.gelu(product, approximate=self.gelu)
        across = _across(product)
        _gelu(across, approximate=self.gelu, out=across)
        return product

    def writing_to(self, result: Tensor) -> Matrix | None:
        product, gelu = writing_to(result, self.matrix), self.gelu
        if product is None:
            return None
        across = _across(result)

        def activated(x: Tensor) -> Tensor:
            product(x)
            _gelu(across, approximate=gelu, out=across)
            return result

        return activated


def _across(product: Tensor) -> Tensor:
    """A view of all results that is not contiguous, if they are an even number.

    The exact GELU of a contiguous tensor on a CPU goes to oneDNN, which takes 6 us to begin.
    """
    return product.view(2 - product.numel() % 2, -1).t()


def _activated(matrix: Matrix, gelu: str | None) -> Matrix:
    return matrix if gelu is None else _Activated(matrix, gelu)


class _Int8:
    """One row by weights of 8 bits, which are a quarter of what fp32 reads; more rows by weights of 16 bits."""

    def __init__(self, weight: Tensor, bias: Tensor | None, gelu: str | None) -> None:
        self._many = _Bf16(weight, bias, gelu)
        single = _int8_row(weight, bias)
        self._single = self._many if single is None else _activated(single, gelu)

    def __call__(self, x: Tensor) -> Tensor:
        return self._single(x) if len(x) == 1 else self._many(x)


def _int8_row(weight: Tensor, bias: Tensor | None) -> Matrix | None:
    """The product of a single row with weights of 8 bits; None if no kernel here takes a weight of this shape."""
    if len(weight) % _WEIGHTS_AT_ONCE == 0 and (weight.numel() <= _SMALL or not _MULTIPLIES_INT8):
        return _Int8Weights(*_rounded(weight, torch.bfloat16), bias)
    return _Int8Row(*_rounded(weight, torch.float32), bias) if _MULTIPLIES_INT8 else None


def _rounded(weight: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Weights of 8 bits (out, in), and the scale of each row (out,) in this type."""
    scales = (weight.abs().amax(dim=0) / _LARGEST_INT8).clamp(min=1e-30).to(dtype)
    rounded = (weight / scales).round_().clamp_(-_LARGEST_INT8, _LARGEST_INT8)
    return rounded.to(torch.int8).T.contiguous(), scales


class _Int8Row:
    """Activations of 8 bits too, on a scale and a zero of their row: products of integers, summed exactly.

    Perplexity hardly suffers from this, unlike from one scale for several rows (Dettmers et al. 2022, LLM.int8(),
    table 1: zeropoint, vector-wise).
    """

    def __init__(self, weight: Tensor, scales: Tensor, bias: Tensor | None) -> None:
        zeros = torch.zeros(len(scales), dtype=torch.long)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they will go some day, but they are how the kernel gets weights
            quantized = torch._make_per_channel_quantized_tensor(weight, scales.double(), zeros, 0)
            self._packed = torch.ops.quantized.linear_prepack(quantized, bias)
        self._multiply = torch.ops.quantized.linear_dynamic.default

    def __call__(self, x: Tensor) -> Tensor:
        product: Tensor = self._multiply(x, self._packed)
        return product


@dataclass(frozen=True, slots=True)
class _Int8Weights:
    """Activations of 16 bits, for small matrices and for processors that do not multiply integers fast."""

    weight: Tensor  # (out, in)
    scales: Tensor
    bias: Tensor | None

    def __call__(self, x: Tensor) -> Tensor:
        product = torch._weight_int8pack_mm(x.to(torch.bfloat16), self.weight, self.scales)
        return product.float() if self.bias is None else product + self.bias  # fp32, as the bias is


@dataclass(frozen=True, slots=True)
class _Centred:
    """The product with what all columns have in common, added to that with the rest."""

    rest: Matrix
    common: Tensor  # (in, 1)

    def __call__(self, x: Tensor) -> Tensor:
        return self.rest(x) + x @ self.common
