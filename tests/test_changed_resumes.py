"""Runs that go on otherwise than they began, or find something missing or damaged: nothing is left out unsaid."""

from __future__ import annotations

import errno
import json
import os
import pty
import random
import re
import select
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from convmodel_cli.data.batching import count_steps, last_epoch, plan_steps
from convmodel_cli.errors import ModelError, StorageError
from convmodel_cli.model.weights import check_weights
from convmodel_cli.settings import ComputeSettings, RunSettings, TrainingSettings
from convmodel_cli.workflows.checkpoints import find_checkpoints
from convmodel_cli.workflows.fit import FitRequest, fit
from convmodel_cli.workflows.journal import Journal
from harness import RUN, Ended, Result, Server, copy_workshop, result_of
from helpers import weights_digest

STEP = "convmodel_cli.model.training:accumulate_gradients"
ALLOWED = ["--resume", "--allow-changes"]
SLOW = pytest.mark.slow


@pytest.fixture
def folder(workshop: Path, tmp_path: Path) -> Path:
    return copy_workshop(workshop, tmp_path / "w")


def stop_after(server: Server, folder: Path, steps: int, run: list[str] = RUN) -> Ended:
    return server.run(run, folder, signal_at=STEP, signal="SIGTERM", nth=steps).check(143)


def with_option(option: str, value: str) -> list[str]:
    run = list(RUN)
    run[run.index(option) + 1] = value
    return run


