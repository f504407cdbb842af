"""Where decision logs go: files of JSON lines, or somebody who takes OPA's decision logs."""

from __future__ import annotations

import asyncio
import gzip
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

import httpx
import structlog

from gateway.adapters.bounded_http import Reply, exchange
from gateway.aside import Aside

_TIMEOUT_S: Final = 10.0
_TAKEN: Final = range(200, 300)
_MODE: Final = 0o600
_log: Final = structlog.get_logger("gateway.decision_log")


class FileSink:
    """Appends lines to a file; past `rotate_bytes` it becomes `<file>.1`, and that `.2`, and so on.

    `keep` older files are kept. Nothing is synced: the audit log is what is durable.
    """

    def __init__(
        self, path: Path, *, rotate_bytes: int, keep: int, timeout_s: float = _TIMEOUT_S
    ) -> None:
        self._path = path
        self._timeout_s = timeout_s
        self._aside = Aside(stuck_max=1)
        self._rotate_bytes = rotate_bytes
        self._keep = keep

    async def write(self, events: Sequence[bytes]) -> bool:
        """Append; True once all of it is written. What hangs is not waited for (a pipe, NFS)."""
        lines = b"\n".join(events) + b"\n"
        try:
            await self._aside.run(partial(self._append, lines), timeout_s=self._timeout_s)
        except TimeoutError:
            return _note("it hangs")
        except OSError as error:
            return _note(error.strerror or type(error).__name__)
        return True

    def _append(self, lines: bytes) -> None:
        if self._path.exists() and self._path.stat().st_size >= self._rotate_bytes:
            self._rotate()
        # 1. Others on the machine, who may not read what policies are asked; and links.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
        handle = os.open(self._path, flags, _MODE)
        try:
            self._write_all(handle, lines)
        finally:
            os.close(handle)

    def _write_all(self, handle: int, lines: bytes) -> None:
        """Write all or nothing: half a line would spoil the next one."""
        start = os.fstat(handle).st_size
        try:
            rest = memoryview(lines)
            while rest:
                rest = rest[os.write(handle, rest) :]
        except OSError:
            os.ftruncate(handle, start)
            raise

    def _rotate(self) -> None:
        def older(number: int) -> Path:
            return self._path.with_name(f"{self._path.name}.{number}")

        for number in range(self._keep, 1, -1):
            if older(number - 1).exists():
                older(number - 1).replace(older(number))
        if self._keep:
            self._path.replace(older(1))
        else:
            self._path.unlink()


class HttpSink:
    """Posts events as OPA does: one gzipped JSON array for each batch."""

    def __init__(self, http: httpx.AsyncClient, url: str, token: str = "") -> None:
        """`token`: sent as `Authorization: Bearer`, where there is one."""
        self._http = http
        self._url = url
        self._headers = {"content-type": "application/json", "content-encoding": "gzip"}
        if token:
            self._headers["authorization"] = f"Bearer {token}"

    async def write(self, events: Sequence[bytes]) -> bool:
        """Send; True once the other side has taken it."""
        body = await asyncio.to_thread(gzip.compress, b"[" + b",".join(events) + b"]", 6)
        reply = await exchange(
            self._http,
            "POST",
            self._url,
            content=body,
            headers=self._headers,
            timeout_s=_TIMEOUT_S,
        )
        if isinstance(reply, Reply) and reply.status in _TAKEN:
            return True
        return _note(f"answered {reply.status}" if isinstance(reply, Reply) else reply.reason)


def _note(why: str) -> bool:
    """Tell why nothing was taken; False. Between two tries are up to 60 s."""
    _log.warning("decision_log_not_taken", why=why)
    return False
