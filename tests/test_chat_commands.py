"""Slash commands, each in the transcript of a chat that uses it: `> ` is typed, `! ` is said on stderr."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from conftest import TALKS, Convmodel, Replay
from convmodel_cli.answer_settings import SamplingSettings
from convmodel_cli.cli.chat_commands import COMMANDS, split_command
from convmodel_cli.cli.chat_screen import Session
from convmodel_cli.cli.chat_settings import change_settings, describe_settings
from convmodel_cli.errors import ConvmodelError
from convmodel_cli.model.checkpoint import load_model
from helpers import write_jsonl

DOCUMENTED = (
    "/help /exit /quit /clear /undo /retry /pick /edit /fix /good /bad /set /persona /history /context /save /load "
    "/stats"
)
GREEDY_NOTE = "! greedy gives the same answer each time; /set greedy=off temperature=1 varies it"
ESCAPE = "// begins a message with a slash"
NOBODY = "expected somebody's home, got ~nobody.here, who has none"
PROPOSED = f"""{GREEDY_NOTE}
!   1   -0.00  Hello there.
!   2   -0.00  Hello there.
! mean log-probability of a token in front; /pick 1 takes the first"""


def failing(replay: Replay, before: str, line: str, problem: str, hint: str = "") -> None:
    """The line behind a transcript that goes well is refused: exit 2 with its number, the problem and the hint."""
    number = 1 + len(re.findall("^> ", before, re.MULTILINE))
    advice = f"! hint: {hint}\n" if hint else ""
    replay(f"{before}\n> {line}\n! error: talk.txt:{number}: {problem}\n{advice}".strip("\n"), code=2)


def test_help_names_every_command_and_the_keys(convmodel: Convmodel, wide: str, tmp_path: Path) -> None:
    (tmp_path / "talk.txt").write_text("/help\n")
    outcome = convmodel("chat", "-m", wide, "--script", "talk.txt")
    assert (outcome.code, outcome.out) == (0, "")
    *lines, keys = outcome.err.splitlines()
    assert [line.split()[0] for line in lines] == [*COMMANDS, "//text"]
    assert all(re.fullmatch(r".{21} \w.{4,}", line) for line in lines), "the helps stand in a column"
    assert list(COMMANDS) == DOCUMENTED.split()
    for key in ("Enter", "Alt-Enter", '"""', "Ctrl-X Ctrl-E", "Tab", "arrows", "Ctrl-C", "Ctrl-D"):
        assert key in keys


@pytest.mark.parametrize("command", ["/exit", "/quit", "/EXIT", "/exit\t"])
def test_exit_leaves_at_once_with_0(replay: Replay, command: str) -> None:
    replay(f"""
        > Hi!
        Hello there.
        > {command}
        > Good night!
    """)


def test_clear_forgets_the_conversation(replay: Replay) -> None:
    replay("""
        > What do you eat?
        I like rice and beans.
        > /clear
        ! The conversation starts over.
        > /history
        ! nothing has been said yet
        > Where do you live?
        In a small town by the sea.
    """)


def test_undo_takes_back_the_last_pair_or_several(replay: Replay) -> None:
    replay("""
        > What do you eat?
        I like rice and beans.
        > And to drink?
        Only water.
        > /undo
        ! taken back: 2 turns, from And to drink?
        > And to drink?
        Only water.
        > /undo 2
        ! taken back: 4 turns, from What do you eat?
        > /history
        ! nothing has been said yet
    """)


@pytest.mark.parametrize(
    ("argument", "problem"),
    [
        ("2", "expected a number from 1 to 1, the turns you have said, got 2"),
        ("0", "expected a number from 1, got 0"),
        ("-1", "expected a number from 1, got -1"),
        ("all", "expected a number from 1, got all"),
        ("1.5", "expected a number from 1, got 1.5"),
        ("9" * 5000, f"expected a number from 1, got {'9' * 5000}"),
    ],
    ids=lambda text: text[:5],
)
def test_undo_refuses_what_is_no_number_of_turns(replay: Replay, argument: str, problem: str) -> None:
    failing(replay, "> Hi!\nHello there.", f"/undo {argument}", f"/undo: {problem}")


