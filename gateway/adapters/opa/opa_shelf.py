"""The bundle that an OPA pulls, and the wait for the next one."""

from __future__ import annotations

import asyncio
import contextlib

from gateway.adapters.opa.opa_bundle import build_archive
from gateway.adapters.policy.policy_bundle import Bundle


class Shelf:
    """Holds one archive at a time. `etag` is its revision, empty before there is one."""

    def __init__(self) -> None:
        self.etag = ""
        self.archive = b""
        self._changed = asyncio.Event()

    async def put(self, bundle: Bundle) -> None:
        """Offer another bundle, and let those know who wait for one."""
        self.archive = await asyncio.to_thread(build_archive, bundle)
        self.etag = bundle.revision
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def wait(self, etag: str, timeout_s: float) -> None:
        """Return once the bundle is another one than `etag`, or the time is over."""
        if etag == self.etag:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), timeout_s)
