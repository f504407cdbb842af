"""Telling people because policy obliges to (`notify`), without keeping any call waiting.

Each notice is a record, `notify`, then a line in the gateway's own log, then, where an address is
configured, a message to it, tried a few times. What could not be delivered is recorded too. After
a restart, notices without an end are delivered again: people may be told twice, never not at all
without the log saying so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

import structlog

from gateway.core.calls.call import ResolvedCall
from gateway.core.errors import AuditError
from gateway.core.policy.decision import Hold, Permit, Phase, pick
from gateway.core.policy.obligations import Notify
from gateway.core.ports import AuditLog, Ids
from gateway.core.records.notice_records import Notice, build_end, build_entry, build_notice
from gateway.logs import describe

PENDING_MAX: Final = 1_000
"""Past so many that wait for an address that does not answer, further ones are not delivered."""

ATTEMPTS: Final = 5
_PAUSE_S: Final = 1.0

_log: Final = structlog.get_logger("gateway.notices")

Deliver = Callable[[Notice], Awaitable[bool]]
"""Tells people; True once they certainly were told."""

Pause = Callable[[float], Awaitable[None]]


class NoticeDesk:
    """Takes notices. `deliver` is None where the log is all that there is."""

    def __init__(
        self,
        *,
        audit: AuditLog,
        ids: Ids,
        deliver: Deliver | None = None,
        pause: Pause = asyncio.sleep,
    ) -> None:
        self._audit = audit
        self._ids = ids
        self._deliver = deliver
        self._pause = pause
        self._running: set[asyncio.Task[None]] = set()

    def tell(self, resolved: ResolvedCall, decision: Permit | Hold, phase: Phase) -> None:
        """Begin to tell of a decision, if it obliges to. Returns at once."""
        if decision.obligations:
            for each in pick(decision.obligations, Notify):
                notice = build_notice(self._ids.new(), each.channel, resolved, decision, phase)
                self._begin(notice, told=False)

    def resume(self, notices: Iterable[Notice]) -> None:
        """Go on with what was under way when the gateway last stopped."""
        for notice in notices:
            self._begin(notice, told=True)

    @property
    def pending(self) -> int:
        """How many are not at their end."""
        return len(self._running)

    async def wait(self) -> None:
        """Wait until those that are under way now are at their end."""
        await asyncio.gather(*self._running, return_exceptions=True)

    async def close(self) -> None:
        """Let every notice be recorded; what is being delivered is left for the next start."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _begin(self, notice: Notice, *, told: bool) -> None:
        task = asyncio.create_task(self._tell(notice, told=told))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _tell(self, notice: Notice, *, told: bool) -> None:
        try:
            if not told:
                await asyncio.shield(self._audit.record(build_entry(notice)))
                _log.warning("notify", notice=notice.id, op=notice.op, **notice.fields)
            if self._deliver is not None:
                await self._deliver_to(self._deliver, notice)
        except AuditError as error:  # the intent of the call names the obligation all the same
            _log.error("notify_unrecorded", op=notice.op, code=error.code)
        except Exception as error:  # noqa: BLE001 - told by its type: a message could hold a value
            _log.error("notify_failed", op=notice.op, error=describe(error))

    async def _deliver_to(self, deliver: Deliver, notice: Notice) -> None:
        attempts = 0
        done = False
        while not done and attempts < ATTEMPTS and len(self._running) <= PENDING_MAX:
            if attempts:
                await self._pause(_PAUSE_S * 2**attempts)
            attempts += 1
            done = await deliver(notice)
        if not done:
            _log.error("notify_undelivered", notice=notice.id, op=notice.op, attempts=attempts)
        end = build_end(notice, "delivered" if done else "undelivered", attempts)
        await asyncio.shield(self._audit.record(end))
