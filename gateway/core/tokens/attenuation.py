"""Handing authority on: what a child token says, never more than its parent (DESIGN §4; RFC 8693).

INVARIANT: a call that the parent may not make, the child may not make, and what children spend is
charged to everybody above them. Whatever cannot be shown to be narrower is refused.
"""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from gateway.core.tokens.clients import Agent
from gateway.core.tokens.grants import EffectOf, find_excess, knows_nothing
from gateway.core.tokens.issuing import Site, Wish
from gateway.core.tokens.narrowing import NARROWED, find_narrowed
from gateway.core.tokens.spending import build_ancestors
from gateway.core.tokens.token import Claims


class TooWide(Struct, frozen=True):
    """Why a child would not be narrower. `error` is the error code of OAuth."""

    error: str
    why: str


def build_child(
    parent: Claims,
    actor: Agent,
    *,
    site: Site,
    jti: str,
    wish: Wish,
    now_s: int,
    effect_of: EffectOf = knows_nothing,
) -> Claims | TooWide:
    """Return what a token says with which `actor` acts for `parent`'s agent. Numbered by attack."""
    scopes = parent.scopes if wish.scopes is None else wish.scopes
    grants = parent.grants if wish.grants is None else wish.grants
    # 1. A chain without end, in which nobody can tell any more who asked for what.
    if parent.depth >= parent.max_depth:
        return TooWide("invalid_grant", "this authority may not be handed on any further")
    if actor.id in {parent.subject, *parent.actors}:
        return TooWide("invalid_request", "the actor acts in this chain already")
    # 2. More than the parent has.
    if not scopes <= parent.scopes:
        return TooWide("invalid_scope", "the parent token does not have this scope")
    excess = find_excess(parent.grants, grants, effect_of)
    if excess is not None:
        return TooWide("invalid_authorization_details", excess)
    # 3. A bound token made into one that whoever steals it can use.
    if parent.jkt and not wish.jkt:
        return TooWide("invalid_dpop_proof", "the parent token is bound to a key; send a proof")
    return replace(
        parent,
        subject=actor.id,
        actors=(parent.subject, *parent.actors),
        owner=actor.owner,
        version=actor.version,
        # 4. A strong role picked up on the way: policy sees those that the whole chain has.
        roles=tuple(role for role in parent.roles if role in actor.roles),
        jti=jti,
        parent_jti=parent.jti,
        depth=parent.depth + 1,
        issued_at=now_s,
        # 5. A child that outlives its parent.
        expires_at=min(now_s + site.ttl_s, parent.expires_at),
        scopes=scopes,
        grants=grants,
        narrowed=tuple(
            name
            for name in NARROWED
            if name in {*parent.narrowed, *find_narrowed(parent.grants, grants)}
        ),
        # 6. Ten children as ten budgets.
        ancestors=build_ancestors(parent),
        jkt=wish.jkt,
    )


def may_hand_on(parent: Claims, giver: Agent, actor: Agent) -> bool:
    """Whether the run or the registry lets `giver` hand a part of `parent` to `actor`."""
    return actor.id == parent.may_act or actor.id in giver.may_delegate_to
