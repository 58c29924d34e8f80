"""How far a run has come: all that it has to remember, but for the tensors."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convmodel_cli.model.evaluation import Score
    from convmodel_cli.model.training import StepDone


@dataclass(slots=True)
class RunState:
    """How far a run has come. `losses` holds (step, train loss, valid loss) of each evaluation.

    `next_epoch` and `next_place` say where in which epoch's order the next step begins: steps may change in size.
    `micro_batch_tokens` is the budget of a forward pass in force, 0 before the first step; `seconds` is the time that
    processes before this one have spent, and `since` when this one began.
    """

    step: int = 0
    epoch: int = 0
    next_epoch: int = 1
    next_place: int = 0
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
    micro_batch_tokens: int = 0
    seconds: float = 0.0
    since: float = field(default_factory=time.perf_counter)

    @property
    def elapsed(self) -> float:
        """Seconds of the whole run, over all its processes."""
        return self.seconds + time.perf_counter() - self.since

    @property
    def is_evaluated(self) -> bool:
        """Whether the weights of this step have been evaluated."""
        return bool(self.losses) and self.losses[-1][0] == self.step

    def count(self, done: StepDone) -> None:
        self.step, self.epoch = done.plan.number, done.plan.epoch
        self.next_epoch, self.next_place = done.plan.next_epoch, done.plan.next_place
        self.tokens_seen += done.targets
        self.real_tokens += done.tokens
        self.training_seconds += done.seconds
        self.nats_since += done.loss * done.targets
        self.targets_since += done.targets
        self.micro_batch_tokens = done.micro_batch_tokens

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


def dump_state(state: RunState) -> dict[str, Any]:
    """The state as plain values; `load_state` makes the same state of them."""
    values = asdict(state)
    del values["since"]
    return {**values, "seconds": state.elapsed}


def load_state(values: dict[str, Any], since: float) -> RunState:
    """The state that was dumped, for a process that began at `since`; raises KeyError that names what is missing."""
    from convmodel_cli.model.evaluation import Score

    known = {setting.name: values[setting.name] for setting in fields(RunState) if setting.name != "since"}
    known["best_loss"] = math.inf if known["best_loss"] is None else known["best_loss"]  # JSON knows no infinity
    if known["best_valid"] is not None:
        known["best_valid"] = Score(**known["best_valid"])
    known["losses"] = [tuple(row) for row in known["losses"]]
    return RunState(**{**known, "stopped": "done"}, since=since)
