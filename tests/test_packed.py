"""GPT-2's forward pass without padding is that of transformers, and so are its gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from convmodel_cli.data.batching import MicroBatch, pad
from convmodel_cli.data.encoding import Tokens
from convmodel_cli.model import gpt2_packed, packed_attention
from convmodel_cli.model.gpt2 import length_step
from convmodel_cli.model.gpt2_packed import packed_losses, packs, row_length
from convmodel_cli.model.gradients import clear_gradients, working_copy
from convmodel_cli.model.language_model import prepare_network
from convmodel_cli.model.packed_attention import spans_of
from convmodel_cli.model.packed_head import head_losses
from convmodel_cli.model.products import multiply

VOCABULARY = 61


def make_network(**changes: Any) -> Any:
    torch.manual_seed(0)
    shape = {"vocab_size": VOCABULARY, "n_positions": 700, "n_layer": 2, "n_embd": 24, "n_head": 3}
    network = GPT2LMHeadModel(GPT2Config(**{**shape, **changes}))
    for parameter in network.parameters():  # no bias of 0, no scale of 1, and an attention that is not even
        nn.init.normal_(parameter, std=0.3)
    prepare_network(network)
    return network


def make_batch(lengths: list[int], shown: list[bool], share: float = 0.7) -> MicroBatch:
    random = np.random.default_rng(len(lengths))
    parts = []
    for length in lengths:
        targets = random.random(length) < share
        targets[0], targets[-1] = False, True
        ids = random.integers(0, VOCABULARY, length, dtype=np.int32)
        parts.append(Tokens(ids, random.integers(0, 2, length, dtype=np.uint8), targets))
    return pad(parts, np.array(shown), num_bytes=0)


def library_losses(network: Any, batch: MicroBatch) -> Tensor:
    """Each sequence alone through transformers' own forward pass."""
    losses = []
    for row, length in enumerate(batch.lengths):
        inputs: dict[str, Tensor] = {"input_ids": batch.ids[row : row + 1, :length]}
        if batch.types is not None and batch.with_types[row]:
            inputs["token_type_ids"] = batch.types[row : row + 1, :length]
        own = batch.predict_from[batch.predict_from // batch.ids.shape[1] == row] % batch.ids.shape[1]
        likelihoods = network(**inputs).logits[0].log_softmax(-1)
        losses.append(-likelihoods[own, batch.ids[row][own + 1]])
    return torch.cat(losses)


BATCHES = {
    "one": ([9], [True]),
    "alike": ([31, 32, 32, 30, 29, 32, 31, 28, 30], [True, False, True, True, False, False, True, True, True]),
    "unlike": ([600, 2, 33, 64, 65, 5], [False, True, True, False, True, False]),
    "without types": ([40, 7, 7], [False, False, False]),
}
NETWORKS: dict[str, dict[str, Any]] = {
    "GPT-2": {},
    "erf": {"activation_function": "gelu"},
    "own head": {"tie_word_embeddings": False, "activation_function": "gelu_pytorch_tanh"},
    "wide inside": {"n_inner": 40},
    "one layer": {"n_layer": 1},
}


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("changes", NETWORKS)
def test_losses_and_gradients_are_those_of_transformers(changes: str, batch: str) -> None:
    network, given = make_network(**NETWORKS[changes]), make_batch(*BATCHES[batch])
    assert packs(network)
    weights = torch.rand(given.num_targets)
    expected = library_losses(network, given)
    (expected * weights).sum().backward()
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    network.zero_grad()
    losses = packed_losses(network, given, torch.float32)
    (losses * weights).sum().backward()
    torch.testing.assert_close(losses, expected, rtol=1e-4, atol=1e-5)
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=2e-3, atol=2e-4, msg=name)


