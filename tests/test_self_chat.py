"""generate --self-chat: the model talks to itself, and what it says is data for fit."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from test_generate import WILD

from conftest import Convmodel, Outcome
from convmodel_cli.answer_events import Response
from convmodel_cli.data.conversations import iter_conversations, read_conversations
from convmodel_cli.data.formats import Conversation
from convmodel_cli.workflows.answer import Responder
from convmodel_cli.workflows.response import Written
from helpers import write_jsonl

OPENERS: list[Any] = [
    ["Hi!"],
    {"turns": ["Good night!"], "persona": "I am tired."},
    {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Where do you live?"}]},
    {"messages": [{"role": "assistant", "content": "What do you eat?"}]},
    [{"speaker": "Ann", "text": "Tell me"}, {"speaker": "Ann", "text": "a joke."}, {"speaker": "Bob", "text": "No."}],
    {"turns": ["How are you?", "I say"], "learn": [False, True]},
    ["I say 🙂"],
]


NOT_EMPTY = ("--temperature", "1.5", "--min-new-tokens", "4")  # an empty or blank response ends a talk


def talk(convmodel: Convmodel, trained: str, openers: str, *options: str) -> Outcome:
    return convmodel("generate", "-m", trained, "-i", openers, *WILD, *NOT_EMPTY, "--self-chat", "4", *options)


def test_the_conversations_are_data_that_fit_takes(convmodel: Convmodel, trained: str, tmp_path: Path) -> None:
    openers = write_jsonl(tmp_path / "openers.jsonl", OPENERS)
    outcome = talk(convmodel, trained, openers, "-n", "3")
    assert outcome.code == 0
    (tmp_path / "talks.jsonl").write_text(outcome.out, encoding="utf-8")
    talks = list(read_conversations(str(tmp_path / "talks.jsonl")))
    given = [opener for opener in iter_conversations(openers, min_turns=1) for _ in range(3)]
    assert len(talks) == len(given) == 3 * len(OPENERS)
    for told, opener in zip(talks, given, strict=True):
        assert isinstance(opener, Conversation)
        number = len(opener.turns)
        assert told.turns[:number] == opener.turns
        assert len(told.turns) == number + 4
        assert told.persona == opener.persona
        assert (told.assistant or ())[:number] == (opener.assistant or ())
        assert all(first != second for first, second in pairwise(told.assistant or ()))
        if told.learn is not None:
            assert told.learn[:number] == (opener.learn or opener.assistant or (True,) * number)
    assert {told.persona for told in talks} == {"", "I am tired.", "Be brief."}
    dry = convmodel("fit", "talks.jsonl", "--dry-run", "--base", trained)
    assert dry.code == 0, dry.err


def test_what_is_said_depends_neither_on_the_batch_nor_on_the_order(
    convmodel: Convmodel, trained: str, tmp_path: Path
) -> None:
    openers = write_jsonl(tmp_path / "openers.jsonl", OPENERS)
    turned = write_jsonl(tmp_path / "turned.jsonl", OPENERS[::-1])
    expected = talk(convmodel, trained, openers).out.splitlines()
    assert talk(convmodel, trained, openers, "--batch-size", "1").out.splitlines() == expected
    assert talk(convmodel, trained, turned, "--batch-size", "5").out.splitlines() == expected[::-1]
    assert talk(convmodel, trained, openers, "--seed", "9").out.splitlines() != expected


def test_each_opener_has_n_conversations_of_its_own(convmodel: Convmodel, trained: str) -> None:
    lines = convmodel("generate", "-m", trained, "Hi!", *WILD, "--self-chat", "2", "-n", "5").out.splitlines()
    assert len(lines) == len(set(lines)) == 5
    alone = convmodel("generate", "-m", trained, "Hi!", *WILD, "--self-chat", "2").out.splitlines()
    assert alone == lines[:1]


def test_each_turn_is_what_generate_answers_to_the_ones_before(convmodel: Convmodel, trained: str) -> None:
    turns = json.loads(convmodel("generate", "-m", trained, "Hi!", "--greedy", "--self-chat", "3").out)
    assert turns == ["Hi!", "Hello there.", "How are you?", "I am fine, thank you."]
    drawn = json.loads(convmodel("generate", "-m", trained, "Hi!", "--self-chat", "1", "--persona", "Old.").out)
    assert drawn["persona"] == "Old."
    answer = convmodel("generate", "-m", trained, "Hi!", "--persona", "Old.").out
    assert drawn["turns"] == ["Hi!", answer.rstrip("\n")]


def test_json_gives_objects_and_bad_lines_keep_their_place(convmodel: Convmodel, trained: str, tmp_path: Path) -> None:
    openers = write_jsonl(tmp_path / "openers.jsonl", [["Hi!"], 7, OPENERS[2]])
    outcome = convmodel("generate", "-m", trained, "-i", openers, "--greedy", "--self-chat", "1", "--json")
    first, bad, last = map(json.loads, outcome.out.splitlines())
    assert outcome.code == 3
    assert first == {"turns": ["Hi!", "Hello there."]}
    assert "openers.jsonl:2: expected a list of turns" in bad["error"]
    assert [message["role"] for message in last["messages"]] == ["user", "assistant"]
    assert last["persona"] == "Be brief."


def test_an_empty_response_ends_the_talk_and_is_said(convmodel: Convmodel, trained: str, tmp_path: Path) -> None:
    openers = write_jsonl(tmp_path / "openers.jsonl", [["Good night!"], ["Hi!"], ["Hi!", "Hello there."]])
    options = ["--greedy", "--self-chat", "2", "-n", "2", "--stop-word", "How", "--max-new-tokens", "12"]
    outcome = convmodel("generate", "-m", trained, "-i", openers, *options)
    night, again, *rest = map(json.loads, outcome.out.splitlines())
    assert night == again and len(night) == 3
    assert rest == [["Hi!", "Hello there."]] * 4
    assert outcome.code == 0
    assert (
        outcome.err.partition("\n")[2]
        == f"a conversation ended early, for the model said nothing:\n{openers}:2\n{openers}:3\n"
    )


@pytest.mark.parametrize("said", ["", " \n\u3000", "a\0b"])
def test_a_single_turn_is_no_conversation_and_is_left_out(
    convmodel: Convmodel, trained: str, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    def answer(_: Responder, contexts: list[object], **__: object) -> list[list[Written]]:
        return [[Written((1, 2), Response(said, "stop", -1.0, 2))] for _ in contexts]

    monkeypatch.setattr(Responder, "answer", answer)
    outcome = convmodel("generate", "-m", trained, "Hi!", "--self-chat", "3", "-n", "2")
    assert (outcome.code, outcome.out) == (0, "")
    assert outcome.err == "the model said nothing, and a single turn is no conversation\n"
    outcome = convmodel("generate", "-m", trained, "Hi!", "Hello.", "--self-chat", "3")
    assert (outcome.out, outcome.err) == (
        '["Hi!","Hello."]\n',
        "a conversation ended early, for the model said nothing\n",
    )


def test_a_talk_beyond_the_context_goes_on_with_its_end(convmodel: Convmodel, trained: str) -> None:
    outcome = convmodel("generate", "-m", trained, "Hi!", "--greedy", "--max-new-tokens", "5", "--self-chat", "60")
    told = json.loads(outcome.out)
    turns = told["turns"]
    assert len(turns) == len(told["learn"]) == 61
    assert told["learn"][0] and not all(told["learn"])  # a turn that was cut off is not learned
    assert outcome.err == "too long for the model, which is not shown the oldest 2 turns\n"
    assert all(turn.strip() for turn in turns)
