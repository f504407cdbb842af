"""One decision as an event of OPA's decision log, without what is masked.

The members are those of openpolicyagent.org/docs/management-decision-logs, so that what reads
OPA's logs reads ours. `erased` names what was taken out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import orjson
from msgspec import Struct

from gateway.core.pointer import split
from gateway.core.policy.decision import Decision, Deny, Hold, Permit, Phase

PATH: Final = "countersign/decision"
MASK: Final = (
    "/input/subject/owner",
    "/input/subject/on_behalf_of",
    "/input/context/args",
    "/input/context/result",
    "/input/context/claimed",
    "/input/context/token/allowed_values",
    "/input/context/token/constraints",
    "/result/reasons/*/message",
)
"""What is taken out unless the configuration says else: values, and who is behind an agent."""

_NS: Final = 1_000_000_000
_ANY: Final = "*"
_INDEX_MAX_CHARS: Final = 9


class Logged(Struct, frozen=True):
    """A decision as it was observed: what was asked (JSON), what came of it, and when."""

    tool_id: str
    phase: Phase
    document: bytes
    decision: Decision
    at_ns: int


def build_event(
    logged: Logged, *, decision_id: str, labels: Mapping[str, str], mask: Sequence[str], number: int
) -> bytes:
    """Return the event as JSON. INVARIANT: what `mask` leads to is not in it."""
    # Read from JSON both: what is masked is found in dicts and lists, and in nothing else.
    result = orjson.loads(orjson.dumps(_result(logged.decision)))
    document = {"input": orjson.loads(logged.document), "result": result}
    erased = [pointer for pointer in mask if erase(document, split(pointer))]
    event: dict[str, Any] = {
        "labels": dict(labels),
        "decision_id": decision_id,
        "bundles": {"countersign": {"revision": logged.decision.revision}},
        "path": PATH,
        **document,
        "timestamp": format_time(logged.at_ns),
        "req_id": number,
    }
    if erased:
        event["erased"] = erased
    return orjson.dumps(event)


def _result(decision: Decision) -> dict[str, Any]:
    outcome = {Permit: "permit", Hold: "hold", Deny: "deny"}[type(decision)]
    result: dict[str, Any] = {
        "outcome": outcome,
        "reasons": msgspec.to_builtins(decision.reasons),
    }
    if not isinstance(decision, Deny):
        result["obligations"] = [each.spec for each in decision.obligations]
    if isinstance(decision, Hold):
        result["approval"] = msgspec.to_builtins(decision.approval)
    return result


def erase(value: Any, path: tuple[str, ...]) -> bool:  # noqa: ANN401 - any JSON
    """Take out what `path` leads to; `*` is each member or item. Whether there was anything."""
    if not path:
        return False
    name, rest = path[0], path[1:]
    if isinstance(value, dict):
        names = list(value) if name == _ANY else [name] if name in value else []
        if not rest:
            for each in names:
                del value[each]
            return bool(names)
        return sum(erase(value[each], rest) for each in names) > 0  # `any` would end at the first
    if isinstance(value, list):
        if not rest and name == _ANY:
            found = bool(value)
            value.clear()
            return found
        return _erase_items(value, name, rest)
    return False


def _erase_items(items: list[Any], name: str, rest: tuple[str, ...]) -> bool:
    """Take out of a list; an item that is a whole is made null, so that the others keep places."""
    if name == _ANY:
        return sum(erase(item, rest) for item in items) > 0
    is_index = name.isascii() and name.isdigit() and len(name) <= _INDEX_MAX_CHARS
    if not is_index or int(name) >= len(items):
        return False
    if rest:
        return erase(items[int(name)], rest)
    items[int(name)] = None
    return True


def format_time(at_ns: int) -> str:
    """Return a time as RFC 3339 has it, in UTC with nanoseconds."""
    whole, rest = divmod(at_ns, _NS)
    return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"
