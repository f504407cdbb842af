"""The log of the audit tests, opened by `open_log`."""

from __future__ import annotations

from tests.integration.audit.conftest import clock, directory, files, open_log, signer

__all__ = ["clock", "directory", "files", "open_log", "signer"]
