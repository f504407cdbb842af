"""Receipts: the proof that the outcome of a call is in the log, for a caller who asks."""

from __future__ import annotations

from typing import Final

import structlog

from gateway.core.calls.answer import CallReceipt
from gateway.core.entry import Receipt
from gateway.core.errors import AuditError
from gateway.core.ports import AuditLog
from gateway.logs import describe

_log: Final = structlog.get_logger("gateway.receipts")


class ReceiptDesk:
    """Makes receipts of calls that have ended, beside their path."""

    def __init__(self, audit: AuditLog) -> None:
        self._audit: Final = audit

    async def prove(self, outcome: Receipt) -> CallReceipt | None:
        """Return the receipt of a durable outcome; None, and a line logged, for trouble."""
        try:
            proof = await self._audit.prove(outcome)
        except AuditError as error:  # the call is over and recorded: its reply leaves without
            _log.warning("receipt_failed", seq=outcome.seq, error=describe(error))
            return None
        return CallReceipt(outcome.seq, outcome.leaf.hex(), proof)
