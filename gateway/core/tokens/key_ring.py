"""The keys that sign access tokens, and how one takes over from another without an outage.

::

    next ─promote→ active ─retire→ retired ─drop→ gone      next ─withdraw→ gone

All but `gone` are published and believed. A `next` key is published long enough for every cache
of the key set to know it before it signs; a `retired` one until the last token it signed is over.
A key that is `gone` stays known by its name, so that it never comes back.

INVARIANT: at most one key is active. Times are seconds since the epoch, 0 where not yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from msgspec import Struct
from msgspec.structs import replace

from gateway.core.approvals.approval import person
from gateway.core.entry import Entry, Opening

State = Literal["next", "active", "retired", "gone"]
Step = Literal["promote", "retire", "drop", "withdraw"]
Why = Literal["start", "command", "schedule"]

TRANSITIONS: Final[Mapping[tuple[State, Step], State]] = {
    ("next", "promote"): "active",
    ("next", "withdraw"): "gone",
    ("active", "retire"): "retired",
    ("retired", "drop"): "gone",
}
PUBLISHED: Final[frozenset[State]] = frozenset({"next", "active", "retired"})


class Timing(Struct, frozen=True):
    """How long a key is published before it signs, and after it did, in seconds.

    Caches may hold the key set for 300 s, tokens live for at most 300 s; clocks differ by 60 s.
    """

    publish_s: int = 360
    keep_s: int = 360
    max_age_s: int = 0
    """Age at which an active key is followed by the next one; 0: on command only."""


class RingKey(Struct, frozen=True, kw_only=True):
    """One key. `source` is the URI of its private half, `public` the other one as a JWK.

    `own`: the gateway made the private half, and destroys it when the key is gone.
    """

    kid: str
    state: State
    source: str
    public: dict[str, str]
    own: bool = False
    published_at: int = 0
    activated_at: int = 0
    retired_at: int = 0
    gone_at: int = 0


class KeyRing(Struct, frozen=True, kw_only=True):
    """The keys of one environment, in the order in which they came.

    `wanted`: somebody asked for the next key; it takes over as soon as it may.
    """

    environment: str
    keys: tuple[RingKey, ...] = ()
    wanted: bool = False

    def get(self, kid: str) -> RingKey | None:
        """Return a key by its name, also one that is gone."""
        return next((key for key in self.keys if key.kid == kid), None)

    def find(self, *states: State) -> tuple[RingKey, ...]:
        """Return the keys in these states."""
        return tuple(key for key in self.keys if key.state in states)

    @property
    def active(self) -> RingKey | None:
        """The key that signs."""
        return next(iter(self.find("active")), None)


class IllegalMoveError(ValueError):
    """A key cannot make this step from the state that it is in. A mistake of the caller."""


class Due(Struct, frozen=True):
    """What is to be done now. `make`: a next key is needed and there is none."""

    drop: tuple[str, ...] = ()
    promote: str | None = None
    make: bool = False


def add(
    ring: KeyRing, *, kid: str, source: str, public: Mapping[str, str], now_s: int, own: bool
) -> KeyRing:
    """Return the ring with a new key, which is published from now on and does not sign yet."""
    if ring.get(kid) is not None:
        raise IllegalMoveError(f"the key `{kid}` was in the ring before")
    key = RingKey(
        kid=kid, state="next", source=source, public=dict(public), own=own, published_at=now_s
    )
    return replace(ring, keys=(*ring.keys, key))


def promote(ring: KeyRing, kid: str, now_s: int) -> KeyRing:
    """Return the ring in which this key signs, and the one that did is retired."""
    active = ring.active
    if active is not None:
        ring = _move(ring, active.kid, "retire", now_s)
    return replace(_move(ring, kid, "promote", now_s), wanted=False)


def drop(ring: KeyRing, kid: str, now_s: int) -> KeyRing:
    """Return the ring without a key that no living token needs."""
    return _move(ring, kid, "drop", now_s)


def withdraw(ring: KeyRing, kid: str, now_s: int) -> KeyRing:
    """Return the ring without a key that never signed."""
    return _move(ring, kid, "withdraw", now_s)


def set_back(ring: KeyRing, now_s: int) -> KeyRing:
    """Return the ring with nothing in it later than now: what is waited for then begins anew.

    A clock that was wrong by a month, and was set right, would put everything off for a month.
    """
    times = ("published_at", "activated_at", "retired_at", "gone_at")
    if all(getattr(key, name) <= now_s for key in ring.keys for name in times):
        return ring
    keys = (
        replace(key, **{name: min(getattr(key, name), now_s) for name in times})
        for key in ring.keys
    )
    return replace(ring, keys=tuple(keys))


def find_due(ring: KeyRing, now_s: int, timing: Timing) -> Due:
    """Return what time has come for. A clock that goes back only delays."""
    over = (key for key in ring.find("retired") if now_s >= key.retired_at + timing.keep_s)
    coming, active = next(iter(ring.find("next")), None), ring.active
    age_s = now_s - active.activated_at if active is not None else 0
    ahead_s = timing.publish_s if coming is None else 0
    old = bool(timing.max_age_s) and age_s >= timing.max_age_s - ahead_s
    asked = ring.wanted or old
    known = coming is not None and now_s >= coming.published_at + timing.publish_s
    return Due(
        drop=tuple(key.kid for key in over),
        promote=coming.kid if coming is not None and asked and known else None,
        make=asked and coming is None,
    )


def build_key_change(
    op: str, key: RingKey, environment: str, why: Why, *, by: str | None = None
) -> Entry:
    """`token_key.change`: a key came to a state, or a person asked that it follow the active one.

    The private half is nowhere in it; the person only as an opening under their own key.
    """
    openings = () if by is None else (Opening("by", person(by).encode(), person(by)),)
    fields: dict[str, Any] = {
        "kid": key.kid,
        "state": key.state,
        "environment": environment,
        "why": why,
    }
    return Entry(type="token_key.change", op=op, fields=fields, openings=openings)


def _move(ring: KeyRing, kid: str, step: Step, now_s: int) -> KeyRing:
    key = ring.get(kid)
    state = None if key is None else TRANSITIONS.get((key.state, step))
    if key is None or state is None:
        raise IllegalMoveError(f"the key `{kid}` cannot {step} now")
    moved = {
        "active": replace(key, state="active", activated_at=max(now_s, key.published_at)),
        "retired": replace(key, state="retired", retired_at=max(now_s, key.activated_at)),
        "gone": replace(key, state="gone", gone_at=max(now_s, key.published_at), public={}),
    }[state]
    return replace(ring, keys=tuple(moved if one.kid == kid else one for one in ring.keys))
