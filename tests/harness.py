"""Runs that can be killed, stopped and crashed: the client of fork_server.py."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import termios
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import GPT2Config, GPT2LMHeadModel

from convmodel_cli.model.new import train_tokenizer
from convmodel_cli.workflows.checkpoints import find_checkpoints
from helpers import TINY_POSITIONS, made_up_conversations, weights_digest, write_conversations


@dataclass(frozen=True)
class Order:
    """A command for a child.

    With `crash_at` it dies at that change below `under`, with `signal_at` it is signalled, with `fail_at` it has a bug.
    `apart` are the streams that are files, as without a `terminal` all are.
    """

    arguments: list[str]
    folder: str
    stdin: str = ""
    out: str = ""
    err: str = ""
    terminal: str = ""
    apart: tuple[int, ...] = ()
    ignored: tuple[str, ...] = ()  # signals, as under nohup
    environment: dict[str, str] = field(default_factory=dict)
    umask: int = 0o022
    largest_file: int = 0
    under: str = ""
    crash_at: int = 0
    log: str = ""
    signal_at: str = ""
    signal: str = ""
    nth: int = 1
    times: int = 1
    fail_at: str = ""
    fail_with: str = ""


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str

    def check(self, code: int = 0) -> Ended:
        assert self.code == code, f"exit {self.code}, expected {code}\n{self.err}"
        assert "Traceback" not in self.err and "internal error" not in self.err, self.err
        return self


class Child:
    """A running command."""

    def __init__(self, server: Server, pid: int, order: Order) -> None:
        self.pid = pid
        self._server = server
        self._order = order

    def kill(self, name: str = "SIGKILL") -> None:
        os.kill(self.pid, getattr(signal, name))

    def wait(self) -> Ended:
        code = self._server.ask({"wait": self.pid})["code"]
        written = (self._order.out, self._order.err)
        texts = [Path(path).read_text(encoding="utf-8") if Path(path).is_file() else "" for path in written]
        return Ended(128 - code if code < 0 else code, *texts)


class Server:
    """A process that has imported everything and forks a child for each command."""

    def __init__(self) -> None:
        script = Path(__file__).with_name("fork_server.py")
        environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
        self._process = subprocess.Popen(
            [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def ask(self, order: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def start(self, arguments: list[str], folder: Path, **options: Any) -> Child:
        name = f"{folder}/.out-{os.urandom(4).hex()}"
        order = Order(arguments, str(folder), **{"out": name, "err": name + ".err", **options})
        return Child(self, self.ask(asdict(order))["pid"], order)

    def run(self, arguments: list[str], folder: Path, **options: Any) -> Ended:
        return self.start(arguments, folder, **options).wait()

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


_TERMINAL_SECONDS = 60


def run_on_a_terminal(
    server: Server,
    folder: Path,
    arguments: list[str],
    typed: list[tuple[bytes, bytes]],
    variables: dict[str, str],
    **options: Any,
) -> str:
    """What a command writes on a pseudo-terminal and its exit code; `typed` holds (what to wait for, what to type)."""
    master, slave = pty.openpty()
    environment = {"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40", "CI": "", **variables}
    environment.setdefault("XDG_STATE_HOME", str(folder))  # or what is typed would go into the user's history
    termios.tcsetwinsize(slave, (int(environment["LINES"]), int(environment["COLUMNS"])))
    child = server.start(arguments, folder, terminal=os.ttyname(slave), environment=environment, **options)
    os.close(slave)
    seen = _watch(master, list(typed), child)
    os.close(master)
    return f"{seen.decode()}\nexit {child.wait().code}"


def _watch(master: int, waiting: list[tuple[bytes, bytes]], child: Child) -> bytes:
    """What the program writes until it ends, while it is typed to."""
    seen = b""
    position = 0
    end = time.monotonic() + _TERMINAL_SECONDS
    while time.monotonic() < end:
        if waiting and waiting[0][0] in seen[position:]:
            position = len(seen)
            os.write(master, waiting.pop(0)[1])
        if not select.select([master], [], [], 0.2)[0]:
            continue
        try:
            chunk = os.read(master, 65536)
        except OSError:  # the program has ended
            return seen
        seen += chunk
        if b"\x1b[6n" in chunk:  # the program asks where the cursor is
            os.write(master, b"\x1b[1;1R")
    child.kill()
    return seen


def resume(server: Server, folder: Path, run: list[str]) -> Ended:
    """Go on with the run in `out`, and make sure that it is taken up where its newest checkpoint is."""
    checkpoints = find_checkpoints(folder / "out")
    record = folder / "out" / "convmodel.json"
    finished = record.exists() and json.loads(record.read_text()).get("finished")
    ended = server.run([*run, "--resume"], folder).check()
    if finished:
        assert "this run is finished" in ended.err
    elif checkpoints:
        assert f"going on after step {int(checkpoints[0].name[5:])}, from" in ended.err, ended.err
    else:
        assert "there is no checkpoint to resume, so the run starts over" in ended.err
    return ended


STEPS = 40
# 40 conversations in steps of 4 are 10 steps an epoch: dropout, shuffling, warm-up and decay over 4 epochs.
RUN = ["fit", "train.jsonl", "valid.jsonl", "--base", "./tiny", "-o", "out", "--epochs", "4", "--batch-size", "4"]
RUN += ["--learning-rate", "0.003", "--optimizer", "muon", "--dropout", "0.1", "--warmup", "0.2", "--seed", "3"]
RUN += ["--precision", "fp32", "--threads", "1", "--eval-every", "5", "--keep-checkpoints"]


def make_workshop(folder: Path) -> Path:
    """A folder with train.jsonl, valid.jsonl and a tiny pretrained model with dropout."""
    conversations = made_up_conversations(50)
    write_conversations(folder / "train.jsonl", conversations[:40])
    write_conversations(folder / "valid.jsonl", conversations[40:])
    tokenizer = train_tokenizer((turn for item in conversations for turn in item.turns), 300)
    torch.manual_seed(0)
    sep = int(tokenizer.eos_token_id)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=TINY_POSITIONS, n_layer=2, n_embd=64, n_head=4,
        bos_token_id=sep, eos_token_id=sep, pad_token_id=sep,
    )  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(folder / "tiny")
    tokenizer.save_pretrained(folder / "tiny")
    return folder


def copy_workshop(workshop: Path, target: Path) -> Path:
    """Another folder with the same data and base; the base is shared."""
    target.mkdir()
    for name in ("train.jsonl", "valid.jsonl"):
        shutil.copy(workshop / name, target)
    (target / "tiny").symlink_to(workshop / "tiny")
    return target


@dataclass(frozen=True)
class Result:
    """What two runs of the same settings have in common: digests of the tensors, and every step and evaluation."""

    best: str
    weights: str
    optimizer: str
    journal: tuple[str, ...]


_TIMES = re.compile(r'"(seconds|seconds_left|tokens_per_second|memory_bytes|peak_memory_bytes)":[0-9.e+-]+')


def result_of(output: Path) -> Result:
    """The result of a finished run that kept its checkpoints; asserts that nothing half written is left."""
    left = [path for path in output.rglob(".*") if path.name.startswith(".")]
    assert not left, left
    newest = max((output / "checkpoints").iterdir())
    lines = (output / "events.jsonl").read_text(encoding="utf-8").splitlines()
    journal = tuple(_TIMES.sub("", line) for line in lines if json.loads(line)["event"] != "Resumed")
    return Result(
        weights_digest(output),
        weights_digest(newest),
        weights_digest(newest, "optimizer.safetensors"),
        journal,
    )


def assert_loads(output: Path) -> None:
    """The folder's weights are whole, finite, and of the step that the file says."""
    tensors = load_file(output / "model.safetensors")
    assert all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values())
    GPT2LMHeadModel.from_pretrained(output)
