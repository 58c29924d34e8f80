"""Every knob once: its default, its limits, its help.

The command-line option, the help panel, the saved record of a run and the Python keyword are derived from these
fields. A default of None means "decided by the run": by the base, by the data or by the machine, as the help says.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from convmodel_cli.knobs import check_limits, knob

Learn = Literal["auto", "all", "responses", "last"]
SpeakerIds = Literal["mixed", "on", "off"]

NEW_BASES = ("new-tiny", "new-small", "new-medium")


def parse_duration(text: str) -> float:
    """Seconds in `90`, `90s`, `10m`, `1.5h` or `1h30m`."""
    parts = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?", text.strip().lower())
    if parts is None or not any(parts.groups()):
        raise ValueError(f"--max-time: expected a time like 90s, 10m or 1h30m, got {text!r}")
    hours, minutes, seconds = (float(part or 0) for part in parts.groups())
    total = hours * 3600 + minutes * 60 + seconds
    if total <= 0:
        raise ValueError(f"--max-time: expected more than no time, got {text!r}")
    return total


def parse_split(text: str) -> tuple[float, float, float]:
    """Shares of train, valid and test in `80/10/10`; they sum to 1."""
    parts = re.fullmatch(r"(\d+(?:\.\d+)?)/(\d+(?:\.\d+)?)/(\d+(?:\.\d+)?)", text.strip())
    shares = [float(part) for part in parts.groups()] if parts else []
    if len(shares) != 3 or abs(sum(shares) - 100) > 1e-6 or shares[0] == 0:
        raise ValueError(f"--split: expected three percentages that sum to 100, like 80/10/10, got {text!r}")
    return shares[0] / 100, shares[1] / 100, shares[2] / 100


@dataclass(frozen=True, slots=True)
class ScreenSettings:
    """Output"""

    def __post_init__(self) -> None:
        check_limits(self)

    json: bool = knob(False, "Print one JSON object on stdout instead of text.", flags=("--json",))
    quiet: bool = knob(False, "Say nothing but the result and errors.", flags=("--quiet", "-q"))
    verbose: bool = knob(False, "Say more: all bad lines in full, samples, saves.", flags=("--verbose", "-v"))
    no_progress: bool = knob(False, "No moving bars.", flags=("--no-progress",))
    color: Literal["auto", "always", "never"] = knob("auto", "Use colour.")
    debug: bool = knob(False, "Show the traceback of an internal error.", flags=("--debug",))


@dataclass(frozen=True, slots=True)
class ComputeSettings:
    """Machine"""

    def __post_init__(self) -> None:
        check_limits(self)

    device: Literal["auto", "cpu", "cuda", "mps"] = knob("auto", "Where to compute.")
    precision: Literal["auto", "bf16", "fp32", "int8"] = knob(
        "auto",
        "Number format. auto: bf16 for fit where the hardware is fast at it (GPUs since Ampere, CPUs with AMX or "
        "AVX-512 BF16), fp32 elsewhere. "
        "int8: smaller weights for generate and chat on a CPU, about three times as fast for a single response.",
    )
    threads: int | None = knob(None, "CPU threads.", at_least=1, at_most=256, shown_default="all cores")
    seed: int | None = knob(
        None,
        "Seed of everything random.",
        at_least=0,
        at_most=2**63 - 1,
        shown_default="0; chat on a terminal draws one",
    )


@dataclass(frozen=True, slots=True)
class RunSettings:
    """Run"""

    split: str | None = knob(None, "Split TRAIN by content into train, valid and test.", metavar="80/10/10")
    skip_bad: bool = knob(False, "Train on the good lines; count and list the bad ones.", flags=("--skip-bad",))
    overwrite: bool = knob(False, "Replace the run in OUTPUT; --resume wins over it.", flags=("--overwrite",))
    resume: bool = knob(False, "Go on with the run in OUTPUT from its last checkpoint.", flags=("--resume",))
    allow_changes: bool = knob(
        False, "Let --resume go on with other data or settings, and record them.", flags=("--allow-changes",)
    )
    save_every: int | None = knob(None, "Steps between checkpoints.", at_least=1, shown_default="at each evaluation")
    keep: int = knob(2, "Checkpoints to keep while the run goes on.", at_least=1)
    dry_run: bool = knob(
        False, "Check the data, show what a run would do, and leave; writes nothing.", flags=("--dry-run",)
    )
    keep_checkpoints: bool = knob(
        False, "Leave the checkpoints in OUTPUT when the run is done.", flags=("--keep-checkpoints",)
    )

    def __post_init__(self) -> None:
        check_limits(self)
        if self.split is not None:
            parse_split(self.split)
        if self.dry_run and self.resume:
            raise ValueError("--dry-run and --resume exclude each other: a dry run shows a run from its start")


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """Training"""

    epochs: int | None = knob(None, "Passes over the conversations.", at_least=1, shown_default="by base and data")
    max_steps: int | None = knob(None, "Stop after this many steps.", at_least=1)
    max_time: str | None = knob(None, "Stop after this time, cleanly.", metavar="90s|10m|1h30m")
    batch_size: int | None = knob(
        None, "Conversations (or windows of long ones) per step.", at_least=1, shown_default="by base and data"
    )
    micro_batch_tokens: int | None = knob(
        None,
        "Tokens per forward pass, with any padding; without dropout a step depends on it by rounding alone.",
        at_least=1,
        shown_default="by machine",
    )
    learning_rate: float | None = knob(None, "Peak learning rate.", above=0, shown_default="by base and optimizer")
    optimizer: Literal["auto", "adamw", "muon"] = knob(
        "auto", "auto: muon for new models (AdamW for embeddings and vectors), adamw for pretrained ones."
    )
    schedule: Literal["cosine", "linear", "constant"] = knob("linear", "How the learning rate falls after warm-up.")
    warmup: float = knob(0.1, "Fraction of the run during which the learning rate rises.", at_least=0, at_most=1)
    weight_decay: float = knob(0.01, "Weight decay of the matrices.", at_least=0)
    clip: float = knob(1.0, "Largest norm of the gradient; 0 switches clipping off.", at_least=0)
    dropout: float | None = knob(
        None, "Dropout of embeddings and residuals.", at_least=0, at_most=0.9, shown_default="0 new, 0.1 pretrained"
    )
    max_length: int | None = knob(
        None,
        "Tokens per sequence; longer conversations become windows.",
        at_least=8,
        shown_default="the model's context",
    )
    learn: Learn = knob(
        "auto", "Which turns are learned. auto: all for lists of turns, the responses where the data has roles."
    )
    speaker_ids: SpeakerIds = knob(
        "mixed", "Token types that tell the speakers apart: for a random half of the sequences, all, or none."
    )
    eval_every: int | None = knob(
        None, "Steps between evaluations, besides the first and the last.", at_least=1, shown_default="4 per epoch"
    )
    eval_batches: int | None = knob(None, "Evaluate on this many micro-batches only.", at_least=1, shown_default="all")
    patience: int = knob(8, "Stop after this many evaluations without a better one; 0 never stops.", at_least=0)
    sample: str | None = knob(
        None, "A context to answer at each evaluation.", shown_default="first valid conversation", metavar="TEXT"
    )
    vocab_size: int = knob(4096, "Vocabulary of a new model.", at_least=300, at_most=1_000_000)
    deterministic: bool = knob(
        False,
        "Refuse operations that may give another result each time, as some have on GPUs.",
        flags=("--deterministic",),
    )

    def __post_init__(self) -> None:
        check_limits(self)
        if self.max_time is not None:
            parse_duration(self.max_time)


@dataclass(frozen=True, slots=True)
class EvaluationSettings:
    """Evaluation"""

    def __post_init__(self) -> None:
        check_limits(self)

    batch_size: int | None = knob(
        None, "Conversations per forward pass; never changes a figure in fp32.", at_least=1, shown_default="by length"
    )
    learn: Learn | None = knob(None, "Which turns count.", shown_default="as in training")
    max_length: int | None = knob(None, "Tokens per sequence.", at_least=8, shown_default="as in training")
    speaker_ids: Literal["on", "off"] | None = knob(
        None, "Evaluate with or without token types.", shown_default="as in training"
    )
    max_ppl: float | None = knob(None, "Gate: exit 6 if the perplexity is higher.", above=0)
    max_loss: float | None = knob(None, "Gate: exit 6 if the loss is higher.", above=0)
    min_probes: int | None = knob(None, "Gate: exit 6 if fewer probes are answered.", at_least=0)


def is_folder_name(name: str) -> bool:
    """Whether the name of a model means a folder rather than a model of the hub."""
    return name.startswith((".", "/", "~")) or name.count("/") > 1
