"""What is wrong with policies: each mistake with its place, a code for machines and a remedy."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final, Literal

from msgspec import Struct, structs

Severity = Literal["error", "warning"]


class Mistake(Struct, frozen=True):
    """One mistake. `row` and `col` count from 1 and are 0 where there is no line to name.

    `hint` says what to write instead. An `error` keeps a bundle from loading; a `warning` does not.
    """

    file: str
    row: int
    col: int
    code: str
    message: str
    hint: str = ""
    severity: Severity = "error"

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.row, self.col) if part)
        return f"{place}: {self.message}" + (f"; {self.hint}" if self.hint else "")

    def as_dict(self) -> dict[str, Any]:
        """Return what `countersign policy check -o json` prints of it."""
        return structs.asdict(self)


def in_file(file: str, code: str, text: str) -> Mistake:
    """Return a mistake of a whole file. `text` says what is wrong and, after `; `, what to do."""
    message, _, hint = text.partition("; ")
    return Mistake(file, 0, 0, code, message, hint)


LINE_MAX_BYTES: Final = 1024
"""The embedded engine reads no longer line."""

_SYNTAX: Final = (
    (
        r"nested (so|too) deeply|nesting too deep|recursion depth exceeded",
        "too_deep",
        "nest lists, objects and operators less deeply, or put values into data.json",
    ),
    (
        r"`if` keyword is required",
        "v0_syntax",
        (
            "this is Rego v0; write `if` before the body: `allow if { … }`, "
            '`deny contains {"code": "…"} if { … }`'
        ),
    ),
    (
        r"cannot be shadowed",
        "shadowing",
        "`input` and `data` are given; use another name",
    ),
    (
        r"expecting `}` while parsing (query|set|object)",
        "syntax",
        "a `}` is missing, or a comma between two items",
    ),
    (r"Missing package declaration", "syntax", "begin the file with `package policies.<name>`"),
)
_TOKENS: Final = (
    (r'\$["`]', "string_interpolation", "string interpolation is not supported, use `sprintf`"),
    (r"&&", "syntax", "write each condition on a line of its own; all of them must hold"),
    (r"\|\|", "syntax", "write a second rule of the same name, or `x in {…}`"),
    (r"(^|[^=!<>])!(?!=)", "syntax", "write `not` instead of `!`"),
    (r"'", "syntax", "write texts in double quotes"),
)


def explain_syntax(file: str, line: str, row: int, col: int, text: str) -> Mistake:
    """Return a parse error of the engine with the remedy that its words and its line suggest."""
    for pattern, code, hint in _SYNTAX:
        if re.search(pattern, text):
            return Mistake(file, row, col, code, text, hint)
    for pattern, code, hint in _TOKENS:
        if re.search(pattern, line[max(col - 2, 0) :]):
            return Mistake(file, row, col, code, text, hint)
    return Mistake(file, row, col, "syntax", text, "see https://www.openpolicyagent.org/docs")


def find_long_lines(file: str, text: str) -> Iterable[Mistake]:
    """Yield lines that no engine worker would read."""
    for row, line in enumerate(text.splitlines(), start=1):
        if len(line.encode()) > LINE_MAX_BYTES:
            yield Mistake(
                file,
                row,
                LINE_MAX_BYTES + 1,
                "line_too_long",
                f"the line is longer than {LINE_MAX_BYTES} bytes",
                "break it, or put long values into data.json",
            )


_ENGINE: Final = re.compile(r"--> (\S+?):(\d+):(\d+)\s.*?\nerror: (.*?)\s*(?:\n|\Z)", re.DOTALL)


def read_engine_error(text: str, code: str) -> Mistake:
    """Return what the engine said of a bundle that it refused, at the place that it names."""
    found = _ENGINE.search(text)
    if found is None:
        message, _, hint = " ".join(text.split()).partition("; ")
        return Mistake("policies", 0, 0, code, message, hint)
    file, row, col, message = found.groups()
    hint = (
        "two rules of this name give different values for one input; make their conditions "
        "exclude each other, or use `else`"
        if "conflict" in message
        else "mend it there"
    )
    name = file.removeprefix("policies/")
    return Mistake(name, int(row), int(col), "engine_refused", " ".join(message.split()), hint)
