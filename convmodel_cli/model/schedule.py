"""From a step to its learning rate."""

from __future__ import annotations

import math


def learning_rate_factor(step: int, steps: int, warmup: float, schedule: str) -> float:
    """The share of the peak learning rate at a step (from 1 to `steps`).

    It rises linearly over the first `warmup` part of the run, reaches 1, and falls to 0 just after the last step.
    """
    rising = round(steps * warmup)
    if step <= rising:
        return step / (rising + 1)
    if schedule == "constant":
        return 1.0
    done = (step - 1 - rising) / max(1, steps - rising)
    return 1.0 - done if schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))
