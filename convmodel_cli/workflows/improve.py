"""What happens between steps: evaluate, sample, remember the best, stop. It knows no files.

All that a run has to remember is in `RunState`, and what is to be done next follows from it: a run that is taken up
again does what the run that was broken off would have done.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

from convmodel_cli.answer_settings import SamplingSettings
from convmodel_cli.errors import TrainingError
from convmodel_cli.events import Evaluated, EvaluationStepped, Finished, Note, Sampled, StateReady, Stepped
from convmodel_cli.signals import StopRequest
from convmodel_cli.workflows.plan import RunPlan
from convmodel_cli.workflows.state import RunState

if TYPE_CHECKING:
    from convmodel_cli.data.batching import MicroBatch
    from convmodel_cli.data.encoding import Sequences
    from convmodel_cli.model.compute import Compute
    from convmodel_cli.model.evaluation import Score
    from convmodel_cli.model.language_model import LanguageModel
    from convmodel_cli.model.optimizers import Optimizers
    from convmodel_cli.model.training import StepDone

RunEvent = Stepped | Evaluated | EvaluationStepped | Sampled | StateReady | Note


def prepare_training(model: LanguageModel, plan: RunPlan, compute: Compute) -> Optimizers:
    """Put the model where it is trained, with the run's dropout, and all that lasts for the run."""
    from convmodel_cli.model.language_model import set_dropout
    from convmodel_cli.model.training import prepare

    model.move_to(compute.device)
    set_dropout(model.network, plan.dropout)
    return prepare(model, plan.optimization, compute)


def improve(
    model: LanguageModel,
    optimizers: Optimizers,
    plan: RunPlan,
    compute: Compute,
    state: RunState,
    stop: StopRequest,
) -> Iterator[RunEvent]:
    """Train `model` in place by the plan, from where `state` is. When `Evaluated.best` comes, the weights are those.

    Raises Stopped between two steps or two micro-batches of an evaluation; state and weights are then those of the
    last finished step.
    """
    steps = _steps_left(model, optimizers, plan, compute, state)
    if state.step:
        stop.hold()
    while True:
        if _wants_evaluation(state, plan):
            yield from _evaluate(model, plan, compute, state, stop)
        last = _is_over(state, plan)
        yield StateReady(state.step, state.is_evaluated, last)
        if last:
            return
        stop.hold()
        budget = state.micro_batch_tokens or plan.optimization.micro_batch_tokens
        done = next(steps)
        state.count(done)
        if done.micro_batch_tokens < budget:
            yield Note(f"out of memory: from now on micro-batches of at most {done.micro_batch_tokens:,} tokens", True)
        yield _stepped(done, state, plan, compute)
        stop.check()


def _steps_left(
    model: LanguageModel, optimizers: Optimizers, plan: RunPlan, compute: Compute, state: RunState
) -> Iterator[StepDone]:
    from convmodel_cli.data.batching import plan_steps
    from convmodel_cli.model.training import train

    steps = plan_steps(
        len(plan.train),
        plan.batch_size,
        plan.epochs,
        plan.seed,
        plan.speaker_ids,
        done=state.step,
        first_epoch=state.next_epoch,
        first_place=state.next_place,
    )
    optimization = plan.optimization
    if state.micro_batch_tokens:
        optimization = replace(optimization, micro_batch_tokens=state.micro_batch_tokens)
    return train(model, optimizers, islice(steps, plan.steps - state.step), plan.train, optimization, compute)


def _wants_evaluation(state: RunState, plan: RunPlan) -> bool:
    if plan.max_seconds is not None and state.step > 0 and state.elapsed >= plan.max_seconds:
        state.stopped = "max-time"
    on_time = state.step % plan.eval_every == 0 or state.step >= plan.steps or state.stopped == "max-time"
    return on_time and not state.is_evaluated


def _is_over(state: RunState, plan: RunPlan) -> bool:
    if state.step >= plan.steps:
        state.stopped = "done"
    elif plan.patience and state.worse_in_a_row >= plan.patience:
        state.stopped = "patience"
    return state.step >= plan.steps or state.stopped != "done"


