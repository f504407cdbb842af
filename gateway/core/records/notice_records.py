"""Notices: what policy has people told of, and whether they could be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from msgspec import Struct

from gateway.core.calls.call import ResolvedCall
from gateway.core.entry import Entry
from gateway.core.policy.decision import Hold, Permit, Phase
from gateway.core.records.call_records import build_actor, build_decision, build_tool

Delivery = Literal["delivered", "undelivered"]


class Notice(Struct, frozen=True):
    """One `notify` obligation met. `fields` name no natural person and hold no argument."""

    id: str
    op: str
    channel: str
    fields: dict[str, Any]


def build_notice(
    notice_id: str, channel: str, resolved: ResolvedCall, decision: Permit | Hold, phase: Phase
) -> Notice:
    """Say what happened: who called what, in which phase, and what policy decided and why."""
    fields = {
        "channel": channel,
        "phase": phase,
        "actor": build_actor(resolved.call.claims),
        "tool": build_tool(resolved.tool),
        "decision": build_decision(decision),
    }
    return Notice(notice_id, resolved.call.raw.op, channel, fields)


def build_entry(notice: Notice) -> Entry:
    """`notify`: people are to be told; durable before they are."""
    fields = {"notice": notice.id, **notice.fields}
    return Entry(type="notify", op=notice.op, fields=fields, event_id=f"notify:{notice.id}")


def build_end(notice: Notice, delivery: Delivery, attempts: int) -> Entry:
    """`notify.end`: they were told, or could not be."""
    fields = {"notice": notice.id, "delivery": delivery, "attempts": attempts}
    return Entry(type="notify.end", op=notice.op, fields=fields, event_id=f"notify.end:{notice.id}")


class PendingNotices:
    """Notices of a log that have no end there, in order."""

    def __init__(self) -> None:
        self._pending: dict[str, Notice] = {}

    def __iter__(self) -> Iterator[Notice]:
        return iter(tuple(self._pending.values()))

    def fold(self, record: Mapping[str, Any]) -> None:
        """Take note of one record, whatever it is."""
        if record["type"] == "notify":
            self._pending[record["notice"]] = read_notice(record)
        elif record["type"] == "notify.end":
            self._pending.pop(record["notice"], None)


def read_notice(record: Mapping[str, Any]) -> Notice:
    """Return the notice that a `notify` record tells of."""
    members = ("channel", "phase", "actor", "tool", "decision")
    fields = {name: record[name] for name in members if name in record}
    return Notice(record["notice"], record["op"], str(record.get("channel", "")), fields)
