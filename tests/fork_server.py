"""Runs commands in children of a process that has imported everything: a tiny run takes a second, and can be killed.

Reads a JSON object a line on stdin, `Order` in harness.py or {"wait": pid}, and answers with one on stdout.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import resource
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

CRASHED = 137
_TENSOR_WRITERS = (
    ("convmodel_cli.model.weights", "save_file"),
    ("convmodel_cli.model.training_state", "save_file"),
    ("convmodel_cli.model.training_state", "save_model"),
)
_IMPORTED = [
    "cli.main",
    "cli.fit_screen",
    "cli.chat_prompt",
    "workflows.fit",
    "workflows.chat_files",
    "workflows.expect",
]
_IMPORTED += ["model.checkpoint", "model.generation", "model.training", "model.new"]
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def main() -> None:
    import torch

    torch.set_num_threads(1)
    for module in _IMPORTED:
        importlib.import_module(f"convmodel_cli.{module}")
    importlib.import_module("transformers.models.gpt2.modeling_gpt2")
    importlib.import_module("transformers.models.gpt2.tokenization_gpt2")
    warm_up()
    for line in sys.stdin:
        order = json.loads(line)
        if "wait" in order:
            answer = {"code": os.waitstatus_to_exitcode(os.waitpid(order["wait"], 0)[1])}
        else:
            answer = {"pid": start(order)}
        print(json.dumps(answer), flush=True)


def warm_up() -> None:
    """Let the libraries load what they load at the first use, so that not every child has to."""
    from convmodel_cli.cli.main import run
    from harness import make_workshop

    silent = io.StringIO()
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(silent), redirect_stderr(silent):
        workshop = make_workshop(Path(folder))
        base, data = str(workshop / "tiny"), str(workshop / "train.jsonl")
        run(["fit", data, "--base", base, "-o", f"{folder}/out", "--max-steps", "1", "--threads", "1"])


def start(order: dict[str, Any]) -> int:
    # Opened before the answer goes out: a terminal that nobody holds hangs up.
    terminal = os.open(order["terminal"], os.O_RDWR | os.O_NOCTTY) if order["terminal"] else -1
    pid = os.fork()
    if pid:
        if terminal >= 0:
            os.close(terminal)
        return pid
    code = 1
    try:
        code = run_child(order, terminal)
    finally:
        with suppress(OSError):  # a full device
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def run_child(order: dict[str, Any], terminal: int) -> int:
    from convmodel_cli.cli.main import run
    from convmodel_cli.signals import stop_request

    os.chdir(order["folder"])
    os.environ.update(order["environment"])
    if terminal >= 0:
        os.login_tty(terminal)
    files = {0: order["stdin"] or os.devnull, 1: order["out"], 2: order["err"]}
    for number in order["apart"] if terminal >= 0 else files:
        handle = os.open(files[number], os.O_RDWR | os.O_CREAT | (os.O_TRUNC if number else 0), 0o666)
        os.dup2(handle, number)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
    warnings.simplefilter("ignore")
    # Whatever the tests were started with: nohup and `&` ignore some.
    for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP", "SIGTSTP"):
        signal.signal(getattr(signal, name), signal.SIG_DFL)
    for name in order["ignored"]:
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    stop_request.install()
    os.umask(order["umask"])
    if order["largest_file"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["largest_file"],) * 2)
    if order["log"]:
        log_syncs(order["log"])
    if order["under"]:
        watch_changes(order["under"], order["crash_at"], order["log"])
    if order["signal_at"]:
        send_signal_at(order["signal_at"], order["signal"], order["nth"], order["times"])
    if order["fail_at"]:
        fail_at(order["fail_at"], order["fail_with"])
    return run(order["arguments"])


def watch_changes(under: str, crash_at: int, log: str) -> None:
    """Count the changes below a folder (files opened to write, folders made, renames, removals); die at one of them.

    A file of tensors is written without Python's knowledge: there the change is the file, and death leaves half of it.
    """
    changes = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal changes
        if event not in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "shutil.rmtree"):
            return
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & _WRITING):
            return
        path = os.fspath(arguments[0]) if isinstance(arguments[0], str | os.PathLike) else ""
        if not path or not str(Path(path).absolute()).startswith(under) or path == log:
            return
        changes += 1
        note(log, f"{event} {path}" + (f" {arguments[1]}" if event == "os.rename" else ""))
        if changes == crash_at:
            os._exit(CRASHED)

    def halving(real: Callable[..., None]) -> Callable[..., None]:
        def write(content: Any, path: Any, *rest: Any, **options: Any) -> None:
            nonlocal changes
            real(content, path, *rest, **options)
            changes += 1
            note(log, f"write {path}")
            if changes == crash_at:
                handle = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
                os.ftruncate(handle, os.fstat(handle).st_size // 2)
                os._exit(CRASHED)

        return write

    for module, name in _TENSOR_WRITERS:
        owner = importlib.import_module(module)
        setattr(owner, name, halving(getattr(owner, name)))
    sys.addaudithook(hook)


def log_syncs(log: str) -> None:
    real = os.fsync

    def fsync(handle: int) -> None:
        real(handle)
        note(log, f"fsync {Path(f'/proc/self/fd/{handle}').readlink()}")

    os.fsync = fsync  # type: ignore[assignment]


def note(log: str, text: str) -> None:
    if log:
        handle = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        os.write(handle, text.encode() + b"\n")
        os.close(handle)


def send_signal_at(place: str, name: str, nth: int, times: int) -> None:
    """Send the signal to this process when the function `module:attribute` is called for the nth time, and so often."""
    owner, attribute = find(place)
    real: Callable[..., Any] = getattr(owner, attribute)
    calls = 0

    def wrapped(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if nth <= calls < nth + times:
            os.kill(os.getpid(), getattr(signal, name))
        return real(*arguments, **options)

    setattr(owner, attribute, wrapped)


def fail_at(place: str, message: str) -> None:
    """Let the function `module:attribute` raise what nobody expects."""

    def failing(*_: Any, **__: Any) -> None:
        raise RuntimeError(message)

    setattr(*find(place), failing)


def find(place: str) -> tuple[Any, str]:
    """(what holds the function `module:attribute`, its name there)"""
    module, _, path = place.partition(":")
    owner: Any = importlib.import_module(module)
    *parents, attribute = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    return owner, attribute


if __name__ == "__main__":
    main()
