"""fit: files in, a model folder out."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from convmodel_cli.errors import ModelError, StorageError, UsageError
from convmodel_cli.events import Finished, Note, Resumed, Started
from convmodel_cli.settings import NEW_BASES, ComputeSettings, RunSettings, TrainingSettings
from convmodel_cli.signals import StopRequest
from convmodel_cli.storage import locked, storing
from convmodel_cli.workflows.checkpoints import find_checkpoints, remove_checkpoints
from convmodel_cli.workflows.data import FitData, check_learned, notes_on_repeats, read_fit_data
from convmodel_cli.workflows.improve import prepare_training
from convmodel_cli.workflows.plan import RunPlan, check_precision, make_plan
from convmodel_cli.workflows.record import read_content, read_finished, read_record, run_record
from convmodel_cli.workflows.report import write_report
from convmodel_cli.workflows.resume import Resumption, compare, data_changes, find_checkpoint, notes_on_changes
from convmodel_cli.workflows.run import Progress, Run
from convmodel_cli.workflows.run_folder import (
    check_content,
    check_model,
    check_output,
    clear_temporaries,
)
from convmodel_cli.workflows.state import RunState

if TYPE_CHECKING:
    from convmodel_cli.model.compute import Compute
    from convmodel_cli.model.language_model import LanguageModel

FitEvent = Note | Started | Resumed | Progress


@dataclass(frozen=True, slots=True)
class FitRequest:
    """The nouns of a run: files, base and output; and `sources`, where each setting came from, as far as is known."""

    train: tuple[str, ...] = ()
    valid: tuple[str, ...] = ()
    base: str = "new-tiny"
    output: str = "model"
    sources: Mapping[str, str] = field(default_factory=dict, compare=False)


def fit(
    request: FitRequest,
    run: RunSettings,
    training: TrainingSettings,
    machine: ComputeSettings,
    stop: StopRequest | None = None,
) -> Iterator[FitEvent]:
    """Train a model on files of conversations and leave it in the output folder, or go on with the run there."""
    started = time.perf_counter()
    folder = Path(request.output)
    check_precision(machine, "fit")
    check_output(request.output, run)
    if run.resume and (finished := _finished_before(folder)):
        yield from _already_finished(request, finished, run)
        return
    checkpoint, notes = find_checkpoint(folder) if run.resume else (None, [])
    yield from notes
    if checkpoint is None:
        check_base(request.base, request.output)
    data = yield from read_data(request, run, training)

    from convmodel_cli.model.compute import set_up

    compute = set_up(machine, for_training=True, deterministic=training.deterministic)
    model = load_base(request.base, data, training, compute.seed) if checkpoint is None else load_run(folder)
    positions = known_context(request.base) if checkpoint is None else checkpoint.state["max_context"]
    plan = make_plan(model, request.base, data.train, data.valid, training, compute, positions)
    yield from _notes_on_settings(request.base, model, training)
    going = Run(
        model=model,
        optimizers=prepare_training(model, plan, compute),
        plan=plan,
        compute=compute,
        state=RunState(since=started),
        record=run_record(request.base, request.sources, data, plan, run, training, compute, model),
        folder=folder,
        settings=run,
        where=data.train.where,
        stop=stop or StopRequest(),
    )
    resumption = None if checkpoint is None else compare(checkpoint, going.record, run.allow_changes)
    yield from _go(going, data, describe_run(model, plan, compute, request.output, data), resumption)


def _go(going: Run, data: FitData, description: Started, resumption: Resumption | None) -> Iterator[FitEvent]:
    """Take the folder, and train."""
    with storing(going.folder):
        going.folder.mkdir(parents=True, exist_ok=True)
    with locked(going.folder) as is_held:
        if not is_held:
            yield Note(f"{going.folder}: there are no locks here: see to it that no other run uses it", warning=True)
        _check_unchanged(going, resumption)
        if resumption is None:
            going.start(data.test)
            yield from going.notes_on_space()
            yield from going.go(description)
        else:
            yield from notes_on_changes(resumption, going.folder)
            going.take_up(resumption)
            path = str(resumption.checkpoint.path)
            description = replace(description, steps=going.plan.steps, epochs=going.plan.last_epoch)
            yield from going.go(Resumed(going.state.step, path, resumption.changes, description))


def _check_unchanged(going: Run, resumption: Resumption | None) -> None:
    """Look again at what was looked at before the data was read; raises StorageError if another run has been here."""
    check_content(going.folder, going.settings)
    if not going.settings.resume:
        return
    there = find_checkpoints(going.folder)
    as_expected = not there if resumption is None else resumption.checkpoint.path in there
    if read_finished(going.folder) or not as_expected:
        raise StorageError(f"{going.folder}: another run has written here meanwhile", "try again")


def read_data(request: FitRequest, run: RunSettings, training: TrainingSettings) -> Generator[Note, None, FitData]:
    """Read and check all data, and say what the user should know of it."""
    data = read_fit_data(request.train, request.valid, run.split, run.skip_bad)
    check_learned(data, training.learn)
    yield from data.notes
    yield from notes_on_repeats(*data.repeats)
    return data


def _finished_before(folder: Path) -> Finished | None:
    try:
        return read_finished(folder)
    except ModelError as error:
        if find_checkpoints(folder):
            error.hint = "the checkpoints do without it: remove it, and resume, which writes it again"
        raise


def _already_finished(request: FitRequest, finished: Finished, run: RunSettings) -> Iterator[FitEvent]:
    """Say so, if the model is there and was trained on this data; raises ModelError."""
    folder = Path(request.output)
    data = read_fit_data(request.train, request.valid, run.split, run.skip_bad)
    changes = data_changes(read_content(folder), data)
    if changes and not run.allow_changes:
        raise ModelError(
            f"{folder}: this run is finished, and was of other data: {'; '.join(changes)}",
            f"train its model further with --base {folder} -o OTHER, or another one with -o or --overwrite",
        )
    from convmodel_cli.model.checkpoint import load_model
    from convmodel_cli.model.compute import set_up

    set_up(ComputeSettings(), for_training=False)
    load_model(str(folder.resolve()))  # raises ModelError if it has been damaged since
    with locked(folder), storing(folder):  # do what a crash at the very end may have left undone
        clear_temporaries(folder)
        if not run.keep_checkpoints:
            remove_checkpoints(folder)
        write_report(folder)
    yield Note(
        f"{folder}: this run is finished, and nothing is done, whatever is asked for now; "
        f"train its model further with: convmodel fit TRAIN --base {folder} -o OTHER"
    )
    yield finished


def known_context(base: str) -> int | None:
    """How many positions the model has learned already, None for all of them."""
    return 0 if base in NEW_BASES else read_record(base).max_context


def _notes_on_settings(base: str, model: LanguageModel, training: TrainingSettings) -> Iterator[Note]:
    if not model.takes_types and training.speaker_ids != "off":
        yield Note("this kind of model takes no token types: speaker ids are off")
    if base not in NEW_BASES and training.vocab_size != TrainingSettings().vocab_size:
        yield Note("--vocab-size is for new models; this base keeps its vocabulary", warning=True)


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


def load_run(folder: Path) -> LanguageModel:
    """The model of a run that broke off; its weights are those of the best step so far."""
    from convmodel_cli.model.checkpoint import load_model

    try:
        return load_model(str(folder.resolve()))
    except ModelError as error:
        error.hint = (
            "the best weights of the run are lost; to go on from its checkpoint, copy the model.safetensors there "
            f"to {folder}, and resume"
        )
        raise


def describe_run(model: LanguageModel, plan: RunPlan, compute: Compute, output: str, data: FitData) -> Started:
    return Started(
        base=plan.base,
        output=output,
        parameters=model.num_parameters,
        device=compute.device.type,
        precision=compute.precision,
        threads=compute.threads,
        train_conversations=len(data.train),
        train_sequences=len(plan.train),
        train_targets=plan.train.num_targets,
        valid_conversations=len(data.valid),
        max_length=plan.max_length,
        epochs=plan.last_epoch,
        steps=plan.steps,
        eval_every=plan.eval_every,
        batch_size=plan.batch_size,
        micro_batch_tokens=plan.optimization.micro_batch_tokens,
        learning_rate=plan.optimization.learning_rate,
    )
