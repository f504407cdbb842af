"""What a verified access token says (DESIGN §4; RFC 9068, RFC 9396), and what it allows."""

from __future__ import annotations

from msgspec import Struct

SCOPE_LIST = "tools:list"
SCOPE_CALL = "tools:call"


class Range(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """How many there may be, bounds included; a bound that is None does not bind."""

    min: int | None = None
    max: int | None = None


class Constraint(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Bounds on one argument, addressed by a JSON Pointer. Every member given must hold.

    An argument that is absent breaks its constraint: what cannot be checked is not allowed. What
    each member asks for is in `gateway.core.tokens.constraints`.
    """

    max: int | float | None = None
    min: int | float | None = None
    one_of: tuple[str | int | float | bool, ...] | None = None
    prefix: str | None = None
    suffix: str | None = None
    domain: tuple[str, ...] | None = None
    length: Range | None = None
    count: Range | None = None


class Window(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """When calls may happen, in UTC. `days` are those on which it opens; none named: all.

    `start` and `end` are `HH:MM`, `end` is no longer in it; one that ends before it starts ends on
    the next day. `not_before` and `not_after` are seconds since the epoch, both within it.
    """

    days: tuple[str, ...] = ()
    start: str = "00:00"
    end: str = "24:00"
    not_before: int | None = None
    not_after: int | None = None


class Grant(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Leave to call tools. `tool` is a name or `*`; `effects` narrows it by what tools do.

    As `authorization_details` it has `type: countersign_tool`, `locations` and `actions: ["call"]`.
    """

    server: str
    tool: str = "*"
    effects: tuple[str, ...] = ()
    constraints: dict[str, Constraint] = {}
    max_calls: int | None = None
    window: Window | None = None


class Budget(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """The most that a whole family may spend, however many tokens and sub-agents it has.

    `calls`: of all tools together. `sums`: `server.tool#/pointer` → the most that the values there
    may add up to; the pointer is one of the `sums` of the tool's manifest.
    """

    calls: int | None = None
    sums: dict[str, int | float] = {}


class Ancestor(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One above a token in its family: the run, or a token handed on.

    `limits` holds its grants as far as they count calls: what it may not call any more, those
    below it may not either.
    """

    id: str
    limits: tuple[Grant, ...] = ()


class Claims(Struct, frozen=True, kw_only=True):
    """A verified token. Times in seconds since the epoch.

    `subject` is the agent that acts. `actors` are those that it acts for, nearest first, up to the
    one whose run it is. `ancestors`: every token above it and all that counts its calls, the root
    first. `jkt`: thumbprint of the key that must prove possession (RFC 9449), or empty. `may_act`:
    the agent that it may be handed on to, besides those that the registry names.
    """

    issuer: str
    audience: str
    subject: str
    client_id: str
    jti: str
    issued_at: int
    expires_at: int
    scopes: frozenset[str]
    grants: tuple[Grant, ...]
    environment: str
    run_id: str
    root_jti: str
    sid: str
    depth: int = 0
    workflow: str = ""
    on_behalf_of: str | None = None
    allowed_values: dict[str, tuple[str, ...]] = {}
    roles: tuple[str, ...] = ()
    owner: str = ""
    origin: str = "launcher"
    actors: tuple[str, ...] = ()
    ancestors: tuple[Ancestor, ...] = ()
    parent_jti: str = ""
    max_depth: int = 0
    jkt: str = ""
    may_act: str = ""
    budget: Budget = Budget()
    version: str = ""
    """The agent's, as registered when the token was issued."""
    narrowed: tuple[str, ...] = ()
    """What its grants say that none above them does: `tool`, `max_calls` (`tokens.narrowing`)."""


class Run(Struct, frozen=True, kw_only=True):
    """The authority an agent acts under (DESIGN §4). `deadline` in seconds since the epoch.

    `credential_hash` is the SHA-256 of the run credential; the credential itself is never kept.
    `max_depth`: how often its authority may be handed on. `labels`: what its data carries from the
    start. `outcome`: what its launcher said of it at the end.
    """

    id: str
    agent: str
    launcher: str
    grants: tuple[Grant, ...]
    allowed_values: dict[str, tuple[str, ...]]
    created_at: int
    deadline: int
    credential_hash: str
    workflow: str = ""
    origin: str = "launcher"
    on_behalf_of: str | None = None
    ended: bool = False
    budget: Budget = Budget()
    max_depth: int = 0
    labels: tuple[str, ...] = ()
    may_act: str = ""
    outcome: str = ""
    dpop: bool = False
    """Whether each of its tokens must be bound to a key (RFC 9449)."""
