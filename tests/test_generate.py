"""generate: contexts in, responses out. What it makes of choices, itself and transformers has files of its own."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

from conftest import TALKS, Convmodel, Outcome
from convmodel_cli.cli.main import run
from convmodel_cli.escaping import one_line
from convmodel_cli.model import generation
from convmodel_cli.model.generation import Token
from helpers import write_jsonl

WILD = ["--temperature", "5", "--top-p", "1", "--top-k", "0", "--max-new-tokens", "5"]
CONTEXTS = [talk[:end] for talk in TALKS for end in range(1, len(talk))]


def answers(outcome: Outcome) -> list[dict[str, Any]]:
    """The first response to each context of a --json output."""
    return [responses[0] for responses in all_answers(outcome)]


def all_answers(outcome: Outcome) -> list[list[dict[str, Any]]]:
    return [json.loads(line)["responses"] for line in outcome.out.splitlines()]


def texts(outcome: Outcome) -> list[list[str]]:
    """What was answered; with another batch the scores beside it may differ in their last digits."""
    return [[response["text"] for response in responses] for responses in all_answers(outcome)]


def plain_transformers(folder: str) -> tuple[GPT2LMHeadModel, PreTrainedTokenizerFast]:
    """The model as somebody else would load it."""
    return GPT2LMHeadModel.from_pretrained(folder), PreTrainedTokenizerFast.from_pretrained(folder)


def encoded(tokenizer: PreTrainedTokenizerFast, turns: Sequence[str]) -> tuple[list[int], list[int]]:
    """Ids and token types of a context, written down once more: a sep in front of each turn and at the end."""
    ids: list[int] = []
    types: list[int] = []
    for number, turn in enumerate([*turns, ""]):
        own = [tokenizer.eos_token_id, *tokenizer(turn)["input_ids"]]
        ids += own
        types += [number % 2] * len(own)
    return ids, types


def mean_logprob(network: GPT2LMHeadModel, ids: list[int], types: list[int], response: list[int]) -> float:
    """Of the tokens of a response to a context."""
    with torch.inference_mode():
        output: Any = network(
            input_ids=torch.tensor([ids + response]),
            token_type_ids=torch.tensor([types + [types[-1]] * len(response)]),
        )
    logprobs = output.logits[0, len(ids) - 1 : -1].double().log_softmax(-1)
    return float(logprobs.gather(1, torch.tensor(response)[:, None]).mean())


@pytest.mark.parametrize("limit", [4, 7])
def test_greedy_responses_of_the_command_equal_transformers_own(
    convmodel: Convmodel, trained: str, tmp_path: Path, limit: int
) -> None:
    network, tokenizer = plain_transformers(trained)
    contexts = [
        *CONTEXTS,
        ["Hi!", "Sleep well."],
        ["I say 🙂", "Hello", "👍🏽"],
        ["Tell"],
        ["So?", "Hm.", "So?", "Oh."],
    ]
    contexts = [
        context for context in contexts if len(encoded(tokenizer, context)[0]) + limit <= 28
    ]  # nothing is dropped
    assert len(contexts) > 10
    data = write_jsonl(tmp_path / "contexts.jsonl", contexts)
    found = answers(
        convmodel("generate", "-m", trained, "-i", data, "--greedy", "--json", "--max-new-tokens", str(limit))
    )
    for context, response in zip(contexts, found, strict=True):
        ids, types = encoded(tokenizer, context)
        inputs = torch.tensor([ids])
        output = network.generate(  # type: ignore[misc]
            input_ids=inputs,
            token_type_ids=torch.tensor([types]),
            attention_mask=torch.ones_like(inputs),
            do_sample=False,
            max_new_tokens=limit,
            min_new_tokens=1,
        )[0, len(ids) :].tolist()
        ended = tokenizer.eos_token_id in output
        expected = output[: output.index(tokenizer.eos_token_id)] if ended else output
        assert response["text"] == tokenizer.decode(expected)
        assert response["tokens"] == len(expected)
        assert response["finish"] == ("stop" if ended else "length")
        own = [*expected, *[tokenizer.eos_token_id] * ended]
        assert response["logprob"] == pytest.approx(mean_logprob(network, ids, types, own), abs=1e-4)
    assert {response["finish"] for response in found} == {"stop", "length"}


def test_a_seed_repeats_its_responses(convmodel: Convmodel, trained: str) -> None:
    first = convmodel("generate", "-m", trained, "Hi!", "-n", "3", "--seed", "7", *WILD)
    second = convmodel("generate", "-m", trained, "Hi!", "-n", "3", "--seed", "7", *WILD)
    other = convmodel("generate", "-m", trained, "Hi!", "-n", "3", "--seed", "8", *WILD)
    assert first.code == 0
    assert first == second
    assert first.out != other.out


@pytest.mark.parametrize("count", [1, 5, 40])
def test_exactly_as_many_candidates_as_asked_for_best_first(convmodel: Convmodel, trained: str, count: int) -> None:
    arguments = ["generate", "-m", trained, "Hi!", "-n", str(count), *WILD]
    [responses] = all_answers(convmodel(*arguments, "--json"))
    scores = [response["logprob"] for response in responses]
    assert len(scores) == count
    assert scores == sorted(scores, reverse=True)
    assert convmodel(*arguments).out.splitlines() == [one_line(response["text"]) for response in responses]


def test_sampled_responses_depend_neither_on_the_batch_nor_on_the_order(
    convmodel: Convmodel, trained: str, tmp_path: Path
) -> None:
    contexts = [*CONTEXTS, CONTEXTS[0]]
    data = write_jsonl(tmp_path / "contexts.jsonl", contexts)
    turned = write_jsonl(tmp_path / "turned.jsonl", contexts[::-1])
    generate = ["generate", "-m", trained, "-n", "2", *WILD, "--json", "-i"]
    alone = texts(convmodel(*generate, data, "--batch-size", "1"))
    assert texts(convmodel(*generate, data, "--batch-size", "7")) == alone
    assert texts(convmodel(*generate, turned, "--batch-size", "4")) == alone[::-1]
    assert alone[0] == alone[-1]
    assert len({text for pair in alone for text in pair}) == 2 * len(CONTEXTS)


def test_a_file_is_answered_in_order_with_bad_lines_in_their_place(
    convmodel: Convmodel, trained: str, tmp_path: Path
) -> None:
    data = write_jsonl(tmp_path / "contexts.jsonl", [["Good night!"], 7, {"turns": ["Hi!"]}, ["Tell me a joke."], [""]])
    expected = ["Sleep well.", "Hello there.", "I know no jokes, sorry."]
    outcome = convmodel("generate", "-m", trained, "-i", data, "--greedy", "--json")
    lines = [json.loads(line) for line in outcome.out.splitlines()]
    assert outcome.code == 3
    assert [line["responses"][0]["text"] for line in lines if "responses" in line] == expected
    assert [line["context"] for line in lines if "responses" in line] == [["Good night!"], ["Hi!"], ["Tell me a joke."]]
    assert "contexts.jsonl:2: expected a list of turns" in lines[1]["error"]
    assert "contexts.jsonl:5: turn 1: expected text" in lines[4]["error"]
    assert set(lines[0]["responses"][0]) == {"text", "finish", "logprob", "tokens"}
    assert outcome.err == f"error: {data}: 2 bad lines, said in their places\n"
    shown = convmodel("generate", "-m", trained, "-i", data, "--greedy", "--batch-size", "1").out.splitlines()
    assert [shown[0], *shown[2:4]] == expected
    assert shown[1].startswith("error: ") and shown[4].startswith("error: ")


def test_stdin_holds_a_context_a_line_as_text_or_json(convmodel: Convmodel, trained: str) -> None:
    stdin = b'Good night!\r\n\n["Hi!", "Hello there.", "How are you?"]\n42\nTell me a joke.'
    outcome = convmodel("generate", "-m", trained, "-i", "-", "--greedy", stdin=stdin)
    answered = outcome.out.splitlines()
    assert outcome.code == 0
    assert answered[:2] + answered[3:] == ["Sleep well.", "I am fine, thank you.", "I know no jokes, sorry."]
    bad = convmodel("generate", "-m", trained, "-i", "-", "--greedy", stdin=b"Hi!\n[7]\n\xff\n")
    assert bad.code == 3
    assert bad.out.splitlines()[0] == "Hello there."
    assert "<stdin>:2: turn 1: expected a string" in bad.out
    assert bad.err == "error: <stdin>: 2 bad lines, said in their places\n"


def test_closed_and_empty_input_are_sentences(
    convmodel: Convmodel, trained: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convmodel("generate", "-m", trained, "-i", "-", stdin=b"\n\n").code == 3
    monkeypatch.setattr(sys, "stdin", None)
    assert run(["generate", "-m", trained, "-i", "-"]) == 2
    assert capsys.readouterr().err.startswith("error: standard input is closed\nhint: ")


def test_what_is_too_long_is_said_with_its_place(convmodel: Convmodel, trained: str, tmp_path: Path) -> None:
    long = ["Hi!", "Hello there."] * 20
    data = write_jsonl(tmp_path / "long.jsonl", [["Hi!"], [*long, "Hi!"], ["word " * 40]])
    outcome = convmodel("generate", "-m", trained, "-i", data)
    assert (outcome.code, outcome.out.count("\n")) == (0, 3)
    title, turns, tokens = outcome.err.splitlines()
    assert title == "too long for the model, which is not shown:"
    assert turns.startswith(f"{data}:2: the oldest 3") and turns.endswith(" turns")
    assert tokens.startswith(f"{data}:3: the first ") and tokens.endswith(" tokens of the newest turn")
    alone = convmodel("generate", "-m", trained, *long, "Hi!", "--json")
    assert alone.err == f"too long for the model, which is not shown {turns.split(': ')[1]}\n"


def test_a_persona_that_leaves_no_room_is_refused_where_it_stands(
    convmodel: Convmodel, trained: str, tmp_path: Path
) -> None:
    contexts = [{"turns": ["Hi!"], "persona": "I am. " * 40}, {"turns": ["Hi!"], "persona": "I am."}]
    outcome = convmodel("generate", "-m", trained, "-i", write_jsonl(tmp_path / "p.jsonl", contexts))
    assert outcome.code == 3
    assert "p.jsonl:1: the persona: expected at most 24 tokens" in outcome.out.splitlines()[0]
    assert not outcome.out.splitlines()[1].startswith("error")
    refused = convmodel("generate", "-m", trained, "Hi!", "--persona", "I am. " * 40)
    assert refused.code == 2
    assert refused.err.startswith("error: the persona: expected at most 24 tokens")


@pytest.mark.parametrize(("words", "expected"), [
    (["there"], "Hello "),
    (["ell"], "H"),
    (["o th"], "Hell"),
    (["x", "re.", " "], "Hello"),
    (["llo", "ell"], "H"),  # the same token brings both
    (["there!"], "Hello there."),
])  # fmt: skip
def test_a_response_ends_in_front_of_a_stop_word(
    convmodel: Convmodel, trained: str, words: list[str], expected: str
) -> None:
    options = [option for word in words for option in ("--stop-word", word)]
    [response] = answers(convmodel("generate", "-m", trained, "Hi!", "--greedy", "--json", *options))
    _, tokenizer = plain_transformers(trained)
    assert response["text"] == expected
    assert response["finish"] == "stop"
    assert response["tokens"] == len(tokenizer(expected)["input_ids"])


def test_a_stop_word_ends_its_own_row_of_a_batch_alone(convmodel: Convmodel, trained: str, tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "contexts.jsonl", [*CONTEXTS, ["Hi!"], ["I say 🙂"]])
    generate = ["generate", "-m", trained, "-i", data, *WILD, "--max-new-tokens", "14", "--json"]
    whole = [response["text"] for response in answers(convmodel(*generate))]
    stopped = answers(convmodel(*generate, "--stop-word", "ee", "--stop-word", "joke", "--batch-size", "20"))
    assert [response["text"] for response in stopped] == [text.split("ee")[0].split("joke")[0] for text in whole]
    changed = [response for response, text in zip(stopped, whole, strict=True) if response["text"] != text]
    assert 0 < len(changed) < len(whole)
    assert {response["finish"] for response in changed} == {"stop"}


def test_stop_words_that_cannot_be_are_refused(convmodel: Convmodel) -> None:
    outcome = convmodel("generate", "Hi!", "--stop-word", "")
    assert (outcome.code, outcome.err) == (2, "error: --stop-word: expected text, got an empty string\n")


def test_min_new_tokens_hold_the_end_back(convmodel: Convmodel, trained: str) -> None:
    short, long = (
        answers(convmodel("generate", "-m", trained, "Good night!", "--greedy", "--json", *options))[0]
        for options in ([], ["--min-new-tokens", "9", "--max-new-tokens", "12"])
    )
    assert short["tokens"] < 9 <= long["tokens"]
    assert long["text"].startswith(short["text"])


def test_greedy_means_no_penalty_unless_one_is_given(convmodel: Convmodel, trained: str) -> None:
    options = ["generate", "-m", trained, "Hi!", "--min-new-tokens", "20", "--max-new-tokens", "20", "--json"]
    plain = convmodel(*options, "--greedy")
    assert convmodel(*options, "--greedy", "--repetition-penalty", "1") == plain
    assert convmodel(*options, "--greedy", "--repetition-penalty", "2") != plain
    drawn = convmodel(*options, *WILD[:2])
    assert convmodel(*options, *WILD[:2], "--repetition-penalty", "1.1") == drawn
    assert convmodel(*options, *WILD[:2], "--repetition-penalty", "1") != drawn
    saved = json.loads((Path(trained) / "generation_config.json").read_text())
    assert not [key for key in saved if "penalty" in key or "ngram" in key]


def test_an_empty_response_is_an_empty_line_and_its_context_is_named(
    convmodel: Convmodel, trained: str, tmp_path: Path
) -> None:
    data = write_jsonl(tmp_path / "contexts.jsonl", [["Good night!"], ["Hi!"], ["Tell me a joke."]])
    options = ["-m", trained, "--greedy", "--stop-word", "Hello"]
    outcome = convmodel("generate", "-i", data, *options)
    assert (outcome.code, outcome.out) == (0, "Sleep well.\n\nI know no jokes, sorry.\n")
    assert outcome.err == f"the model answered with nothing, or with white space:\n{data}:2\n"
    assert convmodel("generate", "-i", data, *options, "-q").err == ""
    alone = convmodel("generate", "Hi!", *options, "--json")
    assert answers(alone)[0] | {"logprob": 0} == {"text": "", "finish": "stop", "logprob": 0, "tokens": 0}
    assert alone.err == "the model answered with nothing, or with white space\n"


def test_raw_writes_what_is_otherwise_shown(
    convmodel: Convmodel, trained: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choices = write_jsonl(tmp_path / "choices.jsonl", ["\x1b[31m\tred\nblue\x07"])
    ranked = ["generate", "-m", trained, "Hi!", "--choices", choices]
    monkeypatch.setattr("convmodel_cli.workflows.choices._check_lengths", lambda *_: None)
    assert convmodel(*ranked).out == "\\x1b[31m\\tred\\nblue\\x07\n"
    assert convmodel(*ranked, "--raw").out == "\x1b[31m\tred\nblue\x07\n"
    refused = convmodel(*ranked, "--raw", "--json")
    assert (refused.code, refused.out) == (2, "")
    assert "--raw and --json exclude each other" in refused.err


def test_raw_is_never_sent_to_a_terminal(convmodel: Convmodel, trained: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    outcome = convmodel("generate", "-m", trained, "Hi!", "--raw")
    assert (outcome.code, outcome.out) == (2, "")
    assert "standard output is a terminal" in outcome.err


def test_a_batch_beyond_the_memory_is_answered_by_halves(
    convmodel: Convmodel, trained: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_jsonl(tmp_path / "contexts.jsonl", CONTEXTS[:5])
    generate = ["generate", "-m", trained, "-i", data, *WILD, "--json"]
    expected = texts(convmodel(*generate))
    respond = generation.respond
    largest = 2

    def cramped(model: Any, contexts: Sequence[Any], *arguments: Any, **options: Any) -> Iterator[Token]:
        for number, token in enumerate(respond(model, contexts, *arguments, **options)):
            if number == 3 and options["batch_size"] > largest:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
            yield token

    monkeypatch.setattr(generation, "respond", cramped)
    assert texts(convmodel(*generate)) == expected
    largest = 0
    outcome = convmodel("generate", "-m", trained, "Tell me a joke.", "--greedy")
    assert outcome.code == 5
    assert outcome.err.startswith("error: out of memory in the response to ")


@pytest.mark.parametrize("options", [
    [], ["--greedy"], ["--beams", "2"], ["--self-chat", "2"], ["--choices", "-"],
    ["--generate-option", "use_cache=false"],
])  # fmt: skip
def test_a_model_that_gives_no_numbers_is_an_error(
    convmodel: Convmodel, trained: str, tmp_path: Path, options: list[str]
) -> None:
    shutil.copytree(trained, tmp_path / "broken")
    weights = load_file(tmp_path / "broken" / "model.safetensors")
    weights["transformer.ln_f.weight"].fill_(3e38)  # finite itself
    save_file(weights, tmp_path / "broken" / "model.safetensors", metadata={"format": "pt"})
    outcome = convmodel("generate", "-m", "broken", "Hi!", *options, stdin=b"Hello there.")
    assert (outcome.code, outcome.out) == (4, "")
    assert outcome.err.startswith("error: expected the model to give probabilities, got numbers that are not finite")


def test_a_model_that_can_be_shown_next_to_nothing_is_refused(
    convmodel: Convmodel, trained: str, tmp_path: Path
) -> None:
    network, tokenizer = plain_transformers(trained)
    for positions, code in ((3, 4), (4, 0), (5, 0)):
        network.config.n_positions = positions
        folder = tmp_path / f"of-{positions}"
        GPT2LMHeadModel(network.config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        outcome = convmodel("generate", "-m", str(folder), "Hi!", "So?", "--greedy")
        assert outcome.code == code
        if code:
            assert "expected a model that can be shown at least 4 tokens, got 3" in outcome.err
    file = write_jsonl(tmp_path / "choices.jsonl", ["!", "?"])
    assert convmodel("generate", "-m", str(folder), "Hi!", "So?", "--choices", file).code == 0
    refused = convmodel("generate", "-m", str(tmp_path / "of-4"), "Hi!", "So?", "--choices", file)
    assert refused.code == 3  # a choice, its sep, and a turn between two more are five tokens
    assert "expected a response of at most 0 tokens, got 1" in refused.err


@pytest.mark.parametrize(("arguments", "expected"), [
    (["Hi!", "--choices", "a", "--self-chat", "2"], "--choices and --self-chat exclude each other"),
    (["-i", "-", "--choices", "-"], "--input and --choices cannot both be standard input"),
    (["Hi!", "--raw", "--self-chat", "2"], "--raw and --self-chat exclude each other"),
    (["Hi!", "-n", "0"], "--num-responses: expected at least 1, got 0"),
    (["Hi!", "--repetition-penalty", "1e-300"], "--repetition-penalty: expected at least 0.01"),
    (["Hi!", "--repetition-penalty", "1e300"], "--repetition-penalty: expected at most 100"),
    (["Hi!", "--min-new-tokens", "65"], "--min-new-tokens: expected at most --max-new-tokens, 64, got 65"),
    (["Hi!", "\udcff"], "the turns: turn 2: expected text"),
])  # fmt: skip
def test_what_does_not_go_together_is_refused(convmodel: Convmodel, arguments: list[str], expected: str) -> None:
    outcome = convmodel("generate", "-m", "no-such-model", *arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith(f"error: {expected}")
