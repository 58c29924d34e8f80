"""contexts -> response tokens -> text."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from conftest import TALKS
from convmodel_cli.answer_settings import SamplingSettings
from convmodel_cli.model.checkpoint import load_model
from convmodel_cli.model.compute import Compute
from convmodel_cli.model.generation import Context, Token, respond
from convmodel_cli.model.language_model import LanguageModel, decode
from convmodel_cli.model.sampling import (
    Chooser,
    ban_repeated_ngrams,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    penalize_repetition,
    pick,
    uniform_stream,
)
from convmodel_cli.model.text import TextStream
from convmodel_cli.workflows.answer import Responder

GREEDY = SamplingSettings(greedy=True, max_new_tokens=20)


@pytest.fixture(scope="module")
def model(trained: str) -> LanguageModel:
    return load_model(trained)


def responder_of(model: LanguageModel, compute: Compute, sampling: SamplingSettings = GREEDY) -> Responder:
    return Responder(model, compute, sampling, 200, True)


def context_of(model: LanguageModel, compute: Compute, *turns: str, max_new_tokens: int = 20) -> Context:
    sampling = SamplingSettings(max_new_tokens=max_new_tokens)
    return responder_of(model, compute, sampling).context_of_text(turns)[0]


def contexts_of(model: LanguageModel, compute: Compute) -> list[Context]:
    """20 contexts of many lengths."""
    turns = [talk[:end] for talk in TALKS for end in range(1, len(talk) + 1)]
    turns += [[first[0], second[1], first[0]] for first in TALKS for second in TALKS][: 20 - len(turns)]
    return [context_of(model, compute, *part) for part in turns][:20]


def own_generate(model: LanguageModel, context: Context, max_new_tokens: int) -> list[int]:
    """transformers' own greedy response, its sep left out."""
    ids = torch.tensor([context.ids])
    network: Any = model.network
    output: list[int] = network.generate(
        input_ids=ids,
        token_type_ids=torch.tensor([context.types]),
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        num_beams=1,
        max_new_tokens=max_new_tokens,
        min_new_tokens=1,
        eos_token_id=model.sep_id,
        pad_token_id=model.sep_id,
        temperature=None,
        top_p=None,
        top_k=None,
    )[0, len(context.ids) :].tolist()
    return output[: output.index(model.sep_id)] if model.sep_id in output else output


def collect(tokens: Any, count: int) -> tuple[list[list[int]], list[str]]:
    ids: list[list[int]] = [[] for _ in range(count)]
    finishes = [""] * count
    for token in tokens:
        assert isinstance(token, Token)
        if token.id is not None:
            ids[token.row].append(token.id)
        if token.finish:
            finishes[token.row] = token.finish
    return ids, finishes


@pytest.mark.parametrize("batch", [1, 4, 20])
def test_greedy_responses_equal_transformers_own_at_every_batch_size(
    model: LanguageModel, compute: Compute, batch: int
) -> None:
    contexts = contexts_of(model, compute)
    assert len(contexts) == 20
    ours: list[list[int]] = []
    for start in range(0, 20, batch):
        part = contexts[start : start + batch]
        ours += collect(respond(model, part, GREEDY, compute), len(part))[0]
    assert ours == [own_generate(model, context, 20) for context in contexts]


def test_sampled_responses_depend_neither_on_the_batch_nor_on_the_order(model: LanguageModel, compute: Compute) -> None:
    sampling = SamplingSettings(temperature=1.5, max_new_tokens=20)
    contexts = contexts_of(model, compute)[:10]
    alone = [collect(respond(model, [context], sampling, compute), 1)[0][0] for context in contexts]
    together, _ = collect(respond(model, contexts, sampling, compute), 10)
    reversed_, _ = collect(respond(model, contexts[::-1], sampling, compute), 10)
    assert together == alone
    assert reversed_[::-1] == alone


def test_a_response_stops_by_itself_and_holds_no_sep(model: LanguageModel, compute: Compute) -> None:
    for talk in TALKS:
        for shown in range(1, len(talk), 2):
            context = context_of(model, compute, *talk[:shown])
            [[written]] = responder_of(model, compute).answer([context])
            assert written.response.text == talk[shown]
            assert written.response.finish == "stop"


def test_max_new_tokens_are_kept_exactly(model: LanguageModel, compute: Compute) -> None:
    sampling = SamplingSettings(greedy=True, max_new_tokens=3)
    context = context_of(model, compute, "Where do you live?", max_new_tokens=3)
    [ids], [finish] = collect(respond(model, [context], sampling, compute), 1)
    assert len(ids) == 3
    assert finish == "length"


