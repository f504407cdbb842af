"""Which tools exist, and which of them may be called: reviews joined with live listings.

A tool is callable when a reviewed manifest names it, the upstream still offers it, and its live
definition has the digest that the reviewer approved. Everything else stays hidden from agents and
is shown to operators with the reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Final

from msgspec import Struct

from connectors.listing import Offer, read_offers
from connectors.manifest import Manifest
from connectors.schema import compile_schema
from gateway.core import names
from gateway.core.canonical import digest_of
from gateway.core.catalog import Review, Tool, ToolState
from gateway.protocol.param_headers import read_param_headers


class ToolStatus(Struct, frozen=True, kw_only=True):
    """One tool as operators see it. `problem`: why it is not callable although its state is."""

    server: str
    name: str
    wire_name: str
    state: ToolState
    effect: str
    approved_digest: str | None = None
    live_digest: str | None = None
    reviewed_by: str | None = None
    problem: str | None = None

    @property
    def usable(self) -> bool:
        """Whether agents may call it, policy and grants permitting."""
        return self.state == "callable" and self.problem is None


class Snapshot:
    """The callable tools at one moment. Implements `core.catalog.CatalogView`."""

    def __init__(self, tools: Iterable[Tool]) -> None:
        self._tools = tuple(sorted(tools, key=lambda tool: tool.id))
        self._by_wire_name = {tool.wire_name: tool for tool in self._tools}
        self._by_name = {(tool.server, tool.name): tool for tool in self._tools}
        self._by_server: dict[str, tuple[Tool, ...]] = {}
        for tool in self._tools:
            self._by_server[tool.server] = (*self._by_server.get(tool.server, ()), tool)
        self._version = digest_of([[tool.wire_name, tool.resource] for tool in self._tools])

    @property
    def version(self) -> str:
        """Changes whenever the set of callable tools or any definition does."""
        return self._version

    def find(self, name: str, server: str | None) -> Tool | None:
        """Return the callable tool of this wire name, or of this bare name on `server`."""
        if server is None:
            return self._by_wire_name.get(name)
        return self._by_name.get((server, name))

    def callable_tools(self, server: str | None) -> tuple[Tool, ...]:
        """Every callable tool in the order of their ids, of one server or of all."""
        return self._tools if server is None else self._by_server.get(server, ())


class Catalog:
    """Keeps the reviews and the last live listing of every server.

    ::

        catalog = Catalog()
        catalog.review(load_manifest(path), prefix=True)
        catalog.offer("acme", await transport.list_tools())
        enforcement = Enforcement(catalog=catalog.view, …)

    `view` returns an immutable snapshot that is replaced as a whole when anything changes.
    """

    def __init__(self) -> None:
        self._manifests: dict[str, tuple[Manifest, bool]] = {}
        self._listings: dict[str, tuple[bytes, ...]] = {}
        self._built: dict[str, tuple[Tool, ...]] = {}
        self._states: dict[str, tuple[ToolStatus, ...]] = {}
        self._snapshot = Snapshot(())

    def view(self) -> Snapshot:
        """Return the callable tools as they are now."""
        return self._snapshot

    def states(self) -> tuple[ToolStatus, ...]:
        """Every tool that a manifest names or an upstream offers, by server and name."""
        shared = self._shared_wire_names()
        return tuple(
            _with_clash(status, shared)
            for server in sorted(self._states)
            for status in self._states[server]
        )

    def review(self, manifest: Manifest, *, prefix: bool = True) -> None:
        """Take the reviews of one server, replacing earlier ones.

        `prefix` puts the server's id before the wire names of its tools.
        """
        self._manifests[manifest.id] = (manifest, prefix)
        self._rebuild(manifest.id)

    def offer(self, server: str, definitions: Sequence[bytes]) -> bool:
        """Take what a server offers now; return whether that is anything new.

        Raises `KeyError` for a server without a manifest.
        """
        listing = tuple(definitions)
        if self._listings.get(server) == listing:
            return False
        manifest, _ = self._manifests[server]
        self._listings[manifest.id] = listing
        self._rebuild(server)
        return True

    def _rebuild(self, server: str) -> None:
        manifest, prefix = self._manifests[server]
        tools, states = _judge(manifest, self._listings.get(server, ()), prefix=prefix)
        self._built[server] = tools
        self._states[server] = states
        clashing = self._shared_wire_names()
        everything = (tool for found in self._built.values() for tool in found)
        self._snapshot = Snapshot(tool for tool in everything if tool.wire_name not in clashing)

    def _shared_wire_names(self) -> frozenset[str]:
        """Wire names that would lead to more than one tool, and therefore lead to none."""
        uses = Counter(tool.wire_name for found in self._built.values() for tool in found)
        return frozenset(name for name, count in uses.items() if count > 1)


def _judge(
    manifest: Manifest, listing: Sequence[bytes], *, prefix: bool
) -> tuple[tuple[Tool, ...], tuple[ToolStatus, ...]]:
    offers, problems = read_offers(listing)
    reviews = {review.name: review for review in manifest.tools}
    tools: list[Tool] = []
    states: list[ToolStatus] = []
    for name in sorted(offers.keys() | problems.keys() | reviews.keys()):
        review, offer = reviews.get(name), offers.get(name)
        state = _state(review, offer, offered=name in problems)
        problem = problems.get(name)
        # INVARIANT: what nobody approved is only shown. To compile a schema that was made for it
        # can take for ever, or end the process.
        if review is not None and offer is not None and state == "callable":
            tool = _build_tool(manifest.id, review, offer, prefix=prefix)
            if isinstance(tool, str):
                problem = tool
            else:
                tools.append(tool)
        states.append(
            _status(
                manifest.id,
                name,
                state=state,
                review=review,
                offer=offer,
                problem=problem,
                prefix=prefix,
            )
        )
    return tuple(tools), tuple(states)


def _state(review: Review | None, offer: Offer | None, *, offered: bool) -> ToolState:
    if review is None:
        return "unreviewed"
    if offer is None:
        return "quarantined" if offered else "missing"
    if review.definition_digest is None:
        return "unpinned"
    return "callable" if review.definition_digest == offer.digest else "quarantined"


def _status(
    server: str,
    name: str,
    *,
    state: ToolState,
    review: Review | None,
    offer: Offer | None,
    problem: str | None,
    prefix: bool,
) -> ToolStatus:
    return ToolStatus(
        server=server,
        name=name,
        wire_name=names.build_wire_name(server, name, prefix=prefix),
        state=state,
        effect="unreviewed" if review is None else review.effect,
        approved_digest=None if review is None else review.definition_digest,
        live_digest=None if offer is None else offer.digest,
        reviewed_by=None if review is None else review.reviewed_by,
        problem=problem,
    )


def _with_clash(status: ToolStatus, clashing: frozenset[str]) -> ToolStatus:
    if not status.usable or status.wire_name not in clashing:
        return status
    problem = f"another server's tool is called `{status.wire_name}`, too; set `prefix: true`"
    return ToolStatus(**{name: getattr(status, name) for name in _FIELDS}, problem=problem)


_FIELDS: Final = tuple(name for name in ToolStatus.__struct_fields__ if name != "problem")


def _build_tool(server: str, review: Review, offer: Offer, *, prefix: bool) -> Tool | str:
    """Return the tool, or why its definition cannot be offered to agents."""
    wire_name = names.build_wire_name(server, offer.name, prefix=prefix)
    if not names.is_wire_name(wire_name) or not names.is_wire_name(offer.name):
        return (
            f"`{wire_name}` is no tool name for model APIs: 1 to 64 of A-Z a-z 0-9 _ -, unreserved"
        )
    execution = offer.value.get("execution")
    if isinstance(execution, dict) and execution.get("taskSupport") == "required":
        return "it runs only as a task (MCP 2025-11-25), and the gateway relays none"
    schema = offer.value.get("inputSchema")
    try:
        checked = compile_schema(schema, review.input_schema)
        marks = read_param_headers(schema if isinstance(schema, dict) else {})
    except (ValueError, RecursionError) as error:
        return str(error)
    return Tool(
        id=names.build_policy_id(server, offer.name),
        server=server,
        name=offer.name,
        wire_name=wire_name,
        review=review,
        definition=offer.raw,
        definition_digest=offer.digest,
        schema=checked,
        resource=_build_resource(server, review, offer),
        param_headers=marks,
    )


def _build_resource(server: str, review: Review, offer: Offer) -> dict[str, Any]:
    """Return the `resource` member of the policy input. A read leaves nothing to reverse."""
    undoable = review.reversible_by is not None or review.undo is not None
    return {
        "type": "tool",
        "id": names.build_policy_id(server, offer.name),
        "server": server,
        "effect": review.effect,
        "reversible": undoable or review.effect == "read",
        "idempotency": review.idempotency,
        "sensitive": list(review.sensitive),
        "sensitive_out": list(review.sensitive_out),
        "labels": list(review.labels),
        "sinks": list(review.sinks),
        "texts": list(review.texts),
        "sums": list(review.sums),
        "definition_digest": offer.digest,
    }
