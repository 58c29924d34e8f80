"""What a workflow reports: small records, yielded as the work goes on.

Times are seconds, losses are nats per target token, learning rates are those of the step that was just done.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Note:
    """Something the user should know; `warning` if it may be a mistake.

    `items` are what it speaks of, one by one; a screen may show the first of them.
    """

    text: str
    warning: bool = False
    items: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Started:
    """A run is about to make its first step."""

    base: str
    output: str | None
    parameters: int
    device: str
    precision: str
    threads: int
    train_conversations: int
    train_sequences: int
    train_targets: int
    valid_conversations: int
    max_length: int
    epochs: int
    steps: int
    eval_every: int
    batch_size: int
    micro_batch_tokens: int
    learning_rate: float


@dataclass(frozen=True, slots=True)
class Bin:
    """How many sequences have from `lowest` to `highest` tokens."""

    lowest: int
    highest: int
    sequences: int


@dataclass(frozen=True, slots=True)
class TokenShown:
    """A token of an encoded conversation: its text and id, its type, and whether it is learned."""

    text: str
    id: int
    type: int
    target: bool


@dataclass(frozen=True, slots=True)
class Planned:
    """What a run would do. `files`, `duplicates`, `overlap` are the reports of the data, `first` the first sequence.

    `cut_conversations` have more than one window; `memory_bytes` is an estimate of the most that is used at once.
    """

    run: Started
    files: tuple[Any, ...]
    test_conversations: int
    duplicates: Any  # Repeats
    overlap: Any
    valid_sequences: int
    cut_conversations: int
    lengths: tuple[Bin, ...]
    first: tuple[TokenShown, ...]
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Stepped:
    """One optimizer step is done. `loss` is the step's own, `tokens_seen` counts targets since the start."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    learning_rate: float
    tokens_seen: int
    tokens_per_second: float
    memory_bytes: int
    seconds_left: float


@dataclass(frozen=True, slots=True)
class Evaluated:
    """`train_loss` is the mean over the targets since the evaluation before; `valid_loss` is None without valid data.

    `best`: this is the best evaluation so far; a tie keeps the earlier one.
    """

    epoch: int
    step: int
    train_loss: float
    valid_loss: float | None
    bits_per_byte: float | None
    tokens_seen: int
    seconds: float
    best: bool


@dataclass(frozen=True, slots=True)
class EvaluationStepped:
    """This share of an evaluation is done."""

    share: float


@dataclass(frozen=True, slots=True)
class Sampled:
    """What the model answers at this step."""

    step: int
    context: tuple[str, ...]
    response: str


@dataclass(frozen=True, slots=True)
class StateReady:
    """All that is to be done for this step is done: weights, optimizers and state belong together."""

    step: int
    evaluated: bool
    last: bool


@dataclass(frozen=True, slots=True)
class Checkpointed:
    """The run can be taken up again at this step."""

    step: int
    path: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Resumed:
    """`run` goes on from the checkpoint of this step; `changes` are settings and data that are not what they were."""

    step: int
    path: str
    changes: tuple[str, ...]
    run: Started


@dataclass(frozen=True, slots=True)
class Saved:
    """The weights of this step are the model in `path` from now on."""

    step: int
    path: str


@dataclass(frozen=True, slots=True)
class Finished:
    """A run is done; its figures are those of the best weights. The field names are those of `fit --json`.

    `losses` holds (step, train loss, valid loss) of each evaluation, `portability` the perplexities with and
    without token types.
    """

    model: str | None
    best_step: int
    steps: int
    epochs: int
    valid: dict[str, float] | None
    tokens_seen: int
    seconds: float
    tokens_per_second: float
    peak_memory_bytes: int
    parameters: int
    stopped: str
    losses: tuple[tuple[int, float, float | None], ...] = ()
    portability: dict[str, float] | None = None
    sample: Sampled | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """The figures of `eval`. The field names are those of `eval --json`; a part not asked for is None."""

    model: str
    data: str | None
    loss: float | None
    ppl: float | None
    bits_per_byte: float | None
    targets: int
    conversations: int
    sequences: int
    speaker_ids: str
    precision: str
    seconds: float
    probes: dict[str, int] | None = None
