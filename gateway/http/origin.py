"""Which browsers' pages may talk to the gateway: none but its own (DNS rebinding, CSRF)."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from gateway.core.refusal import Refusal
from gateway.protocol.headers import Headers

_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})


class OriginCheck:
    """Compares `Host` and `Origin` with where the gateway says that it is.

    A page that a browser shows can reach loopback under a name of its own (DNS rebinding). Its
    `Host` is then that name, and its `Origin` that page; both are refused.
    """

    def __init__(self, public_url: str, *, dev: bool) -> None:
        parts = urlsplit(public_url)
        self._origins = frozenset({f"{parts.scheme}://{parts.netloc}"})
        self._hosts = frozenset({parts.netloc, parts.hostname or ""})
        self._loopback = dev or _hostname(parts.netloc) in _LOOPBACK

    def refuse(self, headers: Headers) -> Refusal | None:
        """Return why the request may not be served, or None."""
        host, origin = headers.text(b"host") or "", headers.text(b"origin")
        if not self._is_host(host):
            return Refusal("read", "origin_forbidden")
        if origin is not None and origin not in self._origins and not self._is_local(origin):
            return Refusal("read", "origin_forbidden")
        return None

    def _is_host(self, host: str) -> bool:
        return host in self._hosts or (self._loopback and _hostname(host) in _LOOPBACK)

    def _is_local(self, origin: str) -> bool:
        return self._loopback and _hostname(urlsplit(origin).netloc) in _LOOPBACK


def _hostname(netloc: str) -> str:
    if netloc.startswith("["):
        return netloc.partition("]")[0] + "]"
    return netloc.rpartition(":")[0] or netloc
