"""The kill switch: what has been stopped, and whether that bars a call (DESIGN §4).

A *kill* names a target. Operators set and lift those of `SWITCHES`. `token`, `family` and `actor`
take authority back for good: of one token and what was handed on from it, of all tokens of a run,
of one agent within a run (whose own sub-agents go on; a handoff ends its giver so).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, Protocol

from msgspec import Struct

from gateway.core.approvals.approval import person
from gateway.core.catalog import Tool
from gateway.core.entry import Entry, Opening
from gateway.core.tokens.token import Claims

Kind = Literal[
    "agent",
    "client",
    "human",
    "run",
    "tool",
    "server",
    "credential",
    "all",
    "token",
    "family",
    "actor",
]
SWITCHES: Final[frozenset[Kind]] = frozenset(
    {"agent", "client", "human", "run", "tool", "server", "credential", "all"}
)
REVOCATIONS: Final[frozenset[Kind]] = frozenset({"token", "family"})
"""Told as `token.revoke`, and never lifted."""

EVERYTHING: Final = "*"
"""The target of kind `all`."""

KILLED: Final = "killed"
TOOL_KILLED: Final = "tool_killed"
REVOKED: Final = "token_revoked"
FEED_STALE: Final = "kill_feed_stale"

Why = Literal["command", "expired", "elsewhere"]
"""Why a kill ended: somebody lifted it, the time that was given with it is over, or another
process that shares the state lifted it and has that on its own record."""

_NAMES: Final[Mapping[Kind, str]] = {"token": "jti", "family": "root"}
_KEYED: Final = "key:"
_PEOPLE_MAX: Final = 4_096


class Kill(Struct, frozen=True, kw_only=True):
    """One kill. Times in seconds. `until` is None for one that stands until it is lifted.

    `by` is the person who did it, empty for the gateway itself; `reason` is what that person said,
    or the gateway's code.
    """

    id: str
    kind: Kind
    target: str
    at: int
    until: int | None = None
    by: str = ""
    reason: str = ""

    def is_over(self, now_s: int) -> bool:
        """Whether its own time has run out."""
        return self.until is not None and now_s >= self.until


class KillStore(Protocol):
    """Durable kills, shared by every process of a deployment. Each method is one transaction.

    What changes them returns the revision after it: it grows by one with every change by any
    process. Raises `CountersignError` `state_unavailable`.
    """

    async def put(self, kill: Kill) -> int:
        """Store a kill; one of this id that is there already stays, one that was ended too."""
        ...

    async def end(self, kill_ids: Sequence[str]) -> int:
        """Take kills away for good and remember that; ids that are not there are no error."""
        ...

    async def drop(self, kill_ids: Sequence[str]) -> int:
        """Forget kills whose time is over as if they had never been."""
        ...

    async def ended(self, kill_ids: Sequence[str]) -> set[str]:
        """Return those that were ended."""
        ...

    async def load(self, known: int | None) -> tuple[int, list[Kill]] | None:
        """Return all kills and the revision at which they stand; None where it is still `known`."""
        ...


def aim(kind: Kind, target: str) -> str:
    """Return the one spelling of a target: people have many names."""
    return person(target) if kind == "human" else target


def actor_target(run_id: str, agent: str) -> str:
    """Return the target of kind `actor`. Run ids hold no slash."""
    return f"{run_id}/{agent}"


def name_revocation(jti: str) -> str:
    """Return the id of the kill that revokes a token: however often, it is one."""
    return f"token:{jti}"


def find_revocations(claims: Claims) -> tuple[str, ...]:
    """Return the event ids under which a log has it that a token, or one above it, was revoked.

    The kill itself is forgotten once the token is over; what was held under it lives on.
    """
    above = (ancestor.id for ancestor in claims.ancestors)
    names = dict.fromkeys((claims.jti, claims.parent_jti, *above))
    return tuple(f"kill.set:{name_revocation(one)}" for one in names if one)


class KillSet:
    """What is stopped now. `find` is asked for every call, so it costs next to nothing.

    `credentials` says which upstream credentials a server is reached with. `key_id` returns what
    stands for a person in records: a kill that only the log remembers names no one else.
    """

    def __init__(
        self,
        *,
        credentials: Callable[[str], Sequence[str]] = lambda _server: (),
        key_id: Callable[[str], str] = lambda name: name,
    ) -> None:
        self._credentials = credentials
        self._key_id = key_id
        self._kills: dict[str, Kill] = {}
        self._targets: dict[Kind, dict[str, set[str]]] = {}
        self._people: dict[str, bool] = {}  # by any name, as long as no kill changes
        self._first_over_s: float = math.inf

    def add(self, kill: Kill) -> None:
        """Stop a target from now on."""
        self._people.clear()
        if kill.until is not None:
            self._first_over_s = min(self._first_over_s, kill.until)
        self._kills[kill.id] = kill
        self._targets.setdefault(kill.kind, {}).setdefault(kill.target, set()).add(kill.id)

    def remove(self, kill_id: str) -> None:
        """Take one kill away; its target stays stopped while another names it."""
        kill = self._kills.pop(kill_id, None)
        if kill is None:
            return
        self._people.clear()
        named = self._targets[kill.kind]
        named[kill.target].discard(kill_id)
        if not named[kill.target]:
            del named[kill.target]
        if not named:
            del self._targets[kill.kind]

    def get(self, kill_id: str) -> Kill | None:
        """Return a kill that stands."""
        return self._kills.get(kill_id)

    def standing(self) -> list[Kill]:
        """Return what stands, oldest first."""
        return sorted(self._kills.values(), key=lambda kill: (kill.at, kill.id))

    def spent(self, now_s: int) -> list[Kill]:
        """Return those whose own time is over. Costs nothing while there are none."""
        if now_s < self._first_over_s:
            return []
        ends = [kill.until for kill in self._kills.values() if kill.until is not None]
        self._first_over_s = min((end for end in ends if end > now_s), default=math.inf)
        found = [kill for kill in self._kills.values() if kill.is_over(now_s)]
        if found:  # asked again until they are gone
            self._first_over_s = now_s
        return found

    def of(self, kind: Kind, target: str) -> list[Kill]:
        """Return the kills of one target."""
        return [self._kills[one] for one in sorted(self._targets.get(kind, {}).get(target, ()))]

    def find(self, claims: Claims, tool: Tool | None = None) -> str | None:
        """Return the code under which a call is refused, or None. Time grows with ancestors only.

        INVARIANT: what bars a token bars everything that was handed on from it, however deep.
        """
        targets = self._targets
        if not targets:
            return None
        if "all" in targets or self._is_killed(claims):
            return KILLED
        if self._is_revoked(claims):
            return REVOKED
        if tool is not None and self._is_tool_killed(tool):
            return TOOL_KILLED
        return None

    def has_person(self, name: str) -> bool:
        """Whether a person may do nothing here, sign in included."""
        named = self._targets.get("human")
        if named is None:
            return False
        known = self._people.get(name)
        if known is None:
            if len(self._people) >= _PEOPLE_MAX:
                self._people.clear()
            known = self._people[name] = self._names(named, person(name))
        return known

    def _names(self, named: Mapping[str, object], found: str) -> bool:
        if found in named:
            return True
        has_keys = any(one.startswith(_KEYED) for one in named)
        return has_keys and _KEYED + self._key_id(found) in named

    def _is_killed(self, claims: Claims) -> bool:
        """Whether an agent, one that it acts for, their client, run or human is stopped."""
        targets = self._targets
        agents = targets.get("agent")
        if agents is not None and (
            claims.subject in agents or not agents.keys().isdisjoint(claims.actors)
        ):
            return True
        clients = targets.get("client")
        if clients is not None and claims.client_id in clients:
            return True
        runs = targets.get("run")
        if runs is not None and (claims.run_id in runs or claims.root_jti in runs):
            return True
        return claims.on_behalf_of is not None and self.has_person(claims.on_behalf_of)

    def _is_revoked(self, claims: Claims) -> bool:
        targets = self._targets
        families = targets.get("family")
        if families is not None and (claims.root_jti in families or claims.run_id in families):
            return True
        actors = targets.get("actor")
        if actors is not None and actor_target(claims.run_id, claims.subject) in actors:
            return True
        tokens = targets.get("token")
        if tokens is None:
            return False
        if claims.jti in tokens or claims.parent_jti in tokens:
            return True
        return any(ancestor.id in tokens for ancestor in claims.ancestors)

    def _is_tool_killed(self, tool: Tool) -> bool:
        targets = self._targets
        if tool.id in targets.get("tool", ()) or tool.server in targets.get("server", ()):
            return True
        credentials = targets.get("credential")
        return credentials is not None and not credentials.keys().isdisjoint(
            self._credentials(tool.server)
        )


# --- records


def build_kill_set(kill: Kill, op: str, key_id: Callable[[str], str]) -> Entry:
    """`kill.set`, or `token.revoke`. Idempotent by the kill's id; a person stands as their key."""
    fields: dict[str, Any] = {"kill": kill.id, **_target_fields(kill, key_id)}
    if kill.until is not None:
        fields["until"] = kill.until
    if kill.reason and not kill.by:
        fields["reason"] = kill.reason
    is_revocation = kill.kind in REVOCATIONS
    return Entry(
        type="token.revoke" if is_revocation else "kill.set",
        op=op,
        fields=fields,
        openings=_said(kill.by, kill.reason),
        event_id=f"kill.set:{kill.id}",
    )


