"""The ways in which the log refuses, with how to answer each."""

from __future__ import annotations

from typing import Final

from gateway.core.errors import AuditError

INVALID: Final = "audit_record_invalid"


def overloaded(why: str) -> AuditError:
    """No durable record in time. Answer: nothing was sent; wait, then send again."""
    return AuditError(
        f"the audit log is overloaded: {why}", code="audit_overloaded", retryable=True
    )


def unavailable(why: str | None) -> AuditError:
    """No durable record until restart. Answer: nothing is sent; repair the disk and restart."""
    return AuditError(f"the audit log takes no more records: {why or 'it is closed'}")


def invalid(why: str) -> AuditError:
    """No record can be made of an entry. The log is as it was."""
    return AuditError(f"no record can be made: {why}", code=INVALID)