def test_min_new_tokens_hold_the_sep_back(model: LanguageModel, compute: Compute) -> None:
    sampling = SamplingSettings(greedy=True, max_new_tokens=30, min_new_tokens=25)
    context = context_of(model, compute, "Good night!", max_new_tokens=30)
    [ids], _ = collect(respond(model, [context], sampling, compute), 1)
    assert len(ids) >= 25
    assert model.sep_id not in ids


def test_a_row_that_its_reader_has_ended_gets_no_more_tokens(model: LanguageModel, compute: Compute) -> None:
    contexts = contexts_of(model, compute)[:4]
    whole, _ = collect(respond(model, contexts, GREEDY, compute), 4)
    cut, finishes = collect(respond(model, contexts, GREEDY, compute, ended={1, 3}), 4)
    assert cut == [whole[0], whole[1][:1], whole[2], whole[3][:1]]
    assert finishes == ["stop", "", "stop", ""]


@pytest.mark.parametrize("text", ["🙂👍🏽 Grüße", "日本語のテキスト", "e\u0301a\u0308 ünïcödé", "👨‍👩‍👧‍👦"])
def test_streamed_text_is_the_text_decoded_whole_without_broken_characters(model: LanguageModel, text: str) -> None:
    ids = model.vocabulary.encode([text])[0]
    stream = TextStream(model)
    pieces = [stream.add(token) for token in ids]
    assert "".join(pieces) == stream.text == model.tokenizer.decode(ids) == text
    assert "\ufffd" not in "".join(pieces)


def test_a_character_whose_end_never_comes_is_left_out(model: LanguageModel) -> None:
    ids = model.vocabulary.encode(["hi 語"])[0]
    stream = TextStream(model)
    for token in ids[:-1]:
        stream.add(token)
    assert "\ufffd" not in stream.text


def test_text_that_grows_is_at_each_token_that_of_all_so_far(model: LanguageModel) -> None:
    """Of bytes in any order, most of which are no characters, control tokens among them."""
    random = np.random.default_rng(0)
    for _ in range(40):
        ids = random.integers(0, 300, 30).tolist()
        shown = shown_by(TextStream(model), ids)
        decoded = [decode(model.tokenizer, ids[:end]).replace("\ufffd", "") for end in range(1, len(ids) + 1)]
        assert shown == decoded


LOGITS = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
OUT = -torch.inf


def test_top_k_keeps_the_likeliest() -> None:
    assert keep_top_k(LOGITS, 2).tolist() == [[2.0, 1.0, OUT, OUT]]
    assert keep_top_k(LOGITS, 9).tolist() == LOGITS.tolist()


def test_top_p_keeps_the_smallest_set_that_reaches_p() -> None:
    # Probabilities: 0.644, 0.237, 0.087, 0.032
    assert keep_top_p(LOGITS, 0.6).tolist() == [[2.0, OUT, OUT, OUT]]
    assert keep_top_p(LOGITS, 0.7).tolist() == [[2.0, 1.0, OUT, OUT]]
    assert keep_top_p(LOGITS, 1e-300).tolist() == [[2.0, OUT, OUT, OUT]]
    assert keep_top_p(torch.tensor([[2.0, 1.0, 1.0, -1.0]]), 0.7).tolist() == [[2.0, 1.0, 1.0, OUT]]  # a tie


@pytest.mark.parametrize("p", [0.6, 0.9, 1 - 2**-24])
def test_top_p_of_a_row_does_not_depend_on_the_others(p: float) -> None:
    rows = torch.cat([torch.full((1, 4), 3.0), LOGITS, keep_top_k(LOGITS, 2), keep_top_k(LOGITS, 1)])
    assert keep_top_p(rows, p).tolist() == [keep_top_p(row[None], p)[0].tolist() for row in rows]
    assert keep_top_p(rows, p)[3].tolist() == [2.0, OUT, OUT, OUT]


def test_min_p_drops_what_is_far_below_the_likeliest() -> None:
    assert keep_min_p(LOGITS, 0.3).tolist() == [[2.0, 1.0, OUT, OUT]]


def test_repetition_penalty_pushes_down_whatever_the_sign_and_only_in_its_row() -> None:
    both = LOGITS.repeat(2, 1)
    assert penalize_repetition(both, [[0, 3], []], 2.0).tolist() == [[1.0, 1.0, 0.0, -2.0], [2.0, 1.0, 0.0, -1.0]]


