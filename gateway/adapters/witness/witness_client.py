"""The client of one witness: C2SP tlog-witness `add-checkpoint`, and nothing believed unseen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import httpx

from gateway.adapters.bounded_http import TIMEOUT_S, NoReply, exchange
from gateway.core.log.cosignature import (
    Conflict,
    Cosignature,
    Lines,
    NoCosignature,
    build_request,
    find_cosignature,
    read_answer,
)
from gateway.core.log.note import Checkpoint, NoteKey, SignedCheckpoint
from gateway.core.ports import Clock

Prove = Callable[[int, Checkpoint], list[bytes]]
"""Makes the consistency proof from a size of the log to a checkpoint of it. May read files.

Raises `LookupError`, `ValueError` or `OSError` where none can be made that adds up: a wrong one
would have an honest witness say that this log was rewritten.
"""

Introduce = Callable[[Checkpoint], str]
"""Makes one more signature line under a checkpoint, by a key under which the witness knows us.

The log's own keys change by epoch, and are destroyed. A witness knows a log by keys that somebody
there wrote down; it is not told every day.
"""


class Witness:
    """One witness, and the size that it last cosigned for us as far as we know."""

    def __init__(
        self,
        *,
        name: str,
        url: str,
        key: NoteKey,
        introduce: Introduce,
        prove: Prove,
        http: httpx.AsyncClient,
        clock: Clock,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._url: Final = f"{url.rstrip('/')}/add-checkpoint"
        self._introduce: Final = introduce
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
        answer = await self._ask(old, signed.checkpoint, note)
        if isinstance(answer, Conflict):
            # 1. Whatever size a witness tells, it is asked again with a proof from there to here;
            #    more than there is here means that this log was cut back, or that it lies.
            if answer.size > size:
                return NoCosignature("ahead")
            self.size = answer.size
            answer = await self._ask(answer.size, signed.checkpoint, note)
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

    async def _ask(self, old: int, new: Checkpoint, note: str) -> Lines | Conflict | NoCosignature:
        try:
            proof = await asyncio.to_thread(self._prove, old, new) if 0 < old < new.size else []
            content = build_request(old, proof, note + self._introduce(new))
        except (OSError, ValueError, LookupError):
            return NoCosignature("unproven")
        reply = await exchange(
            self._http, "POST", self._url, content=content, timeout_s=self._timeout_s
        )
        if isinstance(reply, NoReply):
            return NoCosignature(reply.reason)
        return read_answer(reply.status, reply.content_type, reply.body)
