"""How the demo speaks: acts, plain sentences, and claims that are checked as they are printed."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterable
from typing import TextIO

WIDTH = 96
_INDENT = "   "
_BOLD, _DIM, _RED, _GREEN, _PLAIN = "\033[1m", "\033[2m", "\033[31m", "\033[32m", "\033[0m"


class Telling:
    """Writes the story to `out`, in colour only on a terminal, and counts what did not hold."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._coloured = out.isatty() and "NO_COLOR" not in os.environ
        self._acts = 0
        self.checked = 0
        self.failed = 0

    def title(self, text: str) -> None:
        """Head the story, or what comes after it."""
        self._line(self._paint(_BOLD, text))

    def act(self, text: str) -> None:
        """Open the next act."""
        self._acts += 1
        self._line()
        self._line(self._paint(_BOLD, f"{self._acts}. {text}"))

    def say(self, text: str) -> None:
        """Tell what happens. No claim: whatever can be checked goes to `check`."""
        for line in _wrap(text):
            self._line(f"{_INDENT}{line}")

    def show(self, lines: Iterable[str]) -> None:
        """Quote what a program printed or a record holds, as it stands."""
        for line in lines:
            first, *rest = _wrap(_visible(line)) or [""]
            for part in (first, *(f"    {one}" for one in rest)):
                self._line(self._paint(_DIM, f"{_INDENT}│ {part}"))

    def commands(self, text: str) -> None:
        """Print what is there to be pasted, without a character of ours in it."""
        self._line(text)

    def check(self, claim: str, holds: object, seen: object = "") -> bool:
        """Print a claim with its mark. Where it does not hold, `seen` says what was there instead.

        Nothing is raised: the story goes on, and `failed` decides how the demo ends.
        """
        self.checked += 1
        told = f"\n{_INDENT}".join(_wrap(claim))
        if holds:
            self._line(f" {self._paint(_GREEN, '✓')} {told}")
            return True
        self.failed += 1
        self._line(f" {self._paint(_RED, '✗')} {told}")
        self._line(
            self._paint(_RED, f"     seen instead: {_visible(str(seen))[:600] or 'nothing'}")
        )
        return False

    def _paint(self, colour: str, text: str) -> str:
        return f"{colour}{text}{_PLAIN}" if self._coloured else text

    def _line(self, text: str = "") -> None:
        print(text, file=self._out, flush=True)


def _wrap(text: str) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        break_long_words=False,
        break_on_hyphens=False,
        replace_whitespace=False,
        drop_whitespace=True,
    )


def _visible(text: str) -> str:
    """Return text that cannot steer a terminal: strangers wrote some of what is quoted."""
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)
