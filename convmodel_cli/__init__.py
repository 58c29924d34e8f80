"""Train a small conversation model on your own dialogues and talk with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = ["ConversationExample", "ConversationModel", "ConversationTokenizer", "__version__"]

if TYPE_CHECKING:
    from convmodel_cli.api import ConversationExample, ConversationModel, ConversationTokenizer


def __getattr__(name: str) -> Any:
    """Import the Python face on first use (PEP 562), so that `import convmodel_cli` costs nothing."""
    if name in __all__:
        from convmodel_cli import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