@pytest.mark.parametrize(
    ("command", "missing"),
    [
        ("/undo", "you have said nothing yet"),
        ("/retry", "there is no response yet"),
        ("/retry 3", "there is no response yet"),
        ("/edit Hi!", "you have said nothing yet"),
        ("/fix No.", "there is no response yet"),
        ("/good", "there is no response yet"),
        ("/bad", "there is no response yet"),
        ("/save talks.jsonl", "there is nothing to save yet"),
    ],
)
def test_before_anything_was_said_there_is_nothing_to_change(
    replay: Replay, tmp_path: Path, command: str, missing: str
) -> None:
    failing(replay, "", command, f"{command.split()[0]}: {missing}", "say something first")
    assert not (tmp_path / "talks.jsonl").exists()


def test_retry_answers_once_more_and_says_when_that_changes_nothing(replay: Replay) -> None:
    replay(f"""
> Hi!
Hello there.
> /retry
{GREEDY_NOTE}
Hello there.
> /set greedy=off temperature=0.1
! temperature         0.1
! repetition_penalty  1.1
! greedy              off
> /retry
Hello there.
> /history
! you> Hi!
! bot> Hello there.
""")


def test_retry_n_shows_responses_with_scores_and_pick_takes_one(
    convmodel: Convmodel, wide: str, tmp_path: Path
) -> None:
    setting = "/set greedy=off temperature=3 top_p=1 top_k=0 max_new_tokens=3"
    script = ["Hi!", setting, "/retry 3", "/pick 3", "/history", "/pick 2", "/history", "/pick"]
    (tmp_path / "talk.txt").write_text("\n".join(script))
    outcome = convmodel("chat", "-m", wide, "--greedy", "--script", "talk.txt", "--seed", "5")
    assert outcome.code == 2
    lines = outcome.err.splitlines()
    shown = [re.fullmatch(r"  ([123])  ( *-\d+\.\d\d)  (.+)", line) for line in lines]
    found = [match.groups() for match in shown if match]
    assert [number for number, _, _ in found] == ["1", "2", "3"]
    texts = [text for _, _, text in found]
    assert len(set(texts)) == 3
    assert lines[lines.index("mean log-probability of a token in front; /pick 1 takes the first") + 1 :] == [
        "you> Hi!",
        f"bot> {texts[2]}",
        "you> Hi!",
        f"bot> {texts[1]}",
        "error: talk.txt:8: /pick: expected a number, got nothing",
        "hint: like /pick 2",
    ]
    assert outcome.out == f"Hello there.\n{texts[2]}\n{texts[1]}\n"  # what counts from then on


@pytest.mark.parametrize(
    ("before", "line", "problem", "hint"),
    [
        ("", "/pick 1", "/pick: there is nothing to pick from", "/retry 3 shows three responses"),
        ("", "/retry 101", "/retry: expected a number from 1 to 100, got 101", ""),
        ("", "/retry x", "/retry: expected a number from 1 to 100, got x", ""),
        ("> /retry 2\n" + PROPOSED, "/pick 3", "/pick: expected a number from 1 to 2, got 3", ""),
        ("> /retry 2\n" + PROPOSED, "/pick 0", "/pick: expected a number from 1, got 0", ""),
        (
            f"> /retry 2\n{PROPOSED}\n> /undo\n! taken back: 2 turns, from Hi!\n> Hi!\nHello there.",
            "/pick 1",
            "/pick: there is nothing to pick from",
            "/retry 3 shows three responses",
        ),
    ],
)
def test_only_what_was_shown_can_be_picked(replay: Replay, before: str, line: str, problem: str, hint: str) -> None:
    failing(replay, f"> Hi!\nHello there.\n{before}".strip(), line, problem, hint)


