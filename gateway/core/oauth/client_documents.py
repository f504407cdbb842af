"""Client ID Metadata Documents: a `client_id` that is a URL, and what may stand there.

Source: draft-ietf-oauth-client-id-metadata-document. Pure rules; `adapters.client_documents` does
the fetching, which must not become a way into the gateway's own network (SSRF).
"""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any, Final, Protocol
from urllib.parse import SplitResult, urlsplit

import msgspec
from msgspec import Struct

from gateway.core import strict_json
from gateway.core.errors import RequestError
from gateway.core.oauth.authorization import find_redirect_fault
from gateway.core.seen import is_seen

URL_MAX_CHARS: Final = 256
DOCUMENT_MAX_BYTES: Final = 5_120
REDIRECTS_MAX: Final = 16
LOOPBACK: Final = frozenset(("127.0.0.1", "::1", "localhost"))

_DEPTH: Final = 6
_HOST: Final = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")
_NAME_MAX: Final = 64
_PATH: Final = re.compile(r"(?:/[A-Za-z0-9._~-]+)+/?")

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")

Name = Annotated[str, msgspec.Meta(max_length=256)]


class Document(Struct, frozen=True):
    """What a client says of itself, checked. `host` is the one that it was fetched from."""

    client_id: str
    name: str
    host: str
    redirect_uris: tuple[str, ...]


class NoDocument(Struct, frozen=True):
    """There is none that can be used; `reason` is for whoever runs the client."""

    reason: str


class DocumentSource(Protocol):
    """Where documents come from."""

    async def fetch(self, url: str) -> Document | NoDocument:
        """Return the document at a URL that `is_document_url`; never raises for what is there."""
        ...


class _Said(Struct, frozen=True):
    client_id: str
    redirect_uris: tuple[str, ...]
    client_name: Name = ""
    token_endpoint_auth_method: str = "none"  # noqa: S105 - the name of a method
    grant_types: tuple[str, ...] = ("authorization_code",)
    response_types: tuple[str, ...] = ("code",)
    client_secret: Any = None
    client_secret_expires_at: Any = None


def is_document_url(text: str, *, dev: bool = False) -> bool:
    """Whether a `client_id` is a URL at which a document may be: one spelling, no tricks.

    https, a host name in lower case, a path, and nothing else (§3 of the draft; a query is refused
    though it only says SHOULD NOT). With `dev` also http on this machine.
    """
    if not 0 < len(text) <= URL_MAX_CHARS or not text.isascii():
        return False
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return False
    return _is_written_plainly(text, parts, port) and _is_reachable(parts, dev=dev)


_RELAYS: Final = ipaddress.ip_network("192.88.99.0/24")
"""Where 6to4 relays were (RFC 7526): whoever answers there now."""


def find_address_fault(text: str, *, dev: bool = False) -> str | None:
    """Say why nobody connects to this address, or return None. Loopback only with `dev`.

    What reaches the gateway's own machine, its network or a cloud's metadata service is not
    global; neither is an address that hides such a one in itself.
    """
    try:
        address: _Address = ipaddress.ip_address(text)
    except ValueError:
        return "is no address"
    inner = _hidden(address)
    if dev and address.is_loopback:
        return None
    for one in (address, *inner):
        local = one in _RELAYS if isinstance(one, ipaddress.IPv4Address) else one.is_site_local
        if not one.is_global or one.is_multicast or one.is_reserved or one.is_unspecified or local:
            return "is not an address of the public internet"
    return None


def read_document(url: str, raw: bytes) -> Document | NoDocument:
    """Read what stands at `url`."""
    if len(raw) > DOCUMENT_MAX_BYTES:
        return NoDocument(f"is larger than {DOCUMENT_MAX_BYTES} bytes")
    try:
        said = msgspec.convert(strict_json.parse(raw, max_depth=_DEPTH), _Said)
    except (RequestError, msgspec.ValidationError):
        return NoDocument("is no JSON object with `client_id` and `redirect_uris`")
    # 1. A document that somebody else's URL serves.
    if said.client_id != url:
        return NoDocument("has another `client_id` than its own URL")
    # 2. Secrets that everybody could read, and ways to prove oneself that need one.
    if said.client_secret is not None or said.client_secret_expires_at is not None:
        return NoDocument("has a secret; it is public")
    if said.token_endpoint_auth_method != "none":  # noqa: S105 - the method's name
        return NoDocument("must say `token_endpoint_auth_method: none`")
    if "authorization_code" not in said.grant_types or "code" not in said.response_types:
        return NoDocument("must allow `authorization_code` and `code`")
    # 3. Codes sent to a third party.
    if (fault := find_redirects_fault(said.redirect_uris, origin_of(url))) is not None:
        return NoDocument(fault)
    host = urlsplit(url).netloc
    return Document(url, clean_name(said.client_name) or host, host, said.redirect_uris)


def find_redirects_fault(uris: tuple[str, ...], origin: str | None) -> str | None:
    """Say what about a list of redirect URIs cannot be, or return None."""
    if not 1 <= len(uris) <= REDIRECTS_MAX:
        return f"must have 1 to {REDIRECTS_MAX} `redirect_uris`"
    for uri in uris:
        if (fault := find_redirect_fault(uri, origin=origin)) is not None:
            return f"has a redirect URI that {fault}"
    return None


def origin_of(url: str) -> str:
    """Return scheme, host and port of a URL as they are written."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def clean_name(text: str) -> str:
    """Return a name as a person may be shown it: printable, on one line, not long."""
    return "".join(c for c in text if is_seen(c)).strip()[:_NAME_MAX]


def _is_written_plainly(text: str, parts: SplitResult, port: int | None) -> bool:
    host = parts.hostname or ""
    shown = f"[{host}]" if ":" in host else host
    rebuilt = f"{parts.scheme}://{shown}{'' if port is None else f':{port}'}{parts.path}"
    segments = parts.path.split("/")
    return (
        text == rebuilt
        and _PATH.fullmatch(parts.path) is not None
        and "." not in segments
        and ".." not in segments
    )


def _is_reachable(parts: SplitResult, *, dev: bool) -> bool:
    host = parts.hostname or ""
    if host in LOOPBACK:
        return dev
    if parts.scheme != "https" or _HOST.fullmatch(host) is None or "." not in host:
        return False
    return not _is_address(host)


def _is_address(host: str) -> bool:
    """Whether a resolver might take `host` for an address: `127.1` and `0x7f.1` are ones, too."""
    last = host.rpartition(".")[2]
    return last.isdigit() or last.startswith("0x")


def _hidden(address: _Address) -> tuple[_Address, ...]:
    """Addresses of the old kind inside one of the new kind."""
    if isinstance(address, ipaddress.IPv4Address):
        return ()
    found: list[_Address] = []
    if address.ipv4_mapped is not None:
        found.append(address.ipv4_mapped)
    if address.sixtofour is not None:
        found.append(address.sixtofour)
    if address.teredo is not None:
        found.extend(address.teredo)
    if address in _NAT64:
        found.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return tuple(found)
