"""Matrix products on a CPU, by whichever of torch's libraries is the faster one for them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from convmodel_cli.model.compute import cpu_name

# Elsewhere than on x86 oneDNN may compute these products by its reference kernels, a hundred times slower:
# https://github.com/pytorch/pytorch/issues/180447
_HAS_ONEDNN = torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability().startswith("AVX")
# MKL, which torch takes for fp32, is made for Intel's processors. On AMD's it is half as fast as oneDNN, and computes a
# single row in one thread.
SHUNS_MKL = _HAS_ONEDNN and "AMD" in cpu_name()
_BF16_BY_ONEDNN = _HAS_ONEDNN and torch.ops.mkldnn._is_mkldnn_bf16_supported()
# Without tiles torch's fused attention multiplies bf16 at half the speed of plain products or less.
HAS_TILES = torch.cpu._is_amx_tile_supported()
_ROWS = 32  # for which a layout is chosen; others take it too


def multiply(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x @ weight + bias, of shapes (rows, in), (in, out) and (out,)."""
    asked_for = bias is not None or x.dtype != torch.bfloat16  # which torch gives to oneDNN by itself
    if asked_for and by_onednn(x):
        # The bias comes in the same pass, where addmm first writes it everywhere.
        return linear(x, weight.t(), bias)
    return x @ weight if bias is None else torch.addmm(bias, x, weight)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, gelu: str | None = None) -> Tensor:
    """x @ weight.T + bias for a weight (out, in), which may be `packed`; then the GELU that torch calls so, if any."""
    if by_onednn(x):
        attribute, algorithm = ("none", "") if gelu is None else ("gelu", gelu)
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, attribute, [], algorithm)
        return product
    product = functional.linear(x, weight, bias)
    return product if gelu is None else functional.gelu(product, approximate=gelu)


def packed(weight: Tensor) -> Tensor:
    """A weight (out, in) for `linear` in the layout of oneDNN's kernels, which each product would make anew."""
    if by_onednn(weight):
        return torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS)  # type: ignore[no-any-return]
    return weight


def by_onednn(x: Tensor) -> bool:
    """Whether oneDNN multiplies tensors like this, which prepares a kernel for every shape that it has not met."""
    if x.device.type != "cpu":
        return False
    return _BF16_BY_ONEDNN if x.dtype == torch.bfloat16 else SHUNS_MKL and x.dtype == torch.float32
