"""The request headers that matter here, read once, strictly (RFC 9110, MCP transports)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from typing import Final

from msgspec import Struct

from gateway.core.oauth.dpop import Possession
from gateway.core.refusal import Refusal

_SINGLE: Final = frozenset(
    {
        b"authorization",
        b"dpop",
        b"mcp-protocol-version",
        b"mcp-method",
        b"mcp-name",
        b"mcp-session-id",
        b"content-type",
        b"origin",
        b"host",
        b"idempotency-key",
        b"traceparent",
        b"countersign-receipt",
    }
)
_PARAM: Final = b"mcp-param-"
_SCHEMES: Final = frozenset({b"bearer", b"dpop"})


class Headers(Struct, frozen=True):
    """`one` holds the headers that may come once; `params` the `Mcp-Param-*` ones, lower case."""

    one: dict[bytes, bytes]
    params: dict[bytes, bytes]
    accept: bytes

    def text(self, name: bytes) -> str | None:
        """A header's value as text (Latin-1, as HTTP has it), or None."""
        value = self.one.get(name)
        return None if value is None else value.decode("latin-1")

    def credential(self) -> bytes | None:
        """The access token, sent as `Bearer` (RFC 6750 §2.1) or `DPoP` (RFC 9449 §7.1), or None."""
        scheme, _, token = self.one.get(b"authorization", b"").partition(b" ")
        token = token.strip()
        return token if scheme.lower() in _SCHEMES and token else None

    def possession(self, method: str, path: bytes) -> Possession | None:
        """What is shown of the token's key; None where the token was not sent as `DPoP`.

        Make it once for each request: it remembers that its proof was accepted. `path` is as in
        the request line, without the query.
        """
        if self.one.get(b"authorization", b"")[:5].lower() != b"dpop ":
            return None
        proof = self.one.get(b"dpop")
        return Possession(proof=proof, method=method, path=path.decode("latin-1"))


def read_headers(pairs: Iterable[tuple[bytes, bytes]]) -> Headers | Refusal:
    """Collect headers by lower-case name, without surrounding blanks.

    A header that may come once and comes twice is refused: who reads the first copy and who reads
    the last would see two different requests.
    """
    one: dict[bytes, bytes] = {}
    params: dict[bytes, bytes] = {}
    accept = b""
    for name, value in pairs:
        if name in _SINGLE:
            if name in one:
                return Refusal("read", "header_mismatch", f"`{name.decode()}` is given twice")
            one[name] = value.strip(b" \t")
        elif name == b"accept":
            accept += b"," + value
        elif name.startswith(_PARAM):
            if name in params:
                return Refusal("read", "header_mismatch", f"`{name.decode('latin-1')}` comes twice")
            params[name] = value.strip(b" \t")
    return Headers(one, params, accept)


def decode_value(value: bytes) -> str | None:
    """Undo the `=?base64?…?=` form of MCP header values; None if it is malformed."""
    text = value.decode("latin-1")
    if not (text.startswith("=?base64?") and text.endswith("?=")):
        return text
    payload = text[len("=?base64?") : -len("?=")]
    try:
        decoded = base64.b64decode(payload, validate=True)
        if base64.b64encode(decoded).decode() != payload:
            return None
        return decoded.decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):
        return None
