"""What a family has read, and where a call would take it: labels and provenance on the call path.

The work is done only where it can matter: for callers with a tool that sends something somewhere
(`sinks`), and for those who act for others, whose other tokens may have one. Where it is left out,
the family's memory is in doubt, and says so.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from gateway.core.calls.call import FilteredResult, Relay, ResolvedCall
from gateway.core.calls.ledger import Ledger
from gateway.core.calls.links import UNKNOWN, find_links
from gateway.core.calls.provenance import (
    INLINE_MAX_BYTES,
    UNTRUSTED,
    WORST_LAST,
    Class,
    Output,
    build_allowed,
    read_output,
)
from gateway.core.catalog import CatalogView
from gateway.core.tokens.grants import CompiledGrants
from gateway.core.tokens.token import Claims

_KNOWN_MAX: Final = 4096
_LINKS: Final = ("/links",)


class DataFlow:
    """Follows values through the families of one ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._follows: dict[tuple[str, str], bool] = {}

    def follows(self, grants: CompiledGrants, claims: Claims, catalog: CatalogView) -> bool:
        """Whether what this caller reads may matter to where its family sends things."""
        if claims.depth:
            return True
        key = (claims.jti, catalog.version)
        found = self._follows.get(key)
        if found is None:
            if len(self._follows) >= _KNOWN_MAX:
                self._follows.clear()
            found = self._follows[key] = any(
                (tool.review.sinks or tool.review.texts) and grants.find(tool) is not None
                for tool in catalog.callable_tools(None)
            )
        return found

    def classify(
        self, resolved: ResolvedCall, known: dict[str, frozenset[str]]
    ) -> dict[str, Class] | None:
        """Return where the values at a call's sinks come from; None for a tool without any.

        A text that holds links is told like a sink, by these.
        `known`: the token's allowed values by tool id, kept as long as its claims are.
        """
        tool = resolved.tool
        sinks, texts = tool.review.sinks, tool.review.texts
        if not sinks and not texts:
            return None
        allowed = known.get(tool.id)
        if allowed is None:
            values = resolved.call.claims.allowed_values
            allowed = known[tool.id] = build_allowed(values, tool.id)
        family = self._ledger.family(resolved.call.claims.root_jti)
        tainted, arguments = UNTRUSTED in family.labels, resolved.call.raw.arguments.value
        found = family.sightings.classify(arguments, sinks, allowed, tainted=tainted)
        for pointer, links in find_links(arguments, texts).items():
            classes = family.sightings.classify({"links": links}, _LINKS, allowed, tainted=tainted)
            if tainted and UNKNOWN in links:
                classes["/links"] = "untrusted"
            others = (found[pointer],) if pointer in found else ()
            found[pointer] = max((*classes.values(), *others), key=WORST_LAST.index)
        return found

    def say(self, resolved: ResolvedCall, *, follows: bool) -> None:
        """Remember what a call says, before it is sent: a read may come back as a write does.

        Where it is not remembered, nothing that comes back later is known not to be an echo.
        """
        arguments, family_id = resolved.call.raw.arguments.value, resolved.call.claims.root_jti
        if follows:
            self._ledger.say(family_id, arguments)
        elif arguments:
            self._ledger.family(family_id).settle()

    def doubting(self, resolved: ResolvedCall, relay: Relay | None) -> Relay | None:
        """Return what relays notifications of a tool, noting that they were not looked into."""
        if relay is None or UNTRUSTED not in resolved.tool.review.labels:
            return relay
        family = self._ledger.family(resolved.call.claims.root_jti)

        def note(notification: bytes) -> None:
            family.sightings.doubt = True
            relay(notification)

        return note

    def forget(self, resolved: ResolvedCall, labels: Iterable[str]) -> None:
        """Take note that an output was not looked into."""
        if UNTRUSTED in labels:
            self._ledger.family(resolved.call.claims.root_jti).sightings.doubt = True

    def look_through(
        self, resolved: ResolvedCall, filtered: FilteredResult, labels: Iterable[str]
    ) -> Output | None:
        """Return what an output has to say to this family; None where it vouches for nothing.

        The one slow step. It changes nothing, and may run beside the loop.
        """
        output = look_through(resolved, filtered, labels)
        if output is None:
            return None
        family = self._ledger.family(resolved.call.claims.root_jti)
        return family.sightings.sift(output)

    def learn(self, resolved: ResolvedCall, output: Output) -> None:
        """Remember an output."""
        self._ledger.learn(resolved.call.claims.root_jti, output)


def is_large(filtered: FilteredResult) -> bool:
    """Whether an output is looked through beside the loop."""
    return len(filtered.result or filtered.error or b"") > INLINE_MAX_BYTES


def look_through(
    resolved: ResolvedCall, filtered: FilteredResult, labels: Iterable[str]
) -> Output | None:
    """Return what the agent gets to see of an output; None where it vouches for nothing.

    Pure. An error of a tool that is not untrusted vouches for nothing: it
    may say anything that it was sent.
    """
    body = filtered.result if filtered.result is not None else filtered.error
    untrusted = UNTRUSTED in labels
    failed = filtered.is_error or filtered.result is None
    if body is None or (failed and not untrusted):
        return None
    tool = resolved.tool
    return read_output(
        body,
        untrusted=untrusted,
        trusted_at=() if failed else tool.review.trusted,
        structured_only=b'"outputSchema"' in tool.definition,
    )
