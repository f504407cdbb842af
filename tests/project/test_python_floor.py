"""What the oldest Python that we promise cannot do right, and so is not used."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.req("GW-03")

_SIGNS = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)
"""An escaped sign, and a class of signs: brackets in these close no group."""

_GROUP_KEPT_WHOLE = re.compile(r"\)(?:[*+?]|\{[0-9]*,?[0-9]*\})\+")


def keeps_a_group_whole(pattern: str) -> bool:
    """Whether a pattern repeats a group and gives nothing of it back: `(…)*+`, `(…){1,8}+`."""
    return _GROUP_KEPT_WHOLE.search(_SIGNS.sub("x", pattern)) is not None


def texts(source: str) -> Iterator[tuple[int, str]]:
    """Yield each text in a source with its line; what an f-string puts in counts as a group."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            parts = (part.value if isinstance(part, ast.Constant) else "()" for part in node.values)
            yield node.lineno, "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value
        elif isinstance(node, ast.Constant) and isinstance(node.value, bytes):
            yield node.lineno, node.value.decode("latin-1")


@pytest.mark.parametrize("folder", ["gateway", "connectors", "examples", "bench", "verify"])
def test_no_pattern_repeats_a_group_possessively(folder: str) -> None:
    """Python before 3.11.5 finds too much by such a pattern, or nothing at all.

    It goes on behind what the last round, which failed, began to read (python/cpython#100061 and
    #106052). Write `(?>(…)*)`, or `(…)*` where what follows cannot begin a round. `[…]*+` is right.
    """
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        for line, text in texts(path.read_text())
        if keeps_a_group_whole(text)
    ]
    assert not found


@pytest.mark.parametrize(
    "source",
    [
        r"r'(?:-++[a-z]++)*+'",
        r"r'(a|b)++'",
        r"r'(?:/\w+){1,32}+/?'",
        r"rb'(?:ab?c)?+'",
        r"rf'(?:{LABEL}\.){{1,8}}+'",
        r"rf'{GROUP}*+'",
        r"r'(?:[)]a)*+'",
    ],
)
def test_such_a_pattern_is_seen(source: str) -> None:
    assert any(keeps_a_group_whole(text) for _, text in texts(source))


@pytest.mark.parametrize(
    "source",
    [
        r"r'(?>(?:ab?c)*)'",
        r"r'(?:/[a-z]{1,9}+)+'",
        r"r'[()*+,;=]*+'",
        r"r'[^])*+]++'",
        r"r'\(\)++'",
        r"rf'{LABEL}(?:\.{LABEL}){{0,7}}'",
    ],
)
def test_what_that_python_does_right_is_not_refused(source: str) -> None:
    assert not any(keeps_a_group_whole(text) for _, text in texts(source))
