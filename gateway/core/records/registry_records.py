"""`registry.change`: what the log keeps of who is registered (docs/spec/audit-log-v1.md §9.1).

INVARIANT: no person stands in a field: they are named by the id of their key, or by tags, and
their names are openings under it. No secret and no hash of one is anywhere in it.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from gateway.core.approvals.approval import person
from gateway.core.entry import Entry, Opening
from gateway.core.people.registry import Action, Member, Person, Proposal
from gateway.core.people.registry_rules import Consent
from gateway.core.ports import OutboxEvent
from gateway.core.tags import person_tags

Step = Literal["applied", "proposed", "withdrawn"]


def build_applied(
    op: str,
    *,
    before: Member | None,
    after: Member,
    action: Action,
    by: str,
    consent: Consent,
    key_id: str,
    reason: str = "",
) -> OutboxEvent:
    """Build the record of a change that one person made."""
    fields = {
        **_changed("applied", action, before, after, key_id),
        "version": after.version,
        "alone": consent == "alone",
    }
    openings = [_name("by", by), *_contents(before, after)]
    return _event(op, fields, [*openings, *_why(reason, by)])


def build_confirmed(
    op: str, *, before: Member | None, after: Member, proposal: Proposal, by: str, key_id: str
) -> OutboxEvent:
    """Build the record of a change that two people made."""
    first, second = person(proposal.asked_by), person(by)
    fields = {
        **_changed("applied", proposal.action, before, after, key_id),
        "version": after.version,
        "alone": False,
        "proposal": proposal.id,
        "persons": person_tags(proposal.nonce, [first, second]),
    }
    openings = [_name("by.asked", first), _name("by.confirmed", second)]
    return _event(op, fields, [*openings, *_contents(before, after), *_why(proposal.reason, first)])


def build_proposed(
    op: str, *, before: Member | None, after: Member, proposal: Proposal, key_id: str
) -> OutboxEvent:
    """Build the record of a change that waits for a second person; nothing is changed by it."""
    fields = {
        **_changed("proposed", proposal.action, before, after, key_id),
        "proposal": proposal.id,
        "expires": proposal.expires_at,
    }
    openings = [_name("by", proposal.asked_by), *_contents(before, after)]
    return _event(op, fields, [*openings, *_why(proposal.reason, proposal.asked_by)])


def build_withdrawn(op: str, *, proposal: Proposal, by: str, key_id: str) -> OutboxEvent:
    """Build the record of a proposal that somebody took back."""
    fields = {
        "kind": proposal.after.kind,
        "entry": entry_name(proposal.after.kind, proposal.after.id, key_id),
        "change": proposal.action,
        "step": "withdrawn",
        "proposal": proposal.id,
    }
    return _event(op, fields, [_name("by", by)])


def entry_name(kind: str, member_id: str, key_id: str) -> str:
    """Return what names a member in records: `agent:bot`; a person by the id of their key."""
    return f"{kind}:{key_id if kind == 'human' else member_id}"


def _changed(
    step: Step, action: Action, before: Member | None, after: Member, key_id: str
) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "kind": after.kind,
        "entry": entry_name(after.kind, after.id, key_id),
        "change": action,
        "step": step,
        "before": "none" if before is None else before.state,
        "after": after.state,
    }
    if isinstance(after.body, Person):
        old = before.body if before is not None and isinstance(before.body, Person) else None
        had = () if old is None else old.roles
        fields["granted"] = sorted({*after.body.roles} - {*had})
        fields["revoked"] = sorted({*had} - {*after.body.roles})
    return fields


def _contents(before: Member | None, after: Member) -> list[Opening]:
    """What the entry said before and says after, for who may open it. An owner is a person."""
    found = []
    for path, member in (("content.before", before), ("content.after", after)):
        if member is not None:
            subject = person(getattr(member.body, "owner", "") or member.id)
            found.append(Opening(path, _write(member), subject))
    return found


def _write(member: Member) -> bytes:
    body = msgspec.to_builtins(member.body)
    body.pop("opened_by", None)  # other people, and this opening is under this one's key
    has_secret = bool(body.pop("secret_hash", ""))
    return msgspec.json.encode({**body, "has_secret": has_secret})


def _name(path: str, who: str) -> Opening:
    return Opening(path, person(who).encode(), person(who))


def _why(reason: str, by: str) -> list[Opening]:
    return [Opening("reason", reason.encode(), person(by))] if reason else []


def _event(op: str, fields: dict[str, Any], openings: list[Opening]) -> OutboxEvent:
    event_id = f"registry:{op}"
    entry = Entry(
        type="registry.change", op=op, fields=fields, openings=tuple(openings), event_id=event_id
    )
    return OutboxEvent(event_id=event_id, entry=entry)
