"""Notices to an address: one POST of JSON each, without a word of any argument or result."""

from __future__ import annotations

from typing import Final

import httpx
import orjson
import structlog

from gateway.adapters.bounded_http import Reply, exchange
from gateway.core.records.notice_records import Notice

_TIMEOUT_S: Final = 5.0
_TAKEN: Final = range(200, 300)
_log: Final = structlog.get_logger("gateway.notices")


class Webhook:
    """Delivers notices. Whoever receives one twice knows it by its `notice`, which is an id."""

    def __init__(self, http: httpx.AsyncClient, url: str, token: str = "") -> None:
        """`token`: sent as `Authorization: Bearer`, where there is one."""
        self._http = http
        self._url = url
        self._headers = {"content-type": "application/json"}
        if token:
            self._headers["authorization"] = f"Bearer {token}"

    async def deliver(self, notice: Notice) -> bool:
        """Send one; True once the other side has taken it. Never raises for what it answers."""
        body = {"notice": notice.id, "op": notice.op, **notice.fields}
        reply = await exchange(
            self._http,
            "POST",
            self._url,
            content=orjson.dumps(body),
            headers=self._headers,
            timeout_s=_TIMEOUT_S,
        )
        if isinstance(reply, Reply) and reply.status in _TAKEN:
            return True
        why = f"answered {reply.status}" if isinstance(reply, Reply) else reply.reason
        _log.warning("notify_not_taken", notice=notice.id, why=why)
        return False
