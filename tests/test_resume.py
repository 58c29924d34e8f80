"""Runs that break off and go on: to the same bits, and only as the same run."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from safetensors import safe_open
from transformers import AutoTokenizer

from convmodel_cli.model.evaluation import Score
from convmodel_cli.workflows.checkpoints import find_checkpoints
from convmodel_cli.workflows.state import RunState, dump_state, load_state
from harness import RUN, STEPS, Child, Ended, Result, Server, assert_loads, copy_workshop, result_of, resume
from helpers import made_up_conversations, small_llama, weights_digest, write_conversations

STEP = "convmodel_cli.model.training:accumulate_gradients"
RESUME = [*RUN, "--resume"]


@pytest.fixture
def folder(workshop: Path, tmp_path: Path) -> Path:
    return copy_workshop(workshop, tmp_path / "w")


def stop_after(server: Server, folder: Path, steps: int, name: str = "SIGTERM", run: list[str] = RUN) -> Ended:
    return server.run(run, folder, signal_at=STEP, signal=name, nth=steps)


@pytest.mark.parametrize("stops", [[3, 1, 8, 5, 20], pytest.param([1] * STEPS, marks=pytest.mark.slow, id="each step")])
def test_a_run_stopped_again_and_again_ends_with_the_same_bits(
    server: Server, folder: Path, uninterrupted: Result, stops: list[int]
) -> None:
    """Over epochs, with dropout, shuffling, warm-up and decay; the journal holds each step and evaluation once."""
    done = 0
    for steps in stops:
        stop_after(server, folder, steps, run=RESUME).check(143)
        done += steps
        assert find_checkpoints(folder / "out")[0].name == f"step-{done:06d}"
        assert_loads(folder / "out")
    server.run(RESUME, folder).check()
    assert result_of(folder / "out") == uninterrupted


def test_a_run_in_bf16_goes_on_to_the_same_bits(server: Server, folder: Path, workshop: Path, tmp_path: Path) -> None:
    run = [*RUN, "--precision", "bf16", "--max-steps", "12"]
    other = copy_workshop(workshop, tmp_path / "other")
    server.run(run, other).check()
    stop_after(server, folder, 7, run=run).check(143)
    server.run([*run, "--resume"], folder).check()
    assert result_of(folder / "out") == result_of(other / "out")


def test_without_a_checkpoint_or_a_folder_a_resume_starts_over_and_says_so(
    server: Server, folder: Path, uninterrupted: Result
) -> None:
    ended = server.run(RESUME, folder, signal_at=STEP, signal="SIGKILL")
    ended.check(137)
    assert "there is no checkpoint to resume, so the run starts over" in ended.err
    ended = server.run(RESUME, folder).check()
    assert "there is no checkpoint to resume, so the run starts over" in ended.err
    assert result_of(folder / "out") == uninterrupted


def test_a_finished_run_says_so_and_prints_its_figures_again(server: Server, folder: Path) -> None:
    run = [*RUN, "--max-steps", "6"]
    first = server.run([*run, "--json"], folder).check()
    before = result_of(folder / "out")
    again = server.run([*run, "--json", "--resume"], folder).check()
    assert "this run is finished" in again.err
    assert json.loads(again.out) == json.loads(first.out)
    assert server.run([*run, "--resume"], folder).check().out == "out\n"
    assert result_of(folder / "out") == before


def test_a_run_that_crashed_when_all_but_its_report_was_done_is_finished_by_a_resume(
    server: Server, folder: Path, uninterrupted: Result
) -> None:
    server.run(RUN, folder, signal_at="convmodel_cli.workflows.report:summarize", signal="SIGKILL", nth=10).check(137)
    assert json.loads((folder / "out" / "convmodel.json").read_text())["finished"]["steps"] == STEPS
    resume(server, folder, RUN)
    assert 'class="state done"' in (folder / "out" / "report.html").read_text()
    assert result_of(folder / "out") == uninterrupted


def test_a_run_that_did_not_end_is_neither_replaced_nor_taken_up_by_chance(server: Server, folder: Path) -> None:
    stop_after(server, folder, 4).check(143)
    ended = server.run(RUN, folder).check(2)
    assert "--resume" in ended.err and "--overwrite" in ended.err and "-o" in ended.err
    assert find_checkpoints(folder / "out")[0].name == "step-000004"
    ended = server.run([*RUN, "--resume", "--overwrite"], folder).check()
    assert "going on after step 4" in ended.err


CHANGED = {
    "--learning-rate": ("0.003", "0.004"),
    "--batch-size": ("4", "5"),
    "--seed": ("3", "4"),
    "--threads": ("1", "2"),
    "--dropout": ("0.1", "0.2"),
    "--optimizer": ("muon", "adamw"),
    "--epochs": ("4", "5"),
}


def with_option(option: str, value: str) -> list[str]:
    run = list(RESUME)
    run[run.index(option) + 1] = value
    return run


def test_other_settings_are_refused_each_with_its_old_and_new_value(server: Server, folder: Path) -> None:
    stop_after(server, folder, 4).check(143)
    for option, (old, new) in CHANGED.items():
        ended = server.run(with_option(option, new), folder).check(4)
        assert f"{option}: {old} -> {new}" in ended.err
        assert "--allow-changes" in ended.err
    both = with_option("--seed", "4")
    both[both.index("--threads") + 1] = "2"
    ended = server.run(both, folder).check(4)
    assert "--seed: 3 -> 4; --threads: 1 -> 2" in ended.err
    (folder / "other").symlink_to(folder / "tiny")
    ended = server.run([*with_option("--base", "./other"), "--allow-changes"], folder).check(4)
    assert "another model" in ended.err and "--base: ./tiny -> ./other" in ended.err
    server.run([*RESUME, "--max-time", "1h", "--sample", "Hello"], folder).check()


@pytest.mark.parametrize("name", ["train", "valid"])
def test_one_changed_byte_in_the_data_is_refused_unless_allowed_and_then_recorded(
    server: Server, folder: Path, name: str
) -> None:
    stop_after(server, folder, 4).check(143)
    path = folder / f"{name}.jsonl"
    path.write_bytes(path.read_bytes().replace(b"a", b"b", 1))
    ended = server.run(RESUME, folder).check(4)
    assert re.search(rf"{name.upper()}: \d+ conversations, SHA-256 \w+ -> \d+ conversations, SHA-256 \w+", ended.err)
    ended = server.run([*RESUME, "--allow-changes"], folder).check()
    assert f"changed: {name.upper()}: " in ended.err
    [changes] = json.loads((folder / "out" / "convmodel.json").read_text())["changes"]
    assert changes["step"] == 4 and changes["changes"][0].startswith(name.upper())


def test_an_allowed_change_of_the_optimizer_starts_its_averages_afresh(server: Server, folder: Path) -> None:
    stop_after(server, folder, 4).check(143)
    ended = server.run([*with_option("--optimizer", "adamw"), "--allow-changes"], folder).check()
    assert "its averages start afresh" in ended.err


def test_losses_of_other_validation_data_are_not_compared_with_those_before(server: Server, folder: Path) -> None:
    """The first evaluation on the new data is the best so far, whatever the old one was."""
    stop_after(server, folder, 40).check(143)
    hard = [["xyzzy plugh", "qux quux corge"]] * 10
    (folder / "valid.jsonl").write_text("".join(json.dumps(turns) + "\n" for turns in hard))
    server.run([*RESUME, "--allow-changes", "--epochs", "5"], folder).check()
    record = json.loads((folder / "out" / "convmodel.json").read_text())
    assert record["best"]["step"] > 40


def test_weights_from_beyond_the_checkpoint_do_not_outlive_a_change(server: Server, folder: Path) -> None:
    """Killed between swapping in a better model and the checkpoint that knows of it, then resumed otherwise."""
    place = "convmodel_cli.workflows.run:save_checkpoint"
    server.run(RUN, folder, signal_at=place, signal="SIGKILL", nth=3).check(137)
    with safe_open(str(folder / "out" / "model.safetensors"), "pt") as file:
        assert file.metadata()["step"] == "15"
    # At this rate nothing is learned any more: no later loss is below the one of the weights that are there.
    options = ["--learning-rate", "1e-9", "--allow-changes"]
    server.run([*RESUME, *options], folder).check()
    record = json.loads((folder / "out" / "convmodel.json").read_text())["best"]
    arguments = ["eval", "valid.jsonl", "-m", "out", "--json", "--threads", "1"]
    measured = json.loads(server.run(arguments, folder).check().out)
    assert measured["loss"] == pytest.approx(record["loss"], rel=1e-9)


def test_the_run_says_the_figures_of_the_weights_that_are_there(server: Server, folder: Path) -> None:
    """Time is over before the weights from beyond the checkpoint have come again."""
    place = "convmodel_cli.workflows.run:save_checkpoint"
    server.run(RUN, folder, signal_at=place, signal="SIGKILL", nth=3).check(137)
    ended = server.run([*RESUME, "--max-time", "0.001s", "--json"], folder).check()
    arguments = ["eval", "valid.jsonl", "-m", "out", "--json", "--threads", "1"]
    measured = json.loads(server.run(arguments, folder).check().out)
    told = json.loads(ended.out)
    assert told["best_step"] == 15
    assert told["valid"]["loss"] == pytest.approx(measured["loss"], rel=1e-9)
    assert json.loads((folder / "out" / "convmodel.json").read_text())["best"]["step"] == 15


def test_a_change_that_makes_losses_incomparable_can_itself_be_resumed(server: Server, folder: Path) -> None:
    stop_after(server, folder, 12).check(143)
    path = folder / "valid.jsonl"
    path.write_bytes(path.read_bytes().replace(b"a", b"b", 1))
    stop_after(server, folder, 1, run=[*RESUME, "--allow-changes"]).check(143)
    server.run(RESUME, folder).check()
    assert json.loads((folder / "out" / "convmodel.json").read_text())["best"]["loss"] > 0


@pytest.mark.parametrize("damage", ["cut", "a model alone"])
def test_a_resume_never_starts_over_where_a_model_would_be_lost(server: Server, folder: Path, damage: str) -> None:
    run = [word for word in RUN if word != "--keep-checkpoints"]
    server.run([*run, "--max-steps", "5"], folder).check()
    record = folder / "out" / "convmodel.json"
    content = json.loads(record.read_text())
    if damage == "cut":
        record.write_bytes(record.read_bytes()[:500])
    else:  # as the Python face writes it
        record.write_text(json.dumps({name: content[name] for name in ("base", "settings", "data", "max_context")}))
    before = weights_digest(folder / "out")
    server.run([*run, "--resume"], folder).check(4)
    assert weights_digest(folder / "out") == before


def test_another_budget_counts_from_the_resume_on(server: Server, folder: Path) -> None:
    stop_after(server, folder, 4).check(143)
    options = ["--micro-batch-tokens", "64", "--allow-changes", "--save-every", "1"]
    stop_after(server, folder, 2, run=[*RESUME, *options]).check(143)
    state = json.loads((find_checkpoints(folder / "out")[0] / "state.json").read_text())
    assert state["progress"]["micro_batch_tokens"] == 64


def test_patience_counts_on_over_a_stop(server: Server, folder: Path) -> None:
    write_conversations(folder / "few.jsonl", made_up_conversations(4, seed=9))
    run = [*WORSENS, "--patience", "3"]
    server.run([*run, "-o", "whole"], folder).check()
    for steps in (7, 2):
        server.run([*run, "--resume"], folder, signal_at=STEP, signal="SIGTERM", nth=steps).check(143)
    resume(server, folder, run)
    assert result_of(folder / "out").journal[-1].replace('"out"', '"whole"') == result_of(folder / "whole").journal[-1]
    assert json.loads((folder / "out" / "convmodel.json").read_text())["finished"]["stopped"] == "patience"


def test_a_state_that_is_saved_is_the_state_that_is_loaded() -> None:
    losses = [(0, 3.0, None), (5, 2.75, 2.5)]
    state = RunState(7, 2, 2, 12, 900, 950, 3.5, 12.25, 40, 5, 2.5, Score(10.0, 4, 9), 2, losses)
    state.micro_batch_tokens, state.seconds = 64, 100.0
    loaded = load_state(orjson.loads(orjson.dumps(dump_state(state))), state.since)
    assert replace(loaded, seconds=100.0) == state
    assert loaded.elapsed >= 100.0
    empty = load_state(orjson.loads(orjson.dumps(dump_state(RunState(since=1.0)))), 1.0)
    assert replace(empty, seconds=0.0) == RunState(since=1.0)


def test_a_second_run_on_an_output_is_kept_out_and_a_dead_one_is_not_in_the_way(
    server: Server, folder: Path, uninterrupted: Result
) -> None:
    first = server.start(RUN, folder)
    wait_for(folder / "out" / "checkpoints", first)
    second = server.run(RESUME, folder).check(7)
    assert f"out: in use by another run, process {first.pid}" in second.err
    first.kill()
    first.wait()
    resume(server, folder, RUN)
    assert result_of(folder / "out") == uninterrupted


def wait_for(path: Path, child: Child) -> None:
    while not path.exists() and Path(f"/proc/{child.pid}").exists():
        time.sleep(0.005)


@pytest.mark.parametrize("kills", [2, pytest.param(40, marks=pytest.mark.slow)])
def test_a_run_killed_at_random_moments_resumes_to_the_same_bits(
    server: Server, workshop: Path, uninterrupted: Result, tmp_path: Path, kills: int
) -> None:
    """The moments are spread over most of the time that a run takes here and now, so that few of them come too late."""
    started = time.monotonic()
    server.run(RUN, copy_workshop(workshop, tmp_path / "whole")).check()
    whole = time.monotonic() - started
    random_numbers = random.Random(kills)
    killed = 0
    for number in range(kills):
        folder = copy_workshop(workshop, tmp_path / f"w{number}")
        child = server.start(RUN, folder)
        time.sleep(whole * random_numbers.uniform(0.02, 0.7))
        child.kill()
        killed += child.wait().code == 137
        resume(server, folder, RUN)
        assert result_of(folder / "out") == uninterrupted
    assert killed >= kills / 2


def count_changes(server: Server, folder: Path, run: list[str]) -> int:
    log = folder / "changes"
    server.run(run, folder, under=str(folder / "out"), log=str(log)).check()
    changes = [line for line in log.read_text().splitlines() if not line.startswith("fsync")]
    log.unlink()
    return len(changes)


def check_crash(server: Server, folder: Path, at: int, uninterrupted: Result) -> None:
    under = str(folder / "out")
    server.run(RUN, folder, under=under, crash_at=at).check(137)
    if (folder / "out" / "model.safetensors").exists():
        assert_loads(folder / "out")
    resume(server, folder, RUN)
    assert result_of(folder / "out") == uninterrupted


def test_a_crash_at_a_change_of_the_file_system_loses_nothing(
    server: Server, workshop: Path, uninterrupted: Result, tmp_path: Path
) -> None:
    changes = count_changes(server, copy_workshop(workshop, tmp_path / "counted"), RUN)
    places = random.Random(0).sample(range(1, changes + 1), 2)
    for at in places:
        check_crash(server, copy_workshop(workshop, tmp_path / f"w{at}"), at, uninterrupted)


@pytest.mark.slow
def test_a_crash_at_every_change_of_the_file_system_loses_nothing(
    server: Server, workshop: Path, uninterrupted: Result, tmp_path: Path
) -> None:
    changes = count_changes(server, copy_workshop(workshop, tmp_path / "counted"), RUN)
    assert changes > 100
    for at in range(1, changes + 1):
        check_crash(server, copy_workshop(workshop, tmp_path / f"w{at}"), at, uninterrupted)


@pytest.mark.slow
def test_a_crash_while_the_checkpoints_of_a_finished_run_are_removed_leaves_no_trace(
    server: Server, workshop: Path, uninterrupted: Result, tmp_path: Path
) -> None:
    run = [word for word in RUN if word != "--keep-checkpoints"]
    changes = count_changes(server, copy_workshop(workshop, tmp_path / "counted"), run)
    for at in range(changes - 15, changes + 1):
        folder = copy_workshop(workshop, tmp_path / f"w{at}")
        server.run(run, folder, under=str(folder / "out"), crash_at=at).check(137)
        assert_loads(folder / "out")
        resume(server, folder, run)
        assert weights_digest(folder / "out") == uninterrupted.best
        assert not (folder / "out" / "checkpoints").exists()
        assert not [path for path in (folder / "out").iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("rounds", [1, pytest.param(10, marks=pytest.mark.slow)])
def test_three_crashes_in_a_row_one_of_them_while_resuming_lose_nothing(
    server: Server, workshop: Path, uninterrupted: Result, tmp_path: Path, rounds: int
) -> None:
    random_numbers = random.Random(rounds)
    for number in range(rounds):
        folder = copy_workshop(workshop, tmp_path / f"w{number}")
        under = str(folder / "out")
        server.run(RUN, folder, under=under, crash_at=random_numbers.randint(40, 90)).check(137)
        server.run(RESUME, folder, under=under, crash_at=random_numbers.randint(1, 8)).check(137)
        server.run(RESUME, folder, under=under, crash_at=random_numbers.randint(9, 25)).check(137)
        resume(server, folder, RUN)
        assert result_of(folder / "out") == uninterrupted


@pytest.mark.slow
def test_a_crash_while_a_run_is_replaced_leaves_a_folder_that_can_be_used_again(
    server: Server, workshop: Path, uninterrupted: Result, tmp_path: Path
) -> None:
    for at in (1, 4, 6, 12, 20):
        folder = copy_workshop(workshop, tmp_path / f"w{at}")
        server.run([*RUN, "--max-steps", "5"], folder).check()
        server.run([*RUN, "--overwrite"], folder, under=str(folder / "out"), crash_at=at).check(137)
        server.run([*RUN, "--overwrite"], folder).check()
        assert result_of(folder / "out") == uninterrupted


@pytest.mark.slow
def test_neither_hashing_nor_folder_nor_locale_changes_a_run(
    workshop: Path, uninterrupted: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONHASHSEED", "77")
    monkeypatch.setenv("LC_ALL", "C")
    elsewhere = Server()
    folder = copy_workshop(workshop, tmp_path / "another folder, ünlike the other")
    ended = elsewhere.run(RUN, folder).check()
    elsewhere.close()
    assert ended.out == "out\n"
    assert result_of(folder / "out") == uninterrupted


WORSENS = ["fit", "few.jsonl", "valid.jsonl", "--base", "./tiny", "-o", "out", "--precision", "fp32", "--threads", "1"]
WORSENS += ["--learning-rate", "0.01", "--optimizer", "muon", "--schedule", "constant", "--warmup", "0"]
WORSENS += ["--batch-size", "4", "--eval-every", "2", "--epochs", "16", "--patience", "0", "--keep-checkpoints"]


@pytest.mark.parametrize(
    ("keep", "stops"),
    [("1", 5)] + [pytest.param(keep, 2, marks=pytest.mark.slow) for keep in "123"],
)
def test_the_folder_is_the_best_model_at_every_moment(server: Server, folder: Path, keep: str, stops: int) -> None:
    """The loss gets better twice and then worse six times; stopped on the way, the folder has what the record says."""
    write_conversations(folder / "few.jsonl", made_up_conversations(4, seed=9))
    best = []
    for done in [*range(stops, 16, stops), 16]:
        options = [*WORSENS, "--keep", keep, "--resume"]
        ended = server.run(options, folder, signal_at=STEP, signal="SIGTERM", nth=stops)
        assert ended.code == (143 if done % stops == 0 else 0)
        record = json.loads((folder / "out" / "convmodel.json").read_text())["best"]
        arguments = ["eval", "valid.jsonl", "-m", "out", "--json", "--threads", "1"]
        measured = json.loads(server.run(arguments, folder).check().out)
        assert measured["loss"] == pytest.approx(record["loss"], rel=1e-9)
        best.append(record["step"])
    # A run that is stopped after a step evaluates that step when it goes on.
    assert best[:-1] == [min(4, (step - 1) // 2 * 2) for step in range(stops, 16, stops)]
    assert best[-1] == 4
    server.run([*WORSENS, "--keep", keep, "--resume"], folder).check()
    losses = [line["valid_loss"] for line in journal_of(folder) if line["event"] == "Evaluated"]
    assert losses.index(min(losses)) == 2 and losses[2:] == sorted(losses[2:])
    assert len(find_checkpoints(folder / "out")) == int(keep)


def test_weights_of_a_detour_are_not_taken_for_the_runs_own(server: Server, folder: Path) -> None:
    """Gone on with otherwise, killed, then gone on with as it was: what lies there is of what was not kept."""
    write_conversations(folder / "few.jsonl", made_up_conversations(4, seed=9))
    stop_after(server, folder, 9, run=WORSENS)
    detour = [*WORSENS, "--resume", "--allow-changes"]
    detour[detour.index("valid.jsonl")] = "few.jsonl"  # which the run knows better with every step
    server.run(detour, folder, signal_at="convmodel_cli.workflows.run:save_checkpoint", signal="SIGKILL").check(137)
    with safe_open(str(folder / "out" / "model.safetensors"), "pt") as file:
        assert file.metadata()["step"] == "10"
    run = [*WORSENS, "--resume"]
    run[run.index("--learning-rate") + 1] = "0.0001"  # from here on it gets better again
    server.run([*run, "--allow-changes"], folder).check()
    best = json.loads((folder / "out" / "convmodel.json").read_text())["best"]
    later = [line["valid_loss"] for line in journal_of(folder) if line["event"] == "Evaluated" and line["step"] > 9]
    assert best["loss"] == min(later)


def test_the_best_model_is_measured_anew_on_other_validation_data(server: Server, folder: Path) -> None:
    write_conversations(folder / "few.jsonl", made_up_conversations(4, seed=9))
    stop_after(server, folder, 9, run=WORSENS)  # the best is that of step 4, and all that come are worse
    write_conversations(folder / "other.jsonl", made_up_conversations(10, seed=8))
    run = [*WORSENS, "--resume", "--allow-changes"]
    run[run.index("valid.jsonl")] = "other.jsonl"
    server.run(run, folder).check()
    best = json.loads((folder / "out" / "convmodel.json").read_text())["best"]
    arguments = ["eval", "other.jsonl", "-m", "out", "--json", "--threads", "1"]
    measured = json.loads(server.run(arguments, folder).check().out)
    assert best["step"] == 4 and measured["loss"] == pytest.approx(best["loss"], rel=1e-9)


def journal_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "out" / "events.jsonl").read_text().splitlines()]


def test_a_padded_run_goes_on_to_the_same_bits(server: Server, folder: Path, workshop: Path, tmp_path: Path) -> None:
    """A Llama, whose micro-batches are rows of one length, and which takes no token types."""
    tokenizer = AutoTokenizer.from_pretrained(workshop / "tiny")
    small_llama(tokenizer).save_pretrained(tmp_path / "llama")
    tokenizer.save_pretrained(tmp_path / "llama")
    run = [*RUN, "--base", str(tmp_path / "llama"), "--max-steps", "6"]
    other = copy_workshop(workshop, tmp_path / "other")
    server.run(run, other).check()
    stop_after(server, folder, 3, run=run).check(143)
    resume(server, folder, run)
    assert result_of(folder / "out") == result_of(other / "out")


NEW_RUN = ["fit", "train.jsonl", "valid.jsonl", "-o", "out", "--max-steps", "6", "--batch-size", "4", "--threads", "2"]
NEW_RUN += ["--vocab-size", "320", "--dropout", "0.1", "--eval-every", "6", "--keep-checkpoints"]


@pytest.mark.slow
def test_a_new_model_in_two_threads_goes_on_to_the_same_bits(
    server: Server, folder: Path, workshop: Path, tmp_path: Path
) -> None:
    """In the precision that a run takes by itself."""
    other = copy_workshop(workshop, tmp_path / "other")
    server.run(NEW_RUN, other).check()
    stop_after(server, folder, 3, run=NEW_RUN).check(143)
    resume(server, folder, NEW_RUN)
    assert json.loads((folder / "out" / "convmodel.json").read_text())["base"] == "new-tiny"
    assert result_of(folder / "out") == result_of(other / "out")


@pytest.mark.slow
def test_hashing_changes_neither_a_new_vocabulary_nor_new_weights(workshop: Path, tmp_path: Path) -> None:
    made = []
    for seed in ("1", "2"):
        folder = copy_workshop(workshop, tmp_path / seed)
        command = [sys.executable, "-m", "convmodel_cli", *NEW_RUN, "--threads", "1", "--max-steps", "2"]
        subprocess.run(command, cwd=folder, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True)
        made.append([result_of(folder / "out"), (folder / "out" / "tokenizer.json").read_bytes()])
    assert made[0] == made[1]
