"""From response tokens to text that can be shown while it grows."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

_UNFINISHED = "\ufffd"


class TextStream:
    """Decodes one response token by token, holding back the bytes of a character until it is whole.

    All pieces together are `text`; a character whose end never came is left out.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self.ids: list[int] = []
        self.text = ""

    def add(self, token: int) -> str:
        """The characters that this token finishes, perhaps none."""
        self.ids.append(token)
        decoded = str(self._tokenizer.decode(self.ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))
        whole = decoded.rstrip(_UNFINISHED)
        piece = whole[len(self.text) :]
        self.text = whole
        return piece
