"""Steps that break: numbers that are none, and memory that runs out."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from conftest import Convmodel
from convmodel_cli.cli.fit_screen import evaluation_line
from convmodel_cli.data.batching import MicroBatch, StepPlan, micro_batches, plan_steps
from convmodel_cli.data.encoding import Sequences, encode_conversations
from convmodel_cli.data.formats import Conversation
from convmodel_cli.errors import TrainingError
from convmodel_cli.events import Evaluated
from convmodel_cli.model import evaluation, training
from convmodel_cli.model.compute import Compute
from convmodel_cli.model.evaluation import evaluate, evaluation_batches
from convmodel_cli.model.language_model import LanguageModel, target_losses
from convmodel_cli.model.optimizers import Optimization, build_optimizers
from convmodel_cli.model.training import StepDone, accumulate_gradients, train
from convmodel_cli.workflows.checkpoints import find_checkpoints
from convmodel_cli.workflows.journal import Journal
from harness import Server
from helpers import TINY_POSITIONS, made_up_conversations, weights_digest, write_conversations

RUN = ["fit", "train.jsonl", "valid.jsonl", "-o", "out", "--base", "./tiny", "--precision", "fp32"]
RUN += ["--batch-size", "4", "--epochs", "1", "--save-every", "1"]


@pytest.fixture
def data(tmp_path: Path, workshop: Path) -> None:
    (tmp_path / "tiny").symlink_to(workshop / "tiny")
    write_conversations(tmp_path / "train.jsonl", made_up_conversations(48))
    write_conversations(tmp_path / "valid.jsonl", made_up_conversations(8, seed=1))


def break_step(monkeypatch: pytest.MonkeyPatch, number: int, what: str, value: float) -> None:
    """At this step put `value` into a loss of the second sequence, into a gradient, or into a weight."""
    calls = 0

    def losses(model: LanguageModel, batch: MicroBatch) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls < number:
            return target_losses(model, batch)
        weight = model.embedding.weight
        if what == "weight":
            with torch.no_grad():
                weight[5, 5] = value
        result = target_losses(model, batch)
        if what == "gradient" and calls == number:
            result.register_hook(lambda gradient: gradient * value)
        # In a batch of its own the sequence of row 1 of the broken step is known by its tokens.
        if what == "loss":
            if calls == number:
                broken.append(batch.target_ids[batch.predict_from // batch.ids.shape[1] == 1].tolist())
            mark = torch.tensor(
                [value if batch.target_ids.tolist() == broken[0] or calls == number else 0.0], device=result.device
            )
            result = result + mark
        return result

    broken: list[list[int]] = []
    monkeypatch.setattr(training, "target_losses", losses)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("what", ["loss", "gradient", "weight"])
def test_a_number_that_is_none_ends_the_run_before_the_step_and_names_the_lines(
    convmodel: Convmodel, data: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, what: str, value: float
) -> None:
    break_step(monkeypatch, 7, what, value)
    outcome = convmodel(*RUN, "--micro-batch-tokens", "100000")
    assert outcome.code == 5
    assert "step 7: expected finite numbers, got a loss of" in outcome.err
    lines = outcome.err.split(", with ")[1].split("\n")[0]
    assert lines.count("train.jsonl:") == (1 if what == "loss" else 4)
    assert "go on with:" not in outcome.err and "--resume --allow-changes" in outcome.err  # it would break again
    newest = find_checkpoints(tmp_path / "out")[0]
    assert newest.name == "step-000006"
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert all(bool(torch.isfinite(tensor).all()) for tensor in load_file(newest / name).values())
    loss, norm = re.findall(r"got a loss of (\S+) and a gradient norm of ([\w.+-]+)", outcome.err)[0]
    assert (math.isfinite(float(loss)), math.isfinite(float(norm))) == (what == "gradient", what == "loss")
    journal = [json.loads(line) for line in (tmp_path / "out" / "events.jsonl").read_text().splitlines()]
    assert [line["step"] for line in journal if line["event"] == "Stepped"] == [1, 2, 3, 4, 5, 6]
    assert_all_losses_are_told_as_they_are(journal, outcome.err)


def assert_all_losses_are_told_as_they_are(journal: list[dict[str, Any]], shown: str) -> None:
    """No step and no evaluation that gave no number is told as one of a loss of 0, or of none."""
    losses = [line["loss"] for line in journal if line["event"] == "Stepped"]
    losses += [
        loss for line in journal if line["event"] == "Evaluated" for loss in (line["train_loss"], line["valid_loss"])
    ]
    losses += [float(figure) for figure in re.findall(r"(?:loss|ppl) ([\d.]+)", shown)]
    assert losses and all(loss > 1 for loss in losses)


def test_an_evaluation_without_a_number_is_told_as_that_and_nowhere_as_a_loss(
    convmodel: Convmodel, data: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def losses(model: LanguageModel, batch: MicroBatch) -> torch.Tensor:
        return target_losses(model, batch) * (float("nan") if after else 1.0)

    def accumulate(*arguments: Any) -> float:
        after.append(True)
        return accumulate_gradients(*arguments)

    after: list[bool] = []
    monkeypatch.setattr(evaluation, "target_losses", losses)
    monkeypatch.setattr(training, "accumulate_gradients", accumulate)
    outcome = convmodel(*RUN, "--eval-every", "2")
    assert outcome.code == 5
    assert "the evaluation after step 2: expected a finite loss, got nan" in outcome.err
    assert outcome.err.count("\nEp 1 (Step ") == 1
    journal = [json.loads(line) for line in (tmp_path / "out" / "events.jsonl").read_text().splitlines()]
    assert [line["event"] for line in journal][-2:] == ["Stepped", "Stepped"]
    assert_all_losses_are_told_as_they_are(journal, outcome.err)
    assert "expected a finite loss, got nan" in (tmp_path / "out" / "report.html").read_text()


def test_a_figure_that_is_none_is_shown_and_journaled_as_none(tmp_path: Path) -> None:
    nan = float("nan")
    event = Evaluated(1, 7, train_loss=nan, valid_loss=nan, bits_per_byte=nan, tokens_seen=9, seconds=0.0, best=False)
    assert evaluation_line(event) == "Ep 1 (Step 000007): Train loss nan, Val loss nan, ppl nan, tokens 9"
    journal = Journal(tmp_path / "events.jsonl")
    journal.write(event)
    journal.close()
    written = json.loads((tmp_path / "events.jsonl").read_text())
    assert [written[name] for name in ("train_loss", "valid_loss", "bits_per_byte")] == [None, None, None]


def test_weights_that_break_in_the_step_itself_are_not_saved(
    convmodel: Convmodel, data: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = torch.optim.AdamW.step
    steps = 0

    def step(self: Any, *arguments: Any) -> Any:
        nonlocal steps
        steps += 1
        result = real(self, *arguments)
        if steps == 7:
            with torch.no_grad():
                self.param_groups[0]["params"][0][3, 3] = float("inf")
        return result

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    outcome = convmodel(*RUN)
    assert outcome.code == 5
    assert "step 7: expected finite weights, got others in transformer.wte.weight" in outcome.err
    assert find_checkpoints(tmp_path / "out")[0].name == "step-000006"


@pytest.fixture
def no_collection(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a whole test session holds takes longer to look through than all these tests."""
    monkeypatch.setattr("gc.collect", lambda: 0)


