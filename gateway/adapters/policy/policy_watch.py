"""Reloads policies when their files change (in `dev`). A broken file keeps the old bundle."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from gateway.adapters.policy.policy_bundle import Bundle, find_files, load_bundle_dir
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
        seen: Fingerprint | None = None,
    ) -> None:
        """Take the folder as it was when it was `seen`, or is now, for what is active already."""
        self.last_error: str | None = None
        self._path = path
        self._activate = activate
        self._report = report
        self._interval_s = interval_s
        self._seen = take_fingerprint(path) if seen is None else seen

    async def run(self) -> None:
        """Look for changes until cancelled."""
        while True:
            await asyncio.sleep(self._interval_s)
            await self.check()

    async def check(self) -> bool:
        """Reload if anything changed since the last look; return whether it had.

        What changes while it is read is left to the next look: half of it would be of before.
        """
        now = await asyncio.to_thread(take_fingerprint, self._path)
        if now == self._seen:
            return False
        try:
            bundle = await asyncio.to_thread(_load, self._path)
            if await asyncio.to_thread(take_fingerprint, self._path) != now:
                return False
            self._seen = now
            if isinstance(bundle, Exception):
                raise bundle
            await self._activate(bundle)
        except (CountersignError, OSError) as error:
            self.last_error = str(error)
        else:
            self.last_error = None
        self._report(self.last_error)
        return True


def _load(path: Path) -> Bundle | CountersignError | OSError:
    try:
        return load_bundle_dir(path)
    except (CountersignError, OSError) as error:
        return error


def take_fingerprint(path: Path) -> Fingerprint:
    """Return names, times and sizes of the files that make a bundle; tests are none."""
    found = set()
    for file in find_files(path, "*"):
        if file.suffix in _SUFFIXES and not file.name.endswith("_test.rego"):
            with contextlib.suppress(OSError):  # gone since it was listed
                stat = file.stat()
                found.add((str(file), stat.st_mtime_ns, stat.st_size))
    return frozenset(found)
