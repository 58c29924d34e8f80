"""eval: how well a model predicts conversations, and whether it remembers what was said."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from convmodel_cli.answer_settings import SamplingSettings
from convmodel_cli.data.conversations import read_conversations
from convmodel_cli.data.formats import Conversation
from convmodel_cli.data.lines import shown_name
from convmodel_cli.data.probes import Probe, read_probes
from convmodel_cli.errors import DataError, GateMissed, ModelError, UsageError
from convmodel_cli.events import EvaluationStepped, Measured, Note
from convmodel_cli.settings import ComputeSettings, EvaluationSettings
from convmodel_cli.workflows.answer import Responder
from convmodel_cli.workflows.data import sample_file
from convmodel_cli.workflows.plan import check_precision, window_length
from convmodel_cli.workflows.record import RunRecord, read_record
from convmodel_cli.workflows.run_folder import check_model

if TYPE_CHECKING:
    from convmodel_cli.data.batching import MicroBatch
    from convmodel_cli.data.encoding import Sequences
    from convmodel_cli.model.compute import Compute
    from convmodel_cli.model.language_model import LanguageModel


@dataclass(frozen=True, slots=True)
class EvaluationRequest:
    """The nouns of an evaluation; without data and probes, the packaged sample's for a model trained on it."""

    model: str
    data: str | None = None
    probes: str | None = None


def evaluate_model(
    request: EvaluationRequest, settings: EvaluationSettings, machine: ComputeSettings
) -> Iterator[Note | EvaluationStepped | Measured]:
    """Measure a model; raises GateMissed at the end if a figure misses its gate."""
    check_precision(machine, "eval")
    if request.data is None and request.probes is None:
        yield Note("no DATA given: measuring on the packaged sample's test conversations and probes")
    request, record, conversations, probes = _read(request, settings)

    from convmodel_cli.model.checkpoint import load_model
    from convmodel_cli.model.compute import set_up
    from convmodel_cli.model.evaluation import evaluate

    started = time.perf_counter()
    compute = set_up(machine, for_training=False)
    model = load_model(request.model)
    model.move_to(compute.device)
    with_types = (settings.speaker_ids or record.speaker_ids) != "off" and model.takes_types
    sequences = _encode(model, conversations, settings, record) if conversations else None
    score = None
    if sequences is not None:
        for score in evaluate(model, _batches(model, sequences, settings, with_types, compute), compute):
            yield EvaluationStepped(score.targets / sequences.num_targets)
    measured = Measured(
        model=request.model,
        data=None if request.data is None else shown_name(request.data),
        loss=None if score is None else score.loss,
        ppl=None if score is None else score.ppl,
        bits_per_byte=None if score is None else score.bits_per_byte,
        targets=0 if score is None else score.targets,
        conversations=len(conversations),
        sequences=0 if sequences is None else len(sequences),
        speaker_ids="on" if with_types else "off",
        precision=compute.precision,
        probes=_count_answered(model, probes, record, with_types, compute) if probes else None,
        seconds=time.perf_counter() - started,
    )
    yield measured
    _hold_gates(measured, settings)


def _read(
    request: EvaluationRequest, settings: EvaluationSettings
) -> tuple[EvaluationRequest, RunRecord, Sequence[Conversation], list[Probe]]:
    """Check everything that can be checked without the model."""
    measures_sample = request.data is None and request.probes is None
    if not measures_sample:
        _check_gates(request, settings)
    check_model(request.model)
    record = read_record(request.model)
    if measures_sample:
        request = _on_the_sample(request, record)
    conversations: Sequence[Conversation] = [] if request.data is None else read_conversations(request.data)
    probes = [] if request.probes is None else read_probes(request.probes)
    return request, record, conversations, probes


def _on_the_sample(request: EvaluationRequest, record: RunRecord) -> EvaluationRequest:
    if not Path(request.model).expanduser().is_dir():
        raise ModelError(
            f"{request.model}: expected a model folder, got nothing there", "train one with: convmodel fit"
        )
    if not record.sample:
        raise UsageError(
            f"no DATA given, and {request.model} was not trained on the packaged sample",
            f"name a file of conversations: convmodel eval test.jsonl -m {request.model}",
        )
    return EvaluationRequest(request.model, str(sample_file("test.jsonl")), str(sample_file("probes.jsonl")))


def _encode(
    model: LanguageModel, conversations: Sequence[Conversation], settings: EvaluationSettings, record: RunRecord
) -> Sequences:
    """The conversations as the run would have seen them, unless the settings say otherwise."""
    from convmodel_cli.data.encoding import encode_conversations

    max_length = window_length(model, settings.max_length or record.max_length)
    sequences = encode_conversations(conversations, model.vocabulary, max_length, settings.learn or record.learn)
    if len(sequences) == 0:
        raise DataError(f"{conversations[0].file}: expected turns that count, got none", "check --learn and the flags")
    return sequences


def _batches(
    model: LanguageModel, sequences: Sequences, settings: EvaluationSettings, with_types: bool, compute: Compute
) -> Iterator[MicroBatch]:
    """Micro-batches of `--batch-size` rows, or of as many as suit the machine."""
    from convmodel_cli.model.compute import default_micro_batch_tokens, evaluation_tokens
    from convmodel_cli.model.evaluation import evaluation_batches

    length = round(float(sequences.lengths.mean()))
    training_budget = default_micro_batch_tokens(model.network.config, length, compute, model.pads)
    budget = evaluation_tokens(training_budget, model.pads)
    if settings.batch_size is not None:
        budget = int(sequences.lengths.max()) * settings.batch_size
    return evaluation_batches(sequences, with_types, budget, max_rows=settings.batch_size, padded=model.pads)


def _count_answered(
    model: LanguageModel, probes: list[Probe], record: RunRecord, with_types: bool, compute: Compute
) -> dict[str, int]:
    """How many probes the greedy response answers, of how many."""
    sampling = SamplingSettings(greedy=True)
    responder = Responder(model, compute, sampling, record.max_context or model.max_positions, with_types)
    responses = responder.answer([responder.context_of_text(probe.context)[0] for probe in probes])
    pairs = zip(probes, responses, strict=True)
    answered = sum(probe.is_answered_by(written.response.text) for probe, [written] in pairs)
    return {"answered": answered, "total": len(probes)}


def _check_gates(request: EvaluationRequest, settings: EvaluationSettings) -> None:
    if request.data is None and (settings.max_ppl is not None or settings.max_loss is not None):
        raise UsageError("--max-ppl and --max-loss need DATA", "name a file of conversations")
    if request.probes is None and settings.min_probes is not None:
        raise UsageError("--min-probes needs --probes", "name a file of probes with --probes")


def _hold_gates(measured: Measured, settings: EvaluationSettings) -> None:
    missed = []
    for name, figure, limit in (("ppl", measured.ppl, settings.max_ppl), ("loss", measured.loss, settings.max_loss)):
        # Written so that a figure that is not a number misses its gate.
        if limit is not None and figure is not None and not figure <= limit:
            missed.append(f"{name} {figure:.4f}, allowed at most {limit:g}")
    if settings.min_probes is not None and measured.probes and measured.probes["answered"] < settings.min_probes:
        missed.append(f"{measured.probes['answered']} probes answered, wanted at least {settings.min_probes}")
    if missed:
        raise GateMissed(f"{measured.model}: gate missed: {'; '.join(missed)}")
