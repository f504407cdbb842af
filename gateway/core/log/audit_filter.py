"""Which records somebody asks for: a filter, and the bytes that a line must have to pass it.

Lines are canonical JSON, so a member and its value are spelled in one way only: a line that lacks
those bytes need not be parsed.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import orjson
from msgspec import Struct

CLOSING: Final = frozenset({"call.outcome", "call.orphan"})
"""Records that tell how a call ended. They name its intent, and not who called what."""

_US: Final = 1_000_000
_DURATION: Final = re.compile(r"([1-9][0-9]{0,5})(s|m|h|d|w)")
_UNIT_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


class Filter(Struct, frozen=True, kw_only=True):
    """What a record must be. None and empty ask for nothing; times in µs, `until` is out.

    `types` are alternatives; one that ends in `*` is the start of a type. `rule` is
    `<policy>:<code>`, `<policy>:` for any code of it, or a reason without a policy.
    """

    agent: str | None = None
    tool: str | None = None
    rule: str | None = None
    op: str | None = None
    run: str | None = None
    decision: str | None = None
    types: tuple[str, ...] = ()
    since_us: int | None = None
    until_us: int | None = None

    @property
    def needles(self) -> tuple[bytes, ...]:
        """What must stand in the line of every record that passes by itself."""
        needles = [
            _member(name, value)
            for name, value in (
                ("agent", self.agent),
                ("id", self.tool),
                ("op", self.op),
                ("run", self.run),
                ("outcome", self.decision),
            )
            if value is not None
        ]
        if self.rule is not None:
            text = orjson.dumps(self.rule)
            needles.append(text[:-1] if self.rule.endswith(":") else text)
        if len(self.types) == 1 and not self.names_call:
            kind = self.types[0]
            needles.append(b'"type":' + _start(kind) if kind[-1:] == "*" else _member("type", kind))
        return tuple(needles)

    @property
    def names_call(self) -> bool:
        """Whether it asks for what only the start of a call says."""
        return any(
            value is not None
            for value in (self.agent, self.tool, self.rule, self.run, self.decision)
        )

    def admits_place(self, record: Mapping[str, Any]) -> bool:
        """Whether time, type and operation fit."""
        if not self.is_timely(record) or (self.op is not None and record.get("op") != self.op):
            return False
        return not self.types or any(_is_type(record.get("type"), kind) for kind in self.types)

    def is_timely(self, record: Mapping[str, Any]) -> bool:
        """Whether the time fits."""
        ts = record.get("ts")
        if not isinstance(ts, int):
            return self.since_us is None and self.until_us is None
        return (self.since_us is None or ts >= self.since_us) and (
            self.until_us is None or ts < self.until_us
        )

    def admits_call(self, record: Mapping[str, Any]) -> bool:
        """Whether agent, run, tool, decision and rule fit."""
        wanted = (
            (self.agent, _of(record, "actor", "agent"), record.get("agent")),
            (self.run, _of(record, "actor", "run"), record.get("run")),
            (self.tool, _of(record, "tool", "id"), None),
            (self.decision, _of(record, "decision", "outcome"), None),
        )
        if any(value is not None and value not in found for value, *found in wanted):
            return False
        return self.rule is None or any(
            reason == self.rule or (self.rule.endswith(":") and reason.startswith(self.rule))
            for reason in reasons_of(record)
        )


def reasons_of(record: Mapping[str, Any]) -> list[str]:
    """Return why a record's decision was made, and why a call was refused."""
    listed = _of(record, "decision", "reasons")
    reasons = [*listed] if isinstance(listed, list) else []
    reasons.append(record.get("reason"))
    return [reason for reason in reasons if isinstance(reason, str)]


class Selection:
    """Takes a log's records in order and tells which ones a filter asks for.

    How a call ended goes with its intent: the outcome of an intent that passed passes too, where
    time, type and operation fit. INVARIANT: it remembers only intents that are still open.
    """

    def __init__(self, wanted: Filter, subjects: Collection[str] = ()) -> None:
        """`subjects`: key ids; where there are any, only records that concern one of them pass."""
        self.filter: Final = wanted
        self.subjects: Final = frozenset(subjects)
        self._open: Final[set[int]] = set()
        self._names_call: Final = wanted.names_call
        self._follows: Final = self._names_call or bool(subjects)
        self._needles: Final = wanted.needles

    def may_take(self, line: bytes) -> bool:
        """Whether a record's line is worth parsing."""
        if self._open and b'"intent":' in line:
            return True
        return all(needle in line for needle in self._needles)

    def takes(self, record: Mapping[str, Any], seals: Collection[int] = ()) -> bool:
        """Whether the next record passes. `seals`: records with values under a subject's key."""
        intent = record.get("intent")
        is_end = isinstance(intent, int) and record.get("type") in CLOSING
        if self._follows and is_end and intent in self._open:
            self._open.discard(intent)
            return self.filter.admits_place(record)
        if not self._concerns(record, seals):
            return False
        if self._names_call and not self.filter.admits_call(record):
            return False
        if self._follows and record.get("type") == "call.intent" and self.filter.is_timely(record):
            self._open.add(record["seq"])
        return self.filter.admits_place(record)

    def _concerns(self, record: Mapping[str, Any], seals: Collection[int]) -> bool:
        if not self.subjects:
            return True
        subject = record.get("subject")
        return record.get("seq") in seals or (isinstance(subject, str) and subject in self.subjects)


def parse_when(text: str, now_us: int) -> int:
    """Read a time, µs since 1970: ISO 8601 with a time zone, a date (UTC), or how long ago (`7d`).

    Raises `ValueError` for anything else.
    """
    duration = _DURATION.fullmatch(text)
    if duration is not None:
        return now_us - int(duration[1]) * _UNIT_S[duration[2]] * _US
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is not None and moment.tzinfo is None and len(text) == len("2026-01-31"):
        moment = moment.replace(tzinfo=UTC)
    if moment is None or moment.tzinfo is None:
        raise ValueError(
            f"`{text}` is no time; write it as 2026-01-31T00:00:00Z, or how long ago as 7d"
        )
    return round(moment.timestamp() * _US)


def _is_type(kind: object, wanted: str) -> bool:
    if wanted.endswith("*"):
        return isinstance(kind, str) and kind.startswith(wanted[:-1])
    return kind == wanted


def _of(record: Mapping[str, Any], outer: str, inner: str) -> Any:  # noqa: ANN401 - a JSON value
    value = record.get(outer)
    return value.get(inner) if isinstance(value, Mapping) else None


def _member(name: str, value: str) -> bytes:
    return orjson.dumps(name) + b":" + orjson.dumps(value)


def _start(kind: str) -> bytes:
    return orjson.dumps(kind[:-1])[:-1]
