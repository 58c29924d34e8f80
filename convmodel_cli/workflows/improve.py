"""What happens between steps: evaluate, sample, remember the best, stop. It knows no files."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING

from convmodel_cli.errors import TrainingError
from convmodel_cli.events import Evaluated, EvaluationStepped, Finished, Sampled, Stepped
from convmodel_cli.settings import SamplingSettings
from convmodel_cli.workflows.plan import RunPlan

if TYPE_CHECKING:
    from convmodel_cli.data.batching import StepPlan
    from convmodel_cli.model.compute import Compute
    from convmodel_cli.model.evaluation import Score
    from convmodel_cli.model.language_model import LanguageModel
    from convmodel_cli.model.training import StepDone

RunEvent = Stepped | Evaluated | EvaluationStepped | Sampled

_RECENT_STEPS = 20


@dataclass(slots=True)
class RunState:
    """How far a run has come. `losses` holds (step, train loss, valid loss) of each evaluation."""

    step: int = 0
    epoch: int = 0
    tokens_seen: int = 0
    real_tokens: int = 0
    training_seconds: float = 0.0
    nats_since: float = 0.0
    targets_since: int = 0
    best_step: int = 0
    best_loss: float = math.inf
    best_valid: Score | None = None
    worse_in_a_row: int = 0
    losses: list[tuple[int, float, float | None]] = field(default_factory=list)
    stopped: str = "done"

    def count(self, done: StepDone) -> None:
        self.step, self.epoch = done.plan.number, done.plan.epoch
        self.tokens_seen += done.targets
        self.real_tokens += done.tokens
        self.training_seconds += done.seconds
        self.nats_since += done.loss * done.targets
        self.targets_since += done.targets

    def judge(self, train_loss: float, valid: Score | None) -> bool:
        """Record an evaluation; whether it is the best so far (not a number never is, a tie is not)."""
        loss = train_loss if valid is None else valid.loss
        self.losses.append((self.step, train_loss, None if valid is None else valid.loss))
        self.nats_since, self.targets_since = 0.0, 0
        if loss < self.best_loss:
            self.best_loss, self.best_step, self.best_valid, self.worse_in_a_row = loss, self.step, valid, 0
            return True
        self.worse_in_a_row += 1
        return False


def improve(model: LanguageModel, plan: RunPlan, compute: Compute, state: RunState) -> Iterator[RunEvent]:
    """Train `model` in place by the plan. When `Evaluated.best` comes, the weights are those it speaks of."""
    from convmodel_cli.data.batching import plan_steps
    from convmodel_cli.model.language_model import set_dropout
    from convmodel_cli.model.training import build_optimizers, seed_everything, train

    model.move_to(compute.device)
    set_dropout(model.network, plan.dropout)
    seed_everything(compute)
    optimizers = build_optimizers(model, plan.optimization)
    started = time.perf_counter()
    steps = plan_steps(len(plan.train), plan.batch_size, plan.epochs, plan.seed, plan.speaker_ids)
    first = next(steps)
    yield from _evaluate(model, plan, compute, state, first)
    for done in train(model, optimizers, chain([first], steps), plan.train, plan.optimization, compute):
        state.count(done)
        last = state.step == plan.steps
        out_of_time = plan.max_seconds is not None and time.perf_counter() - started >= plan.max_seconds
        yield _stepped(done, state, plan, compute)
        if last or out_of_time or state.step % plan.eval_every == 0:
            yield from _evaluate(model, plan, compute, state, None)
        if _stops(state, plan, out_of_time) or last:
            return


def _stops(state: RunState, plan: RunPlan, out_of_time: bool) -> bool:
    if out_of_time:
        state.stopped = "max-time"
    elif plan.patience and state.worse_in_a_row >= plan.patience and state.step < plan.steps:
        state.stopped = "patience"
    return state.stopped != "done"


def _stepped(done: StepDone, state: RunState, plan: RunPlan, compute: Compute) -> Stepped:
    from convmodel_cli.model.compute import memory_bytes

    return Stepped(
        epoch=state.epoch,
        epochs=plan.epochs,
        step=state.step,
        steps=plan.steps,
        loss=done.loss,
        learning_rate=done.learning_rate,
        tokens_seen=state.tokens_seen,
        tokens_per_second=done.tokens / done.seconds,
        memory_bytes=memory_bytes(compute.device),
        seconds_left=(plan.steps - state.step) * state.training_seconds / state.step,
    )


def _evaluate(
    model: LanguageModel, plan: RunPlan, compute: Compute, state: RunState, first: StepPlan | None
) -> Iterator[RunEvent]:
    """Evaluate and sample; before the first step the train loss is that of its sequences."""
    from convmodel_cli.data.batching import micro_batches
    from convmodel_cli.model.evaluation import evaluate, evaluation_batches, final_score

    started = time.perf_counter()
    if first is not None:
        batches = micro_batches(plan.train, first.sequences, first.with_types, plan.evaluation_budget)
        train_loss = final_score(evaluate(model, batches, compute)).loss
    else:
        train_loss = state.nats_since / state.targets_since
    valid: Score | None = None
    if plan.valid is not None:
        with_types = plan.speaker_ids != "off"
        batches_ = evaluation_batches(plan.valid, with_types, plan.evaluation_budget, max_batches=plan.eval_batches)
        for valid in evaluate(model, batches_, compute):
            yield EvaluationStepped(valid.targets / plan.valid.num_targets)
    best = state.judge(train_loss, valid)
    loss = train_loss if valid is None else valid.loss
    if not math.isfinite(loss):
        raise TrainingError(
            f"the evaluation after step {state.step}: expected a finite loss, got {loss}",
            "lower --learning-rate, or raise --warmup",
        )
    yield Evaluated(
        epoch=max(1, state.epoch),
        step=state.step,
        train_loss=train_loss,
        valid_loss=None if valid is None else valid.loss,
        bits_per_byte=None if valid is None else valid.bits_per_byte,
        tokens_seen=state.tokens_seen,
        seconds=time.perf_counter() - started,
        best=best,
    )
    yield sample_response(model, plan, compute, state.step)


def sample_response(model: LanguageModel, plan: RunPlan, compute: Compute, step: int) -> Sampled:
    """The answer to the run's sample context, with the default sampling settings."""
    from convmodel_cli.workflows.answer import answer_one

    sampling = SamplingSettings()
    response = answer_one(
        model, plan.sample, plan.sample_persona, sampling, compute, plan.max_context, plan.speaker_ids != "off"
    )
    return Sampled(step, plan.sample, response.text)