def build_kill_lift(
    kill: Kill, op: str, key_id: Callable[[str], str], *, why: Why, by: str = "", reason: str = ""
) -> Entry:
    """`kill.lift`: durable before anything that the kill stopped goes on. Idempotent as above."""
    return Entry(
        type="kill.lift",
        op=op,
        fields={"kill": kill.id, **_target_fields(kill, key_id), "why": why},
        openings=_said(by, reason),
        event_id=f"kill.lift:{kill.id}",
    )


def read_kill(record: Mapping[str, Any]) -> Kill | None:
    """Return the kill that a record set; None for a `token.revoke` that names none."""
    if not isinstance(record.get("kill"), str):
        return None
    kind: Kind = record.get("kind", "all")
    target = record.get("target", EVERYTHING)
    if record["type"] == "token.revoke":
        kind = "token" if "jti" in record else "family"
        target = record[_NAMES[kind]]
    return Kill(
        id=record["kill"],
        kind=kind,
        target=_KEYED + target if kind == "human" else target,
        at=record["ts"] // 1_000_000,
        until=record.get("until"),
    )


def name_target(kill: Kill, key_id: Callable[[str], str]) -> str:
    """Return what stands for a target in records: a person stands as their key."""
    if kill.kind != "human":
        return kill.target
    is_keyed = kill.target.startswith(_KEYED)
    return kill.target.removeprefix(_KEYED) if is_keyed else key_id(kill.target)


def _target_fields(kill: Kill, key_id: Callable[[str], str]) -> dict[str, Any]:
    if kill.kind in REVOCATIONS:
        return {_NAMES[kill.kind]: kill.target}
    return {"kind": kill.kind, "target": name_target(kill, key_id)}


def _said(by: str, reason: str) -> tuple[Opening, ...]:
    if not by:
        return ()
    name = person(by)
    said = (Opening("by", name.encode(), name),)
    return (*said, Opening("reason", reason.encode(), name)) if reason else said
