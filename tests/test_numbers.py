"""Loss, gradients and evaluation against independent references."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from convmodel_cli.data.batching import collate, draw_speaker_ids, micro_batches, plan_steps, steps_per_epoch
from convmodel_cli.data.encoding import Sequences, Tokens, encode_conversations
from convmodel_cli.data.formats import Conversation
from convmodel_cli.data.packing import cut, pack
from convmodel_cli.errors import TrainingError
from convmodel_cli.model.compute import Compute
from convmodel_cli.model.evaluation import Score, evaluate, evaluation_batches, final_score
from convmodel_cli.model.language_model import LanguageModel, target_losses
from convmodel_cli.model.optimizers import Optimization, build_optimizers
from convmodel_cli.model.schedule import learning_rate_factor
from convmodel_cli.model.training import accumulate_gradients, prepare, train
from convmodel_cli.model.training_state import load_training_state, save_training_state
from helpers import TINY_POSITIONS, made_up_conversations

LEARNING_RATE = 1e-3


def encoded(model: LanguageModel, conversations: list[Conversation], learn: str = "all") -> Sequences:
    return encode_conversations(conversations, model.vocabulary, TINY_POSITIONS, learn)


def optimization(steps: int, budget: int = 10_000, optimizer: str = "adamw") -> Optimization:
    return Optimization(optimizer, LEARNING_RATE, "linear", 0.1, 0.01, 1.0, steps, budget)


def reference_losses(model: LanguageModel, sequences: Sequences, index: int, with_types: bool) -> torch.Tensor:
    """Losses (targets,) of one sequence alone, by transformers' own forward pass in float64."""
    with torch.no_grad():
        return library_losses(exact_copy(model.network), sequences[index], with_types and model.takes_types)


def exact_copy(network: PreTrainedModel) -> Any:
    """The network in float64, with attention as transformers writes it out."""
    exact = copy.deepcopy(network).double()
    exact.set_attn_implementation("eager")
    return exact


def library_losses(network: Any, part: Tokens, with_types: bool) -> torch.Tensor:
    ids = torch.tensor(part.ids[None].astype(np.int64))
    shown = {"token_type_ids": torch.tensor(part.types[None].astype(np.int64))} if with_types else {}
    logits = network(input_ids=ids, **shown).logits[0]
    losses: torch.Tensor = -logits[:-1].log_softmax(-1)[torch.arange(len(part.ids) - 1), ids[0, 1:]]
    return losses[torch.tensor(part.targets[1:])]


def gradients(model: LanguageModel) -> dict[str, torch.Tensor]:
    return {
        name: parameter.grad.clone()
        for name, parameter in model.network.named_parameters()
        if parameter.grad is not None
    }