def conclude(
    model: LanguageModel, plan: RunPlan, compute: Compute, state: RunState, output: str | None, seconds: float
) -> Finished:
    """The figures of a run whose best weights are in the model."""
    from convmodel_cli.model.compute import peak_memory_bytes

    best = state.best_valid
    return Finished(
        model=output,
        best_step=state.best_step,
        steps=state.step,
        epochs=state.epoch,
        valid=None if best is None else {"loss": best.loss, "ppl": best.ppl, "bits_per_byte": best.bits_per_byte},
        tokens_seen=state.tokens_seen,
        seconds=seconds,
        tokens_per_second=state.real_tokens / state.training_seconds if state.training_seconds else 0.0,
        peak_memory_bytes=peak_memory_bytes(compute.device),
        parameters=model.num_parameters,
        stopped=state.stopped,
        losses=tuple(state.losses),
        portability=_portability(model, plan, compute),
        sample=sample_response(model, plan, compute, state.best_step),
    )


def _portability(model: LanguageModel, plan: RunPlan, compute: Compute) -> dict[str, float] | None:
    """Valid perplexity with and without token types: other tools never pass them."""
    from convmodel_cli.model.evaluation import evaluate, evaluation_batches, final_score

    if plan.valid is None or plan.speaker_ids == "off":
        return None
    ppl = {}
    for name, with_types in (("with_speaker_ids", True), ("without_speaker_ids", False)):
        batches = evaluation_batches(plan.valid, with_types, plan.evaluation_budget, max_batches=plan.eval_batches)
        ppl[name] = final_score(evaluate(model, batches, compute)).ppl
    return ppl
