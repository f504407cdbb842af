"""How an upstream wants to be shown who calls: the `auth` of a manifest or of the configuration.

A binding holds no secret, only where one is (`env:`, `file:`, `keyring:`, `vault:`).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection
from typing import Final, Literal, NamedTuple
from urllib.parse import SplitResult, urlsplit

from msgspec import Struct

Kind = Literal["header", "query", "basic", "env", "oauth_client_credentials", "token_exchange"]
KINDS: Final[tuple[Kind, ...]] = (
    "header",
    "query",
    "basic",
    "env",
    "oauth_client_credentials",
    "token_exchange",
)

REFERENCE_PATTERN: Final = (
    r"(?:env:[A-Za-z_][A-Za-z0-9_]*|file:.+|keyring:[^/]+/.+|vault:[^/#]+/[^#]+#[^#]+)"
)
REFERENCE_HINT: Final = (
    "`env:NAME`, `file:PATH`, `keyring:SERVICE/USER` or `vault:MOUNT/PATH#FIELD`"
)
SLOT: Final = "{secret}"

_SCHEMES: Final = frozenset({"http", "https"})


class UpstreamAuth(Struct, frozen=True):
    """The gateway's own credential at an upstream. Which members mean anything depends on `kind`.

    header       `header: scheme`, with the secret of `value_from` in the place of `{secret}`
    query        `parameter` in the URL of every request
    basic        `user` and the secret of `value_from` (RFC 7617)
    env          `variable` in the environment of a stdio server
    oauth_client_credentials   an access token of the gateway's own (RFC 6749 §4.4)
    token_exchange             an access token for the person, or agent, of each call (RFC 8693)
    """

    header: str = "Authorization"
    value_from: str = ""
    kind: Kind = "header"
    scheme: str = SLOT
    parameter: str = ""
    user: str = ""
    variable: str = ""
    token_url: str = ""
    client_id: str = ""
    client_secret_from: str = ""
    client_auth: Literal["basic", "post"] = "basic"
    scope: str = ""
    resource: str = ""
    audience: str = ""
    grant: Literal["token_exchange", "jwt_bearer"] = "token_exchange"
    subject: Literal["person", "agent"] = "person"
    listing: Literal["none", "client"] = "none"

    @property
    def per(self) -> Literal["person", "agent"] | None:
        """Whether every person, or every agent, has a credential of its own."""
        return self.subject if self.kind == "token_exchange" else None

    @property
    def fits(self) -> Literal["http", "stdio"]:
        """The transport that can carry it."""
        return "stdio" if self.kind == "env" else "http"

    @property
    def references(self) -> tuple[str, ...]:
        """Where its secrets are."""
        return tuple(ref for ref in (self.value_from, self.client_secret_from) if ref)


class _Members(NamedTuple):
    needed: frozenset[str]
    allowed: frozenset[str] = frozenset()


_OAUTH: Final = frozenset({"token_url", "client_id", "client_secret_from"})
_OAUTH_MORE: Final = frozenset({"client_auth", "scope", "resource"})
_OF_KIND: Final[dict[Kind, _Members]] = {
    "header": _Members(frozenset({"value_from"}), frozenset({"header", "scheme"})),
    "query": _Members(frozenset({"parameter", "value_from"})),
    "basic": _Members(frozenset({"user", "value_from"})),
    "env": _Members(frozenset({"variable", "value_from"})),
    "oauth_client_credentials": _Members(_OAUTH, _OAUTH_MORE),
    "token_exchange": _Members(_OAUTH, _OAUTH_MORE | {"audience", "grant", "subject", "listing"}),
}
_PATTERNS: Final[dict[str, tuple[re.Pattern[str], str]]] = {
    "header": (re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,128}"), "is no name of a header"),
    "parameter": (re.compile(r"[A-Za-z0-9._~-]{1,64}"), "is no name of a query parameter"),
    "user": (re.compile(r"[ -9;-~]{1,256}"), "is no user name; it may have no `:`"),
    "variable": (re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}"), "is no name of a variable"),
    "client_id": (re.compile(r"[ -~]{1,256}"), "is no client id"),
    "scope": (re.compile(r"[!#-\[\]-~]+(?: [!#-\[\]-~]+)*"), "is no scope"),
    "resource": (re.compile(r"[a-z][a-z0-9+.-]*:[!-~]+"), "is no absolute URI"),
    "audience": (re.compile(r"[!-~]{1,1024}"), "is no audience"),
}
_FRAMING: Final = frozenset({"host", "content-length", "transfer-encoding", "connection", "te"})
"""Headers that say where a request goes and where it ends: no secret belongs there."""
_REFERENCES: Final = frozenset({"value_from", "client_secret_from"})
_REFERENCE: Final = re.compile(REFERENCE_PATTERN)


def find_fault(auth: UpstreamAuth, given: Collection[str]) -> tuple[str, str] | None:
    """Return the member that is wrong and why, or None. `given`: the members that were written.

    INVARIANT: what stands where a reference belongs is not repeated; it could be a secret.
    """
    needed, allowed = _OF_KIND[auth.kind]
    if missing := sorted(needed - set(given)):
        return missing[0], f"is missing; `{auth.kind}` needs it"
    if surplus := sorted(set(given) - needed - allowed - {"kind"}):
        return surplus[0], f"means nothing for `{auth.kind}`; remove it"
    for name in sorted(given):
        value = getattr(auth, name)
        if name in _REFERENCES and not _REFERENCE.fullmatch(value):
            return name, f"must be {REFERENCE_HINT}; a secret itself does not belong here"
        if name in _PATTERNS and not _PATTERNS[name][0].fullmatch(value):
            return name, f"`{value}` {_PATTERNS[name][1]}"
    if auth.header.lower() in _FRAMING:
        return "header", f"`{auth.header}` frames the request; name another header"
    if auth.scheme.count(SLOT) != 1 or not auth.scheme.isprintable():
        return "scheme", f"must have `{SLOT}` in it, once"
    if auth.token_url and not is_token_url(auth.token_url):
        return "token_url", "must be https://…, or http:// on this machine, and name no user"
    return None


def is_token_url(url: str) -> bool:
    """Whether a client secret may be sent there: over TLS, or not over a network at all."""
    parts = _split(url)
    if parts is None or not parts.hostname or "@" in parts.netloc or parts.fragment:
        return False
    if parts.scheme == "http":
        return is_loopback(parts.hostname)
    return parts.scheme == "https" and url.isascii()


def host_of(url: str) -> str:
    """Return the host of a URL, or nothing for what is none."""
    parts = _split(url)
    return "" if parts is None else parts.hostname or ""


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises for one that cannot be
    except ValueError:
        return None
    return parts if parts.scheme in _SCHEMES else None
