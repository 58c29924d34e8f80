"""The files of a chat: loaded, written down, kept for fit, held against a golden, private where they are to be."""

from __future__ import annotations

import gzip
import json
import os
import resource
import stat
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from prompt_toolkit.history import InMemoryHistory

from conftest import TALKS, Convmodel, OnATerminal, Replay
from convmodel_cli.answer_events import Answered, Response
from convmodel_cli.cli.chat_prompt import _history
from convmodel_cli.cli.chat_screen import Lines, Session
from convmodel_cli.cli.display import Screen
from convmodel_cli.errors import StorageError
from convmodel_cli.settings import ScreenSettings
from convmodel_cli.workflows.chat_files import Transcript
from helpers import write_jsonl

NO_MODEL = ["-m", "./no-such-model"]  # what is wrong is said before a model is looked for


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def roles(*turns: str, first: str = "user") -> dict[str, object]:
    names = ["user", "assistant"] if first == "user" else ["assistant", "user"]
    return {"messages": [{"role": names[index % 2], "content": turn} for index, turn in enumerate(turns)]}


@pytest.fixture
def umask_022() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


# What is loaded


def test_a_loaded_chat_goes_on_with_what_is_piped_in(convmodel: Convmodel, wide: str, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "talks.jsonl", [TALKS[0], TALKS[1][:2]])
    outcome = convmodel("chat", "-m", wide, "--greedy", "--load", "talks.jsonl", stdin=b"And to drink?\n")
    assert (outcome.out, outcome.err) == ("Only water.\n", "going on after 2 turns from talks.jsonl\n")
    assert outcome.code == 0


def test_a_pending_turn_is_answered_first(convmodel: Convmodel, wide: str, tmp_path: Path) -> None:
    (tmp_path / "talk.txt").write_text("Hi!\n\nWhat do you eat?\nI like rice and beans.\nAnd to drink?\n")
    options = ["--greedy", "--load", "talk.txt", "--transcript", "said.txt", "-q"]
    outcome = convmodel("chat", "-m", wide, *options)
    assert (outcome.code, outcome.out, outcome.err) == (0, "Only water.\n", "")
    assert (tmp_path / "said.txt").read_text() == "you> And to drink?\nbot> Only water.\n"


@pytest.mark.parametrize("source", ["-", "/dev/fd/{}"])
def test_what_can_be_read_only_once_is_read_once(convmodel: Convmodel, wide: str, source: str) -> None:
    talk = json.dumps(TALKS[1][:3]).encode() + b"\n"
    reading, writing = os.pipe()
    os.write(writing, talk)
    os.close(writing)
    outcome = convmodel(
        "chat", "-m", wide, "--greedy", "-q", "--load", source.format(reading), stdin=talk * (source == "-")
    )
    os.close(reading)
    assert (outcome.code, outcome.out, outcome.err) == (0, "Only water.\n", "")


@pytest.mark.parametrize(
    ("content", "code", "problem"),
    [
        (None, 2, "talks.jsonl: no such file"),
        (b"", 3, "talks.jsonl: expected conversations, got an empty file"),
        (b'["a"]\n[]\n', 3, "talks.jsonl:2: expected at least one turn, got an empty list"),
    ],
)
def test_what_cannot_be_loaded_is_said_before_a_model_is_looked_for(
    convmodel: Convmodel, tmp_path: Path, content: bytes | None, code: int, problem: str
) -> None:
    if content is not None:
        (tmp_path / "talks.jsonl").write_bytes(content)
    outcome = convmodel("chat", *NO_MODEL, "--load", "talks.jsonl")
    assert (outcome.code, outcome.out) == (code, "")
    assert outcome.err.startswith(f"error: {problem}\n")


# What is written down


