"""Our own GPT-2 against transformers', token for token, and what it costs to round its weights."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from convmodel_cli.answer_settings import SamplingSettings
from convmodel_cli.data.formats import Conversation
from convmodel_cli.model import decoding, gpt2_decoding, matrices
from convmodel_cli.model.compute import Compute
from convmodel_cli.model.decoding import LibraryCache, make_decoder, prepared
from convmodel_cli.model.generation import Context, Memory, respond
from convmodel_cli.model.gpt2 import is_plain_gpt2
from convmodel_cli.model.gpt2_decoding import Gpt2, Part
from convmodel_cli.model.key_values import KeyValues
from convmodel_cli.model.language_model import LanguageModel, prepare_network

GREEDY = SamplingSettings(greedy=True, max_new_tokens=12, min_new_tokens=12)


def made(tiny: LanguageModel, **options: Any) -> LanguageModel:
    """A small GPT-2 whose random weights make clear choices."""
    torch.manual_seed(1)
    shape = {"n_layer": 2, "n_embd": 48, "n_head": 3, "n_positions": 96, **options}
    network = GPT2LMHeadModel(GPT2Config(vocab_size=tiny.vocab_size, **shape))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    prepare_network(network)
    return replace(tiny, network=network)


def random_contexts(count: int, vocab: int, seed: int = 0) -> list[Context]:
    dice = random.Random(seed)
    contexts = []
    for _ in range(count):
        length = dice.randint(1, 40)
        ids = tuple(dice.randrange(vocab) for _ in range(length))
        contexts.append(Context(ids, tuple(dice.randint(0, 1) for _ in ids), dice.randint(3, 12)))
    return contexts


def answers(model: LanguageModel, contexts: list[Context], compute: Compute, **options: Any) -> list[list[int]]:
    found: list[list[int]] = [[] for _ in contexts]
    for token in respond(model, contexts, options.pop("sampling", GREEDY), compute, **options):
        if token.id is not None:
            found[token.row].append(token.id)
    return found


@pytest.fixture
def by_library(monkeypatch: pytest.MonkeyPatch) -> Any:
    def ask(*arguments: Any, **options: Any) -> list[list[int]]:
        assert arguments[0].decoding is None
        with monkeypatch.context() as patch:
            patch.setattr(decoding, "is_plain_gpt2", lambda _: False)
            return answers(*arguments, **options)

    return ask


@pytest.fixture(params=[False, True])
def in_parts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also the products of a single row where MKL takes one thread for it."""
    if request.param:
        monkeypatch.setattr(matrices, "SHUNS_MKL", True)
        monkeypatch.setattr(torch, "get_num_threads", lambda: 3)


@pytest.mark.usefixtures("in_parts")
@pytest.mark.parametrize("with_types", [True, False])
@pytest.mark.parametrize("options", [
    {}, {"tie_word_embeddings": False}, {"n_layer": 1, "n_embd": 40, "n_head": 5}, {"n_inner": 70},
    {"activation_function": "gelu"}, {"n_layer": 3, "n_head": 1, "layer_norm_epsilon": 1e-3},
])  # fmt: skip
def test_it_says_what_transformers_says(
    tiny: LanguageModel, compute: Compute, by_library: Any, options: dict[str, Any], with_types: bool
) -> None:
    model = made(tiny, **options)
    assert is_plain_gpt2(model.network)
    contexts = random_contexts(9, model.vocab_size)
    expected = [by_library(model, [context], compute, with_types=with_types)[0] for context in contexts]
    assert len({tuple(ids) for ids in expected}) > 4
    for batch_size in (1, 2, 4, None):
        assert answers(model, contexts, compute, with_types=with_types, batch_size=batch_size) == expected


@pytest.mark.parametrize("options", [
    {"scale_attn_weights": False}, {"scale_attn_by_inverse_layer_idx": True}, {"reorder_and_upcast_attn": True},
    {"activation_function": "relu"},
])  # fmt: skip
def test_variants_are_left_to_transformers(tiny: LanguageModel, compute: Compute, options: dict[str, Any]) -> None:
    model = made(tiny, **options)
    assert not is_plain_gpt2(model.network)
    memory = Memory()
    context = random_contexts(1, model.vocab_size)[0]
    assert answers(model, [context], compute, memory=memory) == answers(model, [context], compute)
    assert isinstance(memory.cache, LibraryCache)


def test_a_network_with_hooks_is_left_to_transformers(tiny: LanguageModel, compute: Compute) -> None:
    head: Any = tiny.network.get_output_embeddings()
    assert is_plain_gpt2(tiny.network)
    ready = prepared(tiny, compute)
    assert type(make_decoder(ready, compute, True, None)) is decoding._OwnDecoder
    with head.register_forward_hook(lambda *_: None):
        assert not is_plain_gpt2(tiny.network)
        assert type(make_decoder(ready, compute, True, None)) is decoding._LibraryDecoder