def test_repeated_ngrams_are_ruled_out() -> None:
    assert ban_repeated_ngrams(LOGITS, [[0, 1, 0]], 2).tolist() == [[2.0, OUT, 0.0, -1.0]]
    assert ban_repeated_ngrams(LOGITS, [[0, 1, 0]], 3).tolist() == LOGITS.tolist()


def test_pick_inverts_the_distribution_and_never_takes_what_was_ruled_out() -> None:
    logits = torch.tensor([[0.0, -torch.inf, 0.0, 0.0]]).repeat(4, 1)
    assert pick(logits, torch.tensor([0.0, 0.34, 0.67, 1 - 1e-16])).tolist() == [0, 2, 3, 3]


def test_streams_differ_by_seed_context_and_candidate_and_repeat() -> None:
    streams = [uniform_stream(*key, 4).tolist() for key in [(0, [1], 0), (1, [1], 0), (0, [2], 0), (0, [1], 1)]]
    assert len({tuple(stream) for stream in streams}) == 4
    assert uniform_stream(0, [1], 0, 4).tolist() == streams[0]


def test_the_penalty_leaves_the_sep_alone(model: LanguageModel, compute: Compute) -> None:
    sampling = SamplingSettings(greedy=True, repetition_penalty=5.0, max_new_tokens=20)
    context = context_of(model, compute, "Good night!")
    [[written]] = responder_of(model, compute, sampling).answer([context])
    assert written.response.finish == "stop"
    assert written.response.text == "Sleep well."


def test_the_penalty_comes_before_anything_is_ruled_out_and_never_touches_an_end() -> None:
    end, repeated, other = 0, 1, 2
    chooser = Chooser(SamplingSettings(repetition_penalty=4.0, top_k=1, min_new_tokens=0), (end,), ())
    logits = torch.tensor([[-5.0, 2.0, 1.0, -9.0]])
    assert chooser.weigh(logits, [[repeated]]).tolist() == [[-5.0, 0.5, 1.0, -9.0]]
    assert chooser.choose(logits, [[repeated]], [0.5]).tolist() == [other]
    assert chooser.weigh(logits, [[]]).tolist() == logits.tolist()


@pytest.mark.parametrize("greedy", [True, False])
def test_a_response_that_may_say_nothing_more_ends_though_it_is_short(greedy: bool) -> None:
    sampling = SamplingSettings(greedy=greedy, no_repeat_ngram=1, min_new_tokens=9)
    end, banned = 1, 0
    chooser = Chooser(sampling, (end,), (banned,))
    chosen = chooser.choose(LOGITS.repeat(2, 1), [[2, 3], [3]], [0.5, 0.5])
    assert chosen.tolist() == [end, 2]


def shown_by(stream: TextStream, ids: list[int]) -> list[str]:
    """What has been shown after each token, up to the one that stops it."""
    shown = []
    for token in ids:
        stream.add(token)
        shown.append(stream.text)
        if stream.stopped:
            break
    return shown


def test_text_is_held_back_as_long_as_it_may_begin_a_stop_word_and_no_longer(model: LanguageModel) -> None:
    ids = [model.vocabulary.encode([character])[0][0] for character in "qaabqabc"]
    stream = TextStream(model, ["abc", "bq#"])
    assert shown_by(stream, ids) == ["q", "q", "qa", "qa", "qaa", "qaabq", "qaabq", "qaabq"]
    assert stream.stopped
    assert stream.ids == tuple(ids[:5])


def test_what_was_held_back_comes_when_nothing_follows(model: LanguageModel) -> None:
    stream = TextStream(model, ["there!"])
    assert shown_by(stream, model.vocabulary.encode(["Hello there"])[0])[-1] == "Hello "
    assert stream.finish() == "there"
    assert stream.text == "Hello there"


@pytest.mark.parametrize(("text", "word", "kept"), [
    ("Hello there.", "ell", "H"),  # inside a token
    ("Hello there.", " th", "Hello"),  # over two tokens, the second one not whole
    ("hi 😺 you", "😺", "hi "),  # behind bytes that are no character yet
    ("hi 😺 you", "hi", ""),
])  # fmt: skip
def test_the_ids_in_front_of_a_stop_word_are_those_of_the_text(
    model: LanguageModel, text: str, word: str, kept: str
) -> None:
    stream = TextStream(model, ["never", word])
    shown_by(stream, model.vocabulary.encode([text])[0])
    assert stream.text == kept
    assert list(stream.ids) == model.vocabulary.encode([kept])[0]
