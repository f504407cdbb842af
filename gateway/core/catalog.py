"""The catalog: which tools exist, what reviewers said of them, and what may be called (DESIGN §2).

A *definition* is what the upstream says of a tool. A *review* is what our manifest says. Only a
tool whose live definition still has the digest that the reviewer pinned is callable.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol

from msgspec import Struct

Effect = Literal[
    "read", "create", "update", "delete", "external_send", "money", "privilege", "unreviewed"
]
Idempotency = Literal["key", "natural", "none"]
ToolState = Literal["callable", "unreviewed", "unpinned", "quarantined", "missing"]
"""`unreviewed`: no manifest names it. `unpinned`: named, but no digest approved yet.
`quarantined`: the live definition is not the approved one. `missing`: not offered upstream."""


class Review(Struct, frozen=True, kw_only=True):
    """What a manifest says of one tool. Pointers are RFC 6901, into the arguments.

    `sinks` say where data goes; `texts` are read by others, and links in them lead somewhere.
    `sums_optional`: those of `sums` that a call may leave out.

    `input_schema` and `output_schema` are the manifest's `in` and `out`: what the reviewer demands
    beyond the upstream's own schema. `undo`, `preview` and `prestate` name a tool, or give a
    template of a call. `cost` is per call; `rate` is calls and the seconds in which they may be
    made. `trusted` and `sensitive_out` lead into the output, where `*` is each of a list: what
    strangers cannot write there, although the tool has the label `untrusted`, and what is personal
    or secret there.
    """

    name: str
    effect: Effect
    reversible_by: str | None = None
    undo: str | Mapping[str, Any] | None = None
    idempotency: Idempotency = "none"
    sensitive: tuple[str, ...] = ()
    sensitive_out: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    sinks: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    sums: tuple[str, ...] = ()
    sums_optional: tuple[str, ...] = ()
    trusted: tuple[str, ...] = ()
    operation_id_at: str | None = None
    input_schema: Mapping[str, Any] | None = None
    output_schema: Mapping[str, Any] | None = None
    preview: str | Mapping[str, Any] | None = None
    prestate: str | Mapping[str, Any] | None = None
    cost: int | float = 0
    rate: tuple[int, int] | None = None
    retry: Literal["never", "safe"] = "never"
    definition_digest: str | None = None
    reviewed_by: str | None = None


class SchemaCheck(Protocol):
    """A compiled JSON Schema, closed where the schema is silent."""

    def failure(self, arguments: Mapping[str, Any]) -> str | None:
        """Return where and which rule `arguments` break (never their values), or None."""
        ...


class Tool(Struct, frozen=True, kw_only=True):
    """One callable tool: the approved definition and its review, ready for the call path.

    `definition` is the upstream's own JSON object, byte for byte; `resource` is the fixed
    `resource` member of the policy input. `param_headers` are the arguments that callers repeat in
    headers (MCP 2026-07-28), as pairs of header name and path.
    """

    id: str
    server: str
    name: str
    wire_name: str
    review: Review
    definition: bytes
    definition_digest: str
    schema: SchemaCheck
    resource: Mapping[str, Any]
    param_headers: tuple[tuple[str, tuple[str, ...]], ...] = ()


class CatalogView(Protocol):
    """A snapshot of the callable tools. Cheap to ask; replaced as a whole when anything changes."""

    @property
    def version(self) -> str:
        """Changes whenever the set of callable tools or any definition does."""
        ...

    def find(self, name: str, server: str | None) -> Tool | None:
        """Return the callable tool of this wire name (or bare name, with `server`), or None."""
        ...

    def callable_tools(self, server: str | None) -> tuple[Tool, ...]:
        """Every callable tool in a fixed order, of one server or of all."""
        ...