@pytest.mark.parametrize("rows_in_each", [[12], [6, 6], [4, 4, 4], [1] * 12])
def test_a_step_does_not_depend_on_how_it_is_cut(
    any_model: LanguageModel, compute: Compute, rows_in_each: list[int]
) -> None:
    sequences = encoded(any_model, made_up_conversations(12, longest_turn=10))
    with_types = np.arange(12) % 2 == 0
    order = np.argsort(-sequences.lengths[:12], kind="stable")

    def step(sizes: list[int]) -> tuple[float, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        model = LanguageModel(copy.deepcopy(any_model.network), any_model.tokenizer, any_model.sep_id)
        bounds = np.cumsum([0, *sizes])
        batches = [
            collate(sequences, order[start:end].tolist(), with_types[order[start:end]])
            for start, end in pairwise(bounds)
        ]
        loss = accumulate_gradients(model, batches, compute)
        gradient = gradients(model)
        [optimizer] = build_optimizers(model, optimization(1), compute)
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE
        optimizer.step()
        return loss, gradient, dict(model.network.named_parameters())

    whole_loss, whole_gradient, whole_weights = step([12])
    loss, gradient, weights = step(rows_in_each)
    assert loss == pytest.approx(whole_loss, rel=1e-6)
    for name, expected in whole_gradient.items():
        assert torch.allclose(gradient[name], expected, atol=1e-6), name
        assert torch.allclose(weights[name], whole_weights[name], atol=0.01 * LEARNING_RATE), name


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_losses_of_a_run_do_not_depend_on_how_steps_are_cut(
    tiny: LanguageModel, compute: Compute, optimizer: str
) -> None:
    sequences, plans = encoded(tiny, made_up_conversations(12)), list(plan_steps(12, 4, 3, 0, "on"))

    def losses(budget: int) -> list[float]:
        model = LanguageModel(copy.deepcopy(tiny.network), tiny.tokenizer, tiny.sep_id)
        settings = replace(optimization(len(plans), budget, optimizer), learning_rate=1e-2)
        optimizers = build_optimizers(model, settings, compute)
        return [done.loss for done in train(model, optimizers, plans, sequences, settings, compute)]

    assert losses(40) == pytest.approx(losses(10_000), abs=1e-5)


def test_thirteen_conversations_three_epochs_equal_a_float64_reference(
    any_model: LanguageModel, compute: Compute
) -> None:
    conversations = made_up_conversations(13)
    sequences = encoded(any_model, conversations)
    assert len(sequences) == 13
    steps = steps_per_epoch(13, 8) * 3
    settings = optimization(steps)
    reference = exact_copy(any_model.network)
    plans = list(plan_steps(13, 8, 3, seed=5, speaker_ids="on"))
    assert [len(plan.sequences) for plan in plans] == [8, 5] * 3
    for epoch in range(3):
        seen = np.concatenate([plan.sequences for plan in plans[2 * epoch : 2 * epoch + 2]])
        assert sorted(seen.tolist()) == list(range(13))

    matrices = [parameter for parameter in reference.parameters() if parameter.ndim >= 2]
    vectors = [parameter for parameter in reference.parameters() if parameter.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.01}, {"params": vectors, "weight_decay": 0.0}], betas=(0.9, 0.95)
    )
    done = list(
        train(any_model, build_optimizers(any_model, settings, compute), iter(plans), sequences, settings, compute)
    )
    for plan, ours in zip(plans, done, strict=True):
        total = torch.zeros((), dtype=torch.float64)
        count = 0
        for index in plan.sequences.tolist():
            chosen = library_losses(reference, sequences[index], any_model.takes_types)
            total = total + chosen.sum()
            count += len(chosen)
        loss = total / count
        loss.backward()
        torch.nn.utils.clip_grad_norm_(reference.parameters(), 1.0)
        rate = LEARNING_RATE * learning_rate_factor(plan.number, steps, 0.1, "linear")
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        optimizer.zero_grad()
        assert ours.loss == pytest.approx(loss.item(), abs=1e-5)
        assert ours.learning_rate == pytest.approx(rate)
    assert 0 < done[-1].learning_rate < LEARNING_RATE / 3


@pytest.mark.parametrize("rows", [1, 2, 3, 7, None])
@pytest.mark.parametrize("with_types", [True, False])
def test_evaluation_equals_a_float64_reference_at_every_batch_size(
    any_model: LanguageModel, compute: Compute, rows: int | None, with_types: bool
) -> None:
    sequences = encoded(any_model, made_up_conversations(20))
    expected = torch.cat([reference_losses(any_model, sequences, index, with_types) for index in range(len(sequences))])
    score = final_score(evaluate(any_model, evaluation_batches(sequences, with_types, 100_000, max_rows=rows), compute))
    assert score.targets == len(expected) == sequences.num_targets
    assert score.loss == pytest.approx(expected.mean().item(), rel=1e-6)
    assert score.ppl == pytest.approx(math.exp(score.loss))
    assert score.bits_per_byte == pytest.approx(expected.sum().item() / math.log(2) / sequences.num_bytes.sum())


