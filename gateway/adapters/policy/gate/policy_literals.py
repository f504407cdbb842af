"""What a policy writes out and engines read differently: patterns, globs, layouts, formats.

What is refused here would fail when it is evaluated, which denies; at load it has a place, and
says what to write instead.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final

from gateway.adapters.policy.gate.policy_portable import below, mistake_at, written_name
from gateway.adapters.policy.policy_faults import Mistake
from gateway.adapters.policy.policy_package import Source
from gateway.adapters.policy.policy_patterns import (
    READ_LAYOUTS,
    VERB,
    WRITTEN_LAYOUTS,
    PatternError,
    translate,
)
from gateway.adapters.policy.policy_syntax import Node, unwrap

Fault = tuple[str, str, str]
"""The code, the message and what to write instead."""
_ODD_CLASS: Final = re.compile(r"(?<!\\)\[(?!!?[^!\\\[\]]+\])")


def find_literal_faults(source: Source) -> Iterator[Mistake]:
    """Yield patterns, layouts and formats that a module writes out and that cannot be relied on."""
    for kind, body in below(source.module.tree):
        if kind == "Call" and (check := _CHECKS.get(written_name(body["fcn"]))):
            number, find = check
            given = body["params"][number] if number < len(body["params"]) else {"": {}}
            for text in _texts(given):
                fault = find(text)
                if fault is not None:
                    yield mistake_at(source, given, *fault)


def _texts(node: Node) -> Iterator[str]:
    """Yield a text, or the third member of a list: the layout of `time.format`."""
    kind, body = unwrap(node)
    if kind in {"String", "RawString"}:
        yield body["value"]
    elif kind == "Array" and len(body["items"]) > 2:  # noqa: PLR2004
        yield from _texts(body["items"][2])


def _pattern(text: str) -> Fault | None:
    try:
        translate(text)
    except PatternError as error:
        hint = error.hint or "write it with plain classes: `[0-9]`, `[a-z]`"
        return "pattern", f"engines read this pattern differently: {error}", hint
    return None


def _parting(text: str) -> Fault | None:
    fault = _pattern(text)
    if fault is None and translate(text).empty:
        message = "engines split differently by a pattern that may be empty"
        return "pattern", message, 'use `split(x, "")` for single characters'
    return fault


def _glob(text: str) -> Fault | None:
    if _ODD_CLASS.search(text) is None:
        return None
    message = "engines read this class of a glob differently"
    return "pattern", message, "write `[abc]`, `[a-c]` or `[!a]`"


def _format(text: str) -> Fault | None:
    if all(found[0] == "%%" or found[4] for found in VERB.finditer(text)):
        return None
    message = "engines write this verb of `sprintf` differently"
    return "format", message, "write `%v`, `%s`, `%d`, `%q`, `%x` or `%.2f`"


def _layout(known: tuple[str, ...]) -> Callable[[str], Fault | None]:
    def find(text: str) -> Fault | None:
        if text in known:
            return None
        shown = ", ".join(f"`{each}`" for each in known)
        return "layout", "engines read this layout of a time differently", f"write one of {shown}"

    return find


_CHECKS: Final[dict[str, tuple[int, Callable[[str], Fault | None]]]] = {
    "glob.match": (0, _glob),
    "regex.find_all_string_submatch_n": (0, _pattern),
    "regex.find_n": (0, _pattern),
    "regex.match": (0, _pattern),
    "regex.replace": (1, _pattern),
    "regex.split": (0, _parting),
    "sprintf": (0, _format),
    "time.format": (0, _layout(WRITTEN_LAYOUTS)),
    "time.parse_ns": (0, _layout(READ_LAYOUTS)),
}
"""Functions by name: which argument is looked at, and how."""