def _stepped(done: StepDone, state: RunState, plan: RunPlan, compute: Compute) -> Stepped:
    from convmodel_cli.model.compute import memory_bytes

    return Stepped(
        epoch=state.epoch,
        epochs=plan.last_epoch,
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
    model: LanguageModel, plan: RunPlan, compute: Compute, state: RunState, stop: StopRequest
) -> Iterator[RunEvent]:
    """Evaluate and sample; before the first step the train loss is that of its sequences."""
    from convmodel_cli.model.evaluation import evaluate

    started = time.perf_counter()
    train_loss = state.nats_since / state.targets_since if state.step else _first_loss(model, plan, compute)
    valid: Score | None = None
    if plan.valid is not None:
        batches = _batches(model, plan.valid, plan, plan.speaker_ids != "off")
        for valid in evaluate(model, batches, compute):
            yield EvaluationStepped(valid.targets / plan.valid.num_targets)
            stop.check()
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


def _batches(model: LanguageModel, sequences: Sequences, plan: RunPlan, with_types: bool) -> Iterator[MicroBatch]:
    from convmodel_cli.model.evaluation import evaluation_batches

    budget = plan.evaluation_tokens
    return evaluation_batches(sequences, with_types, budget, max_batches=plan.eval_batches, padded=model.pads)


def _first_loss(model: LanguageModel, plan: RunPlan, compute: Compute) -> float:
    """The loss of the first step's sequences."""
    from convmodel_cli.data.batching import micro_batches, plan_steps
    from convmodel_cli.model.evaluation import evaluate, final_score

    first = next(plan_steps(len(plan.train), plan.batch_size, 1, plan.seed, plan.speaker_ids))
    batches = micro_batches(plan.train, first.sequences, first.with_types, plan.evaluation_tokens, model.row_length)
    return final_score(evaluate(model, batches, compute)).loss


def sample_response(model: LanguageModel, plan: RunPlan, compute: Compute, step: int) -> Sampled:
    """The answer to the run's sample context, with the default sampling settings."""
    from convmodel_cli.workflows.answer import Responder

    exact = replace(compute, precision="fp32")  # with the weights as they are: others would need a copy of them all
    responder = Responder(model, exact, SamplingSettings(), plan.max_context, plan.speaker_ids != "off")
    context, _ = responder.context_of_text(plan.sample, plan.sample_persona)
    [[written]] = responder.answer([context])
    return Sampled(step, plan.sample, written.response.text)


def adopt_weights(
    model: LanguageModel, plan: RunPlan, compute: Compute, state: RunState, step: int, loss: float
) -> None:
    """Make the weights in the model the best of the run: they are of `step`, whose `loss` the state does not know."""
    from convmodel_cli.model.evaluation import evaluate, final_score

    state.best_step, state.best_loss, state.best_valid = step, loss, None
    if plan.valid is not None:
        batches = _batches(model, plan.valid, plan, plan.speaker_ids != "off")
        state.best_valid = final_score(evaluate(model, batches, compute))
        state.best_loss = state.best_valid.loss


def conclude(
    model: LanguageModel, plan: RunPlan, compute: Compute, state: RunState, output: str | None, stop: StopRequest
) -> Finished:
    """The figures of a run whose best weights are in the model; raises Stopped between two micro-batches."""
    return replace(
        figures(model, compute, state, output),
        portability=_portability(model, plan, compute, state.best_valid, stop),
        sample=sample_response(model, plan, compute, state.best_step),
    )


def figures(model: LanguageModel, compute: Compute, state: RunState, output: str | None) -> Finished:
    """The figures of a run so far, without what would have to be computed."""
    from convmodel_cli.model.compute import peak_memory_bytes

    best = state.best_valid
    return Finished(
        model=output,
        best_step=state.best_step,
        steps=state.step,
        epochs=state.epoch,
        valid=None if best is None else {"loss": best.loss, "ppl": best.ppl, "bits_per_byte": best.bits_per_byte},
        tokens_seen=state.tokens_seen,
        seconds=state.elapsed,
        tokens_per_second=state.real_tokens / state.training_seconds if state.training_seconds else 0.0,
        peak_memory_bytes=peak_memory_bytes(compute.device),
        parameters=model.num_parameters,
        stopped=state.stopped,
        losses=tuple(state.losses),
    )


def _portability(
    model: LanguageModel, plan: RunPlan, compute: Compute, best: Score | None, stop: StopRequest
) -> dict[str, float] | None:
    """Valid perplexity with token types, as in `best`, and without: other tools never pass them."""
    from convmodel_cli.model.evaluation import evaluate

    if plan.valid is None or best is None or plan.speaker_ids == "off":
        return None
    score = best
    for score in evaluate(model, _batches(model, plan.valid, plan, False), compute):  # noqa: B007  the last is wanted
        stop.check()
    return {"with_speaker_ids": best.ppl, "without_speaker_ids": score.ppl}
