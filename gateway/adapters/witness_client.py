"""The client of one witness: C2SP tlog-witness `add-checkpoint`, and nothing believed unseen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import httpx

from gateway.adapters.bounded_http import TIMEOUT_S, NoReply, exchange
from gateway.core.cosignature import (
    Conflict,
    Cosignature,
    Lines,
    NoCosignature,
    build_request,
    find_cosignature,
    read_answer,
)
from gateway.core.errors import CountersignError
from gateway.core.note import NoteKey, SignedCheckpoint
from gateway.core.ports import Clock

Prove = Callable[[int, int], list[bytes]]
"""Makes the consistency proof from one size of the log to another. May read files."""


class Witness:
    """One witness, and the size that it last cosigned for us as far as we know."""

    def __init__(
        self,
        *,
        name: str,
        url: str,
        key: NoteKey,
        prove: Prove,
        http: httpx.AsyncClient,
        clock: Clock,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._url: Final = f"{url.rstrip('/')}/add-checkpoint"
        self._prove: Final = prove
        self._http: Final = http
        self._clock: Final = clock
        self._timeout_s: Final = timeout_s
        self.name: Final = name
        self.key: Final = key
        self.size = 0

    async def submit(self, note: str, signed: SignedCheckpoint) -> Cosignature | NoCosignature:
        """Ask for a cosignature of our signed checkpoint. At most two requests, each bounded.

        `note` and `signed` are the same checkpoint, as text and as read.
        """
        size = signed.checkpoint.size
        old = self.size if self.size <= size else 0
        answer = await self._ask(old, size, note)
        if isinstance(answer, Conflict):
            # 1. Whatever size a witness tells, it is asked again with a proof from there to here;
            #    more than there is here means that this log was cut back, or that it lies.
            if answer.size > size:
                return NoCosignature("ahead")
            self.size = answer.size
            answer = await self._ask(answer.size, size, note)
            if isinstance(answer, Conflict):
                return NoCosignature("moving")
        if isinstance(answer, NoCosignature):
            return answer
        # 2. What it answers counts only as far as its own key signed it.
        now_s = self._clock.now_ns() // 1_000_000_000
        found = find_cosignature(answer.body, self.key, signed.text, now_s)
        if isinstance(found, Cosignature):
            self.size = size
        return found

    async def _ask(self, old: int, size: int, note: str) -> Lines | Conflict | NoCosignature:
        try:
            proof = await asyncio.to_thread(self._prove, old, size) if 0 < old < size else []
            content = build_request(old, proof, note)
        except (OSError, ValueError, LookupError, CountersignError):
            return NoCosignature("unproven")
        reply = await exchange(
            self._http, "POST", self._url, content=content, timeout_s=self._timeout_s
        )
        if isinstance(reply, NoReply):
            return NoCosignature(reply.reason)
        return read_answer(reply.status, reply.content_type, reply.body)
