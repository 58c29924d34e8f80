"""What the base decides where the user does not."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal


@dataclass(frozen=True, slots=True)
class Recipe:
    """`step_tokens` is the size of a step if it is given in tokens rather than conversations.

    With `fewest_steps`, small data is passed over more often than `epochs` times, until there are about that many
    steps; of large data the steps are larger, up to `most_step_tokens`, as long as there are that many.
    AdamW alone wants a smaller rate than beside Muon.
    """

    epochs: int
    learning_rate: float
    dropout: float
    optimizer: Literal["adamw", "muon"]
    batch_size: int | None = None
    step_tokens: int | None = None
    most_step_tokens: int = 0
    fewest_steps: int = 0
    adamw_learning_rate: float | None = None

    def learning_rate_with(self, optimizer: str) -> float:
        if optimizer == "adamw" and self.adamw_learning_rate is not None:
            return self.adamw_learning_rate
        return self.learning_rate


_new = partial(Recipe, epochs=2, dropout=0.0, optimizer="muon")

RECIPES = {
    "new-tiny": _new(
        learning_rate=2e-2, adamw_learning_rate=3e-3, step_tokens=1792, most_step_tokens=4096, fewest_steps=360
    ),
    "new-small": _new(
        learning_rate=1.2e-2, adamw_learning_rate=1.2e-3, step_tokens=1024, most_step_tokens=2048, fewest_steps=600
    ),
    "new-medium": _new(
        learning_rate=4e-3, adamw_learning_rate=5e-4, step_tokens=2048, most_step_tokens=4096, fewest_steps=300
    ),
}
PRETRAINED = Recipe(3, 5e-5, dropout=0.1, optimizer="adamw", batch_size=8)


def recipe_for(base: str) -> Recipe:
    """The recipe of a new model's size, or of any pretrained one."""
    return RECIPES.get(base, PRETRAINED)