def test_edit_says_something_else_instead(replay: Replay) -> None:
    before = """
> Hi!
Hello there.
> /edit What do you eat?
I like rice and beans.
> And to drink?
Only water.
> /history
! you> What do you eat?
! bot> I like rice and beans.
! you> And to drink?
! bot> Only water."""
    hint = "/edit TEXT says something else instead of your last turn"
    failing(replay, before, "/edit", "/edit: expected text, got nothing", hint)


def test_fix_puts_other_words_in_the_place_of_the_response(replay: Replay) -> None:
    before = """
> What do you eat?
I like rice and beans.
> /bad
! marked as bad: /save keeps it, and fit does not learn from it; /fix TEXT corrects it
> /fix I like rice  and beans.
! corrected; the conversation goes on from here, and /save keeps it
> /history
! you> What do you eat?
! bot> I like rice  and beans.  [good]"""
    failing(replay, before, "/fix", "/fix: expected text, got nothing", "/fix TEXT corrects the last response")


def test_the_conversation_goes_on_from_the_corrected_response(replay: Replay) -> None:
    replay("""
        > What do you eat?
        I like rice and beans.
        > /fix In a small town by the sea.
        ! corrected; the conversation goes on from here, and /save keeps it
        > /edit Where do you live?
        In a small town by the sea.
        > /fix I like rice and beans.
        ! corrected; the conversation goes on from here, and /save keeps it
        > And to drink?
        Only water.
    """)


def test_the_last_mark_counts_and_save_writes_it_down(replay: Replay, tmp_path: Path) -> None:
    replay("""
        > What do you eat?
        I like rice and beans.
        > /good
        ! marked as good: /save keeps it to be learned from
        > And to drink?
        Only water.
        > /good
        ! marked as good: /save keeps it to be learned from
        > /bad
        ! marked as bad: /save keeps it, and fit does not learn from it; /fix TEXT corrects it
        > /history
        ! you> What do you eat?
        ! bot> I like rice and beans.  [good]
        ! you> And to drink?
        ! bot> Only water.  [bad]
        > /save marked.jsonl
        ! saved 4 turns to marked.jsonl; fit learns from it, but not from 1 turn marked as bad or cut off
    """)
    assert saved(tmp_path / "marked.jsonl") == [{"turns": TALKS[1], "learn": [True, True, True, False]}]


def saved(path: Path) -> list[object]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


SETTINGS = """! temperature         0.8
! top_p               0.95
! top_k               50
! min_p               0.0
! repetition_penalty  1.0
! no_repeat_ngram     0
! max_new_tokens      64
! min_new_tokens      1
! greedy              on
! stop_word           none
! beams               1
! generate_option     none
! seed                0"""


def test_set_shows_changes_and_resets(replay: Replay) -> None:
    replay(f"""
> /set
{SETTINGS}
> /set temperature=0.5 --top-p=0.9 seed=71 greedy=off
! temperature         0.5
! top_p               0.9
! repetition_penalty  1.1
! greedy              off
! seed                71
> /set greedy=ON
! repetition_penalty  1.0
! greedy              on
> /set temperature=0.5
! nothing has changed
> /set reset
! temperature         0.8
! top_p               0.95
! seed                0
> /set
{SETTINGS}
""")


def test_reset_goes_back_to_the_options_of_the_command_line(replay: Replay) -> None:
    transcript = """
        > /set temperature=0.5 seed=4 max_new_tokens=5
        ! temperature         0.5
        ! max_new_tokens      5
        ! seed                4
        > /set reset
        ! temperature         0.7
        ! max_new_tokens      64
        ! seed                3
    """
    replay(transcript, "--temperature", "0.7", "--seed", "3")


def test_what_is_set_counts_from_the_next_response_on(replay: Replay) -> None:
    replay("""
        > /set max_new_tokens=1
        ! max_new_tokens      1
        > Good night!
        Sleep
        > /set reset
        ! max_new_tokens      64
        > /clear
        ! The conversation starts over.
        > /set stop_word=" rice"
        ! stop_word           ' rice'
        > What do you eat?
        I like
    """)


