"""Upstream credentials in memory: asked for once at a time, renewed before they expire.

What `CredentialBroker`s have in common, wherever their credentials come from.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import structlog

from gateway.core.credentials import (
    SET_BACK_NS,
    CredentialAsk,
    CredentialFailure,
    UpstreamCredential,
)
from gateway.logs import describe

T = TypeVar("T")
Fetch = Callable[[CredentialAsk, int], Awaitable[UpstreamCredential | CredentialFailure]]
"""Asks for a credential, at a time in ns. Whatever it raises is a failure."""

ENTRIES_MAX: Final = 4096
FAILURE_NS: Final = 1_000_000_000
"""For so long a failure stands: calls do not queue up behind somebody who does not answer."""

REJECT_NS: Final = 5_000_000_000

_log: Final = structlog.get_logger("gateway.credentials")


class CachingBroker:
    """Keeps the promises of `ports.CredentialBroker` on top of whoever knows the credentials.

    ::

        CachingBroker(maker.fetch, forget=maker.forget)

    `forget(ask, credential)` is told of each rejection. One ask is under way for each credential,
    however many calls wait for it; one that is renewed in time is never waited for.
    """

    def __init__(
        self,
        fetch: Fetch,
        *,
        forget: Callable[[CredentialAsk, UpstreamCredential], None] = lambda _ask, _found: None,
        entries_max: int = ENTRIES_MAX,
    ) -> None:
        self._fetch = fetch
        self._forget = forget
        self._entries_max = entries_max
        self._held: dict[CredentialAsk, tuple[int, UpstreamCredential]] = {}
        self._failed: dict[CredentialAsk, tuple[int, CredentialFailure]] = {}
        self._rejected_ns: dict[CredentialAsk, int] = {}
        self._flights: dict[
            CredentialAsk, asyncio.Task[UpstreamCredential | CredentialFailure]
        ] = {}

    def held(self, ask: CredentialAsk, now_ns: int) -> UpstreamCredential | None:
        """See `ports.CredentialBroker.held`. Has one that grows old renewed in the background."""
        kept = self._held.get(ask)
        if kept is None:
            return None
        asked_ns, found = kept
        if not asked_ns - SET_BACK_NS < now_ns < found.expires_ns:
            return None
        if now_ns >= found.refresh_ns and self._failure(ask, now_ns) is None:
            self._flight(ask, now_ns)
        return found

    async def obtain(
        self, ask: CredentialAsk, now_ns: int
    ) -> UpstreamCredential | CredentialFailure:
        """See `ports.CredentialBroker.obtain`."""
        found = self.held(ask, now_ns) or self._failure(ask, now_ns)
        if found is not None:
            return found
        flight = self._flight(ask, now_ns)
        try:  # shielded: who waits may be cancelled; others wait for the same answer
            return await asyncio.shield(flight)
        except asyncio.CancelledError:
            if flight.cancelled():
                return CredentialFailure(reason="internal", detail="the broker is closing")
            raise

    def reject(self, ask: CredentialAsk, credential: UpstreamCredential, now_ns: int) -> bool:
        """See `ports.CredentialBroker.reject`."""
        kept = self._held.get(ask)
        if kept is None and ask in self._flights:
            return True  # another call that was refused has it renewed
        if kept is not None and not kept[1].shows_same(credential):
            return True  # it has been renewed since that one was sent
        if abs(now_ns - self._rejected_ns.get(ask, -REJECT_NS)) < REJECT_NS:
            return False
        _bound(self._rejected_ns, self._entries_max)
        self._rejected_ns[ask] = now_ns
        self._held.pop(ask, None)
        self._forget(ask, credential)
        return True

    async def close(self) -> None:
        """Forget everything, and ask for nothing any more."""
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)
        self._held.clear()
        self._failed.clear()

    def _failure(self, ask: CredentialAsk, now_ns: int) -> CredentialFailure | None:
        failed = self._failed.get(ask)
        return failed[1] if failed is not None and abs(now_ns - failed[0]) < FAILURE_NS else None

    def _flight(
        self, ask: CredentialAsk, now_ns: int
    ) -> asyncio.Task[UpstreamCredential | CredentialFailure]:
        flight = self._flights.get(ask)
        if flight is None:
            flight = self._flights[ask] = asyncio.create_task(self._ask(ask, now_ns))
            flight.add_done_callback(lambda _task: self._flights.pop(ask, None))
        return flight

    async def _ask(self, ask: CredentialAsk, now_ns: int) -> UpstreamCredential | CredentialFailure:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        try:
            found = await self._fetch(ask, now_ns)
        except Exception as error:  # noqa: BLE001 - INVARIANT: whatever fails, nothing is sent
            found = CredentialFailure(reason="internal", detail=describe(error))
        if isinstance(found, CredentialFailure):
            # Neither person nor agent is named here: who it was for is in the audit log.
            _log.warning(
                "upstream_credential_failed",
                server=ask.server,
                reason=found.reason,
                detail=found.detail,
            )
            _bound(self._failed, self._entries_max)
            took_ns = int((loop.time() - began_s) * 1_000_000_000)
            # One that took longer than it stands would be over before anybody heard of it.
            since_ns = now_ns + took_ns if took_ns > FAILURE_NS else now_ns
            self._failed[ask] = (since_ns, found)
            return found
        self._failed.pop(ask, None)
        self._held.pop(ask, None)
        _bound(self._held, self._entries_max)
        self._held[ask] = now_ns, found
        return found


def _bound(entries: dict[CredentialAsk, T], most: int) -> None:
    """Make room for one more by letting go of the oldest."""
    while len(entries) >= most:
        del entries[next(iter(entries))]
