"""`fit` with a stopwatch."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import convmodel_cli.model.training
from convmodel_cli.events import Finished, Stepped
from convmodel_cli.model.compute import Compute
from convmodel_cli.model.language_model import LanguageModel
from convmodel_cli.model.optimizers import Optimization, Optimizers
from convmodel_cli.settings import ComputeSettings, RunSettings, TrainingSettings
from convmodel_cli.workflows.fit import FitRequest, fit


@dataclass(frozen=True, slots=True)
class Watched:
    """A run that is done; `seconds` of all of it, `step_seconds` of its steps with what is written of them.

    The memory that steps are given before the first one is part of them: elsewhere they take it themselves.
    """

    finished: Finished
    seconds: float
    step_seconds: float


def watch_fit(
    work: Path, training: TrainingSettings, base: str = "new-tiny", device: str = "cpu", train: str = "train.jsonl"
) -> Watched:
    """Run `fit` on this file and `valid.jsonl` of the folder, without the time that imports take."""
    import torch  # noqa: F401
    import transformers.models.gpt2.modeling_gpt2  # noqa: F401

    files = (str(work / train),), (str(work / "valid.jsonl"),)
    request = FitRequest(*files, base=base, output=str(work / f"model-{time.time_ns()}"))
    finished, step_seconds = None, 0.0
    prepare = convmodel_cli.model.training.prepare

    def timed(model: LanguageModel, optimization: Optimization, compute: Compute) -> Optimizers:
        nonlocal step_seconds
        begun = time.perf_counter()
        optimizers = prepare(model, optimization, compute)
        step_seconds += time.perf_counter() - begun
        return optimizers

    started = before = time.perf_counter()
    with patch.object(convmodel_cli.model.training, "prepare", timed):
        for event in fit(request, RunSettings(), training, ComputeSettings(device=device)):
            now = time.perf_counter()
            if isinstance(event, Stepped):
                step_seconds += now - before
            if isinstance(event, Finished):
                finished = event
            before = now
    assert finished is not None and step_seconds > 0
    return Watched(finished, time.perf_counter() - started, step_seconds)