def test_the_seed_that_is_set_draws_what_the_option_draws(convmodel: Convmodel, wide: str, tmp_path: Path) -> None:
    wild = ["--temperature", "4", "--top-p", "1", "--top-k", "0", "--max-new-tokens", "9"]
    drawn = []
    for number, seed in ((0, "71"), (5, "71"), (71, "71"), (71, "0"), (0, "0")):
        (tmp_path / "talk.txt").write_text(f"/set seed={seed}\nHi!\n")
        outcome = convmodel("chat", "-m", wide, "--script", "talk.txt", "--seed", str(number), *wild)
        assert outcome.code == 0
        drawn.append(outcome.out)
    assert drawn[0] == drawn[1] == drawn[2] != drawn[3] == drawn[4]


@pytest.mark.parametrize(
    ("assignments", "problem", "hint"),
    [
        ("temperature=0.5 top_q=1", "there is no setting top_q", "did you mean top_p?"),
        ("temp=0.5", "there is no setting temp", "did you mean temperature?"),
        ("seed=5 x=1", "there is no setting x", "/set lists the settings"),
        ("seed=5 temperature=hot", "--temperature: expected a number, got hot", ""),
        ("seed=5 temperature=", "--temperature: expected a number, got nothing", ""),
        ("seed=5 top_k=1.5", "--top-k: expected a whole number, got 1.5", ""),
        ("seed=5 top_p=2", "--top-p: expected at most 1, got 2.0", ""),
        ("seed=5 temperature=nan", "--temperature: expected at least 0.01 and a finite number, got nan", ""),
        ("temperature=0", "--temperature: expected more than 0, got 0; --greedy takes the likeliest token", ""),
        ("seed=5 greedy=maybe", "--greedy: expected on or off, got maybe", ""),
        ("temperature=0.1 seed=-1", "--seed: expected at least 0, got -1", ""),
        ("seed=5 min_new_tokens=65", "--min-new-tokens: expected at most --max-new-tokens, 64, got 65", ""),
        ("seed=5 temperature", "expected name=value, got temperature", "like /set temperature=0.5"),
        ("stop_word='a", "expected quotation marks in pairs, got stop_word='a", 'like /set stop_word="the end"'),
        ("seed=5 generate_option=x", "--generate-option: expected key=value, got 'x'", ""),
    ],
)
def test_a_wrong_setting_is_named(replay: Replay, assignments: str, problem: str, hint: str) -> None:
    failing(replay, "", f"/set {assignments}", f"/set: {problem}", hint)


def test_settings_that_only_go_together_can_be_set_together() -> None:
    most, seed = change_settings(SamplingSettings(), 0, "min_new_tokens=70 max_new_tokens=80 seed=7")
    assert (most.min_new_tokens, most.max_new_tokens, seed) == (70, 80, 7)
    least, _ = change_settings(most, 0, "max_new_tokens=5 min_new_tokens=1")
    assert (least.min_new_tokens, least.max_new_tokens) == (1, 5)


def test_a_setting_of_several_texts_is_given_several_times() -> None:
    both, _ = change_settings(SamplingSettings(), 0, "stop_word='the end' stop_word=\"don't\"")
    assert both.stop_word == ("the end", "don't")
    assert """stop_word           'the end' 'don'"'"'t'""" in describe_settings(both, 0)
    one, _ = change_settings(both, 0, "stop_word=end")
    assert one.stop_word == ("end",)
    none, _ = change_settings(both, 0, "stop_word=")
    assert none.stop_word == ()


def test_persona_is_shown_changed_and_removed(replay: Replay) -> None:
    transcript = """
        > /persona
        ! persona: I sell bread.
        ! /persona TEXT changes it, /persona none removes it
        > /persona I am  a cook.
        ! persona: I am  a cook.
        > /persona none
        ! persona: none
        > What do you eat?
        I like rice and beans.
    """
    replay(transcript, "--persona", "I sell bread.")


