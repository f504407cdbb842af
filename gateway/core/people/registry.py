"""Who there is: agents, clients and people, what state they are in, and who may change that.

::

    active ──suspend──> suspended        active, suspended ──retire──> retired
           <──resume───

Nobody comes back from `retired`, and no id is given twice. Entries of the configuration file are
members too: they are changed there, but suspended and retired here (docs/registry.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, Literal, Protocol

from msgspec import Struct
from msgspec.structs import replace

from gateway.core.approvals.approval import APPROVER, person
from gateway.core.ports import OutboxEvent
from gateway.core.tokens.clients import Agent, Client
from gateway.core.tokens.token import Claims

ADMIN: Final = "admin"
OPERATOR: Final = "operator"
AUDITOR: Final = "auditor"
PUBLISHER: Final = "policy_publisher"

ROLES: Final = (ADMIN, "policy_author", PUBLISHER, APPROVER, AUDITOR, OPERATOR)
"""Every role that a person can have here; anything else that policy asks for is a group."""

SENSITIVE: Final = frozenset({ADMIN, APPROVER, PUBLISHER})
"""Roles that decide what others may do: no one person gives or takes them."""

Kind = Literal["agent", "client", "human"]
State = Literal["active", "suspended", "retired"]
Origin = Literal["file", "registry"]
Move = Literal["suspend", "resume", "retire"]
Action = Literal["create", "update", "roles", "rotate_secret", "suspend", "resume", "retire"]

TRANSITIONS: Final[Mapping[State, Mapping[Move, State]]] = MappingProxyType(
    {
        "active": {"suspend": "suspended", "retire": "retired"},
        "suspended": {"resume": "active", "retire": "retired"},
        "retired": {},
    }
)

BARRED: Final = "identity_suspended"
"""The code under which authority of somebody suspended or retired is refused."""


class Person(Struct, frozen=True, kw_only=True):
    """Somebody at the admin API. `groups` are what policies ask to approve besides roles.

    `since`: role or group → when it was given, in seconds; one that is not in it was always there.
    `secret_shared`: somebody else was told the secret, so it proves nothing that takes two people.
    `opened_by`: who else could have it, having made the claim that set it up or been told a secret
    of it; `opened_at`: when the last of them could (seconds).
    `provisioned`: registered by an identity provider's word.
    """

    id: str
    roles: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    secret_hash: str = ""
    since: dict[str, int] = {}
    secret_shared: bool = False
    opened_by: tuple[str, ...] = ()
    opened_at: int = 0
    provisioned: bool = False


Body = Client | Person


class Member(Struct, frozen=True, kw_only=True):
    """One entry. `version` counts its changes; 0 for one of the file that nobody touched."""

    kind: Kind
    body: Body
    origin: Origin = "registry"
    state: State = "active"
    version: int = 0
    changed_at: int = 0

    @property
    def id(self) -> str:
        """The one id that it has among all kinds."""
        return self.body.id

    @property
    def is_active(self) -> bool:
        """Whether it may do anything."""
        return self.state == "active"


class Row(Struct, frozen=True, kw_only=True):
    """What is kept of a member. `body` is None for one of the file: only its state is kept."""

    id: str
    kind: Kind
    state: State
    version: int
    changed_at: int
    body: Body | None


class Proposal(Struct, frozen=True, kw_only=True):
    """A change that waits for a second person. Times in seconds.

    `version` is that of the member it would change (0: a new one); it holds for that one only.
    `nonce` is the secret that the tags of its people are made with.
    """

    id: str
    action: Action
    after: Row
    version: int
    asked_by: str
    asked_at: int
    expires_at: int
    nonce: str
    reason: str = ""


class Stored(Struct, frozen=True):
    """Everything that a store holds."""

    rows: list[Row]
    proposals: list[Proposal]


class RegistryStore(Protocol):
    """Durable members and proposals. Every change is one transaction with its outbox event."""

    async def load(self) -> Stored:
        """Return all that is kept, in the order of the ids."""
        ...

    async def commit(
        self,
        event: OutboxEvent,
        *,
        row: Row | None = None,
        proposal: Proposal | None = None,
        done: Sequence[str] = (),
    ) -> None:
        """Keep a member, keep a proposal, forget the proposals `done`, and emit the event."""
        ...

    async def outbox(self, limit: int = 100) -> list[OutboxEvent]:
        """Return events not yet relayed, in order."""
        ...

    async def relayed(self, event_ids: Sequence[str]) -> None:
        """Forget events that are durable in the log."""
        ...


class Registry:
    """Everybody there is, in memory. Looking somebody up never waits."""

    def __init__(self, members: Iterable[Member] = ()) -> None:
        self._members: dict[str, Member] = {}
        self._names: dict[str, str] = {}
        self._agents: set[str] = set()
        self._idle: set[str] = set()
        self._admins: set[str] = set()
        for member in members:
            self.put(member)

    def put(self, member: Member) -> None:
        """Know a member as it is from now on."""
        self._members[member.id] = member
        self._names[person(member.id)] = member.id
        self._agents.discard(member.id)
        self._idle -= {member.id, person(member.id)}
        if not member.is_active:
            self._idle |= {member.id, person(member.id)}
        elif isinstance(member.body, Agent):
            self._agents.add(member.id)
        if is_admin(member) and member.is_active:
            self._admins.add(person(member.id))
        else:
            self._admins.discard(person(member.id))

    def remember(self, row: Row) -> None:
        """Know of an entry that has left the file: its id stays given, and what was stopped barred.

        Nobody can let it go on before it is back in the file, which is where it says what it is.
        """
        self._names.setdefault(person(row.id), row.id)
        if row.state != "active":
            self._idle |= {row.id, person(row.id)}

    def find(self, member_id: str, kind: Kind | None = None) -> Member | None:
        """Return a member of this exact id, of any kind unless told; in any state."""
        found = self._members.get(member_id)
        return found if found is not None and kind in {None, found.kind} else None

    def of_kind(self, kind: Kind) -> list[Member]:
        """Return all members of a kind in the order of their ids."""
        return [one for _, one in sorted(self._members.items()) if one.kind == kind]

    def is_taken(self, member_id: str) -> bool:
        """Whether an id stands for somebody already: `Ann` and `ann` would be one person."""
        return person(member_id) in self._names

    def has_secret(self, secret_hash: str, *, but: str) -> bool:
        """Whether anybody `but` one has this secret: it would not tell who they are."""
        others = (one for one in self._members.values() if one.id != but)
        return bool(secret_hash) and any(one.body.secret_hash == secret_hash for one in others)

    def is_active_agent(self, agent_id: str) -> bool:
        """Whether there is such an agent, and it may act."""
        return agent_id in self._agents

    def active_person(self, person_id: str) -> Person | None:
        """Return the body of a person who may act; None for everybody else."""
        found = self._members.get(person_id)
        active = found is not None and found.is_active and isinstance(found.body, Person)
        return found.body if active else None  # type: ignore[union-attr,return-value]

    @property
    def admins(self) -> frozenset[str]:
        """The active admins, each by the one name that stands for all their names."""
        return frozenset(self._admins)

    def bars(self, claims: Claims) -> str | None:
        """Return the code that bars a token of somebody suspended, retired or unknown; else None.

        The agent that acts, whoever handed it its authority, the client that launched it and the
        person that it acts for: one of them suspended stops it all.
        """
        if claims.subject not in self._agents:
            return BARRED
        idle = self._idle
        if not idle:
            return None
        behind = claims.on_behalf_of
        stopped = (
            claims.client_id in idle
            or not idle.isdisjoint(claims.actors)
            or (behind is not None and person(behind) in idle)
        )
        return BARRED if stopped else None


def overlay(members: Iterable[Member], stored: Iterable[Row]) -> tuple[list[Member], list[str]]:
    """Join the file's members with what is kept; return them, and the ids that stand in both.

    INVARIANT: the file says what an entry is, the registry whether it may act; so a suspension
    holds whichever of them somebody writes to next.
    """
    known = {member.id: member for member in members}
    shadowed = []
    for row in stored:
        of_file = known.get(row.id)
        if of_file is not None:
            if row.body is not None:
                shadowed.append(row.id)
            standing = {"state": row.state, "version": row.version, "changed_at": row.changed_at}
            known[row.id] = replace(of_file, **standing)
        elif row.body is not None:
            known[row.id] = Member(
                kind=row.kind,
                body=row.body,
                state=row.state,
                version=row.version,
                changed_at=row.changed_at,
            )
    return list(known.values()), shadowed


def to_row(member: Member) -> Row:
    """Return what is kept of a member."""
    return Row(
        id=member.id,
        kind=member.kind,
        state=member.state,
        version=member.version,
        changed_at=member.changed_at,
        body=None if member.origin == "file" else member.body,
    )


def doubted(
    members: Iterable[Member], recorded: Mapping[str, int], key: Callable[[Member], str]
) -> list[Member]:
    """Return, suspended, the members of which the log tells later changes than the state does.

    The state was put back from a backup: what it says of them was true once. `recorded` is the last
    version of each in the log, by what `key` names a member there.
    """
    return [
        replace(member, state="suspended", version=last)
        for member in members
        if (last := recorded.get(key(member), 0)) > member.version and member.state != "retired"
    ]


def roles_of(member: Member | None) -> tuple[str, ...]:
    """Return the roles of a person; none for anything else."""
    return member.body.roles if member is not None and isinstance(member.body, Person) else ()


def is_admin(member: Member) -> bool:
    """Whether a member is an admin, active or not."""
    return ADMIN in roles_of(member)


def ripe(body: Person, now_s: int, delay_s: int) -> tuple[str, ...]:
    """Return the roles and groups that a person has had for `delay_s` seconds."""
    held = (*body.roles, *body.groups)
    return tuple(name for name in held if body.since.get(name, -delay_s) + delay_s <= now_s)
