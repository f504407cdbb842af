"""What a verified access token says (DESIGN §4; RFC 9068, RFC 9396), and what it allows."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

SCOPE_LIST = "tools:list"
SCOPE_CALL = "tools:call"


class Constraint(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Bounds on one argument, addressed by a JSON Pointer. Every member given must hold.

    An argument that is absent breaks its constraint: what cannot be checked is not allowed.
    """

    max: int | float | None = None
    min: int | float | None = None
    one_of: tuple[str | int | float | bool, ...] | None = None
    prefix: str | None = None


class Grant(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Leave to call tools. `tool` is a name or `*`; `effects` narrows it by what tools do.

    As `authorization_details` it has `type: countersign_tool`, `locations` and `actions: ["call"]`.
    """

    server: str
    tool: str = "*"
    effects: tuple[str, ...] = ()
    constraints: dict[str, Constraint] = {}
    max_calls: int | None = None


class Claims(Struct, frozen=True, kw_only=True):
    """A verified token. Times in seconds since the epoch."""

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


class Run(Struct, frozen=True, kw_only=True):
    """The authority an agent acts under (DESIGN §4). `deadline` in seconds since the epoch.

    `credential_hash` is the SHA-256 of the run credential; the credential itself is never kept.
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
    budget: dict[str, Any] = {}
