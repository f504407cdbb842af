"""Reloads policies when their files change (in `dev`). A broken file keeps the old bundle."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from gateway.adapters.policy.policy_bundle import Bundle, find_files, load_bundle_dir
from gateway.core.errors import CountersignError

INTERVAL_S: Final = 0.5
AGAIN_S: Final = 5.0
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
        again_s: float = AGAIN_S,
        seen: Fingerprint | None = None,
    ) -> None:
        """Take the folder as it was when it was `seen`, or is now, for what is active already."""
        self.last_error: str | None = None
        self._path = path
        self._activate = activate
        self._report = report
        self._interval_s = interval_s
        self._seen: Fingerprint | None = take_fingerprint(path) if seen is None else seen
        self._refused: Fingerprint | None = None
        self._again_s = again_s
        self._again_at = 0.0
        self._told: tuple[Fingerprint, str | None] | None = None

    async def run(self) -> None:
        """Look for changes until cancelled."""
        while True:
            await asyncio.sleep(self._interval_s)
            await self.check()

    async def check(self) -> bool:
        """Reload if anything changed since the last look; return whether it had.

        What changes while it is read is left to the next look: half of it would be of before. An
        engine that cannot be reached is asked again, every `again_s` seconds.
        """
        now = await asyncio.to_thread(take_fingerprint, self._path)
        waits = now == self._refused and time.monotonic() < self._again_at
        if now == self._seen or waits:
            return False
        bundle, problem = None, None
        try:
            bundle = await asyncio.to_thread(load_bundle_dir, self._path)
        except (CountersignError, OSError) as error:
            problem = str(error)
        if await asyncio.to_thread(take_fingerprint, self._path) != now:
            return False
        self._seen = now
        if bundle is not None:
            problem = await self._put_to_use(bundle, now)
        if problem is None or (now, problem) != self._told:
            self._report(problem)
        self._told, self.last_error = (now, problem), problem
        return True

    async def _put_to_use(self, bundle: Bundle, now: Fingerprint) -> str | None:
        try:
            await self._activate(bundle)
        except (CountersignError, OSError) as error:
            if getattr(error, "code", "") == "policy_unavailable":
                self._seen, self._refused = None, now
                self._again_at = time.monotonic() + self._again_s
            return str(error)
        return None


def take_fingerprint(path: Path) -> Fingerprint:
    """Return names, times and sizes of the files that make a bundle; tests are none."""
    found = set()
    for file in find_files(path, "*"):
        if file.suffix in _SUFFIXES and not file.name.endswith("_test.rego"):
            with contextlib.suppress(OSError):  # gone since it was listed
                stat = file.stat()
                found.add((str(file), stat.st_mtime_ns, stat.st_size))
    return frozenset(found)
