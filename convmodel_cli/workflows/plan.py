"""What a run will do once the base, the data and the machine have decided what the user left open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from convmodel_cli.data.context import LEAST_AFTER_PERSONA
from convmodel_cli.data.formats import Conversation
from convmodel_cli.errors import DataError, UsageError
from convmodel_cli.settings import ComputeSettings, TrainingSettings, parse_duration
from convmodel_cli.workflows.recipes import Recipe, recipe_for
from convmodel_cli.workflows.state import RunState

if TYPE_CHECKING:
    from convmodel_cli.data.encoding import Sequences
    from convmodel_cli.model.compute import Compute
    from convmodel_cli.model.language_model import LanguageModel
    from convmodel_cli.model.optimizers import Optimization

_FEWEST_STEPS_PER_EPOCH = 20
_LARGEST_DERIVED_BATCH = 128
_MOST_DERIVED_EPOCHS = 20
_EVALUATIONS_PER_EPOCH = 4
_SAMPLE_TURNS = 3


@dataclass(frozen=True, slots=True)
class RunPlan:
    """Everything decided. `max_seconds` is None without a limit; `sample` is the context answered on the way.

    `steps` and `last_epoch` are those of all `epochs`, or of as many of them as `max_steps` allows.
    """

    base: str
    train: Sequences
    valid: Sequences | None
    epochs: int
    last_epoch: int
    batch_size: int
    steps: int
    max_steps: int | None
    eval_every: int
    eval_batches: int | None
    patience: int
    max_seconds: float | None
    max_length: int
    max_context: int
    learn: str
    speaker_ids: str
    dropout: float
    seed: int
    sample: tuple[str, ...]
    sample_persona: str
    evaluation_tokens: int  # of a forward pass without gradients
    optimization: Optimization


def make_plan(
    model: LanguageModel,
    base: str,
    train: Sequence[Conversation],
    valid: Sequence[Conversation],
    settings: TrainingSettings,
    compute: Compute,
    known_context: int | None,
) -> RunPlan:
    """Encode the data and decide what is open; raises DataError if nothing is left to learn.

    `known_context` is how many positions the model has learned already, None for all of them.
    """
    from convmodel_cli.model.compute import evaluation_tokens

    max_length = window_length(model, settings.max_length)
    sequences = _encode(model, train, "training", max_length, settings.learn)
    valid_sequences = _encode(model, valid, "validation", max_length, settings.learn) if valid else None
    context_source = (valid or train)[0]
    max_context = _max_context(known_context, sequences, model)
    batch_size, epochs = _rhythm(base, sequences, settings)
    optimization = _optimization(base, model, settings, compute, round(float(sequences.lengths.mean())))
    whole = RunPlan(
        base=base,
        train=sequences,
        valid=valid_sequences,
        epochs=epochs,
        last_epoch=epochs,
        batch_size=batch_size,
        steps=0,
        max_steps=settings.max_steps,
        eval_every=settings.eval_every or _default_eval_every(len(sequences), batch_size),
        eval_batches=settings.eval_batches,
        patience=settings.patience,
        max_seconds=parse_duration(settings.max_time) if settings.max_time else None,
        max_length=max_length,
        max_context=max_context,
        learn=settings.learn,
        speaker_ids=settings.speaker_ids if model.takes_types else "off",
        dropout=settings.dropout if settings.dropout is not None else recipe_for(base).dropout,
        seed=compute.seed,
        sample=(settings.sample,) if settings.sample else _first_context(context_source),
        sample_persona=_sample_persona("" if settings.sample else context_source.persona, max_context, model),
        evaluation_tokens=evaluation_tokens(optimization.micro_batch_tokens, model.pads),
        optimization=optimization,
    )
    return plan_rest(whole, RunState())


def plan_rest(plan: RunPlan, state: RunState) -> RunPlan:
    """The plan of a run that has come so far: as many steps as its epochs still take, whose size may be another now."""
    from convmodel_cli.data.batching import count_steps, last_epoch

    place = (len(plan.train), plan.batch_size, state.next_epoch, state.next_place)
    left = count_steps(*place, plan.epochs)
    if plan.max_steps is not None:
        left = min(left, max(0, plan.max_steps - state.step))
    steps = state.step + left
    optimization = replace(plan.optimization, steps=steps)
    last = min(plan.epochs, last_epoch(*place, left))
    return replace(plan, steps=steps, last_epoch=last, optimization=optimization)


def window_length(model: LanguageModel, wanted: int | None) -> int:
    """Tokens of the longest sequence; raises UsageError if the model cannot attend to as many as are wanted."""
    if wanted is not None and wanted > model.max_positions:
        raise UsageError(f"--max-length: expected at most {model.max_positions}, the model's context, got {wanted}")
    return wanted or model.max_positions


def _encode(
    model: LanguageModel, conversations: Sequence[Conversation], role: str, max_length: int, learn: str
) -> Sequences:
    from convmodel_cli.data.encoding import encode_conversations

    sequences = encode_conversations(conversations, model.vocabulary, max_length, learn)
    if len(sequences) == 0:
        raise DataError(f"the {role} data: expected turns to learn, got none", "check --learn and the learn flags")
    return sequences


def _rhythm(base: str, sequences: Sequences, settings: TrainingSettings) -> tuple[int, int]:
    """(batch size, epochs)"""
    from convmodel_cli.data.batching import steps_per_epoch

    recipe = recipe_for(base)
    batch_size = settings.batch_size or recipe.batch_size
    if batch_size is None:
        batch_size = _derived_batch_size(recipe, sequences, settings.epochs or recipe.epochs)
    per_epoch = steps_per_epoch(len(sequences), batch_size)
    # To the nearest, so that a step too few does not cost a whole pass.
    enough = min(_MOST_DERIVED_EPOCHS, round(recipe.fewest_steps / per_epoch))
    epochs = settings.epochs or max(recipe.epochs, enough)
    return batch_size, epochs


def _derived_batch_size(recipe: Recipe, sequences: Sequences, epochs: int) -> int:
    """How many sequences have the tokens that a step wants; of large data more, as long as there are enough steps."""
    length = float(sequences.lengths.mean())
    least, largest = round((recipe.step_tokens or 0) / length), round(recipe.most_step_tokens / length)
    of_a_share = epochs * len(sequences) // max(1, recipe.fewest_steps)
    most = min(_LARGEST_DERIVED_BATCH, len(sequences) // _FEWEST_STEPS_PER_EPOCH)
    return max(1, min(max(least, min(largest, of_a_share)), most))


def _default_eval_every(num_sequences: int, batch_size: int) -> int:
    from convmodel_cli.data.batching import steps_per_epoch

    return max(1, -(-steps_per_epoch(num_sequences, batch_size) // _EVALUATIONS_PER_EPOCH))


def _max_context(known: int | None, sequences: Sequences, model: LanguageModel) -> int:
    """Tokens a chat may use: a model has learned only the positions that its training data ever reached."""
    return model.max_positions if known is None else max(known, int(sequences.lengths.max()))


def _sample_persona(persona: str, max_context: int, model: LanguageModel) -> str:
    """The sample context's persona, if it leaves room for an answer."""
    fits = len(model.vocabulary.encode_persona(persona)) <= max_context - LEAST_AFTER_PERSONA
    return persona if fits else ""