def test_the_transcript_holds_turns_and_commands_and_is_appended_to(
    convmodel: Convmodel, wide: str, tmp_path: Path
) -> None:
    script = [
        "What do you eat?",
        "//Hi!\x1b[31m",
        "/undo",
        "/retry 2",
        "/pick 1",
        "/fix Only\x1b[2J water.",
        "/HISTORY",
    ]
    (tmp_path / "talk.txt").write_text("\n".join([*script, "/edit Hi!", "/pick 9"]))
    options = ["--greedy", "--script", "talk.txt", "--transcript", "said.txt", "-q", "--max-new-tokens", "30"]
    assert convmodel("chat", "-m", wide, *options).code == 2
    lines = (tmp_path / "said.txt").read_text().splitlines()
    assert lines[3].startswith("bot> ")  # to what it has never heard
    assert lines[:3] + lines[4:] == [
        "you> What do you eat?",
        "bot> I like rice and beans.",
        "you> /Hi!\\x1b[31m",
        "you> /undo",
        "you> /retry 2",
        "you> /pick 1",
        "bot> I like rice and beans.",
        "you> /fix Only\\x1b[2J water.",
        "bot> Only\\x1b[2J water.",
        "you> /history",
        "you> /edit Hi!",
        "you> Hi!",
        "bot> Hello there.",
        "you> /pick 9",
    ]
    convmodel("chat", "-m", wide, "--greedy", "--transcript", "said.txt", "-q", stdin=b"Good night!\n/undo\n")
    assert (tmp_path / "said.txt").read_text().splitlines()[len(lines) :][:3] == [
        "you> Good night!",
        "bot> Sleep well.",
        "you> /undo",
    ]


def test_further_lines_of_a_turn_are_indented_so_that_none_looks_like_another_turn(tmp_path: Path) -> None:
    transcript = Transcript(str(tmp_path / "said.txt"))
    transcript.write("you> ", "one\nbot> two\r\n\tthree")
    transcript.close()
    assert (tmp_path / "said.txt").read_text() == "you> one\n     bot> two\\x0d\n     \tthree\n"


def test_a_transcript_under_any_umask_is_private_and_becomes_so(
    convmodel: Convmodel, wide: str, tmp_path: Path, umask_022: None
) -> None:
    old = tmp_path / "old.txt"
    old.write_text("you> before\n")
    old.chmod(0o644)
    for name in ("new.txt", "old.txt"):
        assert convmodel("chat", "-m", wide, "--greedy", "--transcript", name, stdin=b"Hi!\n").code == 0
        assert mode(tmp_path / name) == 0o600
    lost = convmodel("chat", "-m", wide, "--greedy", "--transcript", "no/where.txt", stdin=b"Hi!\n")
    assert lost.code == 7 and "no/where.txt: cannot be written: No such file" in lost.err
    assert old.read_text() == "you> before\nyou> Hi!\nbot> Hello there.\n"


@pytest.mark.parametrize("there", [True, False])
def test_a_transcript_is_not_written_through_a_link(convmodel: Convmodel, tmp_path: Path, there: bool) -> None:
    target = tmp_path / "target.txt"
    if there:
        target.write_text("of somebody else")
        target.chmod(0o644)
    (tmp_path / "link.txt").symlink_to(target)
    outcome = convmodel("chat", *NO_MODEL, "--transcript", "link.txt", stdin=b"Hi!\n")
    assert (outcome.code, outcome.out) == (7, "")
    problem = "error: link.txt: expected a file, got a symbolic link\nhint: name another file, or remove the link\n"
    assert outcome.err == problem
    assert target.exists() == there
    if there:
        assert (target.read_text(), mode(target)) == ("of somebody else", 0o644)


@pytest.mark.parametrize(
    ("name", "problem", "code"),
    [
        (".", ".: cannot be written: Is a directory", 7),
        ("file/said.txt", "file/said.txt: cannot be written: Not a directory", 7),
        ("~nobody.here/x", "~nobody.here/x: expected somebody's home, got ~nobody.here, who has none", 2),
    ],
)
def test_a_transcript_that_cannot_be_opened_is_refused_at_once(
    convmodel: Convmodel, tmp_path: Path, name: str, problem: str, code: int
) -> None:
    (tmp_path / "file").write_text("")
    outcome = convmodel("chat", *NO_MODEL, "--transcript", name)
    assert (outcome.code, outcome.out, outcome.err) == (code, "", f"error: {problem}\n")


