"""What the base decides where the user does not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Recipe:
    """`step_tokens` is the size of a step if it is given in tokens rather than conversations."""

    epochs: int
    learning_rate: float
    dropout: float
    optimizer: Literal["adamw", "muon"]
    batch_size: int | None = None
    step_tokens: int | None = None


RECIPES = {
    "new-tiny": Recipe(epochs=4, learning_rate=3e-3, dropout=0.0, optimizer="muon", step_tokens=2048),
    "new-small": Recipe(epochs=4, learning_rate=2e-3, dropout=0.0, optimizer="muon", step_tokens=2048),
    "new-medium": Recipe(epochs=3, learning_rate=1e-3, dropout=0.0, optimizer="muon", step_tokens=4096),
}
PRETRAINED = Recipe(epochs=3, learning_rate=5e-5, dropout=0.1, optimizer="adamw", batch_size=8)


def recipe_for(base: str) -> Recipe:
    """The recipe of a new model's size, or of any pretrained one."""
    return RECIPES.get(base, PRETRAINED)
