"""How long the logs of tests wait for the disk that they all share."""

from __future__ import annotations

from typing import Final

from gateway.core.limits import Limits

PATIENT: Final = Limits(audit_wait_ms=20_000)