def test_a_transcript_on_a_full_disk_is_said_once_and_the_chat_goes_on(
    convmodel: Convmodel, wide: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a device that all use keeps its mode."""
    for owner, name in ((os, "fchmod"), (os, "chmod"), (Path, "chmod")):
        monkeypatch.setattr(owner, name, lambda *_: pytest.fail("the device is made private"))
    outcome = convmodel("chat", "-m", wide, "--greedy", "--transcript", "/dev/full", stdin=b"Hi!\nHow are you?\n")
    assert outcome.out == "Hello there.\nI am fine, thank you.\n"
    assert outcome.err == "error: /dev/full: cannot be written: No space left on device\n"
    assert outcome.code == 7


# What is saved for fit


def test_fit_learns_the_corrected_response_and_not_the_bad_one(
    convmodel: Convmodel, replay: Replay, workshop: Path, tmp_path: Path
) -> None:
    replay("""
        > What do you eat?
        I like rice and beans.
        > /bad
        ! marked as bad: /save keeps it, and fit does not learn from it; /fix TEXT corrects it
        > /save corrections.jsonl
        ! saved 2 turns to corrections.jsonl; fit learns from it, but not from 1 turn marked as bad or cut off
        > /retry
        ! greedy gives the same answer each time; /set greedy=off temperature=1 varies it
        I like rice and beans.
        > /fix Bread and cake.
        ! corrected; the conversation goes on from here, and /save keeps it
        > /save corrections.jsonl
        ! saved 2 turns to corrections.jsonl; fit learns from it
    """)
    options = ["--base", str(workshop / "tiny"), "-o", "better", "-q", "--epochs", "50", "--batch-size", "2"]
    options += ["--learning-rate", "0.01", "--precision", "fp32", "--eval-every", "1000", "--dropout", "0"]
    assert convmodel("fit", "corrections.jsonl", "corrections.jsonl", *options).code == 0
    answered = json.loads(convmodel("generate", "-m", "better", "What do you eat?", "--greedy", "--json").out)
    [response] = answered["responses"]
    assert response["text"] == "Bread and cake."
    assert response["logprob"] > -0.02, "the bad response is learned as well"


def test_a_persona_of_white_space_is_none_to_a_saved_chat(session: Session, tmp_path: Path) -> None:
    session.chat.set_persona("  ")
    session.say("Hi!")
    session.obey("/save", str(tmp_path / "talks.jsonl"))
    assert (tmp_path / "talks.jsonl").read_text() == '["Hi!","Hello there."]\n'


def test_a_saved_line_begins_on_a_line_of_its_own(session: Session, tmp_path: Path) -> None:
    session.say("Hi!")
    for before, expected in ((b"", b""), (b'["a","b"]\n', b'["a","b"]\n'), (b'["a","b"]', b'["a","b"]\n')):
        (tmp_path / "talks.jsonl").write_bytes(before)
        session.obey("/save", str(tmp_path / "talks.jsonl"))
        assert (tmp_path / "talks.jsonl").read_bytes() == expected + b'["Hi!","Hello there."]\n'


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("full.jsonl", "No space left on device"),
        ("folder.jsonl", "Is a directory"),
        ("file/talks.jsonl", "Not a directory"),
        ("nothing/talks.jsonl", "No such file or directory"),
        ("a\0.jsonl", "embedded null byte"),
    ],
)
def test_what_cannot_be_saved_is_said_and_the_chat_goes_on(
    session: Session, tmp_path: Path, name: str, problem: str
) -> None:
    (tmp_path / "full.jsonl").symlink_to("/dev/full")
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "file").write_text("")
    session.say("What do you eat?")
    before = list(session.chat.turns)
    with pytest.raises(StorageError, match=problem) as raised:
        session.obey("/save", f"{tmp_path}/{name}")
    assert str(raised.value) == f"{tmp_path}/{name}: cannot be written: {problem}"
    assert session.chat.turns == before
    session.say("And to drink?")
    assert session.chat.turns[-1].text == "Only water."


def test_a_disk_that_is_full_half_way_leaves_no_half_line(session: Session, tmp_path: Path) -> None:
    path = tmp_path / "talks.jsonl"
    path.write_text('["a","b"]\n')
    session.say("Hi!")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, limits[1]))
    try:
        with pytest.raises(StorageError, match="File too large"):
            session.obey("/save", str(path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_text() == '["a","b"]\n'


# What a golden expects


def test_a_model_that_answers_as_expected_passes(convmodel: Convmodel, wide: str, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "golden.jsonl", TALKS)
    outcome = convmodel("chat", "-m", wide, "--expect", "golden.jsonl", "--transcript", "said.txt")
    answers = [turn for talk in TALKS for turn in talk[1::2]]
    assert outcome.out == "".join(answer + "\n" for answer in answers)
    assert (outcome.code, outcome.err) == (0, "9 responses as expected\n")
    said = [f"{speaker}> {turn}\n" for talk in TALKS for speaker, turn in zip(["you", "bot"] * 2, talk, strict=False)]
    assert (tmp_path / "said.txt").read_text(encoding="utf-8") == "".join(said)


def test_the_first_difference_exits_6_with_a_diff(convmodel: Convmodel, wide: str, tmp_path: Path) -> None:
    other = ["What do you eat?", "I like rice and beans.", "And to drink?", "Only wine."]
    write_jsonl(tmp_path / "golden.jsonl", [TALKS[0], other, ["Good night!", "No."]])
    outcome = convmodel("chat", "-m", wide, "--expect", "golden.jsonl")
    assert outcome.code == 6
    assert outcome.out == "Hello there.\nI am fine, thank you.\nI like rice and beans.\nOnly water.\n"
    assert outcome.err == textwrap.dedent("""\
        error: golden.jsonl:2: turn 4: expected another response (- expected, + got):
        - Only wine.
        ?       ^^

        + Only water.
        ?       ^^ +

    """).replace("\n\n", "\n")


def test_sampling_options_do_not_matter_to_a_golden(convmodel: Convmodel, wide: str, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "golden.jsonl", TALKS[:2])
    wild = ["--temperature", "5", "--top-k", "3", "--top-p", "0.1", "--min-p", "0.3", "--seed", "7", "--beams", "3"]
    outcome = convmodel("chat", "-m", wide, "--expect", "golden.jsonl", *wild, "--generate-option", "length_penalty=9")
    assert (outcome.code, outcome.err) == (0, "4 responses as expected\n")


@pytest.mark.parametrize("record", [["Hi!"], ["Hi!", "Hello there.", "So?"], roles("Hi!", "Hello there.", "So?")])
def test_a_golden_that_ends_with_the_user_exits_3(convmodel: Convmodel, tmp_path: Path, record: object) -> None:
    write_jsonl(tmp_path / "golden.jsonl", [TALKS[0], record])
    outcome = convmodel("chat", *NO_MODEL, "--expect", "golden.jsonl")
    assert (outcome.code, outcome.out) == (3, "")
    assert outcome.err == (
        "error: golden.jsonl:2: expected a response at the end, got a turn without one\n"
        "hint: write what is said and what is to be answered in turn\n"
    )


def test_what_was_saved_is_a_golden_with_persona_roles_and_who_begins(
    convmodel: Convmodel, wide: str, tmp_path: Path
) -> None:
    """Also one where the model says what it has never learned, and one where it begins."""
    (tmp_path / "talk.txt").write_text(
        "Hi!\nWhat do you eat?\n/save golden.jsonl\n/clear\nAnd to drink?\n/save golden.jsonl\n"
        "/persona I sell bread.\n/clear\nHi!\nWhere do you live?\n/save golden.jsonl\n"
    )
    for first in ([], ["--bot-first"]):
        made = convmodel("chat", "-m", wide, "--greedy", "--script", "talk.txt", "--persona", "I am a cook.", *first)
        assert made.code == 0
    golden = [json.loads(line) for line in (tmp_path / "golden.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["persona"] for line in golden] == ["I am a cook.", "I am a cook.", "I sell bread."] * 2
    assert ["messages" in line for line in golden] == [False] * 3 + [True] * 3
    learned = [line.get("learn") for line in golden]  # where there are roles, fit learns responses alone unless told
    assert learned == [None] * 3 + [[True] * 5, [True] * 3, [True] * 5]
    for options in ([], ["--persona", "Nobody."]):
        outcome = convmodel("chat", "-m", wide, "--expect", "golden.jsonl", *options)
        assert outcome.code == 0, outcome.err
        assert outcome.err == "13 responses as expected\n"


def test_a_golden_of_lists_begins_with_the_model_under_bot_first(
    convmodel: Convmodel, wide: str, tmp_path: Path
) -> None:
    begun = convmodel("chat", "-m", wide, "--greedy", "--bot-first", "--persona", "I am a cook.", stdin=b"Hi!\n")
    opening, answer = begun.out.splitlines()
    write_jsonl(tmp_path / "golden.jsonl", [[opening], [opening, "Hi!", answer], roles(*TALKS[1])])
    options = ["--expect", "golden.jsonl", "--bot-first", "--persona", "I am a cook."]
    outcome = convmodel("chat", "-m", wide, *options)
    assert outcome.out.splitlines()[:3] == [opening, opening, answer]
    write_jsonl(tmp_path / "golden.jsonl", [[opening, "Hi!", "Never."]])
    outcome = convmodel("chat", "-m", wide, *options)
    assert outcome.code == 6
    assert outcome.err.startswith("error: golden.jsonl:1: turn 3: expected another response")


def test_a_persona_in_a_golden_that_leaves_no_room_is_named(convmodel: Convmodel, wide: str, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "golden.jsonl", [TALKS[0], {"turns": TALKS[0], "persona": "word " * 400}])
    outcome = convmodel("chat", "-m", wide, "--expect", "golden.jsonl")
    assert outcome.code == 2
    assert outcome.err.startswith("error: golden.jsonl:2: the persona: expected at most 1020 tokens")


# Scripts, and what does not go together


def test_a_script_needs_no_standard_input(convmodel: Convmodel, wide: str, tmp_path: Path) -> None:
    (tmp_path / "talk.txt").write_bytes(b"\xef\xbb\xbfHi!\r\n\r\n/save talks.jsonl\r\nHow are you?")
    options = ["--greedy", "--script", "talk.txt", "--transcript", "said.txt"]
    outcome = convmodel("chat", "-m", wide, *options, stdin=None)
    assert (outcome.code, outcome.out) == (0, "Hello there.\nI am fine, thank you.\n")
    assert outcome.err == "saved 2 turns to talks.jsonl; fit learns from it\n"
    assert (tmp_path / "said.txt").read_text().count("\n") == 5
    refused = convmodel("chat", *NO_MODEL, stdin=None)
    assert (refused.code, refused.out) == (2, "")
    expected = "standard input is closed\nhint: pipe the turns in, or run it on a terminal"
    assert refused.err == f"error: {expected}\n"


def test_a_script_may_be_piped_in(convmodel: Convmodel, wide: str) -> None:
    outcome = convmodel("chat", "-m", wide, "--greedy", "--script", "-", stdin=b"Hi!\n/histori\n")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == "error: <stdin>:2: there is no command /histori\nhint: did you mean /history?\n"
    outcome = convmodel("chat", "-m", wide, "--greedy", "--script", "-", stdin=b"Hi!\n/history\n")
    assert (outcome.code, outcome.out, outcome.err) == (0, "Hello there.\n", "you> Hi!\nbot> Hello there.\n")


@pytest.mark.parametrize(
    ("name", "content", "code", "problem"),
    [
        ("talk.txt", None, 2, "talk.txt: no such file"),
        ("talk.txt", b"Hi!\n\xffoo\n", 3, "talk.txt:2: expected UTF-8, got the byte 0xff in column 1"),
        ("talk.gz", b"Hi!\n", 3, "talk.gz: expected gzip data, got something else or a part of it"),
        ("talk.gz", gzip.compress(b"Hi!\n" * 999, mtime=0)[:-20], 3, "talk.gz: expected gzip data"),
    ],
)
def test_a_script_that_cannot_be_read_is_said_before_a_model_is_looked_for(
    convmodel: Convmodel, tmp_path: Path, name: str, content: bytes | None, code: int, problem: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    outcome = convmodel("chat", *NO_MODEL, "--script", name)
    assert (outcome.code, outcome.out) == (code, "")
    assert outcome.err.startswith(f"error: {problem}")


def test_a_turn_of_a_script_that_cannot_be_answered_is_named(replay: Replay) -> None:
    transcript = """
        > /set generate_option=no_such=1
        ! error: talk.txt:1: /set: --generate-option: transformers' generate has no option no_such
        ! hint: see GenerationConfig in the documentation of transformers
    """
    replay(transcript, code=2)


def test_the_model_begins_and_each_response_is_a_json_object(convmodel: Convmodel, wide: str) -> None:
    options = ["--greedy", "--bot-first", "--json"]
    outcome = convmodel("chat", "-m", wide, *options, stdin=b"Hi!\n\nHow are you?\n")
    assert outcome.code == 0
    assert outcome.err == "line 2: nothing said, skipped\n"
    found = [json.loads(line) for line in outcome.out.splitlines()]
    texts = [line["responses"][0]["text"] for line in found]
    assert [line["context"] for line in found] == [
        [],
        [texts[0], "Hi!"],
        [texts[0], "Hi!", texts[1], "How are you?"],
    ]
    for line in found:
        [response] = line["responses"]
        assert list(response) == ["text", "finish", "logprob", "tokens"]
        assert response["finish"] == "stop" and response["tokens"] > 0 and response["logprob"] < 0


def test_a_script_and_a_golden_give_json_too(convmodel: Convmodel, wide: str, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "golden.jsonl", [TALKS[1]])
    (tmp_path / "talk.txt").write_text("What do you eat?\n/retry\nAnd to drink?\n/stats\n")
    golden = convmodel("chat", "-m", wide, "--expect", "golden.jsonl", "--json")
    script = convmodel("chat", "-m", wide, "--greedy", "--script", "talk.txt", "--json")
    first, second = golden.out.splitlines()
    assert script.out.splitlines() == [first, first, second]
    assert json.loads(second)["context"] == TALKS[1][:3]


def test_input_with_a_mark_of_utf_8_and_other_line_ends_is_what_it_says(convmodel: Convmodel, wide: str) -> None:
    piped = b"\xef\xbb\xbfWhat do you eat?\r\n" + b"And to drink?\r\r\n"
    outcome = convmodel("chat", "-m", wide, "--greedy", "--json", stdin=piped)
    assert outcome.err == ""
    said = [json.loads(line)["context"][-1] for line in outcome.out.splitlines()]
    assert said == ["What do you eat?", "And to drink?\r"]
    outcome = convmodel("chat", "-m", wide, "--greedy", "--json", stdin=b"a\xffb\n")
    assert outcome.err == "line 1: not UTF-8; what is broken reaches the model as \ufffd\n"
    assert json.loads(outcome.out)["context"] == ["a\ufffdb"]


def test_raw_writes_a_response_as_it_is(
    session: Session, capsys: pytest.CaptureFixture[str], convmodel: Convmodel, wide: str, tmp_path: Path
) -> None:
    answered = Answered((), (Response("\x1b[1mtwo\nlines", "stop", 0.0, 3),))
    Lines(raw=True).show(answered, session.screen)
    Lines(raw=False).show(answered, session.screen)
    assert capsys.readouterr().out == "\x1b[1mtwo\nlines\n\\x1b[1mtwo\\nlines\n"
    shown: list[bool] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Screen, "response", lambda _, text, raw=False: shown.append(raw))
        write_jsonl(tmp_path / "golden.jsonl", [TALKS[3]])
        (tmp_path / "talk.txt").write_text("Hi!\n")
        assert convmodel("chat", "-m", wide, "--raw", "--expect", "golden.jsonl").code == 0
        assert convmodel("chat", "-m", wide, "--raw", "--script", "talk.txt").code == 0
        assert convmodel("chat", "-m", wide, "--raw", stdin=b"Hi!\n").code == 0
    assert shown == [True] * 3


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--script", "x", "--expect", "y"], "--script and --expect exclude each other"),
        (["--expect", "y", "--load", "x"], "--expect and --load exclude each other"),
        (["--load", "x", "--bot-first"], "--load and --bot-first exclude each other"),
        (["--raw", "--json"], "--raw and --json exclude each other"),
        (["--load", "-", "--script", "-"], "--load and --script cannot both read standard input"),
    ],
)
def test_what_does_not_go_together_exits_2_before_any_file_is_opened(
    convmodel: Convmodel, options: list[str], problem: str
) -> None:
    outcome = convmodel("chat", *NO_MODEL, *options, "--transcript", "said.txt", stdin=b"Hi!\n")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith(f"error: {problem}")
    assert not Path("said.txt").exists()


# What was typed before


@pytest.fixture
def history_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, umask_022: None) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "convmodel" / "history"


def test_the_history_is_private_and_becomes_so_and_is_read_again(history_file: Path) -> None:
    history = _history(Screen(ScreenSettings()))
    history.append_string("Hi!\nyou")
    assert (mode(history_file), mode(history_file.parent)) == (0o600, 0o700)
    history_file.chmod(0o644)
    again = _history(Screen(ScreenSettings()))
    assert mode(history_file) == 0o600
    again.append_string("What do you eat?")
    assert list(again.load_history_strings()) == ["What do you eat?", "Hi!\nyou"]
    assert mode(history_file) == 0o600


def test_a_history_that_is_a_link_is_refused_and_said(history_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = history_file.parent.parent / "target"
    history_file.parent.mkdir(parents=True)
    target.write_text("of somebody else")
    target.chmod(0o644)
    history_file.symlink_to(target)
    history = _history(Screen(ScreenSettings()))
    history.append_string("secret")
    assert (target.read_text(), mode(target)) == ("of somebody else", 0o644)
    assert isinstance(history, InMemoryHistory)
    said = capsys.readouterr().err
    assert said == f"no history is kept: {history_file}: expected a file, got a symbolic link\n"


@pytest.mark.parametrize("home", ["file", "file/home", "/proc/nowhere"])
def test_a_home_that_cannot_be_written_keeps_no_history_and_says_so(
    home: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HOME", str(tmp_path / home))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    history = _history(Screen(ScreenSettings()))
    history.append_string("Hi!")
    assert isinstance(history, InMemoryHistory)
    path = tmp_path / home / ".local/state/convmodel/history"
    assert capsys.readouterr().err.startswith(f"no history is kept: {path}: cannot be written: N")


def test_a_history_that_becomes_full_does_not_end_the_chat(history_file: Path) -> None:
    history = _history(Screen(ScreenSettings()))
    history_file.unlink()
    history_file.mkdir()
    history.append_string("Hi!")
    assert history.get_strings() == ["Hi!"]


def test_a_chat_on_a_terminal_goes_on_without_a_history(
    on_a_terminal: OnATerminal, wide: str, tmp_path: Path, umask_022: None
) -> None:
    target = tmp_path / "target"
    target.write_text("of somebody else")
    (tmp_path / "convmodel").mkdir()
    (tmp_path / "convmodel" / "history").symlink_to(target)
    typed = [(b"you>", b"Hi!\r"), (b"there.", b"/exit\r")]
    seen = on_a_terminal(["chat", "-m", wide, "--greedy"], typed, XDG_STATE_HOME=str(tmp_path))
    assert seen.endswith("exit 0"), seen
    assert "no history is kept" in seen and "Hello there." in seen
    assert target.read_text() == "of somebody else"
