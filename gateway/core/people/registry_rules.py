"""The rules of the registry: who may change whom, and what takes two people (docs/registry.md).

INVARIANT: as long as two people are active admins, nothing that one person does gives or takes a
role of `SENSITIVE`, or anything of somebody who has one.
"""

from __future__ import annotations

from typing import Final, Literal

from msgspec.structs import replace

from gateway.core.approvals.approval import person
from gateway.core.approvals.declined import Declined
from gateway.core.people.registry import (
    ADMIN,
    OPERATOR,
    SENSITIVE,
    TRANSITIONS,
    Action,
    Body,
    Member,
    Move,
    Person,
    Proposal,
    Registry,
    State,
    is_admin,
    roles_of,
)

Consent = Literal["plain", "alone", "second"]
"""One person is enough; it would take two, but there is only one; it waits for a second one."""

_STOPS: Final[frozenset[Action]] = frozenset({"suspend", "resume"})


def move(before: Member, step: Move, now_s: int) -> Member | Declined:
    """Return a member after a step of its life, or why it cannot be taken."""
    target = TRANSITIONS[before.state].get(step)
    if target is None:
        hint = "nobody comes back from that" if before.state == "retired" else "it stays so"
        return Declined("registry_conflict", f"`{before.id}` is `{before.state}`; {hint}")
    return replace(before, state=target, version=before.version + 1, changed_at=now_s)


def consent(
    registry: Registry, *, by: str, before: Member | None, after: Member, action: Action
) -> Consent | Declined:
    """Say whether `by` may do this, and whether that takes a second person."""
    roles = _roles_now(registry, by)
    two = is_sensitive(before, after)
    own = action == "rotate_secret" and before is not None and person(by) == person(before.id)
    # 1. Least authority: operators stop and resume what decides nothing; the rest is for admins.
    if ADMIN not in roles and not own and (two or OPERATOR not in roles or action not in _STOPS):
        return Declined("role_missing", _who_may(action, two=two))
    # 2. A registry that nobody could change any more.
    if (fault := _find_lockout(registry, before, after)) is not None:
        return fault
    # 3. One person who makes themself, or a friend, somebody who decides. A new secret of one's own
    #    gives nobody anything.
    if own or not two:
        return "plain"
    # 4. Becoming somebody else by their secret: whoever was told it could vote twice.
    if (fault := _find_shared(before, after)) is not None:
        return fault
    if len(registry.admins) <= 1:
        return "alone"
    # 5. Becoming somebody else by a claim or a secret that one was given, and deciding in their
    #    place: that they have changed it since may have been oneself.
    return _find_maker(after.body, after.state, by) or "second"


def find_confirm_fault(
    registry: Registry, proposal: Proposal, *, by: str, now_s: int
) -> Declined | None:
    """Say why `by` cannot confirm a proposal now, or return None. Numbered by attack."""
    target = registry.find(proposal.after.id)
    # 1. Somebody without the right to, and a proposal of somebody who has lost it since.
    if ADMIN not in _roles_now(registry, by):
        return Declined("role_missing", "only an `admin` confirms; ask another one")
    if ADMIN not in _roles_now(registry, proposal.asked_by):
        return Declined("registry_conflict", "who asked is no active admin any more; ask anew")
    # 2. One person twice, under whichever spelling.
    if person(by) == person(proposal.asked_by):
        return Declined("registry_same_person", "a second person must confirm; you asked for it")
    # 3. Somebody deciding about themself.
    if person(by) == person(proposal.after.id):
        return Declined("registry_own_change", "nobody confirms a change of their own entry")
    # 4. Somebody who may have taken the account over by a claim that they made for it, or a secret
    #    that they were told. It is as it was when this was asked: either changes the entry.
    row = proposal.after
    if row.body is not None and (fault := _find_maker(row.body, row.state, by)) is not None:
        return fault
    # 5. A consent to what is no more: it ran out, or the entry is another one by now.
    if now_s >= proposal.expires_at:
        return Declined("registry_conflict", "nobody confirmed it in time; propose it anew")
    if (0 if target is None else target.version) != proposal.version or (
        target is None and registry.is_taken(proposal.after.id)
    ):
        return Declined("registry_conflict", "the entry has changed since; propose it anew")
    return None


def rebuild(registry: Registry, proposal: Proposal, now_s: int) -> Member | Declined:
    """Return the member as a confirmed proposal makes it. Call after `find_confirm_fault`."""
    row = proposal.after
    before = registry.find(row.id)
    body = before.body if row.body is None and before is not None else row.body
    if body is None:
        return Declined("registry_conflict", "the entry has left the configuration file")
    after = Member(
        kind=row.kind,
        body=body,
        origin="file" if row.body is None else "registry",
        state=row.state,
        version=proposal.version + 1,
        changed_at=now_s,
    )
    return _find_lockout(registry, before, after) or dated(before, after, now_s)


def dated(before: Member | None, after: Member, now_s: int) -> Member:
    """Return a member whose new roles and groups begin now."""
    if not isinstance(after.body, Person) or after.origin == "file":
        return after
    old = before.body if before is not None and isinstance(before.body, Person) else Person(id="")
    held = {*old.roles, *old.groups}
    since = {
        name: old.since.get(name, 0) if name in held else now_s
        for name in (*after.body.roles, *after.body.groups)
    }
    return replace(after, body=replace(after.body, since=since))


def is_sensitive(before: Member | None, after: Member) -> bool:
    """Whether a change is of somebody who decides, or makes somebody decide."""
    return not SENSITIVE.isdisjoint((*roles_of(before), *roles_of(after)))


def is_due(proposal: Proposal, now_s: int) -> bool:
    """Whether a proposal has waited for too long."""
    return now_s >= proposal.expires_at


def _roles_now(registry: Registry, by: str) -> tuple[str, ...]:
    body = registry.active_person(by)
    return () if body is None else body.roles


def _who_may(action: Action, *, two: bool) -> str:
    if two and action in _STOPS:
        return "only admins stop who decides, two together; in haste use the kill switch"
    return "this needs the role `admin`" + (" or `operator`" if action in _STOPS else "")


def _find_lockout(registry: Registry, before: Member | None, after: Member) -> Declined | None:
    if before is None or not (is_admin(before) and before.is_active):
        return None
    if (is_admin(after) and after.is_active) or registry.admins != {person(before.id)}:
        return None
    return Declined("registry_last_admin", "nobody could change anything any more; name an admin")


def _find_maker(body: Body, state: State, by: str) -> Declined | None:
    if not isinstance(body, Person) or not body.opened_by or state != "active":
        return None
    if person(by) not in map(person, body.opened_by) or SENSITIVE.isdisjoint(body.roles):
        return None
    return Declined(
        "registry_same_person",
        f"the account of `{body.id}` was opened by a claim or secret of yours; let two other "
        "admins do this, or register them under another id with the hash of a secret they made",
    )


def _find_shared(before: Member | None, after: Member) -> Declined | None:
    body = after.body
    if not isinstance(body, Person) or not body.secret_shared or not after.is_active:
        return None
    if before is not None and SENSITIVE.isdisjoint(roles_of(after)):
        return None
    return Declined(
        "registry_secret_shared",
        f"the secret of `{body.id}` is known to somebody else; they make one of their own first",
    )
