"""Many short texts in little memory, such as what is wrong with each line of a file."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import overload

from convmodel_cli.data.spool import Spool


class Texts(Sequence[str]):
    """Texts in the order in which they were appended."""

    def __init__(self) -> None:
        self._spool = Spool()
        self._ends = array("q", [0])

    def append(self, text: str) -> None:
        """Raises StorageError if the temporary folder is full."""
        self._spool.append(text.encode(errors="surrogatepass"))
        self._ends.append(len(self._spool))

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        places = range(len(self))[index]  # raises IndexError
        return self._text(places) if isinstance(places, int) else [self._text(place) for place in places]

    def _text(self, place: int) -> str:
        return self._spool.read(self._ends[place], self._ends[place + 1]).decode(errors="surrogatepass")
