"""fit: files in, a model folder out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convmodel_cli.data.conversations import digest
from convmodel_cli.errors import Stopped, TrainingError, UsageError
from convmodel_cli.events import Evaluated, Finished, Note, Saved, Started
from convmodel_cli.settings import NEW_BASES, ComputeSettings, RunSettings, TrainingSettings
from convmodel_cli.workflows.data import SAMPLE_SHOWN, FitData, check_learned, notes_on_repeats, read_fit_data
from convmodel_cli.workflows.improve import RunEvent, RunState, conclude, improve
from convmodel_cli.workflows.journal import journal
from convmodel_cli.workflows.plan import RunPlan, make_plan, resolved_settings
from convmodel_cli.workflows.run_folder import (
    EVENTS,
    check_model,
    check_output,
    prepare_output,
    read_record,
    storing,
    write_model_card,
    write_model_files,
    write_record,
    write_test_file,
)

if TYPE_CHECKING:
    from convmodel_cli.model.compute import Compute
    from convmodel_cli.model.language_model import LanguageModel

FitEvent = Note | Started | RunEvent | Saved | Finished


@dataclass(frozen=True, slots=True)
class FitRequest:
    """The nouns of a run: files, base and output."""

    train: tuple[str, ...] = ()
    valid: tuple[str, ...] = ()
    base: str = "new-tiny"
    output: str = "model"


def fit(
    request: FitRequest, run: RunSettings, training: TrainingSettings, machine: ComputeSettings
) -> Iterator[FitEvent]:
    """Train a model on files of conversations and leave it in the output folder."""
    started = time.perf_counter()
    check_output(request.output, run.overwrite)
    check_base(request.base, request.output)
    data = read_fit_data(request.train, request.valid, run.split, run.skip_bad)
    check_learned(data, training.learn)
    yield from data.notes
    duplicates, overlap = data.repeats()
    yield from notes_on_repeats(duplicates, overlap)

    from convmodel_cli.model.compute import set_up

    compute = set_up(machine, for_training=True)
    model = load_base(request.base, data, training, compute.seed)
    known_context = 0 if request.base in NEW_BASES else read_record(request.base).max_context
    plan = make_plan(model, request.base, data.train, data.valid, training, compute, known_context)
    if not model.takes_types and training.speaker_ids != "off":
        yield Note("this kind of model takes no token types: speaker ids are off")
    if request.base not in NEW_BASES and training.vocab_size != TrainingSettings().vocab_size:
        yield Note("--vocab-size is for new models; this base keeps its vocabulary", warning=True)
    folder = prepare_output(request.output)
    record = run_record(request.base, data, plan, training, compute, model)
    record["data"]["duplicates"] = [asdict(repeat) for repeat in duplicates]
    record["data"]["overlap"] = [asdict(repeat) for repeat in overlap]
    write_model_files(model, folder)
    write_record(folder, record)
    if data.test:
        write_test_file(folder, list(data.test))
    events = run_in_folder(model, plan, compute, record, folder, started, len(data.train), len(data.valid))
    yield from journal(events, folder / EVENTS)


def check_base(base: str, output: str) -> None:
    """Refuse what cannot be a base before anything is read, and an output that would replace its own base."""
    if base in NEW_BASES:
        return
    if base.startswith("new-") and not Path(base).is_dir():
        raise UsageError(f"--base: expected {', '.join(NEW_BASES)}, a folder or a model of the hub, got {base}")
    check_model(base)
    if Path(base).expanduser().resolve() == Path(output).resolve():
        raise UsageError(
            f"{output}: the output is the base, which a run that breaks off would lose", "choose another -o"
        )


def load_base(base: str, data: FitData, training: TrainingSettings, seed: int) -> LanguageModel:
    """A new model with a vocabulary from the training conversations, or a pretrained one."""
    if base not in NEW_BASES:
        from convmodel_cli.model.checkpoint import load_model

        return load_model(base)
    from convmodel_cli.model.new import SIZES, new_model

    texts = (turn for conversation in data.train for turn in conversation.turns)
    return new_model(SIZES[base], texts, training.vocab_size, seed)


def run_in_folder(
    model: LanguageModel,
    plan: RunPlan,
    compute: Compute,
    record: dict[str, Any],
    folder: Path,
    started: float,
    train_conversations: int,
    valid_conversations: int,
) -> Iterator[FitEvent]:
    """Train; whenever an evaluation is the best so far, its weights become the folder's."""
    from convmodel_cli.model.checkpoint import load_weights

    yield describe_run(model, plan, compute, str(folder), train_conversations, valid_conversations)
    state = RunState()
    try:
        for event in improve(model, plan, compute, state):
            if isinstance(event, Evaluated) and event.best:
                _save_best(model, folder, record, state)
                yield event
                yield Saved(event.step, str(folder))
            else:
                yield event
    except KeyboardInterrupt:
        raise Stopped(f"stopped at step {state.step}", 130, _what_is_kept(folder, state)) from None
    except TrainingError as error:
        error.hint += f"; {_what_is_kept(folder, state)}"
        raise
    load_weights(model, folder)
    finished = conclude(model, plan, compute, state, str(folder), time.perf_counter() - started)
    record["best"] = _best(state)
    record["finished"] = {"steps": finished.steps, "seconds": finished.seconds, "stopped": finished.stopped}
    write_record(folder, record)
    write_model_card(folder, record)
    yield finished


