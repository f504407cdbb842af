"""How `countersign policy` tells why rules fired or stopped."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import orjson

from gateway.adapters.authoring.policy_explain import Stop, Traced

_VALUE_MAX: Final = 80
_VALUES_MAX: Final = 3


def tell_rule(traced: Traced, indent: str) -> Iterator[str]:
    """Yield what became of one body of a rule."""
    place = f"{traced.file}:{traced.row}"
    if traced.items:
        shown = ", ".join(_item(item) for item in traced.items[:_VALUES_MAX])
        yield f"{indent}{traced.rule} {place} holds: {shown}"
    elif traced.stopped is not None:
        stopped = traced.stopped
        at = f"{stopped.row}:{stopped.col}"
        yield f"{indent}{traced.rule} {place} stopped at {at}: {stopped.text}"
        yield from tell_stop(stopped, indent + "    ")
    else:
        yield f"{indent}{traced.rule} {place}: {traced.problem or 'gave nothing'}"


def tell_stop(stopped: Stop, indent: str) -> Iterator[str]:
    """Yield the values at which an expression stopped, and what it stands on."""
    # A rule that it stands on is told by itself.
    for text, values in ({} if stopped.below else stopped.values).items():
        shown = " or ".join(_short(value) for value in values[:_VALUES_MAX]) or "undefined"
        why = stopped.missing.get(text)
        yield f"{indent}{text} = {shown}" + (f": {why}" if why else "")
    for each in stopped.below:
        yield from tell_rule(each, indent)


def _item(item: object) -> str:
    code = item.get("code") if isinstance(item, dict) else None
    return code if isinstance(code, str) else _short(item)


def _short(value: object) -> str:
    if isinstance(value, dict) and {"outcome", "reasons"} <= value.keys():
        return _decision(value)
    text = orjson.dumps(value).decode()
    return text if len(text) <= _VALUE_MAX else f"{text[: _VALUE_MAX - 1]}…"


def _decision(value: dict[str, Any]) -> str:
    """Return the outcome of a whole decision, and which packages say why."""
    reasons = (each for each in value["reasons"] if isinstance(each, dict))
    said = (f"{each.get('code')} ({each.get('policy', 'nobody')})" for each in reasons)
    return f"{value['outcome']}: {', '.join(said)}"
