"""Numbers that a policy writes out, a minus before others, and how far `bits.lsh` moves.

OPA keeps a number as it is written, and writes it so (`json.marshal(1000.0)`); the embedded engine
keeps a double. Bundles of earlier versions are not asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Final

from gateway.adapters.policy.gate.policy_portable import below, mistake_at, written_name
from gateway.adapters.policy.policy_faults import Mistake
from gateway.adapters.policy.policy_package import Source
from gateway.adapters.policy.policy_syntax import Node, unwrap, written

_PLACES_MAX: Final = 53
_WHOLE: Final = (
    "number_written",
    "OPA writes this number with its point or exponent, the embedded engine without",
    "write it as a whole number: `1000`",
)
_LONG: Final = (
    "number_written",
    "OPA keeps all digits of this number, the embedded engine about 15",
    "write fewer digits",
)
_MINUS: Final = (
    "minus_of_value",
    "the embedded engine knows a minus before numbers that are written out, and fails on this",
    "write `0 - x`",
)
_SHIFT: Final = (
    "shift_unbounded",
    "`bits.lsh` by many places, or by what is known only later, can take all memory of an OPA",
    "write the number of places out, 0 to 53",
)


def find_digit_faults(source: Source) -> Iterator[Mistake]:
    """Yield numbers that engines keep differently, and shifts without a bound."""
    text = source.text.encode()
    for kind, body in below(source.module.tree):
        if kind == "Number":
            digits = written(text, body["span"])
            if not digits.lstrip("-").isdigit() and (fault := _fault(digits)):
                yield mistake_at(source, {kind: body}, *fault)
        elif kind == "UnaryExpr" and "Number" not in body["expr"]:
            yield mistake_at(source, body["expr"], *_MINUS)
        elif kind == "Call" and written_name(body["fcn"]) == "bits.lsh" and _is_open(body):
            yield mistake_at(source, {kind: body}, *_SHIFT)


def _fault(digits: str) -> tuple[str, str, str] | None:
    exact = Decimal(digits)
    if exact != Decimal(repr(float(digits))):
        return _LONG
    return _WHOLE if exact == exact.to_integral_value() else None


def _is_open(call: Node) -> bool:
    """Whether a number of places is not written out, or is too large."""
    kind, body = unwrap(call["params"][1]) if len(call["params"]) > 1 else ("", {})
    return kind != "Number" or not 0 <= float(body["value"]) <= _PLACES_MAX