def run_out_of_memory(monkeypatch: pytest.MonkeyPatch, beyond_rows: int, error: Exception, fails: int = 0) -> list[int]:
    """Fail for micro-batches of more rows, and for the one of this number; returns the rows of all that were tried."""
    tried: list[int] = []

    def losses(model: LanguageModel, batch: MicroBatch) -> torch.Tensor:
        tried.append(len(batch.ids))
        result = target_losses(model, batch)
        if len(batch.ids) > beyond_rows or len(tried) == fails:
            raise error
        return result

    monkeypatch.setattr(training, "target_losses", losses)
    return tried


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory"),
]


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize("error", ERRORS, ids=["device", "cpu"])
def test_out_of_memory_redoes_the_same_step_in_half_and_gives_the_same_gradients(
    any_model: LanguageModel, compute: Compute, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    sequences, first, second = twelve_conversations(any_model)
    whole = micro_batches(sequences, first.sequences, first.with_types, 100_000)
    assert [len(batch.ids) for batch in whole] == [12]
    loss, expected = gradients_of(any_model, whole, compute)
    tried = run_out_of_memory(monkeypatch, 2, error)
    seen = look_at_gradients(any_model, monkeypatch)
    steps = steps_of(any_model, [first, second], sequences, 100_000, compute)
    done = next(steps)
    assert tried[0] == 12 and max(tried[-6:]) <= 2 and sum(tried[-6:]) <= 12
    assert done.loss == pytest.approx(loss, rel=1e-6)
    assert_close(seen[0], expected)
    before = len(tried)
    again = next(steps)
    assert max(tried[before:]) <= 2  # the smaller budget stays
    assert again.micro_batch_tokens == done.micro_batch_tokens < 100_000


@pytest.mark.usefixtures("no_collection")
def test_out_of_memory_after_a_part_of_the_step_forgets_the_gradients_of_that_part(
    any_model: LanguageModel, compute: Compute, monkeypatch: pytest.MonkeyPatch
) -> None:
    sequences, first, second = twelve_conversations(any_model)
    budget = int(sequences.lengths.sum()) // 2
    parts = micro_batches(sequences, first.sequences, first.with_types, budget, any_model.row_length)
    assert len(parts) > 1
    loss, expected = gradients_of(any_model, parts, compute)
    tried = run_out_of_memory(monkeypatch, 12, ERRORS[0], fails=2)
    seen = look_at_gradients(any_model, monkeypatch)
    steps = steps_of(any_model, [first, second], sequences, budget, compute)
    done = next(steps)
    # The first micro-batch went well, the second did not, and then all come again.
    assert tried[:2] == [len(batch.ids) for batch in parts[:2]] and sum(tried[2:]) == 12
    assert done.loss == pytest.approx(loss, rel=1e-6)
    assert_close(seen[0], expected)
    assert next(steps).micro_batch_tokens == done.micro_batch_tokens < budget


def twelve_conversations(model: LanguageModel) -> tuple[Sequences, StepPlan, StepPlan]:
    """Their sequences, and two steps of all of them."""
    sequences = encode_conversations(made_up_conversations(12), model.vocabulary, TINY_POSITIONS, "all")
    first, second = plan_steps(12, 12, 2, 0, "on")
    return sequences, first, second


def steps_of(
    model: LanguageModel, plans: list[StepPlan], sequences: Sequences, budget: int, compute: Compute
) -> Iterator[StepDone]:
    optimization = Optimization("adamw", 1e-3, "constant", 0.0, 0.0, 0.0, 2, budget)
    return train(model, build_optimizers(model, optimization, compute), plans, sequences, optimization, compute)


def gradients_of(
    model: LanguageModel, batches: list[MicroBatch], compute: Compute
) -> tuple[float, dict[str, torch.Tensor]]:
    """The loss and the gradients of a step that nothing disturbs."""
    loss = accumulate_gradients(model, batches, compute)
    gradients = gradients_in(model)
    model.network.zero_grad()
    return loss, gradients


def look_at_gradients(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, torch.Tensor]]:
    """What the gradients are when they are to be clipped, one entry for each step."""
    seen: list[dict[str, torch.Tensor]] = []

    def look(*_: Any) -> torch.Tensor:
        seen.append(gradients_in(model))
        return torch.tensor(1.0)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", look)
    return seen


