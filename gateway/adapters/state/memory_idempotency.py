"""Idempotency-Keys in memory: the twin of `SqlIdempotency`."""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from gateway.core.ports import StoredReply

KEEP_S: Final = 86_400
"""As `sql_idempotency.KEEP_S`."""


class MemoryIdempotency:
    """Idempotency-Keys that are gone when the process is. Promises as `SqlIdempotency`."""

    def __init__(self) -> None:
        self._replies: dict[tuple[str, str], tuple[int, StoredReply]] = {}

    async def begin(
        self, scope: str, key: str, request_digest: str, op: str, now_s: int
    ) -> StoredReply | None:
        """Claim `key` (None), or return what is stored under it already."""
        found = self._replies.get((scope, key))
        if found is not None:
            begun_at, reply = found
            if reply.state == "running" or begun_at > now_s - KEEP_S:
                return reply
        claimed = StoredReply(request_digest=request_digest, op=op, state="running")
        self._replies[scope, key] = (now_s, claimed)
        return None

    async def forget(self, scope: str, key: str) -> None:
        """Give back a claimed key. One that has its reply stays."""
        _, reply = self._replies.get((scope, key), (0, None))
        if reply is not None and reply.state == "running":
            del self._replies[scope, key]

    async def finish(self, scope: str, key: str, status: int, body: bytes) -> None:
        """Store the reply of a claimed key. The first reply stays."""
        begun_at, reply = self._replies.get((scope, key), (0, None))
        if reply is not None and reply.state == "running":
            done = replace(reply, state="done", status=status, body=body)
            self._replies[scope, key] = (begun_at, done)