@pytest.mark.parametrize("lengths", [[9], [600, 2, 33], [31] * 9])
def test_a_row_is_as_long_as_is_said_of_it(lengths: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    network, rows = make_network(), []
    batch = make_batch(lengths, [False] * len(lengths))

    def watched(x: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        rows.append(len(x))
        return multiply(x, *rest)

    monkeypatch.setattr(gpt2_packed, "multiply", watched)
    packed_losses(network, batch, torch.float32)
    fill = row_length(network)
    in_row, behind_last_attention = 4 * len(network.transformer.h) - 3, 3  # which is for the targets alone
    assert rows == [fill(sum(lengths))] * in_row + [fill(batch.num_targets)] * behind_last_attention


def test_gradients_add_up() -> None:
    network, batch = make_network(), make_batch(*BATCHES["alike"])
    packed_losses(network, batch, torch.float32).sum().backward()
    once = [parameter.grad.clone() for parameter in network.parameters()]
    packed_losses(network, batch, torch.float32).sum().backward()
    for parameter, gradient in zip(network.parameters(), once, strict=True):
        torch.testing.assert_close(parameter.grad, 2 * gradient)


@pytest.mark.parametrize("changes", NETWORKS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_after_clearing_have_nothing_of_those_before(changes: str, dtype: torch.dtype) -> None:
    network, before, batch = make_network(**NETWORKS[changes]), make_batch([60], [True]), make_batch(*BATCHES["unlike"])
    packed_losses(network, batch, dtype).sum().backward()
    wanted = [parameter.grad.clone() for parameter in network.parameters()]
    network.zero_grad()
    packed_losses(network, before, dtype).sum().backward()
    places = [parameter.grad.data_ptr() for parameter in network.parameters()]
    clear_gradients(network.parameters())
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in network.parameters())
    packed_losses(network, batch, dtype).sum().backward()
    for parameter, gradient, place in zip(network.parameters(), wanted, places, strict=True):
        assert torch.equal(parameter.grad, gradient)
        assert parameter.grad.data_ptr() == place  # no memory is taken for them again


def test_a_weight_without_a_gradient_stays_without_one() -> None:
    network = make_network()
    network.transformer.wpe.weight.requires_grad_(False)
    for _ in range(2):
        packed_losses(network, make_batch(*BATCHES["alike"]), torch.float32).sum().backward()
        clear_gradients(network.parameters())
    assert network.transformer.wpe.weight.grad is None


def test_bf16_is_close_and_its_gradients_are_fp32() -> None:
    network, batch = make_network(), make_batch(*BATCHES["unlike"])
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    exact = packed_losses(network, batch, torch.float32)
    exact.mean().backward()
    wanted = {name: parameter.grad.clone() for name, parameter in network.named_parameters()}
    network.zero_grad()
    losses = packed_losses(network, batch, torch.bfloat16)
    losses.mean().backward()
    assert losses.dtype == torch.float32
    assert losses.mean().item() == pytest.approx(exact.mean().item(), rel=2e-3)
    for name, parameter in network.named_parameters():
        assert parameter.grad.dtype == torch.float32
        assert float((parameter.grad - wanted[name]).norm() / wanted[name].norm()) < 0.05, name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_gradient_of_a_likely_target_is_not_rounded_away(dtype: torch.dtype) -> None:
    head = nn.Parameter(torch.zeros(VOCABULARY, 4))
    with torch.no_grad():
        head[7, 0] = 11.0  # a likelihood of 0.999, which is 1 in bf16
    hidden = torch.eye(4)[:1].to(dtype).requires_grad_()
    loss = head_losses(hidden, head, working_copy(head, dtype), torch.tensor([7])).sum()
    (loss / 5437).backward()
    likelihood = head.detach()[:, 0].softmax(0)[7]
    assert head.grad is not None
    assert head.grad[7, 0].item() == pytest.approx((likelihood.item() - 1) / 5437, rel=5e-3)


@pytest.mark.parametrize("with_gradients", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_target_whose_likelihood_is_0_has_its_loss(dtype: torch.dtype, with_gradients: bool) -> None:
    head = nn.Parameter(torch.zeros(VOCABULARY, 4))
    with torch.no_grad():
        head[7, 0] = 256.0
    with torch.set_grad_enabled(with_gradients):
        losses = head_losses(torch.eye(4)[:2].to(dtype), head, working_copy(head, dtype), torch.tensor([3, 3]))
    torch.testing.assert_close(losses.detach(), torch.tensor([256.0, math.log(VOCABULARY)]))


def test_no_gradients_give_the_same_losses() -> None:
    network, batch = make_network(), make_batch(*BATCHES["unlike"])
    with torch.inference_mode():
        without = packed_losses(network, batch, torch.float32)
    torch.testing.assert_close(without, packed_losses(network, batch, torch.float32).detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tiles", [True, False])
@pytest.mark.parametrize("activation", ["gelu_new", "gelu_pytorch_tanh", "gelu"])
def test_no_gradients_give_the_same_losses_in_bf16(
    monkeypatch: pytest.MonkeyPatch, activation: str, tiles: bool
) -> None:
    monkeypatch.setattr(packed_attention, "HAS_TILES", tiles)
    network, batch = make_network(activation_function=activation), make_batch(*BATCHES["unlike"])
    exact = packed_losses(network, batch, torch.float32).detach()
    with torch.inference_mode():
        without = packed_losses(network, batch, torch.bfloat16)
    assert float((without - exact).norm() / exact.norm()) < 0.002


def test_frozen_matrices_stay_as_they_are() -> None:
    network, batch = make_network(), make_batch(*BATCHES["alike"])
    frozen = network.transformer.h[0].mlp.c_fc.weight, network.transformer.wte.weight
    for weight in frozen:
        weight.requires_grad_(False)
    packed_losses(network, batch, torch.float32).sum().backward()
    assert all(weight.grad is None for weight in frozen)
    assert network.transformer.wpe.weight.grad is not None
    assert network.transformer.h[0].attn.c_attn.weight.grad is not None


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_dropout_drops_its_share_and_keeps_the_mean(rate: float) -> None:
    torch.manual_seed(1)
    drop = gpt2_packed._dropout(rate)
    dropped = drop(torch.ones(1000, 64))
    assert float((dropped == 0).float().mean()) == pytest.approx(rate, abs=0.01)
    assert float(dropped.mean()) == pytest.approx(1.0, abs=0.02)
    torch.manual_seed(1)
    again = gpt2_packed._dropout(rate)(torch.ones(1000, 64))
    assert torch.equal(dropped, again)
    assert not torch.equal(dropped, drop(torch.ones(1000, 64)))


def test_training_drops_and_evaluation_does_not() -> None:
    network, batch = make_network(), make_batch(*BATCHES["alike"])
    network.transformer.drop.p = network.transformer.h[0].mlp.dropout.p = 0.5
    still = packed_losses(network, batch, torch.float32)
    network.train()
    assert not torch.equal(packed_losses(network, batch, torch.float32), still)
    network.eval()
    assert torch.equal(packed_losses(network, batch, torch.float32), still)


def test_a_working_copy_follows_its_weight() -> None:
    weight = nn.Parameter(torch.ones(3, 4))
    with torch.inference_mode():
        copy = working_copy(weight, torch.bfloat16)
    assert working_copy(weight, torch.bfloat16) is copy and copy.dtype == torch.bfloat16
    with torch.no_grad():
        weight.add_(1)
    assert torch.equal(working_copy(weight, torch.bfloat16), torch.full((3, 4), 2, dtype=torch.bfloat16))


CHANGES: dict[str, Callable[[Any], Any]] = {
    "another activation": lambda network: setattr(network.config, "activation_function", "relu"),
    "another scale": lambda network: setattr(network.config, "scale_attn_by_inverse_layer_idx", True),
    "no scale": lambda network: setattr(network.config, "scale_attn_weights", False),
    "a hook": lambda network: network.transformer.h[0].register_forward_hook(lambda *_: None),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_not_quite_gpt2_is_left_to_transformers(change: str) -> None:
    network = make_network()
    CHANGES[change](network)
    assert not packs(network)


def test_spans_hold_each_sequence_once_and_have_few_shapes() -> None:
    lengths = tuple(np.random.default_rng(0).integers(2, 900, 300).tolist())
    spans = spans_of(lengths)
    starts = np.cumsum([0, *lengths[:-1]]).tolist()
    found = sorted(sequence for span in spans for sequence in span.sequences)
    assert found == sorted(zip(starts, lengths, strict=True))
    for span in spans:
        assert span.length % 32 == 0 and all(span.length - 32 < count <= span.length for _, count in span.sequences)
    assert len({(span.length, len(span.sequences)) for span in spans}) < 60


@pytest.mark.parametrize("parameters", [0, 4_000_000, 124_000_000, 3_000_000_000])
def test_rows_are_filled_up_by_an_eighth_at_the_most(parameters: int) -> None:
    assert [length_step(1000), length_step(1000, 124_000_000), length_step(5000, 4_000_000)] == [64, 32, 256]
    for count in range(256, 6000, 37):
        step = length_step(count, parameters)
        assert step <= max(16, count // 8) and step & (step - 1) == 0
        assert step * parameters <= 2**32 or step == 16
