"""Keeps the catalog true to what the upstreams offer now."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final, Protocol

import structlog

from connectors.catalog import Catalog, ToolStatus
from gateway.core.errors import UpstreamError
from gateway.logs import describe

_log = structlog.get_logger("connectors.refresh")

INTERVAL_S: Final = 30.0
LISTING_S: Final = 15.0
PAUSE_S: Final = 1.0
"""At least this long between two listings, however often an upstream says that it changed."""


_TOLD_MAX: Final = 32
_TOLD_CHARS: Final = 160


class Lists(Protocol):
    """The part of a transport that a refresher needs."""

    async def list_tools(self) -> list[bytes]:
        """Return every definition on offer, or raise `UpstreamError`."""
        ...


class Refresher:
    """Lists every upstream's tools at the start, when it says they changed, and regularly.

    ::

        refresher = Refresher(catalog, transports, changed=lambda server: …)
        await refresher.refresh_all()                 # at the start
        task = asyncio.create_task(refresher.run())   # then until cancelled
        McpHttpTransport(…, on_list_changed=refresher.notice)

    An upstream that cannot be listed keeps its last listing: its tools stay callable, and calls
    tell for themselves that it is away.
    """

    def __init__(
        self,
        catalog: Catalog,
        transports: Mapping[str, Lists],
        *,
        changed: Callable[[str], None] | None = None,
        interval_s: float = INTERVAL_S,
        pause_s: float = PAUSE_S,
        listing_s: float = LISTING_S,
    ) -> None:
        self._catalog = catalog
        self._transports = transports
        self._changed = changed
        self._interval_s = interval_s
        self._pause_s = pause_s
        self._listing_s = listing_s
        self._noticed: set[str] = set()
        self._wake = asyncio.Event()

    def notice(self, server: str) -> None:
        """Note that a server's tools have changed; `run` lists it soon. Never blocks."""
        self._noticed.add(server)
        self._wake.set()

    async def refresh(self, server: str) -> UpstreamError | None:
        """List one upstream now; return the error if it could not be listed. Never raises it."""
        try:
            async with asyncio.timeout(self._listing_s):  # one that stalls holds up all others
                listing = await self._transports[server].list_tools()
            if self._catalog.offer(server, listing):
                self._report(server)
        except TimeoutError:
            _log.warning("upstream_not_listed", server=server, code="upstream_timeout")
            return UpstreamError(
                "the upstream did not list its tools in time",
                code="upstream_timeout",
                delivery="not_sent",
            )
        except UpstreamError as error:
            _log.warning("upstream_not_listed", server=server, code=error.code, error=str(error))
            return error
        except Exception as error:  # noqa: BLE001 - INVARIANT: one upstream stops no listing of others
            _log.error("upstream_not_listed", server=server, error=describe(error))
            return UpstreamError("the listing failed", code="internal_error", delivery="not_sent")
        return None

    async def refresh_all(self) -> dict[str, UpstreamError]:
        """List every upstream at the same time; return the errors of those that failed."""
        servers = list(self._transports)
        errors = await asyncio.gather(*(self.refresh(server) for server in servers))
        return {server: error for server, error in zip(servers, errors, strict=True) if error}

    async def run(self) -> None:
        """Refresh until cancelled."""
        while True:
            try:
                async with asyncio.timeout(self._interval_s):
                    await self._wake.wait()
                noticed, self._noticed = self._noticed, set()
            except TimeoutError:
                noticed = set(self._transports)
            self._wake.clear()
            await asyncio.gather(*(self.refresh(server) for server in noticed))
            await asyncio.sleep(self._pause_s)

    def _report(self, server: str) -> None:
        hidden = [
            status
            for status in self._catalog.states()
            if status.server == server and not status.usable
        ]
        hidden.sort(key=lambda status: status.state == "unreviewed")
        # Names and number are the upstream's: it must not fill the disk by its changes.
        _log.info(
            "upstream_listed",
            server=server,
            callable=len(self._catalog.view().callable_tools(server)),
            hidden=[_tell(status) for status in hidden[:_TOLD_MAX]],
            more=max(0, len(hidden) - _TOLD_MAX),
        )
        if self._changed is not None:
            self._changed(server)


def _tell(status: ToolStatus) -> str:
    return f"{status.name[:_TOLD_CHARS]}: {status.problem or status.state}"[: 2 * _TOLD_CHARS]
