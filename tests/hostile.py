"""Hostile text, what is to be seen of it, and commands whose output is searched for what is left of it raw."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import Server, run_on_a_terminal

# What could steer a terminal, a page or our own markup -> how it has to look. Spaces keep each from completing another.
PARTS = {
    "\x1b[31m": r"\x1b[31m",
    "\x1b]0;title\x07": r"\x1b]0;title\x07",
    "\x1b]8;;x:y\x1b\\": "\\x1b]8;;x:y\\x1b\\",
    "\x1b]52;c;eA==\x07": r"\x1b]52;c;eA==\x07",
    "\x1b[2J": r"\x1b[2J",
    "\x9b31m": r"\x9b31m",
    "\x7f": r"\x7f",
    "\b": r"\x08",
    "\u202e": r"\u202e",
    "\u2066": r"\u2066",
    "\r": r"\x0d",
    **{text: text for text in ("[/]", "[/x]", "[bold]", "<script>")},
}

# The codes that may leave the program, on a terminal alone. No part of PARTS is among them.
COLOURS = r"\x1b\[(?:[012](?:;\d+)*|3[356]|38;5;\d+)m"  # of the screens, the bar, the help and the prompt
BAR = r"\r?\x1b\[(?:1A|2K|\?25[lh])"  # to the line above, clear the line, hide and show the cursor
NEWLINE = r"\r+(?=\n)"  # the terminal adds one, the prompt another
PROMPT = (
    r"\x1b\[\?(?:1|7|12|25|2004)[hl]|\x1b\[6n"  # modes of the terminal; where is the cursor?
    r"|\x1b\[\d*[ABCD]|\x1b\[[JK]|[\r\b](?=\x1b\[)"  # move the cursor, and clear what is behind it
)
NONE = re.compile(r"(?!)")
OURS = re.compile(f"{COLOURS}|{BAR}|{NEWLINE}")
OURS_IN_CHAT = re.compile(f"{OURS.pattern}|{PROMPT}")

Typed = Sequence[tuple[bytes, bytes]]  # (what to wait for, what to type then)


def hostile(source: str) -> str:
    """Text that holds everything hostile and the name of where it comes from."""
    return " ".join([source, *PARTS, source])


def shown(source: str) -> str:
    """How `hostile(source)` has to look."""
    return " ".join([source, *PARTS.values(), source])


def raw_in(text: str, ours: re.Pattern[str] = NONE) -> list[str]:
    """What could steer something and is no code of ours, with what is around it."""
    left = ours.sub("", text)
    unsafe = {"Cc", "Cf", "Cs", "Zl", "Zp"}
    places = [place for place, character in enumerate(left) if unicodedata.category(character) in unsafe]
    return [ascii(left[max(0, place - 9) : place + 9]) for place in places if left[place] != "\n"]


@dataclass(frozen=True)
class Stage:
    """Runs commands in a folder, on a terminal or with what they read and write piped."""

    server: Server
    folder: Path
    way: str

    @property
    def ours(self) -> re.Pattern[str]:
        return OURS if self.way == "terminal" else NONE

    def output(self, *arguments: str, code: int = 0, stdin: str = "", typed: Typed = (), **order: Any) -> str:
        """All that a command writes, as it leaves the program."""
        if self.way == "terminal":
            wide = {"COLUMNS": "4000"}  # what is shown is not broken into lines
            seen = run_on_a_terminal(self.server, self.folder, [*arguments], [*typed], wide, **order)
            text, _, ended = seen.rpartition("\nexit ")
            assert int(ended) == code, text
            return text
        piped = self.folder / "piped.txt"
        piped.write_text(stdin, encoding="utf-8", newline="")
        done = self.server.run([*arguments], self.folder, stdin=str(piped), **order)
        assert done.code == code, done.err
        return done.out + done.err

    def run(self, *arguments: str, **options: Any) -> str:
        """The same without colours, and nothing raw is in it."""
        text = self.output(*arguments, **options)
        assert not raw_in(text, self.ours)
        return re.sub(COLOURS, "", text).replace("\r\n", "\n")

    def chat(self, model: str, said: str) -> str:
        """Say one thing to a model; on a terminal it is pasted, the history looked at, and the chat saved."""
        arguments = ["chat", "-m", model, "--greedy", "--transcript", "transcript.txt"]
        if self.way == "pipe":
            return self.run(*arguments, "--json", stdin=said + "\n")
        pasted = b"\x1b[200~" + said.encode() + b"\x1b[201~\r"
        typed = [(b"you>", pasted), (b"bot>", b""), (b"you>", b"/history\r"), (b"bot>", b"")]
        typed += [(b"you>", b"/save saved.jsonl\r"), (b"fit learns from it", b""), (b"you>", b"/exit\r")]
        text = self.output(*arguments, typed=typed)
        assert not raw_in(text, OURS_IN_CHAT)
        return re.sub(COLOURS, "", text).replace("\r\n", "\n")
