"""The ways to one upstream: one that all calls share, or one for each person or agent.

What was agreed with a server, its session above all, belongs to the credential that it was agreed
under (MCP 2025-11-25, security best practices: a session is bound to its user).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final, Literal

from msgspec import Struct

from connectors.http_exchange import Head
from gateway.core.calls.call import RecordedIntent
from gateway.core.credentials import CredentialAsk, UpstreamCredential, build_needles
from gateway.protocol.param_headers import ParamHeaders

LANES_MAX: Final = 1024
"""People, or agents, with a way of their own at the same time; the oldest is forgotten first."""

Headers = dict[str, str]


class Era(Struct, frozen=True):
    """What was agreed with an upstream, and the headers that follow from it."""

    version: str
    headers: Headers


class Lane:
    """One credential, what was agreed under it, and the heads of requests that follow from both."""

    def __init__(self, ask: CredentialAsk) -> None:
        self.ask: Final = ask
        self.era: Era | None = None
        self.agreeing: asyncio.Task[Era] | None = None
        self.credential = UpstreamCredential()
        self.refused = UpstreamCredential()
        """What the upstream refused last; what is worn may have been renewed since it was sent."""
        self.needles: tuple[bytes, ...] = ()
        self.head: Head | None = None
        self.calls: dict[tuple[str, str], tuple[Headers, Head, ParamHeaders]] = {}

    def agree(self, era: Era | None) -> None:
        """Take what was agreed, or forget it."""
        self.era, self.head = era, None
        self.calls.clear()

    def wear(self, credential: UpstreamCredential) -> None:
        """Show this credential from now on. The last one is still looked for in answers."""
        if not credential.shows_same(self.credential):
            self.needles = build_needles((*credential.secrets, *self.credential.secrets))
            self.head = None
            self.calls.clear()
        self.credential = credential

    def dress(self, headers: Mapping[str, str]) -> Headers:
        """Add the credential to headers. The gateway's own win over one of the same name."""
        taken = {name.lower() for name in headers}
        worn = {name: v for name, v in self.credential.headers if name.lower() not in taken}
        return {**worn, **headers}


class Lanes:
    """Which lane a call takes. `per`: whose credentials differ, or None where all share one."""

    def __init__(
        self,
        server: str,
        *,
        per: Literal["person", "agent"] | None,
        dropped: Callable[[Lane], None],
        lanes_max: int = LANES_MAX,
    ) -> None:
        self._server = server
        self._per = per
        self._dropped = dropped
        self._max = lanes_max
        purpose: Literal["call", "list"] = "call" if per is None else "list"
        self.own: Final = Lane(CredentialAsk(server=server, purpose=purpose))
        self._others: dict[CredentialAsk, Lane] = {}

    def of(self, intent: RecordedIntent) -> Lane:
        """Return the lane of a call."""
        if self._per is None:
            return self.own
        claims = intent.intent.resolved.call.claims
        person = claims.on_behalf_of if self._per == "person" else None
        ask = CredentialAsk(server=self._server, agent=claims.subject, person=person)
        lane = self._others.get(ask)
        if lane is None:
            if len(self._others) >= self._max:
                self._dropped(self._others.pop(next(iter(self._others))))
            lane = self._others[ask] = Lane(ask)
        return lane

    def all(self) -> list[Lane]:
        """Every lane there is."""
        return [self.own, *self._others.values()]