def record_of(folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((folder / "out" / "convmodel.json").read_text())
    return record


def test_steps_may_change_in_size_anywhere_and_each_epoch_is_still_whole() -> None:
    random_numbers = random.Random(0)
    for _ in range(50):
        count, epochs = random_numbers.randint(1, 30), random_numbers.randint(1, 4)
        seen: dict[int, list[int]] = {epoch: [] for epoch in range(1, epochs + 1)}
        done, epoch, place = 0, 1, 0
        while epoch <= epochs:
            size = random_numbers.randint(1, 12)
            rest = list(plan_steps(count, size, epochs, 7, "on", done=done, first_epoch=epoch, first_place=place))
            assert len(rest) == count_steps(count, size, epoch, place, epochs)
            for steps in range(1, len(rest) + 1):
                assert last_epoch(count, size, epoch, place, steps) == rest[steps - 1].epoch
            for plan in rest[: random_numbers.randint(1, 5)]:
                done += 1
                assert plan.number == done
                seen[plan.epoch] += plan.sequences.tolist()
                epoch, place = plan.next_epoch, plan.next_place
        for whole in plan_steps(count, count, epochs, 7, "on"):
            assert seen[whole.epoch] == whole.sequences.tolist()


@pytest.mark.parametrize(
    ("size", "steps"),
    [("10", 27 + 2 + 4), pytest.param("3", 27 + 4 + 14, marks=SLOW), pytest.param("40", 27 + 1 + 1, marks=SLOW)],
)
def test_a_run_that_goes_on_in_steps_of_another_size_learns_every_token_of_its_epochs(
    server: Server, folder: Path, size: str, steps: int
) -> None:
    stop_after(server, folder, 27)  # 28 of 40 sequences in the third epoch of four
    ended = server.run([*with_option("--batch-size", size), *ALLOWED, "--json"], folder).check()
    told = json.loads(ended.out)
    assert told["steps"] == steps and told["epochs"] == 4 and told["stopped"] == "done"
    assert told["tokens_seen"] == 4 * record_of(folder)["data"]["train_targets"]
    assert f"{steps:,} steps of {size}, 4 epochs" in ended.err


def test_a_limit_of_steps_counts_those_that_are_done(server: Server, folder: Path) -> None:
    stop_after(server, folder, 30)
    changed = [*with_option("--batch-size", "2"), "--max-steps", "35", *ALLOWED, "--json"]
    assert json.loads(server.run(changed, folder).check().out)["steps"] == 35


def test_a_run_whose_order_is_another_begins_the_epoch_anew(server: Server, folder: Path) -> None:
    stop_after(server, folder, 14)  # 16 sequences of the second epoch
    ended = server.run([*with_option("--seed", "4"), *ALLOWED, "--json"], folder).check()
    assert "another order: the epoch begins anew" in ended.err
    told = json.loads(ended.out)
    assert told["steps"] == 14 + 30
    assert told["tokens_seen"] > 4 * record_of(folder)["data"]["train_targets"]


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_weights_that_changed_on_the_disk_are_refused_by_every_command(server: Server, folder: Path) -> None:
    stop_after(server, folder, 12)
    weights = folder / "out" / "model.safetensors"
    flip(weights, -40_000)
    for arguments in (
        [*RUN, "--resume"],
        ["eval", "valid.jsonl", "-m", "out"],
        ["fit", "train.jsonl", "--base", "./out", "-o", "x"],
    ):
        ended = server.run(arguments, folder).check(4)
        assert "out/model.safetensors: damaged: the SHA-256 of its weights" in ended.err
    flip(weights, -40_000)
    server.run([*RUN, "--resume"], folder).check()


def test_weights_that_change_while_the_run_goes_on_are_not_called_its_best(server: Server, folder: Path) -> None:
    run = ["fit", "train.jsonl", "valid.jsonl", "--base", "./tiny", "-o", "out", "--threads", "1", "--max-steps", "3"]
    child = server.start(
        [*run, "--learning-rate", "9", "--eval-every", "9", "--clip", "0"], folder,
        signal_at="convmodel_cli.workflows.run:conclude", signal="SIGKILL",
    )  # fmt: skip
    assert child.wait().code == 137
    with safe_open(str(folder / "out" / "model.safetensors"), "pt") as file:
        assert file.metadata()["step"] == "0", "the run has made the model worse, or the test proves nothing"
    flip(folder / "out" / "model.safetensors", -40_000)
    ended = server.run([*run, "--learning-rate", "9", "--eval-every", "9", "--clip", "0", "--resume"], folder).check(4)
    assert "damaged" in ended.err


def test_every_changed_byte_of_a_tensor_is_found_and_files_of_others_are_left_alone(
    tmp_path: Path, trained: str
) -> None:
    source = Path(trained) / "model.safetensors"
    check_weights(source.parent)
    content = source.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    for place in random.Random(0).sample(range(start, len(content)), 5):
        changed = bytearray(content)
        changed[place] ^= 1 << (place % 8)
        (tmp_path / source.name).write_bytes(changed)
        with pytest.raises(ModelError, match="damaged"):
            check_weights(tmp_path)
    tensors = {name: tensor + 1 for name, tensor in load_file(source).items()}
    save_file(tensors, tmp_path / source.name, metadata={"format": "pt"})  # as another tool saves what it has trained
    check_weights(tmp_path)


@dataclass(frozen=True)
class Event:
    text: str


def test_a_disk_that_takes_a_part_of_a_line_is_given_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / "events.jsonl")
    real = journal._stream

    class Narrow:
        def write(self, data: memoryview) -> int:
            return real.write(data[:7])

    monkeypatch.setattr(journal, "_stream", Narrow())
    journal.write(Event("a long line"))
    journal.write(Event("another"))
    real.close()
    lines = (tmp_path / "events.jsonl").read_text().splitlines()
    assert [json.loads(line)["text"] for line in lines] == ["a long line", "another"]


def test_a_disk_that_takes_no_more_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / "events.jsonl")

    sizes = [5]

    class Full:
        def write(self, data: memoryview) -> int:
            if not sizes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return sizes.pop()

    journal.close()
    monkeypatch.setattr(journal, "_stream", Full())
    with pytest.raises(StorageError, match="No space left"):
        journal.write(Event("a long line"))


