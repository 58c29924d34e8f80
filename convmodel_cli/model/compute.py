"""Device, precision, threads and memory: the only place that asks what the machine can do."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
import transformers.modeling_utils  # with all that it needs, so that it is there when garbage is looked for
from huggingface_hub.utils.tqdm import disable_progress_bars
from torch import Tensor

from convmodel_cli import collector
from convmodel_cli.errors import UsageError
from convmodel_cli.settings import ComputeSettings

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # from glibc's malloc.h
_LARGEST_KEPT_BYTES = 2**30
_NEVER = -1

# What torch has MKL compute.
_OF_MKL = (
    *("acos", "asin", "atan", "cos", "erf", "erfc", "erfinv", "exp", "log", "log10", "log2"),
    *("sin", "sqrt", "tan", "tanh", "trunc"),
)


@dataclass(frozen=True, slots=True)
class Compute:
    """Where and how to compute, decided once per command."""

    device: torch.device
    precision: str
    threads: int
    seed: int

    @property
    def dtype(self) -> torch.dtype:
        """What training multiplies matrices in."""
        return torch.bfloat16 if self.precision == "bf16" else torch.float32

    @property
    def processor(self) -> str:
        """What computes, as far as the last bits of a result depend on it."""
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        if self.device.type == "cpu":
            return f"{cpu_name()}, {torch.backends.cpu.get_cpu_capability()}"
        return self.device.type

    def forward(self) -> AbstractContextManager[object]:
        """The context of a forward pass: lower precision for matrix products, fp32 for the rest."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)


def set_up(settings: ComputeSettings, for_training: bool, deterministic: bool = False) -> Compute:
    """Decide device and precision, and set the number of threads of this process.

    From now on Python looks for garbage again, if a command has put it off.
    """
    collector.resume()
    if deterministic:
        _make_deterministic()
    _keep_kernels()
    _keep_freed_memory()
    torch.set_flush_denormal(True)  # torch's activation of GPT-2 meets such numbers, and takes five times as long
    _quiet_libraries()
    device = torch.device(_device(settings.device))
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    _find_kernels()
    precision = settings.precision
    if precision == "int8" and device.type != "cpu":
        raise UsageError(f"--precision: int8 is for CPUs, got the device {device.type}", "take bf16, or --device cpu")
    if precision == "auto":
        precision = "bf16" if for_training and _multiplies_bf16_fast(device) else "fp32"
    return Compute(device, precision, torch.get_num_threads(), settings.seed or 0)


def _keep_kernels() -> None:
    """Let oneDNN keep what it has prepared for the shapes it has met; the few that we use must all find room.

    oneDNN reads this when it first computes something.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "2048")


def _find_kernels() -> None:
    """Call each function of MKL's once, in one thread, before several threads do.

    It looks for its kernel at its first call. If threads do that at once, one of them may compute with half the
    digits, that once: a run is not what the same run was (https://github.com/pytorch/pytorch/issues/188792).
    """
    for name in _OF_MKL:
        for dtype in (torch.float32, torch.float64):
            getattr(torch, name)(torch.zeros(1, dtype=dtype))


def _keep_freed_memory() -> None:
    """Tell glibc to keep big buffers for the next step instead of giving them back and faulting them in again.

    torch is told to take them in huge pages, which it looks up when it first takes memory. Elsewhere than on Linux
    there is nothing to tell.
    """
    if sys.platform != "linux":
        return
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _NEVER)


def _quiet_libraries() -> None:
    """Keep the bars and log lines of the libraries off the screen, and what they would tell others at home."""
    # Otherwise loading a model without safetensors asks a service on the hub to convert it.
    os.environ["DISABLE_SAFETENSORS_CONVERSION"] = "1"
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    disable_progress_bars()


def _device(wanted: str) -> str:
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wanted == "auto":
        return next(name for name in ("cuda", "mps", "cpu") if available[name])
    if not available[wanted]:
        here = ", ".join(name for name, there in available.items() if there)
        raise UsageError(f"--device: expected a device of this machine, got {wanted}", f"this machine has {here}")
    return wanted


def _multiplies_bf16_fast(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and (torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


def cpu_name() -> str:
    """What the processor calls itself, which is not always all of its name; not every torch tells."""
    tell: Callable[[], Mapping[str, Any]] = getattr(torch.cpu, "get_capabilities", dict)
    return str(tell().get("cpu_name", "CPU"))


def exact(tensor: Tensor) -> Tensor:
    """The tensor in float64, on the CPU if its device has no such type."""
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).double()


def default_micro_batch_tokens(config: Any, length: int, compute: Compute, padded: bool) -> int:
    """Tokens of a forward pass with gradients, for sequences of about `length`, that take half a gigabyte on a CPU."""
    most_bytes = 2**31 if compute.device.type == "cuda" else 2**29
    tokens = most_bytes // activation_bytes(config, 1, length, compute, padded) * length
    return max(1024, min(32768 if padded else 16384, tokens))


def evaluation_tokens(micro_batch_tokens: int, padded: bool) -> int:
    """Tokens of a forward pass without gradients, which needs less memory than one with them.

    Without padding at most 4,096: more are no faster, and memory that is touched for the first time is slow.
    """
    return 2 * micro_batch_tokens if padded else min(2 * micro_batch_tokens, 4096)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a failure means that memory ran out; only CUDA has an error of its own for it."""
    words = ("DefaultCPUAllocator", "MPS backend out of memory")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(word in str(error) for word in words)


def release_memory(device: torch.device) -> None:
    """Give unused memory back, so that it can be cut anew."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _make_deterministic() -> None:
    """Let torch refuse every operation whose result may differ from run to run, and choose slower ones instead."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is repeatable only with a fixed workspace
    torch.use_deterministic_algorithms(True)


def activation_bytes(config: Any, rows: int, tokens: int, compute: Compute, padded: bool) -> int:
    """About the memory of a micro-batch of `rows` sequences of `tokens`: what the backward pass needs, and the logits.

    Per token and layer 18 times the width and, where attention is by plain products, heads x tokens values
    (Korthikanti et al. 2022, without dropout).
    """
    layers, width, heads = config.num_hidden_layers, config.hidden_size, config.num_attention_heads
    size = 4 if compute.precision == "fp32" else 3 if padded else 2  # autocast keeps some of them in fp32
    scores = 0 if padded else heads * tokens
    return int(rows * tokens * layers * size * (18 * width + scores)) + logits_bytes(config, rows * tokens, padded)


def logits_bytes(config: Any, targets: int, padded: bool) -> int:
    """The logits; padded, also in fp32, and their logarithms: 12 bytes for each target and entry of the vocabulary."""
    return int((12 if padded else 4) * targets * config.vocab_size)


def memory_bytes(device: torch.device) -> int:
    """Memory in use now: the device's if it has its own, else the process's."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return peak_memory_bytes(device)


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory that was in use at any time; 0 where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return 0
    import resource  # there is none on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Switch dropout and gradients off, and put both back as they were; never `yield` to a caller inside it."""
    was_training = model.training
    if was_training:
        model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        if was_training:
            model.train()
