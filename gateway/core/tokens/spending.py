"""What a token may still spend, of its own and of everybody above it (DESIGN §4).

A call is charged to the run and to every token on the way down that counts calls: ten children
are not ten budgets. Worked out once per token; see `Ledger.reserve`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from gateway.core.catalog import Tool
from gateway.core.tokens.token import Ancestor, Budget, Claims, Grant

_ANY_TOOL: Final = "*"


class CallLimits:
    """How often each tool may be called under a list of grants."""

    __slots__ = ("_broad", "_known", "_named")

    def __init__(self, grants: Sequence[Grant]) -> None:
        self._named = {(g.server, g.tool): g for g in grants if g.tool != _ANY_TOOL}
        self._broad = [g for g in grants if g.tool == _ANY_TOOL]
        self._known: dict[tuple[str, str], int | None] = {}

    def max_calls(self, tool: Tool) -> int | None:
        """Return how many calls of `tool` there may be; None for any number."""
        key = (tool.id, tool.review.effect)
        try:
            return self._known[key]
        except KeyError:
            found = self._known[key] = self._find(tool)
            return found

    def _find(self, tool: Tool) -> int | None:
        """The limit of the grant that speaks for `tool`; where none does any more, no call."""
        effect = tool.review.effect
        speaker = self._named.get((tool.server, tool.name)) or next(
            (g for g in self._broad if g.server == tool.server and _covers(g, effect)), None
        )
        if speaker is None or not _covers(speaker, effect):
            return 0
        return speaker.max_calls


class Spender(Struct, frozen=True):
    """Whose counts a call of a token adds to.

    `node` is where the calls under its own grants count: the run, or the token itself if it was
    handed on. `above` are the others that count calls.
    """

    root: str
    node: str
    above: tuple[tuple[str, CallLimits], ...] = ()
    budget: Budget = Budget()
    payer: str = ""
    """The launcher, and the agent whose run it is."""

    @property
    def also(self) -> tuple[str, ...]:
        """Tokens besides the root among whose calls a call counts."""
        if self.node == self.root and not self.above:
            return ()
        return tuple(sorted({self.node, *(node for node, _ in self.above)} - {self.root}))


def build_spender(claims: Claims) -> Spender:
    """Work out whose counts a token's calls add to."""
    counts = claims.depth > 0 and _counts(claims.grants)
    return Spender(
        claims.root_jti,
        claims.jti if counts else claims.root_jti,
        tuple((one.id, CallLimits(one.limits)) for one in claims.ancestors if one.limits),
        claims.budget,
        f"{claims.client_id} {claims.actors[-1] if claims.actors else claims.subject}",
    )


def build_ancestors(parent: Claims) -> tuple[Ancestor, ...]:
    """Return what stands above a child of `parent`: every token, and all that counts calls."""
    above, limits = parent.ancestors, _limits(parent.grants)
    if parent.depth == 0 and limits:
        above = (*above, Ancestor(parent.root_jti, limits))
    return (*above, Ancestor(parent.jti, limits if parent.depth else ()))


def _limits(grants: Sequence[Grant]) -> tuple[Grant, ...]:
    if not _counts(grants):
        return ()
    return tuple(
        Grant(server=g.server, tool=g.tool, effects=g.effects, max_calls=g.max_calls)
        for g in grants
    )


def _counts(grants: Sequence[Grant]) -> bool:
    return any(grant.max_calls is not None for grant in grants)


def _covers(grant: Grant, effect: str) -> bool:
    return not grant.effects or effect in grant.effects
