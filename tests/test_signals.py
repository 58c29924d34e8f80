"""Being asked to stop: at once before there is anything to lose, after a checkpoint from then on."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from convmodel_cli.errors import Stopped
from convmodel_cli.signals import StopRequest
from convmodel_cli.workflows.checkpoints import find_checkpoints
from harness import RUN, Result, Server, assert_loads, copy_workshop, result_of, resume

CODES = {"SIGINT": 130, "SIGTERM": 143, "SIGUSR1": 75}
GO_ON = "go on with: convmodel " + " ".join(RUN) + " --resume"

# phase -> (function that is called in it, its nth call, whether there is something to save)
PHASES = {
    "reading the data": ("convmodel_cli.workflows.data:read_into", 1, False),
    "loading the base": ("convmodel_cli.model.checkpoint:load_model", 1, False),
    "tokenising": ("convmodel_cli.data.encoding:Vocabulary.encode", 1, False),
    "first evaluation": ("convmodel_cli.model.evaluation:target_losses", 1, False),
    "first step": ("convmodel_cli.model.training:accumulate_gradients", 1, True),
    "in a step": ("convmodel_cli.model.training:target_losses", 13, True),
    "evaluation": ("convmodel_cli.model.evaluation:target_losses", 3, True),
    "in a save": ("convmodel_cli.workflows.checkpoints:commit_folder", 2, True),
    "swapping the best": ("convmodel_cli.model.weights:save_file", 3, True),
    "last figures": ("convmodel_cli.workflows.run:conclude", 1, True),
}


@pytest.fixture
def folder(workshop: Path, tmp_path: Path) -> Path:
    return copy_workshop(workshop, tmp_path / "w")


FEW = ("reading the data", "in a step", "evaluation", "in a save")


@pytest.mark.parametrize(
    "phase", [pytest.param(phase, marks=() if phase in FEW else pytest.mark.slow) for phase in PHASES]
)
def test_a_signal_in_any_phase_ends_the_run_with_its_code_and_nothing_is_lost(
    server: Server, folder: Path, uninterrupted: Result, phase: str
) -> None:
    name = list(CODES)[list(PHASES).index(phase) % 3]
    place, nth, begun = PHASES[phase]
    ended = server.run(RUN, folder, signal_at=place, signal=name, nth=nth).check(CODES[name])
    assert ended.out == ""
    if begun:
        assert f"stopped: by {name} after step " in ended.err and GO_ON in ended.err
        assert_loads(folder / "out")
        assert find_checkpoints(folder / "out")
    else:
        assert "stopped" not in ended.err and not find_checkpoints(folder / "out")
    resume(server, folder, RUN)
    assert result_of(folder / "out") == uninterrupted


@pytest.mark.parametrize(("name", "code"), CODES.items())
def test_a_signal_while_the_program_is_being_imported_ends_it_at_once(name: str, code: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "convmodel_cli", "fit", "--help"],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(getattr(signal, name), signal.SIG_DFL),
    )  # fmt: skip
    assert process.stderr is not None
    with process.stderr:
        for line in process.stderr:
            if "typer" in line:
                process.send_signal(getattr(signal, name))
                break
        rest = process.stderr.read()
    assert process.wait() == code
    assert "Traceback" not in rest


@pytest.mark.slow
@pytest.mark.parametrize(("name", "code"), CODES.items())
def test_a_signal_at_ten_random_moments_is_obeyed_and_the_run_goes_on_to_the_same_bits(
    server: Server, workshop: Path, uninterrupted: Result, tmp_path: Path, name: str, code: int
) -> None:
    """The moments are spread over most of the time that a run takes here and now, so that few of them come too late."""
    started = time.monotonic()
    server.run(RUN, copy_workshop(workshop, tmp_path / "whole")).check()
    whole = time.monotonic() - started
    random_numbers = random.Random(code)
    codes, after_a_step = [], 0
    for moment in range(10):
        folder = copy_workshop(workshop, tmp_path / f"w{moment}")
        child = server.start(RUN, folder)
        time.sleep(whole * (0.1 + 0.07 * (moment + random_numbers.random())))
        child.kill(name)
        ended = child.wait()
        codes.append(ended.code)
        if ended.code and find_checkpoints(folder / "out"):
            assert f"stopped: by {name} after step " in ended.err and GO_ON in ended.err
            after_a_step += 1
        resume(server, folder, RUN)
        assert result_of(folder / "out") == uninterrupted
    assert set(codes) <= {code, 0}  # it may have been done already
    assert codes.count(code) >= 5 and after_a_step >= 2, (codes, after_a_step)


def test_a_signal_that_is_ignored_from_outside_stays_ignored() -> None:
    """As under nohup, and for what a script starts in the background."""
    before = {name: signal.getsignal(getattr(signal, name)) for name in CODES}
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        request = StopRequest()
        request.install()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) == request._handle
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)


def test_a_second_ctrl_c_leaves_at_once_and_keeps_the_checkpoint_before(
    server: Server, folder: Path, uninterrupted: Result
) -> None:
    """The step in which both come is never finished."""
    twice = "convmodel_cli.model.training:target_losses"
    child = server.start(RUN, folder, signal_at=twice, signal="SIGSTOP", nth=17)
    while "T (stopped)" not in (status := Path(f"/proc/{child.pid}/status").read_text()):
        assert "Z (zombie)" not in status, child.wait()
        time.sleep(0.005)
    child.kill("SIGINT")
    child.kill("SIGCONT")
    time.sleep(0.002)
    child.kill("SIGINT")
    ended = child.wait()
    assert ended.code == 130
    newest = find_checkpoints(folder / "out")[0]
    assert newest.name in ("step-000015", "step-000016", "step-000017")
    resume(server, folder, RUN)
    assert result_of(folder / "out") == uninterrupted


def test_a_request_waits_for_check_once_it_is_held_and_a_second_ctrl_c_does_not() -> None:
    request = StopRequest()
    said = []
    request.announce = lambda: said.append("stopping")
    with pytest.raises(SystemExit) as left:
        request._handle(signal.SIGTERM, None)
    assert left.value.code == 143
    with pytest.raises(KeyboardInterrupt):
        request._handle(signal.SIGINT, None)
    request.check()
    request.hold()
    request._handle(signal.SIGUSR1, None)
    assert said == ["stopping"]
    with pytest.raises(Stopped, match="SIGUSR1") as stopped:
        request.check()
    assert stopped.value.exit_code == 75
    request._handle(signal.SIGTERM, None)  # the first one counts
    with pytest.raises(Stopped, match="SIGUSR1"):
        request.check()
    with pytest.raises(KeyboardInterrupt):
        request._handle(signal.SIGINT, None)
    request.release()
    request.check()
