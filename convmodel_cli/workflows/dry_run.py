"""fit --dry-run: everything that a run would decide, and nothing of it done."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from convmodel_cli.data.encoding import Sequences, histogram
from convmodel_cli.errors import UsageError
from convmodel_cli.events import Bin, Note, Planned, TokenShown
from convmodel_cli.settings import ComputeSettings, RunSettings, TrainingSettings
from convmodel_cli.workflows.fit import FitRequest, check_base, describe_run, known_context, load_base, read_data
from convmodel_cli.workflows.plan import RunPlan, check_precision, make_plan
from convmodel_cli.workflows.run_folder import check_output

if TYPE_CHECKING:
    from convmodel_cli.model.compute import Compute
    from convmodel_cli.model.language_model import LanguageModel

_BINS = 8


def dry_run(
    request: FitRequest, run: RunSettings, training: TrainingSettings, machine: ComputeSettings
) -> Iterator[Note | Planned]:
    """Check the data and plan the run; writes nothing."""
    check_precision(machine, "fit")
    try:
        check_output(request.output, run)
    except UsageError as error:
        yield Note(f"a run would be refused: {error}", warning=True)
    check_base(request.base, request.output)
    data = yield from read_data(request, run, training)

    from convmodel_cli.model.compute import set_up

    compute = set_up(machine, for_training=True)
    model = load_base(request.base, data, training, compute.seed)
    plan = make_plan(model, request.base, data.train, data.valid, training, compute, known_context(request.base))
    duplicates, overlap = data.repeats
    yield Planned(
        files=data.files,
        test_conversations=len(data.test),
        duplicates=duplicates,
        overlap=overlap,
        run=describe_run(model, plan, compute, request.output, data),
        valid_sequences=0 if plan.valid is None else len(plan.valid),
        cut_conversations=plan.train.num_cut,
        lengths=tuple(Bin(*row) for row in histogram(plan.train.lengths, _BINS)),
        first=tuple(_first_tokens(model, plan.train)),
        memory_bytes=_memory(model, plan, compute),
    )


def _first_tokens(model: LanguageModel, sequences: Sequences) -> Iterator[TokenShown]:
    first = sequences[0]
    for place, token in enumerate(first.ids.tolist()):
        text = "<sep>" if token == model.sep_id else str(model.tokenizer.decode([token]))
        yield TokenShown(text, token, int(first.types[place]), bool(first.targets[place]))


def _memory(model: LanguageModel, plan: RunPlan, compute: Compute) -> int:
    """About how many bytes the run needs at once."""
    from convmodel_cli.model.compute import activation_bytes, logits_bytes, memory_bytes
    from convmodel_cli.model.optimizers import build_optimizers
    from convmodel_cli.model.training_state import training_state_bytes

    state = training_state_bytes(model, build_optimizers(model, plan.optimization, compute))  # weights and optimizers
    gradients = 4 * model.num_parameters
    longest = int(plan.train.lengths.max())
    rows = max(1, min(plan.batch_size, plan.optimization.micro_batch_tokens // longest))
    working = activation_bytes(model.network.config, rows, longest, compute, model.pads)
    if plan.valid is not None:
        working += logits_bytes(model.network.config, min(plan.evaluation_tokens, len(plan.valid.ids)), model.pads)
    return memory_bytes(compute.device) + state + gradients + working
