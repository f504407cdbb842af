"""The in-memory twin of a credential broker: it has what it is given, and nothing else."""

from __future__ import annotations

from gateway.brokering import REJECT_NS
from gateway.core.credentials import CredentialAsk, CredentialFailure, UpstreamCredential


class MemoryBroker:
    """Keeps the promises of `ports.CredentialBroker` out of two dictionaries.

    ::

        broker = MemoryBroker({CredentialAsk(server="billing"): UpstreamCredential(…)})
        broker.has[ask] = another            # what is handed out from the next `obtain` on
        broker.failures["billing"] = CredentialFailure(reason="unreachable")

    `asked` holds every ask that it was not able to answer from what it held already.
    """

    def __init__(self, has: dict[CredentialAsk, UpstreamCredential] | None = None) -> None:
        self.has = dict(has or {})
        self.failures: dict[str, CredentialFailure] = {}
        self.asked: list[CredentialAsk] = []
        self._held: dict[CredentialAsk, UpstreamCredential] = {}
        self._rejected_ns: dict[CredentialAsk, int] = {}

    def held(self, ask: CredentialAsk, now_ns: int) -> UpstreamCredential | None:
        """See `ports.CredentialBroker.held`."""
        found = self._held.get(ask)
        return found if found is not None and now_ns < found.expires_ns else None

    async def obtain(
        self, ask: CredentialAsk, now_ns: int
    ) -> UpstreamCredential | CredentialFailure:
        """See `ports.CredentialBroker.obtain`."""
        found = self.held(ask, now_ns)
        if found is not None:
            return found
        self.asked.append(ask)
        if (failure := self.failures.get(ask.server)) is not None:
            return failure
        if (known := self.has.get(ask)) is None:
            return CredentialFailure(reason="missing", detail="it is not in memory")
        self._held[ask] = known
        return known

    def reject(self, ask: CredentialAsk, credential: UpstreamCredential, now_ns: int) -> bool:
        """See `ports.CredentialBroker.reject`."""
        held = self._held.get(ask)
        if held is not None and not held.shows_same(credential):
            return True
        if abs(now_ns - self._rejected_ns.get(ask, -REJECT_NS)) < REJECT_NS:
            return False
        self._rejected_ns[ask] = now_ns
        self._held.pop(ask, None)
        return True

    async def close(self) -> None:
        """See `ports.CredentialBroker.close`."""
        self._held.clear()