def _first_context(conversation: Conversation) -> tuple[str, ...]:
    """An odd number of turns from the start, so that the second speaker answers."""
    shown = min(_SAMPLE_TURNS, len(conversation.turns) - 1)
    return conversation.turns[: max(1, shown - (shown + 1) % 2)]


def _optimization(
    base: str, model: LanguageModel, settings: TrainingSettings, compute: Compute, length: int
) -> Optimization:
    """What is decided of the optimization, for sequences of about `length` tokens."""
    from convmodel_cli.model.compute import default_micro_batch_tokens
    from convmodel_cli.model.optimizers import Optimization

    recipe = recipe_for(base)
    optimizer = recipe.optimizer if settings.optimizer == "auto" else settings.optimizer
    return Optimization(
        optimizer=optimizer,
        learning_rate=settings.learning_rate or recipe.learning_rate_with(optimizer),
        schedule=settings.schedule,
        warmup=settings.warmup,
        weight_decay=settings.weight_decay,
        clip=settings.clip,
        steps=0,
        micro_batch_tokens=settings.micro_batch_tokens
        or default_micro_batch_tokens(model.network.config, length, compute, model.pads),
    )


def resolved_settings(plan: RunPlan, settings: TrainingSettings) -> dict[str, Any]:
    """The settings of the run as they were applied, under the names of the options."""
    optimization = asdict(plan.optimization)
    optimization.pop("steps")
    return {
        **asdict(settings),
        **optimization,
        "epochs": plan.epochs,
        "batch_size": plan.batch_size,
        "eval_every": plan.eval_every,
        "max_length": plan.max_length,
        "speaker_ids": plan.speaker_ids,
        "dropout": plan.dropout,
        "seed": plan.seed,
    }


def check_precision(machine: ComputeSettings, command: str) -> None:
    """Raise UsageError for a precision that is for answering alone."""
    if machine.precision == "int8":
        raise UsageError(
            f"--precision: expected auto, bf16 or fp32, got int8, in which {command} is not exact enough",
            "int8 is for generate and chat",
        )
