"""generate --choices: which of some given responses suits a context best."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from test_generate import CONTEXTS, all_answers, answers, encoded, mean_logprob, plain_transformers, texts

from conftest import TALKS, Convmodel
from convmodel_cli.data.choices import read_choices
from convmodel_cli.errors import DataError
from helpers import write_jsonl

CHOICES = [
    "Hello there.",
    "Only water.",
    "Yes, very nice.",
    "Sleep well.",
    "Sleep\nwell.",
    "How are you?",
    "🙂",
    "Hi",
    "I",
]


@pytest.fixture
def choices(tmp_path: Path) -> str:
    return write_jsonl(tmp_path / "choices.jsonl", CHOICES)


def test_the_ranking_is_that_of_the_plain_model(
    convmodel: Convmodel, trained: str, choices: str, tmp_path: Path
) -> None:
    network, tokenizer = plain_transformers(trained)
    contexts = [turns for turns in CONTEXTS if len(encoded(tokenizer, turns)[0]) < 20]
    data = write_jsonl(tmp_path / "contexts.jsonl", contexts)
    ranked = all_answers(convmodel("generate", "-m", trained, "-i", data, "--choices", choices, "--json"))
    assert len(ranked) == len(contexts) > 5
    for turns, responses in zip(contexts, ranked, strict=True):
        ids, types = encoded(tokenizer, turns)
        expected = {}
        for choice in CHOICES:
            own = tokenizer(choice)["input_ids"]
            expected[choice] = mean_logprob(network, ids, types, [*own, tokenizer.eos_token_id])
        assert [response["text"] for response in responses] == sorted(CHOICES, key=lambda choice: -expected[choice])
        for response in responses:
            assert response["logprob"] == pytest.approx(expected[response["text"]], abs=1e-4)
            assert response["finish"] == "stop"
            assert response["tokens"] == len(tokenizer(response["text"])["input_ids"])


def test_what_the_model_knows_by_heart_comes_first(convmodel: Convmodel, trained: str, choices: str) -> None:
    for context in (TALKS[0][:1], TALKS[1][:3], TALKS[5][:1]):
        [best] = answers(convmodel("generate", "-m", trained, *context, "--choices", choices, "--json"))
        assert best["text"] == TALKS[[talk[: len(context)] for talk in TALKS].index(context)][len(context)]
        assert best["logprob"] > -0.1


def test_the_ranking_depends_neither_on_the_batch_nor_on_any_order(
    convmodel: Convmodel, trained: str, tmp_path: Path
) -> None:
    many = list(dict.fromkeys([*CHOICES, *(f"{first} {second}" for first in "abcdef" for second in "ghijk")]))
    shuffled = random.Random(1).sample(many, len(many))
    data = write_jsonl(tmp_path / "contexts.jsonl", CONTEXTS)
    turned = write_jsonl(tmp_path / "turned.jsonl", CONTEXTS[::-1])

    def ranked(contexts: str, responses: list[str], *options: str) -> list[list[str]]:
        file = write_jsonl(tmp_path / "many.jsonl", responses)
        return texts(convmodel("generate", "-m", trained, "-i", contexts, "--choices", file, "--json", *options))

    expected = ranked(data, many)
    assert ranked(data, shuffled, "--batch-size", "1") == expected
    assert ranked(turned, many, "--batch-size", "5") == expected[::-1]


def test_n_keeps_the_best_and_never_makes_more(convmodel: Convmodel, trained: str, choices: str) -> None:
    generate = ["generate", "-m", trained, "Hi!", "--choices", choices]
    every = convmodel(*generate).out.splitlines()
    assert sorted(every) == sorted(choice.replace("\n", "\\n") for choice in CHOICES)
    assert convmodel(*generate, "-n", "1").out.splitlines() == every[:1] == ["Hello there."]
    assert convmodel(*generate, "-n", "4").out.splitlines() == every[:4]
    assert convmodel(*generate, "-n", "99").out.splitlines() == every


def test_settings_of_sampling_change_no_ranking(convmodel: Convmodel, trained: str, choices: str) -> None:
    generate = ["generate", "-m", trained, "Hi!", "--choices", choices, "--json"]
    odd = ["--temperature", "9", "--seed", "5", "--max-new-tokens", "1", "--stop-word", "e", "--beams", "2"]
    assert convmodel(*generate, *odd) == convmodel(*generate)


def test_choices_are_read_from_text_json_and_standard_input_each_once(
    convmodel: Convmodel, trained: str, tmp_path: Path
) -> None:
    lines = "\ufeffSleep well.\r\n\n  \nHello there.\nSleep well.\n\u2028Only water."
    (tmp_path / "lines.txt").write_text(lines, encoding="utf-8", newline="")
    (tmp_path / "array.json").write_text('["Sleep well.",\n"Hello there.", "Sleep well.", "\\u2028Only water."]')
    write_jsonl(tmp_path / "lines.jsonl", ["Sleep well.", "Hello there.", "Sleep well.", "\u2028Only water."])
    expected = ["Sleep well.", "Hello there.", "\u2028Only water."]
    for name in ("lines.txt", "array.json", "lines.jsonl"):
        assert [choice.text for choice in read_choices(str(tmp_path / name))] == expected
    outcome = convmodel("generate", "-m", trained, "Hi!", "--choices", "-", stdin=lines.encode())
    assert sorted(outcome.out.splitlines()) == ["Hello there.", "Sleep well.", "\\u2028Only water."]


@pytest.mark.parametrize(("name", "content", "expected"), [
    ("bad.jsonl", b'"ok"\n["x"]\n5\n""\n"\\u0000"\nfoo\n', [
        "bad.jsonl:2: expected a response as a string, got a list of 1",
        "bad.jsonl:3: expected a response as a string, got the number 5",
        "bad.jsonl:4: expected text, got an empty string",
        "bad.jsonl:5: expected text, got a NUL character in it",
        "bad.jsonl:6: expected JSON, got something else in column 1",
        "bad.jsonl: 5 bad lines, 1 good",
    ]),
    ("bad.txt", b"ok\nGr\xfc\xdfe\n", ["bad.txt:2: expected UTF-8, got the byte 0xfc in column 3"]),
    ("bad.json", b'"ok"', ["bad.json:1: expected a JSON array"]),
    ("empty.txt", b"\n \n", ["empty.txt: expected responses to choose from, got an empty file"]),
])  # fmt: skip
def test_bad_choices_are_listed_and_nothing_is_ranked(
    convmodel: Convmodel, tmp_path: Path, name: str, content: bytes, expected: list[str]
) -> None:
    (tmp_path / name).write_bytes(content)
    outcome = convmodel("generate", "-m", "no-such-model", "Hi!", "--choices", name)
    *errors, hint = outcome.err.splitlines()
    assert (outcome.code, outcome.out) == (3, "")
    assert hint.startswith("hint: write each response on one line")
    assert len(errors) == len(expected)
    for line, start in zip(errors, expected, strict=True):
        assert line.startswith(f"error: {start}")


def test_a_missing_file_of_choices_is_a_usage_error(convmodel: Convmodel, tmp_path: Path) -> None:
    outcome = convmodel("generate", "-m", "no-such-model", "Hi!", "--choices", "none.txt")
    assert outcome.code == 2
    assert outcome.err.startswith("error: none.txt: no such file")
    with pytest.raises(DataError):
        read_choices(write_jsonl(tmp_path / "empty.jsonl", []))


def test_choices_that_are_too_long_are_named(convmodel: Convmodel, trained: str, tmp_path: Path) -> None:
    counted = " ".join(map(str, range(20)))
    file = write_jsonl(tmp_path / "long.jsonl", ["Hi!", counted, "I know no jokes, sorry.", counted + "!"])
    outcome = convmodel("generate", "-m", trained, "Hi!", "--choices", file)
    assert (outcome.code, outcome.out) == (3, "")
    assert outcome.err.splitlines() == [
        f"error: {file}:2: expected a response of at most 24 tokens, got 49",
        f"error: {file}:4: expected a response of at most 24 tokens, got 50",
        f"error: {file}: 2 of 4 responses are too long",
        "hint: the model can be shown 28 tokens, context and response together",
    ]


def test_old_turns_make_room_for_a_long_choice(convmodel: Convmodel, trained: str, tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "choices.jsonl", ["Only water.", "I know no jokes, sorry."])
    turns = ["What do you eat?", "I like rice and beans.", "Tell me a joke."]
    outcome = convmodel("generate", "-m", trained, *turns, "--choices", file)
    assert outcome.out == "I know no jokes, sorry.\nOnly water.\n"


def test_a_persona_without_room_for_the_choices_is_said_where_it_stands(
    convmodel: Convmodel, trained: str, choices: str, tmp_path: Path
) -> None:
    persona = "I know a lot of jokes, or so they say at the sea"
    contexts = [
        {"turns": ["Hi!"]},
        {"turns": ["Hi!", "Hello there.", "How are you?"], "persona": persona},
        ["Good night!"],
    ]
    data = write_jsonl(tmp_path / "contexts.jsonl", contexts)
    outcome = convmodel("generate", "-m", trained, "-i", data, "--choices", choices, "-n", "1")
    said = f"{data}:2: the longest choice does not fit behind the context and its persona"
    assert (outcome.code, outcome.out) == (3, f"Hello there.\nerror: {said}\nSleep well.\n")
    alone = convmodel("generate", "-m", trained, *TALKS[0][:3], "--choices", choices, "--persona", persona)
    assert alone.code == 2
    assert (
        alone.err == "error: the longest choice does not fit behind the context and its persona\nhint: shorten either\n"
    )
