"""What people see of the registry. No secret, and no hash of one."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.core.people.registry import Body, Kind, Member, Person, Proposal
from gateway.core.people.registry_checks import is_secret_hash

NAMES: dict[Kind, str] = {"agent": "agents", "client": "clients", "human": "users"}
"""Kind → what the API and the command line call it."""

_KEPT_IN = frozenset({"secret_hash", "secret_shared", "since", "opened_by", "opened_at"})


def build_member(member: Member, environment: str) -> dict[str, Any]:
    """One entry. Times in seconds since the epoch."""
    body = msgspec.to_builtins(member.body)
    view = {name: value for name, value in body.items() if name not in _KEPT_IN}
    view |= {"kind": member.kind, "state": member.state, "origin": member.origin}
    view |= {"environment": environment, "has_secret": bool(body.get("secret_hash"))}
    if member.kind == "human":
        view |= {"since": body["since"], "secret_shared": body["secret_shared"]}
        view |= _account(member.body)
    return {**view, "version": member.version, "changed_at": member.changed_at}


def build_proposal(proposal: Proposal, now: Member | None) -> dict[str, Any]:
    """What waits for a second person: who asks for what, and what would hold then.

    `now`: the entry as it is, None for a new one.
    """
    after = proposal.after
    view: dict[str, Any] = {
        "proposal": proposal.id,
        "action": proposal.action,
        "kind": after.kind,
        "id": after.id,
        "state": after.state,
        "asked_by": proposal.asked_by,
        "asked_at": proposal.asked_at,
        "expires_at": proposal.expires_at,
        "reason": proposal.reason,
    }
    view |= _account(None if now is None else now.body)
    before = now.body if now is not None and isinstance(now.body, Person) else Person(id="")
    if isinstance(after.body, Person):
        had, has = _held(before), _held(after.body)
        view |= {"granted": sorted(has - had), "revoked": sorted(had - has)}
    if after.body is not None:
        body = msgspec.to_builtins(after.body)
        view["after"] = {name: value for name, value in body.items() if name not in _KEPT_IN}
        # To compare with what the person reads out: whose secret it is decides who they are.
        view["after"]["secret"] = _short(body.get("secret_hash", ""))
    return view


def _account(body: Body | None) -> dict[str, Any]:
    """Who else could have a person's account; nothing if nobody else could."""
    if not isinstance(body, Person) or not body.opened_by:
        return {}
    return {"account_opened": {"by": list(body.opened_by), "at": body.opened_at}}


def _held(body: Person) -> set[str]:
    return {*body.roles, *body.groups}


def _short(secret_hash: str) -> str:
    return secret_hash.removeprefix("sha256:")[:16] if is_secret_hash(secret_hash) else ""