def test_a_network_that_has_been_trained_answers_with_its_new_weights(tiny: LanguageModel, compute: Compute) -> None:
    model = made(tiny)
    contexts = random_contexts(3, model.vocab_size)
    before = answers(model, contexts, compute)
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.mul_(-0.7)
    assert answers(model, contexts, compute) != before


@pytest.mark.parametrize("seed", range(5))
def test_what_is_remembered_answers_like_a_fresh_start(tiny: LanguageModel, compute: Compute, seed: int) -> None:
    model, dice, memory = made(tiny), random.Random(seed), Memory()
    context = random_contexts(1, model.vocab_size, seed)[0]
    for _ in range(6):
        assert answers(model, [context], compute, memory=memory) == answers(model, [context], compute)
        assert memory.cache is not None
        assert len(memory.cache) == len(memory.ids)
        kept = dice.randint(0, len(memory.ids))
        added = random_contexts(1, model.vocab_size, dice.randrange(1000))[0]
        ids, types = (memory.ids[:kept], memory.types[:kept]) if dice.random() < 0.8 else ([], [])
        context = Context((*ids, *added.ids)[-60:], (*types, *added.types)[-60:], 8)


@pytest.mark.parametrize(
    ("precision", "tiles", "tolerance"), [("fp32", False, 1e-5), ("bf16", False, 0.05), ("bf16", True, 0.05)]
)
def test_tokens_read_behind_others_see_these_and_none_that_come_later(
    tiny: LanguageModel, monkeypatch: pytest.MonkeyPatch, precision: str, tiles: bool, tolerance: float
) -> None:
    monkeypatch.setattr(gpt2_decoding, "HAS_TILES", tiles)
    network = Gpt2(made(tiny).network, precision)
    ids = random.Random(0).choices(range(tiny.vocab_size), k=40)
    whole = network.new_cache()
    at_once = network.read([Part(ids, None, 0)], whole.enter([40]), whole)
    for first in (1, 17, 38, 39):
        cache = network.new_cache()
        cache.grow(first, 8)
        network.read([Part(ids[:first], None, 0)], [0], cache)
        cache.grow(40 - first, 8)
        after = network.read([Part(ids[first:], None, first)], [0], cache)
        assert torch.allclose(after, at_once, atol=tolerance)


def test_a_row_that_grows_turn_by_turn_keeps_its_tokens_and_is_seldom_moved() -> None:
    cache = KeyValues(layers=1, heads=1, width=1, dtype=torch.float32, device=torch.device("cpu"))
    buffers = []
    for turn in range(100):
        cache.grow(10, 8)
        keys, values = cache.write(0, 0, torch.arange(10.0 * turn, 10.0 * turn + 10).expand(2, 10)[:, None, :, None])
        buffers.append(keys.data_ptr())
        assert keys.flatten().tolist() == values.flatten().tolist() == [float(n) for n in range(10 * turn + 10)]
    assert sum(one != other for one, other in pairwise(buffers)) < 10


def test_rows_that_come_and_go_are_moved_when_the_places_run_out() -> None:
    cache = KeyValues(layers=1, heads=1, width=1, dtype=torch.float32, device=torch.device("cpu"))
    cache.enter([5])
    cache.write(0, 0, torch.arange(5.0).expand(2, 5)[:, None, :, None])
    for value in range(5, 300):
        step = cache.open_place()
        step.place[0].fill_(value)
        if value == 250:
            cache.enter([2])
            cache.write(0, 1, torch.tensor([7.0, 8.0]).expand(2, 2)[:, None, :, None])
            assert cache.leave([0]) == [1]
    step = cache.open_place()
    step.place[0].fill_(300.0)
    assert step.hidden is None
    assert step.keys[0].flatten().tolist() == [7.0, 8.0, *range(251, 301)]


def test_sampling_in_slots_is_the_same_as_alone(tiny: LanguageModel, compute: Compute) -> None:
    sampling = SamplingSettings(temperature=1.2, max_new_tokens=12)
    contexts = random_contexts(12, tiny.vocab_size)
    alone = [answers(tiny, [context], compute, sampling=sampling)[0] for context in contexts]
    for batch_size in (2, 5):
        assert answers(tiny, contexts, compute, sampling=sampling, batch_size=batch_size) == alone


