"""What a process is set up with before it computes."""

from __future__ import annotations

import atexit
import gc
import re
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from convmodel_cli import __main__, collector
from convmodel_cli.cli import main as command_line
from convmodel_cli.model.compute import set_up
from convmodel_cli.settings import ComputeSettings
from convmodel_cli.signals import stop_request


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


@pytest.mark.parametrize(
    ("tiles", "products", "precision"), [(True, False, "bf16"), (False, True, "bf16"), (False, False, "fp32")]
)
def test_a_run_takes_bf16_where_the_processor_multiplies_it(
    monkeypatch: pytest.MonkeyPatch, tiles: bool, products: bool, precision: str
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: tiles)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: products)
    assert set_up(ComputeSettings(device="cpu"), for_training=True).precision == precision
    assert set_up(ComputeSettings(device="cpu"), for_training=False).precision == "fp32"


@pytest.fixture
def own_collector() -> Iterator[None]:
    """Put Python's collector back as it was."""
    yield
    collector.resume()
    gc.unfreeze()
    gc.enable()


class _Garbage:
    """Refers to itself, so that only the collector finds it."""

    def __init__(self) -> None:
        self.itself = self


def is_collected(*left: weakref.ref[_Garbage]) -> list[bool]:
    gc.collect()
    return [each() is None for each in left]


@pytest.mark.usefixtures("own_collector")
def test_a_command_looks_for_garbage_once_it_is_set_up_but_not_in_what_it_began_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = []

    def command() -> None:
        seen.append(gc.isenabled())
        of_the_beginning = weakref.ref(_Garbage())
        set_up(ComputeSettings(device="cpu"), for_training=False)
        seen.append(gc.isenabled())
        seen.extend(is_collected(of_the_beginning, weakref.ref(_Garbage())))

    at_exit: list[Any] = []
    monkeypatch.setattr(atexit, "register", at_exit.append)
    monkeypatch.setattr(command_line, "main", command)
    monkeypatch.setattr(stop_request, "install", lambda: None)
    __main__.main()
    assert seen == [False, True, False, True]
    assert at_exit == [gc.freeze]


@pytest.mark.usefixtures("own_collector")
@pytest.mark.parametrize("is_enabled", [True, False])
def test_a_program_that_uses_the_package_keeps_its_collector(is_enabled: bool) -> None:
    before = weakref.ref(_Garbage())
    if not is_enabled:
        gc.disable()
    set_up(ComputeSettings(device="cpu"), for_training=False)
    assert gc.isenabled() is is_enabled
    assert is_collected(before) == [True]
