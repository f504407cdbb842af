"""What DPoP adds to a reply of the call path: its own challenges, and the next nonce (RFC 9449)."""

from __future__ import annotations

from typing import Final

from gateway.core.oauth.dpop import ALGORITHMS, Possession
from gateway.http.asgi import Message, Scope, Send
from gateway.protocol.headers import Headers

_BEARER: Final = b"Bearer "
_ALGS: Final = f', algs="{" ".join(ALGORITHMS)}"'.encode()


def show_possession(scope: Scope, headers: Headers) -> Possession | None:
    """Return what a request shows of its token's key; call it once for each request."""
    path = scope.get("raw_path") or scope["path"].encode()
    return headers.possession(scope["method"], path)


def answer_proved(send: Send, possession: Possession | None) -> Send:
    """Return how to answer a request: as before, unless its token came as `DPoP`."""
    return send if possession is None else ProvedSend(send, possession)


class ProvedSend:
    """Answers in the scheme that was used, and tells a caller with an old nonce the new one."""

    __slots__ = ("_possession", "_send")

    def __init__(self, send: Send, possession: Possession) -> None:
        self._send: Final = send
        self._possession: Final = possession

    async def __call__(self, message: Message) -> None:
        """Send one message of ASGI."""
        if message["type"] == "http.response.start":
            headers = [_translate(name, value) for name, value in message.get("headers", ())]
            if (nonce := self._possession.next_nonce) is not None:
                headers.append((b"dpop-nonce", nonce.encode("ascii")))
            message["headers"] = headers
        await self._send(message)


def _translate(name: bytes, value: bytes) -> tuple[bytes, bytes]:
    """A caller who sent `DPoP` is challenged to send `DPoP` (RFC 9449 §7.1)."""
    if name == b"www-authenticate" and value.startswith(_BEARER):
        return name, b"DPoP " + value.removeprefix(_BEARER) + _ALGS
    return name, value
