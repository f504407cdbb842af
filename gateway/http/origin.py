"""Which browsers' pages may talk to the gateway: none but its own (DNS rebinding, CSRF)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from gateway.core.refusal import Refusal
from gateway.protocol.headers import Headers, read_headers

_WEB: Final = frozenset({"http", "https"})
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

    def admit(self, pairs: Iterable[tuple[bytes, bytes]]) -> Headers | Refusal:
        """Read the headers of a request that may be served, or say why it may not."""
        headers = read_headers(pairs)
        if isinstance(headers, Refusal):
            return headers
        return self.refuse(headers) or headers

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
        scheme, _, netloc = origin.partition("://")
        return self._loopback and scheme in _WEB and _hostname(netloc) in _LOOPBACK


def _hostname(netloc: str) -> str:
    """The host of `host` or `host:port`. Anything else is a host of no name we know."""
    host, colon, port = netloc.rpartition(":")
    return host if colon and port.isascii() and port.isdigit() else netloc
