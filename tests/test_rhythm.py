"""Steps of a run: how large they are and how many, where the user does not say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from convmodel_cli.settings import TrainingSettings
from convmodel_cli.workflows.plan import _rhythm


class Row:
    """As many sequences of 100 tokens as are wanted."""

    def __init__(self, count: int) -> None:
        self.lengths = np.full(count, 100)

    def __len__(self) -> int:
        return len(self.lengths)


@pytest.mark.parametrize(
    ("count", "settings", "rhythm"),
    [
        (500, {}, (18, 13)),  # more passes, until there are 360 steps
        (5_400, {}, (30, 2)),  # larger steps, as long as there are 360
        (5_370, {}, (29, 2)),
        (3_222, {}, (18, 2)),  # 358 are as good
        (2_500, {}, (18, 3)),
        (50_000, {}, (41, 2)),  # the largest: 4,096 tokens
        (5_400, {"epochs": 1}, (18, 1)),
        (5_400, {"batch_size": 7}, (7, 2)),
    ],
)
def test_new_tiny_takes_larger_steps_of_larger_data(count: int, settings: Any, rhythm: tuple[int, int]) -> None:
    sequences: Any = Row(count)
    assert _rhythm("new-tiny", sequences, TrainingSettings(**settings)) == rhythm
