"""The command line: what it says, to which stream, in which words."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

from conftest import TALKS, Convmodel, OnATerminal
from convmodel_cli.answer_settings import ChatSettings, GenerationSettings, ResponseSettings, SamplingSettings
from convmodel_cli.cli.display import duration, short_count, sparkline
from convmodel_cli.escaping import escaped
from convmodel_cli.knobs import option_name
from convmodel_cli.settings import (
    ComputeSettings,
    EvaluationSettings,
    RunSettings,
    ScreenSettings,
    TrainingSettings,
    parse_duration,
    parse_split,
)
from harness import Server, run_on_a_terminal
from helpers import write_jsonl

GROUPS = {
    "fit": (RunSettings, TrainingSettings, ComputeSettings, ScreenSettings),
    "eval": (EvaluationSettings, ComputeSettings, ScreenSettings),
    "generate": (GenerationSettings, ResponseSettings, SamplingSettings, ComputeSettings, ScreenSettings),
    "chat": (ChatSettings, ResponseSettings, SamplingSettings, ComputeSettings, ScreenSettings),
}


def named_values(hint: Any) -> list[Any]:
    if get_origin(hint) is Literal:
        return list(get_args(hint))
    return [value for part in get_args(hint) for value in named_values(part)]


@pytest.mark.parametrize("group", dict.fromkeys(group for groups in GROUPS.values() for group in groups))
def test_every_value_that_a_setting_names_is_taken(group: Any) -> None:
    for name, hint in get_type_hints(group).items():
        for value in named_values(hint):
            assert getattr(group(**{name: value}), name) == value


@pytest.mark.parametrize("command", GROUPS)
def test_help_lists_every_setting_of_a_command(
    convmodel: Convmodel, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERMINAL_WIDTH", "200")
    outcome = convmodel(command, "-h")
    assert outcome.code == 0
    for group in GROUPS[command]:
        for setting in fields(group):
            assert option_name(setting) in outcome.out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["fit", "--epochs", "0"], "--epochs: expected at least 1, got 0"),
        (["fit", "--learning-rate", "-1"], "--learning-rate: expected a number above 0, got -1.0"),
        (["fit", "--batch-size", "1.5"], "--batch-size: expected a whole number, got 1.5"),
        (["fit", "--batch-size"], "'--batch-size' requires an argument"),
        (["fit", "--learning-rate", "high"], "--learning-rate: expected a number, got high"),
        (["fit", "--schedule", "steep"], "--schedule: 'steep' is not one of 'cosine', 'linear', 'constant'"),
        (["fit", "--warmup", "2"], "--warmup: expected at most 1, got 2.0"),
        (["fit", "--max-time", "soon"], "--max-time: expected a time like 90s, 10m or 1h30m, got 'soon'"),
        (["fit", "--split", "80/30/10"], "--split: expected three percentages that sum to 100"),
        (["fit", "--eopchs", "3"], "--epochs"),
        (["fit", "--precision", "fp16"], "bf16 is as small and as fast"),
        (["fit", "--precision", "int8"], "int8 is for generate and chat"),
        (["fit", "--dry-run", "--precision", "int8"], "int8 is for generate and chat"),
        (["eval", "--precision", "int8", "x.jsonl"], "int8 is for generate and chat"),
        (["generate", "--precision", "int8", "--beams", "2", "Hello"], "--precision int8 excludes --beams"),
        (["generate", "--precision", "int8", "--choices", "x", "Hello"], "--precision int8 excludes --choices"),
        (["eval", "--min-probes", "3", "x.jsonl"], "--min-probes needs --probes"),
        (["generate", "-m", "gpt2"], "nothing to answer"),
        (["generate", "-m", "gpt2", "Hello", "-i", "x"], "exclude each other"),
        (["generate", "-m", "gpt2", "  "], "only white space"),
        (["generate", "--top-p", "0", "x"], "--top-p: expected a number above 0, got 0.0"),
        (["dance"], "No such command"),
        (["fit", "--base", "new-huge"], "--base: expected new-tiny, new-small, new-medium, a folder"),
        (["fit", "-o", ""], "--output: expected a folder, got an empty name"),
        (["fit", "--max-time", "0s"], "--max-time: expected more than no time"),
        (["chat", "--min-new-tokens", "9", "--max-new-tokens", "3"], "--min-new-tokens: expected at most"),
        (["fit", "--learning-rate", "inf"], "--learning-rate: expected a finite number, got inf"),
        (["fit", "--weight-decay", "nan"], "--weight-decay: expected at least 0 and a finite number, got nan"),
        (["chat", "--persona", "\udcff"], "--persona: expected UTF-8 text, got other bytes"),
        (["generate", "-i", "nothing.jsonl"], "nothing.jsonl: no such file"),
    ],
)
def test_a_usage_error_is_a_sentence_and_exits_2(convmodel: Convmodel, arguments: list[str], expected: str) -> None:
    outcome = convmodel(*arguments)
    assert outcome.code == 2
    assert outcome.out == ""
    assert outcome.err.startswith("error: ")
    assert expected in outcome.err
    assert "Traceback" not in outcome.err


def test_bad_lines_are_listed_up_to_twenty_and_all_with_verbose(convmodel: Convmodel, tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "bad.jsonl", [["a", "b"]] + [1] * 25)
    outcome = convmodel("fit", data)
    assert outcome.code == 3
    assert outcome.err.count("expected a list of turns") == 20
    assert "... and 5 more" in outcome.err
    assert "25 bad lines, 1 good" in outcome.err
    assert convmodel("fit", data, "-v").err.count("expected a list of turns") == 25


def test_an_error_reads_as_documented(convmodel: Convmodel, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "talk.jsonl", [["a", "b"]] * 16 + [17])
    assert convmodel("fit", "talk.jsonl").err == (
        "error: talk.jsonl:17: expected a list of turns, got the number 17\n"
        'hint: write each conversation on one line, like ["Hello", "Hi there"]\n'
    )


def test_options_come_from_the_environment_and_the_command_line_wins(
    convmodel: Convmodel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONVMODEL_FIT_EPOCHS", "0")
    assert "--epochs: expected at least 1, got 0" in convmodel("fit").err
    assert "no such file" in convmodel("fit", "none.jsonl", "--epochs", "1").err


def test_an_internal_error_is_one_line_and_a_traceback_with_debug(
    convmodel: Convmodel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("boom\x1b[31m")

    monkeypatch.setattr("convmodel_cli.workflows.fit.read_fit_data", broken)
    outcome = convmodel("fit")
    assert outcome.code == 1
    assert "internal error: RuntimeError: boom\\x1b[31m" in outcome.err
    assert "Traceback" not in outcome.err
    assert "Traceback" in convmodel("fit", "--debug").err


def test_escaping_keeps_newlines_joiners_and_marks() -> None:
    assert escaped("a\nb\tc\u200d\u200ce\u0301") == "a\nb\tc\u200d\u200ce\u0301"
    assert escaped("\x1b\x9b\ud800\u2028") == "\\x1b\\x9b\\ud800\\u2028"


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("10m", 600), ("1h30m", 5400), ("1.5h", 5400)])
def test_durations_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


def test_splits_are_read() -> None:
    assert parse_split("80/10/10") == (0.8, 0.1, 0.1)


def test_figures_are_shown_short() -> None:
    assert [duration(192), duration(3792)] == ["3:12", "1:03:12"]
    assert [short_count(8210), short_count(124_000_000), short_count(7)] == ["8.21k", "124M", "7"]
    assert sparkline([3, 1, 2]) == "█▁▅"
    assert sparkline([1, 1]) == "▁▁"
    assert sparkline([1.0, float("nan"), 2.0, float("inf")]) == "▁×█×"
    assert len(sparkline(list(range(500)), width=40)) == 40
    assert sparkline(list(range(500)), width=40)[-1] == "█"


def test_a_run_on_a_terminal_draws_a_bar(on_a_terminal: OnATerminal, tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "data.jsonl", [[f"a {number}", "c d"] for number in range(30)])
    options = ["-o", "out", "--epochs", "1", "--batch-size", "2"]
    seen = on_a_terminal(["fit", data, *options], [])
    assert seen.endswith("exit 0"), seen
    for part in ("epoch ", "tok/s", "ETA", "lr ", " GB", "portability"):
        assert part in seen


@pytest.mark.parametrize("options", [[], ["--json"]], ids=str)
def test_the_result_of_a_run_goes_to_stdout_though_a_bar_is_drawn(
    server: Server, workshop: Path, tmp_path: Path, options: list[str]
) -> None:
    """As in MODEL=$(convmodel fit), where the bar is seen and stdout is not."""
    fit = ["fit", str(workshop / "train.jsonl"), "--base", str(workshop / "tiny"), "--max-steps", "1", "-o", "out"]
    result = tmp_path / "result"
    seen = run_on_a_terminal(server, tmp_path, [*fit, *options], [], {}, out=str(result), apart=(1,))
    assert seen.endswith("exit 0") and "tok/s" in seen, seen
    written = result.read_text()
    assert written == "out\n" or (options and json.loads(written)["model"] == "out")


def test_a_reader_that_leaves_early_is_no_error(trained: str, tmp_path: Path) -> None:
    lines = b"Hi!\n" * 50
    command = f"{sys.executable} -m convmodel_cli generate -m {trained} -i - --batch-size 1 | head -1"
    done = subprocess.run(["bash", "-c", command], input=lines, capture_output=True, cwd=tmp_path, check=False)
    assert done.stdout.count(b"\n") == 1
    assert done.stderr == b""


def test_a_closed_stderr_leaves_stdout_to_the_result(
    convmodel: Convmodel, workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_jsonl(tmp_path / "data.jsonl", TALKS)
    monkeypatch.setattr(sys, "stderr", None)
    outcome = convmodel("fit", data, "-o", "out", "--base", str(workshop / "tiny"), "--max-steps", "1")
    assert (outcome.code, outcome.out) == (0, "out\n")
    assert convmodel("fit", "nothing.jsonl").out == ""


@pytest.mark.slow
def test_a_run_goes_on_when_nobody_reads_what_is_said_about_it(workshop: Path, tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "data.jsonl", [[f"a {number}", "c d"] for number in range(30)])
    fit = f"{sys.executable} -m convmodel_cli fit {data} -o out --base {workshop}/tiny --epochs 5 --eval-every 1"
    command = f"{fit} 2>&1 >path.txt | head -2; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.stdout.splitlines()[-1] == "0"
    assert (tmp_path / "path.txt").read_text() == "out\n"
    assert json.loads((tmp_path / "out" / "convmodel.json").read_text())["finished"]["stopped"] == "done"


def test_a_full_device_is_a_storage_error(server: Server, trained: str, tmp_path: Path) -> None:
    ended = server.run(["generate", "-m", trained, "Hi"], tmp_path, out="/dev/full").check(7)
    assert "No space left" in ended.err


def test_color_never_and_no_color_send_no_escape_codes_with_an_error(on_a_terminal: OnATerminal) -> None:
    assert "\x1b" not in on_a_terminal(["fit", "nothing.jsonl", "--color", "never"], [])
    assert "\x1b" not in on_a_terminal(["fit", "nothing.jsonl"], [], NO_COLOR="1")


@pytest.mark.parametrize("variable", [{"CI": "1"}, {"TERM": "dumb"}], ids=str)
def test_a_run_in_ci_or_on_a_dumb_terminal_is_plain_lines(
    workshop: Path, on_a_terminal: OnATerminal, tmp_path: Path, variable: dict[str, str]
) -> None:
    data = write_jsonl(tmp_path / "data.jsonl", [[f"a {number}", "c d"] for number in range(30)])
    options = ["-o", "out", "--base", str(workshop / "tiny"), "--max-steps", "2", "--eval-every", "1"]
    seen = on_a_terminal(["fit", data, *options], [], FORCE_COLOR="1", **variable)
    assert seen.endswith("exit 0"), seen
    assert seen.count("\nEp 1 (Step ") == 3
    assert "\x1b" not in seen and "\r" not in seen.replace("\r\n", "\n")


def test_a_long_run_prints_at_most_sixty_lines(convmodel: Convmodel, workshop: Path, tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "data.jsonl", [[f"a {number}", "c d"] for number in range(30)])
    options = ["--epochs", "4", "--batch-size", "2", "--eval-every", "1", "--patience", "0", "--precision", "fp32"]
    options += ["--base", str(workshop / "tiny"), "--save-every", "1000", "--sample", "Hi"]
    outcome = convmodel("fit", data, "-o", "out", *options)
    assert outcome.code == 0
    assert 30 < outcome.err.count("\n") <= 60


def test_no_command_shows_the_help_and_exits_2(convmodel: Convmodel) -> None:
    outcome = convmodel()
    assert outcome.code == 2
    assert "Usage: convmodel" in outcome.out + outcome.err
    assert "error:" not in outcome.err


def test_help_on_a_pipe_has_no_escape_codes_whatever_the_environment(tmp_path: Path) -> None:
    environment = {**os.environ, "GITHUB_ACTIONS": "true", "FORCE_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "convmodel_cli", "fit", "--help"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        check=True,
    )
    assert b"--learning-rate" in done.stdout
    assert b"\x1b" not in done.stdout
