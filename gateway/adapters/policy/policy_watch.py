"""Reloads policies when their files change (in `dev`). A broken file keeps the old bundle."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from gateway.adapters.policy.policy_bundle import Bundle, load_bundle_dir
from gateway.core.errors import CountersignError

INTERVAL_S: Final = 0.5
_SUFFIXES: Final = (".rego", ".json")
Fingerprint = frozenset[tuple[str, int, int]]


class PolicyWatcher:
    """Watches a folder of policies and activates what it holds.

    `activate` puts a bundle to use or raises (`RegorusPolicy.activate`). `report` is told of each
    attempt: None when the new bundle is active, else why it is not. `last_error` keeps the latter.
    """

    def __init__(
        self,
        path: Path,
        activate: Callable[[Bundle], Awaitable[None]],
        *,
        report: Callable[[str | None], None] = lambda _: None,
        interval_s: float = INTERVAL_S,
    ) -> None:
        """Take the folder as it is now for what is active already."""
        self.last_error: str | None = None
        self._path = path
        self._activate = activate
        self._report = report
        self._interval_s = interval_s
        self._seen = take_fingerprint(path)

    async def run(self) -> None:
        """Look for changes until cancelled."""
        while True:
            await asyncio.sleep(self._interval_s)
            await self.check()

    async def check(self) -> bool:
        """Reload if anything changed since the last look; return whether it had."""
        now = await asyncio.to_thread(take_fingerprint, self._path)
        if now == self._seen:
            return False
        self._seen = now
        try:
            await self._activate(await asyncio.to_thread(load_bundle_dir, self._path))
        except (CountersignError, OSError) as error:
            self.last_error = str(error)
        else:
            self.last_error = None
        self._report(self.last_error)
        return True


def take_fingerprint(path: Path) -> Fingerprint:
    """Return names, times and sizes of the files that make a bundle; tests are none."""
    found = set()
    for file in path.rglob("*"):
        if file.suffix in _SUFFIXES and not file.name.endswith("_test.rego"):
            with contextlib.suppress(OSError):  # gone since it was listed
                stat = file.stat()
                found.add((str(file), stat.st_mtime_ns, stat.st_size))
    return frozenset(found)