def _what_is_kept(folder: Path, state: RunState) -> str:
    if not state.losses:
        return f"{folder} holds no model yet"
    best = "the untrained model" if state.best_step == 0 else f"the best model so far, of step {state.best_step}"
    return f"{folder} holds {best}"


def describe_run(
    model: LanguageModel, plan: RunPlan, compute: Compute, output: str | None, train: int, valid: int
) -> Started:
    return Started(
        base=plan.base,
        output=output,
        parameters=model.num_parameters,
        device=compute.device.type,
        precision=compute.precision,
        threads=compute.threads,
        train_conversations=train,
        train_sequences=len(plan.train),
        train_targets=plan.train.num_targets,
        valid_conversations=valid,
        max_length=plan.max_length,
        epochs=plan.epochs,
        steps=plan.steps,
        eval_every=plan.eval_every,
        batch_size=plan.batch_size,
        micro_batch_tokens=plan.optimization.micro_batch_tokens,
        learning_rate=plan.optimization.learning_rate,
    )


def _save_best(model: LanguageModel, folder: Path, record: dict[str, Any], state: RunState) -> None:
    from convmodel_cli.model.checkpoint import save_weights

    with storing(folder):
        save_weights(model, folder, {"step": str(state.best_step), "loss": repr(state.best_loss)})
    record["best"] = _best(state)
    write_record(folder, record)


def _best(state: RunState) -> dict[str, Any]:
    best = state.best_valid
    figures = None if best is None else {"loss": best.loss, "ppl": best.ppl, "bits_per_byte": best.bits_per_byte}
    return {"step": state.best_step, "loss": state.best_loss, "valid": figures}


def run_record(
    base: str, data: FitData, plan: RunPlan, training: TrainingSettings, compute: Compute, model: LanguageModel
) -> dict[str, Any]:
    """What convmodel.json says of this run."""
    return {
        "base": base,
        "settings": resolved_settings(plan, training),
        "data": {
            "train": list(data.sources),
            "sample": data.sources == (SAMPLE_SHOWN,),
            "train_conversations": len(data.train),
            "valid_conversations": len(data.valid),
            "train_sha256": digest(data.train),
            "valid_sha256": digest(data.valid),
            "train_sequences": len(plan.train),
            "train_targets": plan.train.num_targets,
        },
        "device": compute.device.type,
        "precision": compute.precision,
        "threads": compute.threads,
        "parameters": model.num_parameters,
        "max_context": plan.max_context,
        "best": {"step": None, "loss": None, "valid": None},
    }
