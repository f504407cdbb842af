"""Where an OPA is, as `policy.engine` names it."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from msgspec import Struct

SCHEMES: Final = ("opa", "opas", "opa+unix")
_DEFAULT_PORT: Final = 8181


class OpaEndpoint(Struct, frozen=True):
    """Where an OPA is. `socket` in place of host and port where it listens on a Unix socket."""

    host: str = "localhost"
    port: int = _DEFAULT_PORT
    tls: bool = False
    socket: str = ""

    def __str__(self) -> str:
        """Return it as in `policy.engine`."""
        if self.socket:
            return f"opa+unix://{self.socket}"
        return f"{'opas' if self.tls else 'opa'}://{self.host}:{self.port}"


def read_endpoint(url: str) -> OpaEndpoint:
    """Take `opa://host:port`, `opas://host:port` or `opa+unix:///path` apart.

    Raises `ValueError`, saying what is wrong with it.
    """
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        raise ValueError("begins with none of `opa://`, `opas://`, `opa+unix://`")
    if parts.query or parts.fragment or parts.username is not None:
        raise ValueError(
            "has more in it than a place; a token belongs into `policy.opa.token_from`"
        )
    if parts.scheme == "opa+unix":
        if parts.netloc or len(parts.path) <= 1:
            raise ValueError("names no socket; write `opa+unix:///run/opa.sock`")
        return OpaEndpoint(socket=parts.path)
    if not parts.hostname or parts.path not in {"", "/"}:
        raise ValueError("is no `host:port`")
    port = parts.port or _DEFAULT_PORT
    return OpaEndpoint(host=parts.hostname, port=port, tls=parts.scheme == "opas")