def test_evaluation_of_a_shuffled_file_is_the_same(any_model: LanguageModel, compute: Compute) -> None:
    conversations = made_up_conversations(20)
    shuffled = [conversations[(7 * index) % 20] for index in range(20)]
    losses = [
        final_score(evaluate(any_model, evaluation_batches(encoded(any_model, part), True, 200), compute)).loss
        for part in (conversations, shuffled)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_first_training_loss_equals_evaluation_of_the_same_sequences(
    any_model: LanguageModel, compute: Compute
) -> None:
    sequences = encoded(any_model, made_up_conversations(8))
    settings = optimization(1)
    plans = plan_steps(8, 8, 1, seed=0, speaker_ids="on")
    evaluated = final_score(evaluate(any_model, evaluation_batches(sequences, True, 500), compute)).loss
    [first] = list(
        train(any_model, build_optimizers(any_model, settings, compute), plans, sequences, settings, compute)
    )
    assert first.loss == pytest.approx(evaluated, rel=1e-6)


@torch.no_grad()
def test_losses_do_not_depend_on_padding(any_model: LanguageModel) -> None:
    sequences = encoded(any_model, made_up_conversations(12, longest_turn=10))
    order = np.argsort(-sequences.lengths, kind="stable")
    together = target_losses(any_model, collate(sequences, order.tolist(), np.ones(len(order), np.bool_)))
    alone = torch.cat(
        [target_losses(any_model, collate(sequences, [row], np.ones(1, np.bool_))) for row in order.tolist()]
    )
    assert torch.allclose(together, alone, atol=1e-5)


@torch.no_grad()
def test_mixed_token_types_equal_transformers_own_sum_row_by_row(any_model: LanguageModel) -> None:
    sequences = encoded(any_model, made_up_conversations(4))
    flags = np.array([True, False, True, False])
    losses = target_losses(any_model, collate(sequences, [0, 1, 2, 3], flags))
    expected = torch.cat([reference_losses(any_model, sequences, row, bool(flags[row])) for row in range(4)])
    assert torch.allclose(losses.double(), expected, atol=1e-5)


def test_speaker_ids_are_drawn_by_seed_epoch_and_sequence_alone() -> None:
    drawn = {epoch: draw_speaker_ids(1000, 3, epoch, "mixed") for epoch in (1, 2)}
    assert 400 < drawn[1].sum() < 600
    assert (drawn[1] != drawn[2]).any()
    for batch_size in (1, 7, 100):
        for plan in plan_steps(1000, batch_size, 2, 3, "mixed"):
            assert (plan.with_types == drawn[plan.epoch][plan.sequences]).all()
    assert draw_speaker_ids(5, 0, 1, "on").all()
    assert not draw_speaker_ids(5, 0, 1, "off").any()


def test_cut_keeps_every_sequence_once_and_the_budget() -> None:
    lengths = np.random.default_rng(0).integers(2, 60, 100)
    parts = cut(lengths, budget=120)
    assert sorted(np.concatenate(parts).tolist()) == list(range(100))
    for part in parts:
        assert len(part) == 1 or len(part) * lengths[part].max() <= 120


def test_pack_keeps_every_sequence_once_and_leaves_no_room_for_a_later_one() -> None:
    lengths = np.random.default_rng(0).integers(2, 60, 100)
    lengths[7] = 300  # alone
    parts = pack(lengths, budget=120)
    assert sorted(np.concatenate(parts).tolist()) == list(range(100))
    assert [7] in [part.tolist() for part in parts]
    assert all(lengths[part].sum() <= 120 for part in parts if part.tolist() != [7])
    assert len(parts) == 1 + -(-(lengths.sum() - 300) // 120)  # no fewer could hold them
    sums = [int(lengths[part].sum()) for part in parts]
    for early, late in combinations(range(len(parts)), 2):
        assert sums[early] + int(lengths[parts[late]].min()) > 120
    again = pack(lengths, budget=120)
    assert [part.tolist() for part in again] == [part.tolist() for part in parts]
    many = np.tile(lengths, 11)  # more than are tried in other orders
    assert sorted(np.concatenate(pack(many, budget=120)).tolist()) == list(range(1100))


def test_pack_takes_shorter_rows_or_else_a_shorter_longest_one() -> None:
    lengths = np.array([7, 7, 5, 5])  # longest first: 7 7, 5 5
    assert [lengths[part].sum() for part in pack(lengths, budget=14)] == [12, 12]
    tens = pack(lengths, 14, lambda tokens: -(-tokens // 10) * 10)
    assert sorted(lengths[part].sum() for part in tens) == [10, 14]


def test_cut_and_pack_as_drawn_in_their_docstrings() -> None:
    assert [part.tolist() for part in cut(np.array([2, 6, 3, 5]), budget=12)] == [[1, 3], [2, 0]]
    lengths = np.array([4, 7, 4, 6, 4, 5])
    assert sorted(sorted(lengths[part]) for part in pack(lengths, budget=15)) == [[4, 4, 7], [4, 5, 6]]
    assert pack(np.array([], np.int64), budget=12) == []


def test_moments_made_beforehand_are_those_of_the_first_step(any_model: LanguageModel, compute: Compute) -> None:
    sequences, settings = encoded(any_model, made_up_conversations(4)), optimization(1)
    trained = []
    for beforehand in (False, True):
        model = LanguageModel(copy.deepcopy(any_model.network), any_model.tokenizer, any_model.sep_id)
        optimizers = prepare(model, settings, compute) if beforehand else build_optimizers(model, settings, compute)
        if beforehand:
            assert all(not state["exp_avg"].any() for state in optimizers[0].state.values())
        list(train(model, optimizers, plan_steps(4, 4, 1, 0, "on"), sequences, settings, compute))
        trained.append((list(model.network.parameters()), list(optimizers[0].state_dict()["state"].values())))
    (weights, states), (same_weights, same_states) = trained
    assert all(map(torch.equal, weights, same_weights))
    assert len(states) == len(same_states) == len(weights)
    for state, same in zip(states, same_states, strict=True):
        assert state.keys() == same.keys()
        assert all(torch.equal(state[name], same[name]) for name in state)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_checkpoint_that_is_written_to_leaves_the_resumed_state_as_it_is(
    tiny: LanguageModel, compute: Compute, tmp_path: Path, optimizer: str
) -> None:
    sequences, settings = encoded(tiny, made_up_conversations(4)), optimization(1, optimizer=optimizer)
    trained, resumed = prepare(tiny, settings, compute), prepare(tiny, settings, compute)
    list(train(tiny, trained, plan_steps(4, 4, 1, 0, "on"), sequences, settings, compute))
    save_training_state(tiny, trained, tmp_path)
    load_training_state(tiny, resumed, tmp_path)
    for file in tmp_path.iterdir():
        with file.open("r+b") as written:
            written.write(bytes(file.stat().st_size))
    for own, same in zip(trained, resumed, strict=True):
        assert own.state.keys() == same.state.keys()
        for weight, state in own.state.items():
            assert state.keys() == same.state[weight].keys()
            assert all(torch.equal(state[name], same.state[weight][name]) for name in state)


def test_a_loss_that_is_not_finite_ends_the_run_before_the_step(tiny: LanguageModel, compute: Compute) -> None:
    sequences = encoded(tiny, made_up_conversations(8))
    settings = optimization(4)
    steps = train(
        tiny, build_optimizers(tiny, settings, compute), plan_steps(8, 2, 1, 0, "on"), sequences, settings, compute
    )
    next(steps)
    transformer: Any = tiny.network.transformer
    with torch.no_grad():
        transformer.h[0].mlp.c_fc.weight[0, 0] = float("nan")
    before = tiny.embedding.weight.clone()
    with pytest.raises(TrainingError, match="step 2: expected finite numbers"):
        next(steps)
    assert torch.equal(tiny.embedding.weight, before)


def test_long_conversations_count_by_their_tokens(any_model: LanguageModel, compute: Compute) -> None:
    sequences = encoded(any_model, [Conversation(("a", "b")), Conversation(("abc abc abc", "abc abc abc abc"))])
    batches = micro_batches(sequences, np.arange(2), np.ones(2, np.bool_), budget=1)
    assert len(batches) == 2
    losses = [target_losses(any_model, batch) for batch in batches]
    expected = torch.cat(losses).mean().item()
    assert accumulate_gradients(any_model, batches, compute) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_learning_rate_rises_to_the_peak_and_falls(schedule: str) -> None:
    factors = [learning_rate_factor(step, 100, 0.1, schedule) for step in range(1, 101)]
    assert factors[:10] == sorted(factors[:10])
    assert max(factors) == 1.0
    assert factors.index(1.0) == 10
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert factors[-1] == 1.0 if schedule == "constant" else 0 < factors[-1] < 0.02


def test_a_perplexity_too_large_for_a_number_is_infinite() -> None:
    assert math.isinf(Score(nats=1e6, targets=1, num_bytes=1).ppl)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_every_parameter_is_trained_by_exactly_one_optimizer(tiny: LanguageModel, compute: Compute, name: str) -> None:
    optimizers = build_optimizers(tiny, optimization(1, optimizer=name), compute)
    trained = [id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]
    assert sorted(trained) == sorted(id(parameter) for parameter in tiny.network.parameters())


def test_the_sep_token_is_learned_where_it_is_the_padding_too(any_model: LanguageModel, compute: Compute) -> None:
    """Embeddings of transformers get no gradient for their padding."""
    sequences = encoded(any_model, made_up_conversations(4))
    every_one = np.ones(len(sequences), np.bool_)
    accumulate_gradients(any_model, micro_batches(sequences, np.arange(len(sequences)), every_one, 100_000), compute)
    embeddings = any_model.network.get_input_embeddings().weight
    assert isinstance(embeddings.grad, torch.Tensor)
    assert float(embeddings.grad[any_model.sep_id].norm()) > 0
