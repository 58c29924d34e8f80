"""What the base decides where the user does not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# Of the rate that embeddings have beside Muon, for AdamW alone. Measured with new-tiny, see benchmarks/NOTES.md.
_SHARE_OF_ADAMW_ALONE = 0.15


@dataclass(frozen=True, slots=True)
class Recipe:
    """`step_tokens` is the size of a step if it is given in tokens rather than conversations.

    With `fewest_steps`, small data is passed over more often than `epochs` times, until there are about that many
    steps; of large data the steps are larger, up to `most_step_tokens`, as long as there are that many.
    """

    epochs: int
    learning_rate: float
    dropout: float
    optimizer: Literal["adamw", "muon"]
    batch_size: int | None = None
    step_tokens: int | None = None
    most_step_tokens: int = 0
    fewest_steps: int = 0

    def learning_rate_with(self, optimizer: str) -> float:
        alone = self.optimizer == "muon" and optimizer == "adamw"
        return self.learning_rate * (_SHARE_OF_ADAMW_ALONE if alone else 1)


RECIPES = {
    "new-tiny": Recipe(
        2, 2e-2, dropout=0.0, optimizer="muon", step_tokens=1792, most_step_tokens=4096, fewest_steps=360
    ),
    "new-small": Recipe(
        2, 1.2e-2, dropout=0.0, optimizer="muon", step_tokens=1024, most_step_tokens=2048, fewest_steps=600
    ),
    "new-medium": Recipe(
        2, 4e-3, dropout=0.0, optimizer="muon", step_tokens=2048, most_step_tokens=4096, fewest_steps=300
    ),
}
PRETRAINED = Recipe(3, 5e-5, dropout=0.1, optimizer="adamw", batch_size=8)


def recipe_for(base: str) -> Recipe:
    """The recipe of a new model's size, or of any pretrained one."""
    return RECIPES.get(base, PRETRAINED)