def test_a_persona_that_leaves_no_room_is_refused_and_named(replay: Replay, wide: str, tmp_path: Path) -> None:
    long = "word " * 400
    [ids] = load_model(wide).vocabulary.encode([long.strip() + "\n"])
    problem = f"the persona: expected at most 1020 tokens, for the model can be shown 1024, got {len(ids)}"
    failing(replay, "", f"/persona {long}", f"/persona: {problem}", "shorten it")
    write_jsonl(tmp_path / "long.jsonl", [TALKS[0], {"turns": TALKS[0], "persona": long}])
    failing(replay, "", "/load long.jsonl", f"/load: long.jsonl:2: {problem}", "shorten it")


def test_history_indents_further_lines_and_writes_control_characters_out(replay: Replay, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "lines.jsonl", [["Hi!\nbot> The model never said this.", "Well\x1b[31m,\nyes."]])
    replay("""
        > /load lines.jsonl
        ! going on after 2 turns from lines.jsonl
        > /bad
        ! marked as bad: /save keeps it, and fit does not learn from it; /fix TEXT corrects it
        > /history
        ! you> Hi!
        !      bot> The model never said this.
        ! bot> Well\\x1b[31m,
        !      yes.  [bad]
    """)


def test_context_counts_tokens_and_says_what_is_not_shown(
    replay: Replay, wide: str, trained: str, tmp_path: Path
) -> None:
    turns = [*TALKS[0], *TALKS[5]]
    vocabulary = load_model(wide).vocabulary
    counts = [len(ids) for ids in vocabulary.encode(turns)]
    persona = len(vocabulary.encode_persona("I am a cook."))
    write_jsonl(tmp_path / "talk.jsonl", [turns])
    load = "> /load talk.jsonl\n! going on after 6 turns from talk.jsonl\n> /context\n"
    shown = [f"! {counts[index]:>7}  {'bot' if index % 2 else 'you'}> {turn}" for index, turn in enumerate(turns)]
    total = 1 + sum(counts) + len(turns)
    lines = ["> /context", "! 1 of 1,024 tokens, seps included", load.strip(), *shown]
    lines += [f"! {total} of 1,024 tokens, seps included", "> /persona I am a cook.", "! persona: I am a cook."]
    lines += ["> /context", f"! {persona:>7}  the persona", *shown]
    lines += [f"! {total + persona} of 1,024 tokens, seps included"]
    replay("\n".join(lines))
    unseen = [line + "  (not shown any more)" * (index < 4) for index, line in enumerate(shown)]
    left = 1 + sum(counts[4:]) + 2
    end = f"\n! {left} of 28 tokens, seps included; the oldest 4 turns are not shown"
    replay(load + "\n".join(unseen) + end, model=trained)


def test_the_context_is_never_more_than_the_model_can_be_shown(replay: Replay, trained: str, tmp_path: Path) -> None:
    long, answer = "Sleep well. " * 20, "Good night!"
    [tokens], [answered] = ([len(ids)] for ids in load_model(trained).vocabulary.encode([long, answer]))
    write_jsonl(tmp_path / "talk.jsonl", [[long, answer]])
    shown = 28 - 28 // 4 - 2  # a quarter for the response, and two seps
    replay(
        f"""
        > /load talk.jsonl
        ! going on after 2 turns from talk.jsonl
        > /context
        ! {tokens:>7}  you> Sleep well. Sleep well. Sleep well. Sle…  (the first {tokens - shown} tokens are not shown)
        ! {answered:>7}  bot> Good night!
        ! {shown + answered + 3} of 28 tokens, seps included
    """,
        model=trained,
    )


