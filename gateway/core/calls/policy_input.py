"""Policy input, version 1 (DESIGN §3; schema in `rego/schemas/input.v1.json`).

Written by hand from fragments that never change during a token's or a tool's life, because this
runs for every call. The bytes built here are the ones that are judged, committed to in the log
and judged again when a decision is recomputed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
import orjson
from msgspec import Struct

from gateway.core.catalog import Tool
from gateway.core.policy.decision import Phase
from gateway.core.tokens.token import Claims, Grant

_DOCUMENT: Final = (
    b'{"version":1,"phase":"%b",%b%b,"context":{%b"now_ns":%d,'
    b'"token":%b,"constraints":%b,"expires_in_s":%d},%b}'
)
"""Phase; head and resource; arguments; time; token, constraints and seconds left; the rest."""


class CallerFragments(Struct, frozen=True):
    """The parts of a policy input that a token fixes. JSON text has no closing braces.

    `constraints` is keyed by the identity of the token's own `Grant` objects.
    """

    head: bytes
    token: bytes
    run: dict[str, Any]
    client: dict[str, str]
    constraints: dict[int, bytes]


def build_caller(claims: Claims) -> CallerFragments:
    """Prepare a token's fragments; keep them as long as the token is cached."""
    subject = {
        "type": "agent",
        "id": claims.subject,
        "version": claims.version,
        "owner": claims.owner,
        "roles": list(claims.roles),
        "on_behalf_of": claims.on_behalf_of,
        "act": list(claims.actors),
    }
    token = {
        "scopes": sorted(claims.scopes),
        "allowed_values": claims.allowed_values,
        "depth": claims.depth,
        "origin": claims.origin,
        "narrowed": claims.narrowed,
    }
    head = b'"environment":%b,"subject":%b,"action":{"name":"tools/call"},"resource":' % (
        orjson.dumps(claims.environment),
        orjson.dumps(subject),
    )
    return CallerFragments(
        head,
        orjson.dumps(token)[:-1],
        {"id": claims.run_id, "workflow": claims.workflow},
        {"id": claims.client_id},
        {id(grant): msgspec.json.encode([grant]) for grant in claims.grants},
    )


def build_document(
    *,
    phase: Phase,
    caller: CallerFragments,
    claims: Claims,
    grant: Grant | None,
    tool: Tool,
    arguments: bytes | None,
    now_ns: int,
    ledger: Mapping[str, Any],
    budget: Mapping[str, Any] | None = None,
    day: Mapping[str, Any] | None = None,
    history: Mapping[str, Any] | None = None,
    provenance: Mapping[str, str] | None = None,
    claimed: Mapping[str, Any] | None = None,
    approval: Mapping[str, Any] | None = None,
    result: Mapping[str, Any] | None = None,
) -> bytes:
    """Return the policy input as JSON text.

    `arguments` is spliced in as sent (it was read strictly before), or left out in phase `list`.
    `ledger` is `Family.view_run`, `day` the last 24 hours, `history` what only packages that read
    the ledger get to see (`recent`, `repeats`, `last_minute`); `provenance` is there for tools with
    sinks.
    """
    constraints = b"[]" if grant is None else caller.constraints[id(grant)]
    run = {**caller.run, **ledger}
    family = {"counts": ledger["counts"], "sums": ledger["sums"]}
    if history is not None:
        run["recent"], run["repeats"] = history["recent"], history["repeats"]
        family["last_minute"] = history["last_minute"]
    if day is not None:
        family["last_24h"] = day
    if provenance is not None:
        run["provenance"] = provenance
    rest: dict[str, Any] = {
        "run": run,
        "family": family,
        "budget": budget or {},
        "client": caller.client,
        "claimed": claimed or {},
        "approval": approval,
    }
    if result is not None:
        rest["result"] = result
    return _DOCUMENT % (
        phase.encode(),
        caller.head,
        orjson.dumps(tool.resource),
        b"" if arguments is None else b'"args":%b,' % arguments,
        now_ns,
        caller.token,
        constraints,
        claims.expires_at - now_ns // 1_000_000_000,
        orjson.dumps(rest)[1:],
    )
