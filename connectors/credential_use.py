"""Where transports and credentials meet: fetched from the broker, and never let out again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from connectors import mcp_wire as wire
from connectors.lanes import Lane
from gateway.core.calls.call import Relay, UpstreamResult
from gateway.core.credentials import (
    CredentialAsk,
    CredentialFailure,
    UpstreamCredential,
    holds_any,
)
from gateway.core.errors import UpstreamError
from gateway.core.ports import Clock, CredentialBroker


class Credentials:
    """A broker, as one transport uses it. `per`: whose credentials differ; None where all share."""

    def __init__(
        self,
        broker: CredentialBroker,
        clock: Clock,
        *,
        per: Literal["person", "agent"] | None = None,
    ) -> None:
        self._broker = broker
        self._clock = clock
        self.per = per

    async def dress(self, lane: Lane) -> None:
        """Let a lane wear its current credential. Raises `UpstreamError` `not_sent` without one."""
        now_ns = self._clock.now_ns()
        found = self._broker.held(lane.ask, now_ns)
        if found is None:
            found = await self._obtain(lane.ask, now_ns)
        if found is not lane.credential:
            lane.wear(found)

    async def obtain(self, ask: CredentialAsk) -> UpstreamCredential:
        """Return the current credential. Raises `UpstreamError` `not_sent` without one."""
        return await self._obtain(ask, self._clock.now_ns())

    def reject(self, lane: Lane) -> bool:
        """Give up the credential that the upstream refused; return whether to try with another."""
        return self._broker.reject(lane.ask, lane.refused, self._clock.now_ns())

    async def _obtain(self, ask: CredentialAsk, now_ns: int) -> UpstreamCredential:
        found = await self._broker.obtain(ask, now_ns)
        if isinstance(found, CredentialFailure):
            raise wire.undelivered(
                f"there is no credential for the upstream ({found.reason})",
                code="upstream_credential_unavailable",
            )
        return found


def guard_relay(relay: Relay | None, needles: Sequence[bytes]) -> Relay | None:
    """Return a relay that drops every line with the gateway's credential in it."""
    if relay is None or not needles:
        return relay

    def guarded(line: bytes) -> None:
        if not holds_any(line, needles):
            relay(line)

    return guarded


def refuse_repeated(answer: UpstreamResult, needles: Sequence[bytes]) -> None:
    """Raise `UpstreamError` `result_withheld` where an answer repeats the gateway's credential.

    INVARIANT: such an answer goes no further than this: not to the agent, and not into the log,
    whose openings would keep it.
    """
    if needles and holds_any(answer.result or answer.error or b"", needles):
        raise UpstreamError(
            "the upstream's answer repeats the gateway's credential",
            code="result_withheld",
            delivery="sent",
        )
