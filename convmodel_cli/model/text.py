"""From response tokens to text that can be shown while it grows."""

from __future__ import annotations

from collections.abc import Sequence

from convmodel_cli.model.language_model import LanguageModel, decode, joins_bytes

_BROKEN = "\ufffd"


class TextStream:
    """Decodes one response token by token, holding back what is not certain yet.

    That is the bytes of a character until it is whole, and what may be the beginning of a stop word. All pieces
    together are `text`; bytes that never become a character are left out. With a stop word the response ends in
    front of it, and `stopped` is set.
    """

    def __init__(self, model: LanguageModel, stop_words: Sequence[str] = ()) -> None:
        self._model = model
        self._stop_words = stop_words
        self._made: list[int] = []
        self._decoded = ""
        self._joins = joins_bytes(model.tokenizer)
        self._settled = ""  # what all but the last tokens spell for good
        self._unsettled: list[int] = []
        self.text = ""
        self.stopped = False

    def add(self, token: int) -> str:
        """The characters that this token makes certain, perhaps none."""
        self._made.append(token)
        self._decode(token)
        places = [place for word in self._stop_words if (place := self._decoded.find(word)) >= 0]
        if places:
            self.stopped = True
            self._decoded = self._decoded[: min(places)]
            return self.finish()
        return self._show(len(self._decoded) - self._uncertain())

    def finish(self) -> str:
        """What is held back, when nothing more will come."""
        return self._show(len(self._decoded))

    @property
    def ids(self) -> tuple[int, ...]:
        """The tokens as they were made; where a stop word begins inside one, those that spell the text."""
        if not self.stopped:
            return tuple(self._made)
        for end in range(len(self._made), -1, -1):
            if self._decode_all(self._made[:end]) == self.text:  # bytes of a broken character are in no text
                return tuple(self._made[:end])
        return tuple(self._model.vocabulary.encode([self.text])[0])

    def _show(self, end: int) -> str:
        piece = self._decoded[len(self.text) : end]
        self.text += piece
        return piece

    def _decode(self, token: int) -> None:
        self._unsettled.append(token)
        ending = self._decode_all(self._unsettled)
        self._decoded = self._settled + ending.replace(_BROKEN, "")
        if self._joins and not ending.endswith(_BROKEN):
            self._settled, self._unsettled = self._decoded, []

    def _decode_all(self, ids: list[int]) -> str:
        return decode(self._model.tokenizer, ids)

    def _uncertain(self) -> int:
        """Length of the longest ending that a stop word begins with."""
        return max(
            (size for word in self._stop_words for size in range(1, len(word)) if self._decoded.endswith(word[:size])),
            default=0,
        )
