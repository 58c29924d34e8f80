"""What a process is set up with before it computes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from convmodel_cli.model.compute import set_up
from convmodel_cli.settings import ComputeSettings


class _Calls(TorchDispatchMode):
    """Records what is computed: (name, type, number of values)."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: set[tuple[str, torch.dtype, int]] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        if args and isinstance(args[0], torch.Tensor):
            self.seen.add((func.overloadpacket.__name__, args[0].dtype, args[0].numel()))
        return func(*args, **(kwargs or {}))


def test_each_function_of_mkl_is_called_by_one_thread_first() -> None:
    header = Path(torch.__file__).parent / "include/ATen/cpu/vml.h"
    names = set(re.findall(r"^IMPLEMENT_VML_MKL\((\w+),", header.read_text(), re.MULTILINE))
    assert {"exp", "sqrt"} <= names
    with _Calls() as calls:
        set_up(ComputeSettings(), for_training=False)
    assert {(name, dtype, 1) for name in names for dtype in (torch.float32, torch.float64)} <= calls.seen
