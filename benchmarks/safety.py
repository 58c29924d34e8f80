"""What safety costs: the share of a run that goes into checks, checkpoints, swapping the best weights, and the report.

    python benchmarks/safety.py [TRAIN VALID] [--runs 3] [--epochs 2]

Trains with the defaults and adds up the seconds spent inside those functions, in the same process and the same run, so
that the drift of the machine does not matter. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

from convmodel_cli.settings import ComputeSettings, RunSettings, TrainingSettings
from convmodel_cli.workflows import fit as fit_module
from convmodel_cli.workflows import run as run_module
from convmodel_cli.workflows.data import FitData, read_fit_data
from convmodel_cli.workflows.fit import FitRequest, fit
from convmodel_cli.workflows.run import Run

GOAL = 0.03


def timed(spent: dict[str, float], name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with its seconds added up in `spent`."""

    def call(*arguments: Any, **options: Any) -> Any:
        started = time.perf_counter()
        try:
            return function(*arguments, **options)
        finally:
            spent[name] = spent.get(name, 0.0) + time.perf_counter() - started

    return call


def read_and_compare(*arguments: Any) -> FitData:
    """Read the data, and look for what stands twice, which else is done when it is first asked for."""
    data = read_fit_data(*arguments)
    assert len(data.repeats) == 2
    return data


def measure(request: FitRequest, training: TrainingSettings, real: dict[str, Callable[..., Any]]) -> dict[str, float]:
    """Seconds of one run by what they were spent on."""
    spent: dict[str, float] = {}
    Run._save_checkpoint = timed(spent, "checkpoints", real["checkpoints"])  # type: ignore[method-assign]
    Run._save_best = timed(spent, "best weights", real["best weights"])  # type: ignore[method-assign]
    run_module.write_report = timed(spent, "report", real["report"])
    fit_module.read_fit_data = timed(spent, "reading and checking", real["reading and checking"])
    started = time.perf_counter()
    for _ in fit(request, RunSettings(), training, ComputeSettings()):
        pass
    return {**spent, "whole run": time.perf_counter() - started}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("files", nargs="*")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--epochs", type=int)
    options = parser.parse_args()
    real: dict[str, Callable[..., Any]] = {
        "checkpoints": Run._save_checkpoint,
        "best weights": Run._save_best,
        "report": run_module.write_report,
        "reading and checking": read_and_compare,
    }
    runs = []
    for _ in range(options.runs):
        with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
            request = FitRequest(tuple(options.files[:1]), tuple(options.files[1:]), output=f"{folder}/model")
            runs.append(measure(request, TrainingSettings(epochs=options.epochs), real))
    shares = [(sum(run.values()) - run["whole run"]) / run["whole run"] for run in runs]
    line = {
        "benchmark": "safety",
        "share_of_run": round(statistics.median(shares), 5),
        "spread": [round(min(shares), 5), round(max(shares), 5)],
        "goal": GOAL,
        "seconds": {name: round(statistics.median(run[name] for run in runs), 3) for name in runs[0]},
        "runs": len(runs),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