def test_save_appends_and_load_brings_back_the_newest_with_persona_and_marks(replay: Replay, tmp_path: Path) -> None:
    marked = {"turns": list("abcd"), "learn": [False, False, True, True]}
    write_jsonl(tmp_path / "marked.jsonl", [["x", "y"], marked])
    replay("""
        > Hi!
        Hello there.
        > /save talks.jsonl
        ! saved 2 turns to talks.jsonl; fit learns from it
        > /persona I am a cook.
        ! persona: I am a cook.
        > /load marked.jsonl
        ! going on after 4 turns from marked.jsonl
        > /save talks.jsonl
        ! saved 4 turns to talks.jsonl; fit learns from it, but not from 1 turn marked as bad or cut off
        > /persona none
        ! persona: none
        > /clear
        ! The conversation starts over.
        > /load talks.jsonl
        ! going on after 4 turns from talks.jsonl
        > /persona
        ! persona: I am a cook.
        ! /persona TEXT changes it, /persona none removes it
        > /history
        ! you> a
        ! bot> b  [bad]
        ! you> c
        ! bot> d  [good]
        > /load marked.jsonl
        ! going on after 4 turns from marked.jsonl
        > /persona
        ! persona: none
        ! /persona TEXT changes it, /persona none removes it
    """)
    assert saved(tmp_path / "talks.jsonl") == [TALKS[0][:2], {**marked, "persona": "I am a cook."}]


def test_a_loaded_turn_without_a_response_is_answered(replay: Replay, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "open.jsonl", [TALKS[1][:3]])
    write_jsonl(tmp_path / "first.jsonl", [["Good night!"]])
    replay("""
        > /load open.jsonl
        ! going on after 3 turns from open.jsonl
        Only water.
        > /load first.jsonl
        ! going on after 1 turn from first.jsonl
        Sleep well.
        > /history
        ! you> Good night!
        ! bot> Sleep well.
    """)


def test_the_file_says_who_begins(replay: Replay, tmp_path: Path) -> None:
    messages = [{"role": "assistant", "content": "Hi!"}, {"role": "user", "content": "Hello there."}]
    write_jsonl(tmp_path / "bot.jsonl", [{"messages": [*messages, {"role": "assistant", "content": "How are you?"}]}])
    write_jsonl(tmp_path / "user.jsonl", [TALKS[0]])
    replay("""
        > /load bot.jsonl
        ! going on after 3 turns from bot.jsonl
        > /history
        ! bot> Hi!
        ! you> Hello there.
        ! bot> How are you?
        > /save again.jsonl
        ! saved 3 turns to again.jsonl; fit learns from it
        > /load user.jsonl
        ! going on after 4 turns from user.jsonl
        > /undo
        ! taken back: 2 turns, from How are you?
        > /history
        ! you> Hi!
        ! bot> Hello there.
        > /load again.jsonl
        ! going on after 3 turns from again.jsonl
        > /undo
        ! taken back: 2 turns, from Hello there.
        > /history
        ! bot> Hi!
        > /clear
        ! The conversation starts over.
        > Hi!
        Hello there.
    """)