def gradients_in(model: LanguageModel) -> dict[str, torch.Tensor]:
    named = model.network.named_parameters()
    return {name: parameter.grad.clone() for name, parameter in named if parameter.grad is not None}


def assert_close(gradients: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize("budget", [20, 128])
def test_a_long_sequence_that_does_not_fit_beside_short_ones_that_do_ends_the_run(
    tiny: LanguageModel, compute: Compute, monkeypatch: pytest.MonkeyPatch, budget: int
) -> None:
    conversations = [Conversation(("abc " * 12, "abc " * 12)), *[Conversation(("a", "b")) for _ in range(8)]]
    sequences = encode_conversations(conversations, tiny.vocabulary, TINY_POSITIONS, "all")
    optimization = Optimization("adamw", 1e-3, "constant", 0.0, 0.0, 0.0, 1, budget)
    tried = []

    def losses(model: LanguageModel, batch: MicroBatch) -> torch.Tensor:
        tried.append(batch.ids.shape)
        if batch.ids.numel() > 40:
            raise ERRORS[0]
        return target_losses(model, batch)

    monkeypatch.setattr(training, "target_losses", losses)
    optimizers = build_optimizers(tiny, optimization, compute)
    with pytest.raises(TrainingError, match="out of memory with a single sequence"):
        next(train(tiny, optimizers, plan_steps(9, 9, 1, 0, "on"), sequences, optimization, compute))
    assert len(tried) < 10


@pytest.mark.usefixtures("no_collection")
def test_an_evaluation_that_does_not_fit_is_done_by_halves(
    any_model: LanguageModel, compute: Compute, monkeypatch: pytest.MonkeyPatch
) -> None:
    sequences = encode_conversations(made_up_conversations(13), any_model.vocabulary, TINY_POSITIONS, "all")
    [whole] = evaluate(any_model, evaluation_batches(sequences, True, 100_000), compute)

    def losses(model: LanguageModel, batch: MicroBatch) -> torch.Tensor:
        if len(batch.ids) > 2:
            raise ERRORS[1]
        return target_losses(model, batch)

    monkeypatch.setattr(evaluation, "target_losses", losses)
    [halved] = evaluate(any_model, evaluation_batches(sequences, True, 100_000), compute)
    assert halved.nats == pytest.approx(whole.nats, rel=1e-6)
    assert (halved.targets, halved.num_bytes) == (whole.targets, whole.num_bytes)


def test_out_of_memory_in_the_optimizer_is_no_bug_of_ours(
    convmodel: Convmodel, data: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(*arguments: Any) -> None:
        raise ERRORS[1]

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    outcome = convmodel(*RUN)
    assert outcome.code == 5 and "out of memory" in outcome.err


def one_step(model: LanguageModel, compute: Compute) -> None:
    """Train on four conversations, in one micro-batch if that is possible."""
    sequences = encode_conversations(made_up_conversations(4), model.vocabulary, TINY_POSITIONS, "all")
    optimization = Optimization("adamw", 1e-3, "constant", 0.0, 0.0, 0.0, 1, 100_000)
    optimizers = build_optimizers(model, optimization, compute)
    next(train(model, optimizers, plan_steps(4, 4, 1, 0, "on"), sequences, optimization, compute))


def test_out_of_memory_at_one_sequence_is_an_error_with_advice(
    tiny: LanguageModel, compute: Compute, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_out_of_memory(monkeypatch, 0, ERRORS[0])
    with pytest.raises(TrainingError, match="step 1: out of memory with a single sequence of") as caught:
        one_step(tiny, compute)
    assert caught.value.exit_code == 5 and "--max-length" in caught.value.hint


def test_a_run_says_that_memory_ran_out_and_goes_on(
    convmodel: Convmodel, data: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run_out_of_memory(monkeypatch, 2, ERRORS[0])
    outcome = convmodel(*RUN, "--keep-checkpoints")
    assert outcome.code == 0
    assert "out of memory: from now on micro-batches of at most" in outcome.err
    state = json.loads((find_checkpoints(tmp_path / "out")[0] / "state.json").read_text())
    assert 0 < state["progress"]["micro_batch_tokens"] < 200


def test_any_other_failure_of_a_step_stays_what_it_is(
    tiny: LanguageModel, compute: Compute, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_out_of_memory(monkeypatch, 0, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        one_step(tiny, compute)


@pytest.mark.parametrize("threads", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_deterministic_runs_are_equal(server: Server, data: None, tmp_path: Path, threads: str) -> None:
    options = ["--deterministic", "--threads", threads, "--dropout", "0.1", "--max-steps", "4", "--overwrite"]
    digests = []
    for _ in range(2):
        server.run([*RUN, *options], tmp_path).check()
        digests.append(weights_digest(tmp_path / "out"))
    assert digests[0] == digests[1]


def test_deterministic_refuses_operations_that_are_not_and_says_so(
    convmodel: Convmodel, data: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def losses(model: LanguageModel, batch: MicroBatch) -> torch.Tensor:
        result = target_losses(model, batch)
        first = torch.zeros(1, dtype=torch.long)
        return result.put(first, result[:1])  # of equal places the last one written counts, whichever that is

    monkeypatch.setattr(training, "target_losses", losses)
    assert convmodel(*RUN, "--max-steps", "1").code == 0
    try:
        outcome = convmodel(*RUN, "--max-steps", "1", "--overwrite", "--deterministic")
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
    assert outcome.code == 5
    error, hint = outcome.err.splitlines()[-2:]
    assert error.startswith("error: put_ does not have a deterministic implementation")
    assert hint.startswith("hint: run without --deterministic, or on another --device")
    assert "Traceback" not in outcome.err