@pytest.mark.parametrize("left", [pytest.param("nothing", marks=SLOW), "a part"])
def test_a_journal_that_is_not_whole_any_more_is_mentioned(
    server: Server, folder: Path, uninterrupted: Result, left: str
) -> None:
    stop_after(server, folder, 12)
    journal = folder / "out" / "events.jsonl"
    content = journal.read_bytes()
    if left == "nothing":
        journal.unlink()
    else:
        journal.write_bytes(content[: len(content) // 2])
    ended = server.run([*RUN, "--resume"], folder).check()
    assert re.search(r"out/events.jsonl: [\d,]+ bytes of what was reported are gone", ended.err)
    result = result_of(folder / "out")  # every line is whole
    assert (result.best, result.weights, result.optimizer) == (
        uninterrupted.best, uninterrupted.weights, uninterrupted.optimizer,
    )  # fmt: skip


def test_a_run_that_goes_on_with_other_libraries_says_so_and_records_it(server: Server, folder: Path) -> None:
    stop_after(server, folder, 4)
    path = find_checkpoints(folder / "out")[0]
    change_state(path, lambda state: state["surroundings"].update(torch="2.9.9", processor="Z80"))
    ended = server.run([*RUN, "--resume"], folder).check()
    told = " ".join(ended.err.split())
    assert "torch: 2.9.9 -> " in told and "processor: Z80 -> " in told and "no longer to the very same bits" in told
    [change] = record_of(folder)["changes"]
    assert change["step"] == 4 and any(text.startswith("torch: 2.9.9 -> ") for text in change["changes"])


def change_state(checkpoint: Path, change: Any) -> None:
    """Change state.json, and the manifest with it."""
    from convmodel_cli.workflows.checkpoints import MANIFEST, _manifest

    state = json.loads((checkpoint / "state.json").read_text())
    change(state)
    (checkpoint / "state.json").write_text(json.dumps(state))
    (checkpoint / MANIFEST).unlink()
    (checkpoint / MANIFEST).write_bytes(_manifest(checkpoint))


def test_a_change_that_came_to_no_checkpoint_leaves_no_trace(
    server: Server, folder: Path, uninterrupted: Result
) -> None:
    stop_after(server, folder, 10)
    changed = [*with_option("--learning-rate", "0.1"), *ALLOWED]
    for _ in range(2):
        server.run(changed, folder, signal_at=STEP, signal="SIGKILL", nth=2).check(137)
    server.run([*RUN, "--resume"], folder).check()
    assert record_of(folder)["changes"] == []
    assert result_of(folder / "out") == uninterrupted


def fit_again(folder: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> list[Any]:
    monkeypatch.chdir(folder)
    training = TrainingSettings(epochs=1, batch_size=8, eval_every=5)
    request = FitRequest(("train.jsonl",), ("valid.jsonl",), "./tiny", "out")
    return list(fit(request, RunSettings(**options), training, ComputeSettings(threads=1)))


def test_a_resume_without_room_is_refused_before_its_first_step(
    server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ["fit", "train.jsonl", "valid.jsonl", "--base", "./tiny", "-o", "out", "--epochs", "1", "--batch-size", "8"]
    stop_after(server, folder, 2, run=[*run, "--eval-every", "5", "--threads", "1"])
    monkeypatch.setattr("convmodel_cli.storage.free_bytes", lambda _: 1000)
    monkeypatch.setattr("convmodel_cli.model.training.accumulate_gradients", None)  # no step is tried
    with pytest.raises(StorageError, match=r"out: the run needs [\d,]+ bytes, and 1,000 are free"):
        fit_again(folder, monkeypatch, resume=True)


def test_a_disk_that_knows_no_locks_is_mentioned(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", no_locks)
    notes = [getattr(event, "text", "") for event in fit_again(folder, monkeypatch)]
    assert any("there are no locks here" in note for note in notes)


def test_a_run_stopped_before_its_first_own_step_says_how_to_go_on(
    server: Server, folder: Path, uninterrupted: Result
) -> None:
    stop_after(server, folder, 10)  # before its evaluation
    place = "convmodel_cli.model.evaluation:evaluate"
    ended = server.run([*RUN, "--resume"], folder, signal_at=place, signal="SIGTERM").check(143)
    assert "go on with" in ended.err and "--resume" in ended.err
    server.run([*RUN, "--resume"], folder).check()
    assert result_of(folder / "out") == uninterrupted


def test_an_interrupted_run_tells_its_figures_as_json_and_else_nothing(server: Server, folder: Path) -> None:
    ended = stop_after(server, folder, 12, run=[*RUN, "--json"])
    [line] = ended.out.splitlines()
    told = json.loads(line)
    assert told["stopped"] == "interrupted" and told["steps"] == 12 and told["model"] == "out"
    assert told["valid"]["loss"] == pytest.approx(record_of(folder)["best"]["loss"])
    assert stop_after(server, folder, 1, run=[*RUN, "--resume"]).out == ""


@SLOW
def test_a_run_named_like_a_new_model_remembers_how_far_its_base_looks_back(server: Server, folder: Path) -> None:
    run = ["fit", "train.jsonl", "valid.jsonl", "--base", "./tiny", "-o", "new-tiny", "--threads", "1"]
    whole = server.run([*run[:-4], "-o", "whole", "--threads", "1", "--max-steps", "4"], folder)
    whole.check()
    server.run([*run, "--max-steps", "4"], folder, signal_at=STEP, signal="SIGTERM", nth=2).check(143)
    server.run([*run, "--max-steps", "4", "--resume"], folder).check()
    context = [
        json.loads((folder / name / "convmodel.json").read_text())["max_context"] for name in ("whole", "new-tiny")
    ]
    assert context[0] == context[1]
    assert weights_digest(folder / "whole") == weights_digest(folder / "new-tiny")


SHORT = ["fit", "train.jsonl", "valid.jsonl", "--base", "./tiny", "-o", "out", "--threads", "1", "--max-steps", "3"]


@pytest.mark.parametrize(
    ("name", "damage", "expected"),
    [
        pytest.param("tokenizer.json", "gone", "vocabulary that the weights were trained with, got none", marks=SLOW),
        ("tokenizer.json", '"<|', "vocabulary that the weights were trained with, got another"),
        ("config.json", '"n_layer": 2', "config.json that the weights were trained with, got one without"),
        pytest.param("model.safetensors", "gone", "expected model.safetensors, got no weights", marks=SLOW),
    ],
)  # fmt: skip
def test_a_model_of_which_a_part_is_gone_or_another_is_refused_by_every_command(
    server: Server, folder: Path, name: str, damage: str, expected: str
) -> None:
    server.run(SHORT, folder).check()
    path = folder / "out" / name
    if damage == "gone":
        path.unlink()
    else:
        content = path.read_text()
        assert damage in content
        path.write_text(content.replace(damage, damage.replace("2", "1").replace("<|", "<!"), 1))
    as_base = ["fit", "train.jsonl", "--base", "./out", "-o", "other"]
    for arguments in (["eval", "valid.jsonl", "-m", "out"], as_base, [*SHORT, "--resume"]):
        assert expected in server.run(arguments, folder).check(4).err
    assert not (folder / "other").exists()


def test_a_finished_run_is_not_taken_for_one_of_other_data(server: Server, folder: Path) -> None:
    server.run(SHORT, folder).check()
    assert server.run([*SHORT, "--resume"], folder).check().out == "out\n"
    path = folder / "train.jsonl"
    path.write_bytes(path.read_bytes().replace(b"a", b"b", 1))
    ended = server.run([*SHORT, "--resume"], folder).check(4)
    assert "out: this run is finished, and was of other data: TRAIN: 40 conversations" in ended.err
    assert ended.out == "" and "--base out -o OTHER" in ended.err
    assert server.run([*SHORT, *ALLOWED], folder).check().out == "out\n"


@pytest.mark.parametrize("damage", [pytest.param("gone", marks=SLOW), "cut"])
def test_a_run_goes_on_without_its_record(server: Server, folder: Path, uninterrupted: Result, damage: str) -> None:
    stop_after(server, folder, 12)
    record = folder / "out" / "convmodel.json"
    if damage == "cut":
        record.write_bytes(record.read_bytes()[:100])
        ended = server.run([*RUN, "--resume"], folder).check(4)
        assert "convmodel.json: expected the record of a run" in ended.err and "remove it, and resume" in ended.err
    record.unlink()
    server.run(RUN, folder).check(2)
    server.run([*RUN, "--resume"], folder).check()
    assert result_of(folder / "out") == uninterrupted
    assert record_of(folder)["max_context"] == 64


def test_the_command_that_goes_on_has_the_variables_and_the_data_of_the_one_that_was_stopped(
    server: Server, folder: Path
) -> None:
    run = [*("-" if word == "train.jsonl" else word for word in RUN), "--overwrite"]
    variables = {"CONVMODEL_FIT_CLIP": "0.5"}
    options: dict[str, Any] = {"signal_at": STEP, "signal": "SIGTERM", "nth": 4}
    ended = server.run(run, folder, stdin=str(folder / "train.jsonl"), environment=variables, **options).check(143)
    told = " ".join(ended.err.split())
    assert "CONVMODEL_FIT_CLIP=0.5 convmodel fit - valid.jsonl" in told and told.endswith("--resume < THE-SAME-DATA")
    assert "--overwrite" not in told


def test_a_stopped_run_whose_checkpoint_found_no_room_gives_no_figures(server: Server, folder: Path) -> None:
    """The best weights, 496 kB, have room; the state of the optimizer, 601 kB, has not."""
    stop = {"signal_at": STEP, "signal": "SIGTERM", "nth": 4, "largest_file": 550_000}
    ended = server.run([*RUN, "--save-every", "1000", "--json"], folder, **stop).check(7)
    assert ended.out == ""
    assert "out holds the untrained model" in ended.err


def test_a_run_whose_terminal_is_gone_saves_a_checkpoint(server: Server, folder: Path, uninterrupted: Result) -> None:
    """Where it would show what it does there is nothing any more."""
    master, slave = pty.openpty()
    stop = {"signal_at": STEP, "signal": "SIGSTOP", "nth": 7}
    shown = {"terminal": os.ttyname(slave), "environment": {"TERM": "xterm", "CI": ""}}
    child = server.start(RUN, folder, **shown, **stop)
    os.close(slave)
    while "T (stopped)" not in (state := Path(f"/proc/{child.pid}/status").read_text()):
        assert "Z (zombie)" not in state
        if select.select([master], [], [], 0.005)[0]:
            os.read(master, 65536)
    os.close(master)  # the system sends SIGHUP, and lets it go on
    assert child.wait().code == 129
    assert find_checkpoints(folder / "out")[0].name == "step-000007"
    server.run([*RUN, "--resume"], folder).check()
    assert result_of(folder / "out") == uninterrupted


def test_a_run_goes_on_when_what_is_said_about_it_finds_no_room(
    server: Server, folder: Path, uninterrupted: Result
) -> None:
    assert server.run(RUN, folder, err="/dev/full").check().out == "out\n"
    assert result_of(folder / "out") == uninterrupted
    assert server.run(["eval", "nothing.jsonl", "-m", "out"], folder, err="/dev/full").code == 2


def test_a_disk_with_room_for_the_beginning_alone_is_mentioned(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convmodel_cli.storage.free_bytes", lambda _: 4_000_000)
    monkeypatch.setattr("convmodel_cli.workflows.run.free_bytes", lambda _: 4_000_000)
    notes = [getattr(event, "text", "") for event in fit_again(folder, monkeypatch)]
    assert any(re.search(r"out: the run may need [\d,]+ bytes more, and 4,000,000 are free", note) for note in notes)


def test_a_dry_run_goes_on_where_a_run_would_be_refused(server: Server, folder: Path) -> None:
    server.run(SHORT, folder).check()
    ended = server.run([*SHORT, "--dry-run"], folder).check()
    assert "a run would be refused: out: a run is there already" in ended.err
    assert "3 steps" in ended.out + ended.err