def test_candidates_share_the_reading_of_their_context(
    tiny: LanguageModel, compute: Compute, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampling = SamplingSettings(temperature=1.5, max_new_tokens=8)
    contexts = [replace(each, candidate=k) for each in random_contexts(3, tiny.vocab_size) for k in range(4)]
    alone = [answers(tiny, [context], compute, sampling=sampling)[0] for context in contexts]
    read: list[int] = []
    reading = Gpt2.read

    def counted(self: Gpt2, parts: Any, *rest: Any) -> Any:
        read.append(len(parts))
        return reading(self, parts, *rest)

    monkeypatch.setattr(Gpt2, "read", counted)
    assert answers(tiny, contexts, compute, sampling=sampling) == alone
    assert read == [3]
    assert answers(tiny, contexts, compute, sampling=sampling, batch_size=5) == alone


@pytest.mark.usefixtures("in_parts")
def test_threads_step_one_model_without_each_other(tiny: LanguageModel, compute: Compute) -> None:
    model = prepared(made(tiny), compute)
    assert model.decoding is not None
    contexts = random_contexts(4, tiny.vocab_size)
    alone = [answers(model, [context], compute)[0] for context in contexts]
    with ThreadPoolExecutor(4) as pool:
        assert pool.submit(model.decoding._row_step).result() is not model.decoding._row_step()
        for _ in range(5):
            assert list(pool.map(lambda context: answers(model, [context], compute)[0], contexts)) == alone


@pytest.mark.usefixtures("in_parts")
def test_a_step_leaves_what_the_one_before_gave(tiny: LanguageModel, compute: Compute) -> None:
    decoder = make_decoder(made(tiny), compute, False, None)
    decoder.read([Context((1, 2), (0, 0), 3)])
    given = decoder.step([3])
    before = given.clone()
    decoder.step([4])
    assert given.equal(before)


def perplexity(model: LanguageModel, compute: Compute, talks: list[list[int]], rows: int = 1) -> float:
    """Of each token after the first, read one by one as in a response, and in as many rows at once; the last counts."""
    losses = []
    for ids in talks:
        decoder = make_decoder(model, compute, False, None)
        logits = decoder.read([Context(tuple(ids[:1]), (0,), len(ids))] * rows)
        for token in ids[1:]:
            losses.append(-float(logits.log_softmax(-1)[-1, token]))
            logits = decoder.step([token] * rows)
    return float(torch.tensor(losses).mean().exp())


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize(("precision", "small"), [("bf16", 0), ("int8", 0), ("int8", 2**18)])
def test_rounded_weights_cost_less_than_half_a_percent_of_perplexity(
    known: LanguageModel,
    compute: Compute,
    held_out: list[list[int]],
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
    small: int,
    rows: int,
) -> None:
    monkeypatch.setattr(matrices, "_SMALL", small)
    rounded = replace(compute, precision=precision)
    exact = perplexity(known, compute, held_out)
    assert exact < known.vocab_size / 3
    assert abs(perplexity(prepared(known, rounded), rounded, held_out, rows) / exact - 1) < 0.005


@pytest.mark.parametrize("tiles", [False, True])
def test_keys_and_values_in_either_precision_cost_as_little(
    known: LanguageModel, compute: Compute, held_out: list[list[int]], monkeypatch: pytest.MonkeyPatch, tiles: bool
) -> None:
    monkeypatch.setattr(gpt2_decoding, "HAS_TILES", tiles)
    rounded = replace(compute, precision="bf16")
    ready = prepared(known, rounded)
    assert ready.decoding is not None
    assert ready.decoding.dtype == (torch.bfloat16 if tiles else torch.float32)
    exact = perplexity(known, compute, held_out)
    assert abs(perplexity(ready, rounded, held_out, rows=3) / exact - 1) < 0.005


def test_int8_is_as_exact_where_integers_are_not_multiplied_fast(
    known: LanguageModel, compute: Compute, held_out: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matrices, "_MULTIPLIES_INT8", False)
    rounded = replace(compute, precision="int8")
    exact = perplexity(known, compute, held_out)
    assert abs(perplexity(prepared(known, rounded), rounded, held_out) / exact - 1) < 0.005


@pytest.fixture(scope="module")
def known(conversations: list[Conversation]) -> LanguageModel:
    """A small GPT-2 that has learned a little of some made-up conversations."""
    from convmodel_cli.model.new import Size, new_model

    model = new_model(Size(2, 64, 2), [turn for item in conversations for turn in item.turns], 400, seed=0)
    network: Any = model.network
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    rows = [encoded(model, item)[:64] for item in conversations[:160]]
    rows = [ids for ids in rows if len(ids) >= 16]
    for step in range(60):
        batch = torch.tensor([ids[:16] for ids in rows[step % 4 :: 4]])
        network(input_ids=batch, labels=batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


def encoded(model: LanguageModel, item: Conversation) -> list[int]:
    return [id_ for ids in model.vocabulary.encode(list(item.turns)) for id_ in (*ids, model.sep_id)]


@pytest.fixture(scope="module")
def held_out(known: LanguageModel, conversations: list[Conversation]) -> list[list[int]]:
    return [encoded(known, item)[:24] for item in conversations[160:]]