@pytest.mark.parametrize(
    ("command", "problem", "hint"),
    [
        ("/load", "expected the name of a file, got nothing", "like /load talks.jsonl"),
        ("/load -", "expected the name of a file, got -", "like /load talks.jsonl"),
        ("/load none.jsonl", "none.jsonl: no such file", "this folder has talk.txt"),
        ("/load .", ".: expected a file of conversations, got a folder", ""),
        ("/load a\0b", "a\\x00b: cannot be read: embedded null byte", ""),
        ("/load ~nobody.here/x", f"~nobody.here/x: {NOBODY}", ""),
        ("/save", "expected the name of a .jsonl file, got nothing", "like /save talks.jsonl"),
        ("/save talks.txt", "expected the name of a .jsonl file, got talks.txt", "like /save talks.jsonl"),
        ("/save ~nobody.here/x.jsonl", f"~nobody.here/x.jsonl: {NOBODY}", ""),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_used_is_named(replay: Replay, command: str, problem: str, hint: str) -> None:
    failing(replay, "> Hi!\nHello there.", command, f"{command.split()[0]}: {problem}", hint)


def test_a_response_that_fit_would_refuse_is_not_saved(replay: Replay, tmp_path: Path) -> None:
    before = "> Hi!\nHello there.\n> /fix a\0b\n! corrected; the conversation goes on from here, and /save keeps it"
    problem = "fit would not learn from this conversation: turn 2: expected text, got a NUL character in it"
    failing(replay, before, "/save talks.jsonl", f"/save: {problem}", "/fix or /undo it")
    assert not (tmp_path / "talks.jsonl").exists()


def test_stats_count_what_was_made_here(convmodel: Convmodel, wide: str, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "talk.jsonl", [TALKS[1][:2]])
    (tmp_path / "talk.txt").write_text("/load talk.jsonl\n/stats\nAnd to drink?\n/retry\n/stats\n")
    lines = convmodel("chat", "-m", wide, "--greedy", "--script", "talk.txt").err.splitlines()
    size = f"{load_model(wide).num_parameters:,} parameters, fp32 on cpu"
    assert lines[1:3] == ["2 turns, 0 responses made here", size]
    tokens = 2 * len(load_model(wide).vocabulary.encode(["Only water."])[0])
    expected = ["4 turns, 2 responses made here", rf"{tokens} tokens in \d+\.\d s, [\d,]+ tokens a second"]
    expected += [r"[\d,]+ ms to the first token of the last response", size]
    assert re.fullmatch("\n".join(expected), "\n".join(lines[4:]))


def test_two_slashes_say_one(convmodel: Convmodel, wide: str, tmp_path: Path) -> None:
    (tmp_path / "talk.txt").write_text("//help me\n//\n /help\n/history\n")
    outcome = convmodel("chat", "-m", wide, "--greedy", "--max-new-tokens", "1", "--script", "talk.txt")
    assert (outcome.code, outcome.out.count("\n")) == (0, 3)
    said = [line for line in outcome.err.splitlines() if line.startswith("you> ")]
    assert said == ["you> /help me", "you> /", "you>  /help"]


@pytest.mark.parametrize(
    ("line", "problem", "hint"),
    [
        ("/histroy", "there is no command /histroy", "did you mean /history?"),
        ("/usr/bin/env", "there is no command /usr/bin/env", f"/help lists the commands; {ESCAPE}"),
        ("/", "there is no command /", f"/help lists the commands; {ESCAPE}"),
        ("/ help", "there is no command /", f"/help lists the commands; {ESCAPE}"),
        ("/clear the table", "expected nothing behind /clear, got the table", ESCAPE),
        ("/quit\tnow", "expected nothing behind /quit, got now", ESCAPE),
    ],
)  # fmt: skip
def test_what_is_no_command_is_said_with_its_line_before_the_model_is_loaded(
    replay: Replay, line: str, problem: str, hint: str
) -> None:
    replay(f"""
        > Hi!
        >
        > {line}
        ! error: talk.txt:3: {problem}
        ! hint: {hint}
    """, code=2, model="./no-such-model")  # fmt: skip


@pytest.mark.parametrize(
    "line",
    [
        "/undo 3",
        "/undo x",
        "/retry 0",
        "/pick 3",
        "/pick",
        "/edit",
        "/fix  ",
        "/set temperature=0.1 x=1",
        "/set seed=1 top_p=7",
        "/persona " + "word " * 400,
        "/save",
        "/save no/folder.jsonl",
        "/load none.jsonl",
        "/load long.jsonl",
        "/load bad.jsonl",
        "/clear all",
        "/histroy",
    ],
)
def test_a_command_that_fails_leaves_everything_as_it_was(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "long.jsonl", [{"turns": TALKS[0], "persona": "word " * 400}])
    write_jsonl(tmp_path / "bad.jsonl", [TALKS[0], 7])
    chat = session.chat
    session.obey("/persona", "I am a cook.")
    session.say("Hi!")
    session.obey("/bad", "")
    session.obey("/retry", "2")

    def state() -> tuple[object, ...]:
        return list(chat.turns), list(chat.candidates), chat.persona, chat.bot_first, chat.responder, session.leaving

    before = state()
    command = split_command(line)
    assert command is not None
    with pytest.raises(ConvmodelError):
        session.obey(*command)
    assert state() == before
