"""Sentences that are read as statements (POL-09). Those that fit no template are refused.

A sentence means exactly its template. Nothing is guessed: a word that stands in none is an error
that names them all.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from gateway.core.policy.statement import Statement, StatementError, read_statement

_AMOUNT: Final = r"(?P<amount>[0-9][0-9,_]*(?:\.[0-9]+)?)"
_TOOL: Final = r"(?P<tool>[a-z][a-z0-9-]*\.[A-Za-z0-9_.-]+)"
_EFFECT: Final = r"(?P<effect>read|create|update|delete|external_send|money|privilege)"
_IN_ENVIRONMENT: Final = r"(?: in (?P<environment>[A-Za-z0-9_-]+))?"
_UNLESS: Final = r"(?P<hold> without a hold)?"
_NOBODY: Final = r"(?:no agent|nobody) (?:can|may) "

When = Callable[[re.Match[str]], dict[str, Any]]


class Template(tuple[str, re.Pattern[str], When]):
    """How a sentence is written, what matches it, and the conditions it stands for."""

    __slots__ = ()


def _template(words: str, pattern: str, when: When, *, nobody: bool = True) -> Template:
    whole = (_NOBODY if nobody else "") + pattern + _UNLESS
    return Template((words, re.compile(whole), when))


def _above(found: re.Match[str]) -> str:
    return f"> {found['amount']}"


_TEMPLATES: Final = (
    _template(
        "no agent can move more than AMOUNT in a run [without a hold]",
        rf"move more than {_AMOUNT} in a run",
        lambda found: {"effect": "money", "moved": _above(found)},
    ),
    _template(
        "no agent can move more than AMOUNT in a run through TOOL [without a hold]",
        rf"move more than {_AMOUNT} in a run through {_TOOL}",
        lambda found: {"tool": found["tool"], "run.sums + call.sums": _above(found)},
    ),
    _template(
        "no agent can move more than AMOUNT in one call [through TOOL] [without a hold]",
        rf"move more than {_AMOUNT} in one call(?: through {_TOOL})?",
        lambda found: {
            **({"tool": found["tool"]} if found["tool"] else {"effect": "money"}),
            "call.sums": _above(found),
        },
    ),
    _template(
        "no agent can call TOOL [in ENVIRONMENT] [without a hold]",
        rf"call {_TOOL}{_IN_ENVIRONMENT}",
        lambda found: {"tool": found["tool"], **_environment(found)},
    ),
    _template(
        "no agent can call TOOL more than AMOUNT times in a run [without a hold]",
        rf"call {_TOOL} more than {_AMOUNT} times in a run",
        lambda found: {"tool": found["tool"], "run.counts[tool]": f">= {found['amount']}"},
    ),
    _template(
        "no agent can call TOOL with /POINTER TEST [without a hold]",
        rf"call {_TOOL} with (?P<pointer>/\S+) (?P<test>.+?)",
        lambda found: {"tool": found["tool"], f"args[{found['pointer']}]": found["test"]},
    ),
    _template(
        "no agent can use EFFECT tools [in ENVIRONMENT] [without a hold]",
        rf"use {_EFFECT} tools{_IN_ENVIRONMENT}",
        lambda found: {"effect": found["effect"], **_environment(found)},
    ),
    _template(
        "no agent can use EFFECT tools after reading LABEL data [without a hold]",
        rf"use {_EFFECT} tools after reading (?P<label>[A-Za-z0-9_-]+) data",
        lambda found: {"effect": found["effect"], "run.labels": f"has {found['label']}"},
    ),
    _template(
        "only AGENT[, AGENT] can call TOOL [without a hold]",
        rf"only (?P<agents>[A-Za-z0-9_.:@-]+(?:, [A-Za-z0-9_.:@-]+)*) can call {_TOOL}",
        lambda found: {"tool": found["tool"], "agent": f"not in {found['agents']}"},
        nobody=False,
    ),
)

TEMPLATES: Final = tuple(template[0] for template in _TEMPLATES)
"""Every sentence there is. `[…]` may be left out."""


def read_sentence(text: str, id_: str) -> Statement:
    """Read a sentence as a statement. Raises `StatementError` with every template.

    With `without a hold` only what goes unasked breaks it; else also what people have approved.
    """
    plain = " ".join(text.split()).rstrip(".")
    for _, pattern, when in _TEMPLATES:
        found = pattern.fullmatch(plain)
        if found is not None:
            outcome = "permit" if found["hold"] else "goes"
            body = {"outcome": outcome, "when": when(found)}
            return read_statement({"text": plain, "never": body}, id_)
    known = "\n".join(f"  {words}" for words in TEMPLATES)
    raise StatementError(f"`{text}` is no sentence that is understood; write one of\n{known}")


def _environment(found: re.Match[str]) -> dict[str, str]:
    return {"environment": found["environment"]} if found["environment"] else {}
