"""Finds modules that the engine's parser does not survive, or never ends with.

Nobody may parse them here: the parser holds the interpreter, and a stack that overflows takes the
whole gateway along. What cannot go wrong, which is nearly every module, is told by its text.
"""

from __future__ import annotations

import re
import subprocess
import sys
from functools import lru_cache
from typing import Final

from gateway.adapters.policy import parse_trial

PARSE_S: Final = 5.0
"""For one module, of which the longest that anybody writes takes a fraction."""
_PLAIN_MAX_OPERATORS: Final = 256
"""A row of them takes a tenth of a second to parse, of 2,000 seven; 4,000 end the process."""
_PLAIN_MAX_READINGS: Final = 4096
"""What a list or object begins with is parsed twice, so what is in ten of them 1,024 times."""
_TOKENS: Final = re.compile(
    r'(?P<passed>"(?:\\.|[^"\\\n])*"|`[^`]*`|#[^\n]*|:=)'
    r"|(?P<opens>[\[{(])|(?P<closes>[\]})])|(?P<operator>[=!<>]=|[-+*/%|&<>=]|\bin\b)"
)


@lru_cache(maxsize=256)
def find_unparsable(text: str) -> str | None:
    """Return why this module cannot be parsed here, if so. Asked once for each text."""
    if _is_plain(text):
        return None
    try:
        ended = subprocess.run(  # noqa: S603 - our own interpreter and our own file
            [sys.executable, "-I", parse_trial.__file__],
            input=text.encode(),
            env={},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=PARSE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"nested so deeply that parsing it takes more than {PARSE_S:g} s"
    return "nested too deeply to be parsed" if ended.returncode else None


def _is_plain(text: str) -> bool:
    levels = readings = operators = 0
    for found in _TOKENS.finditer(text):
        match found.lastgroup:
            case "opens":
                levels = min(levels + 1, 64)
                readings += 1 << levels
            case "closes":
                levels = max(levels - 1, 0)
            case "operator":
                operators += 1
        if operators > _PLAIN_MAX_OPERATORS or readings > _PLAIN_MAX_READINGS:
            return False
    return True
