"""What other policies would have changed, as programs and records are told of it.

The whole of it names agents and operations, and is kept beside a release. Records get numbers and
the digest of the whole, by which two publishers know that they saw the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec
import orjson

from gateway.core import canonical
from gateway.core.records.impact import KINDS, Impact

LEDGER_NOTE: Final = (
    "Compared with what was recorded, input by input: what a changed decision would have spared "
    "or spent in later calls is not computed."
)
COUNTED: Final = ("newly_denied", "newly_held", "newly_permitted", "error")

Unmeasured = Literal["no_decisions", "too_slow", "failed"]
"""Why nothing is known: nothing was decided lately, it took too long, or it could not be done."""


def describe(impact: Impact, revision: str) -> dict[str, Any]:
    """Return everything that a replay found, as JSON for programs."""
    return {
        "candidate": revision,
        "decisions": impact.total,
        "phases": dict(impact.phases),
        "changed": impact.changed,
        "counts": {kind: impact.kinds[kind] for kind in KINDS},
        "errors": dict(impact.errors),
        "missing": dict(impact.missing),
        "by_type": impact.by_type,
        "by_tool": impact.by("tool"),
        "by_agent": impact.by("agent"),
        "by_rule": impact.by("rule"),
        "rows": [msgspec.to_builtins(row) for row in impact.rows()],
        "note": LEDGER_NOTE,
    }


def write(told: Mapping[str, Any]) -> bytes:
    """Return the one spelling of what `describe` told: what its digest is of."""
    return canonical.canonicalize(dict(told))


def read(document: bytes) -> dict[str, Any]:
    """Return what `write` wrote."""
    return dict(orjson.loads(document))


def summarize(told: Mapping[str, Any]) -> dict[str, Any]:
    """Return the little of it that stands in a record: numbers, and the digest of the whole."""
    counts = {name: told["counts"][name] for name in COUNTED}
    return {
        "digest": canonical.digest_of(dict(told)),
        "since_s": told.get("since_s", 0),
        "decisions": told["decisions"],
        "changed": told["changed"],
        **counts,
        "missing": sum(told["missing"].values()),
    }


def unmeasured(why: Unmeasured) -> dict[str, Any]:
    """Return what stands in a record where nothing is known."""
    return {"unmeasured": why}
