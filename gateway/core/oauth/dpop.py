"""Proofs of possession (DPoP, RFC 9449): what a proof must say to count for one request.

A token with `cnf.jkt` is worth something only together with a proof: a JWT that the holder of the
key signs for this method, this URL, this token and this moment. What is here judges the claims of
a proof whose signature has been checked (`ports.ProofReader`).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from typing import Final
from urllib.parse import urlsplit

from msgspec import Struct

ALGORITHMS: Final = ("ES256", "Ed25519", "EdDSA")
"""Algorithms of proofs. `EdDSA` (RFC 8037) with Ed25519 keys only; RFC 9864 calls it `Ed25519`."""

PROOF_MAX_BYTES: Final = 4_096
JTI_MAX_CHARS: Final = 256
SKEW_S: Final = 60
"""How far the clock of a client may be off, either way; so a proof is good for two minutes."""

_URL_MAX_CHARS: Final = 2_048
_URL: Final = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+")
_ESCAPE: Final = re.compile(r"%(..?)?")
_HEX: Final = re.compile(r"[0-9A-Fa-f]{2}")
_UNRESERVED: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class Possession(Struct, kw_only=True):
    """What one HTTP request shows of a key: `Authorization: DPoP` and what its proof is to fit.

    `proof` is None where there was no `DPoP` header; `path` is as it was asked for, still escaped.

    INVARIANT: it belongs to one request and one token. `jkt` is set only once its proof was
    accepted, so that the same request may be looked at again without being its own replay.
    """

    proof: bytes | None
    method: str
    path: str
    jkt: str | None = None
    next_nonce: str | None = None
    """The nonce that the caller should use from now on, to be told in `DPoP-Nonce`."""


class ProofClaims(Struct, frozen=True):
    """The claims of a proof (RFC 9449 §4.2). Others than these are ignored, as it says."""

    jti: str
    htm: str
    htu: str
    iat: int | float
    ath: str | None = None
    nonce: str | None = None


class Proof(Struct, frozen=True):
    """A proof with a good signature. `jkt`: RFC 7638 thumbprint of the key that made it."""

    jkt: str
    claims: ProofClaims


def hash_token(token: bytes) -> str:
    """`ath` of an access token (RFC 9449 §4.2)."""
    return base64.urlsafe_b64encode(hashlib.sha256(token).digest()).rstrip(b"=").decode()


def name_proof(proof: Proof) -> bytes:
    """Return what one proof is remembered by: 16 bytes, whatever the length of its `jti`."""
    return hashlib.sha256(f"{proof.jkt}.{proof.claims.jti}".encode()).digest()[:16]


def find_misfit(claims: ProofClaims, *, method: str, url: str, token: bytes | None) -> str | None:
    """Return what of a proof does not fit the request, safe to tell; None if it fits.

    `token` is the access token that the request carries; None at the token endpoint.
    """
    if not 0 < len(claims.jti) <= JTI_MAX_CHARS:
        return f"`jti` is 1 to {JTI_MAX_CHARS} characters"
    # 1. A proof seen on a harmless request, sent with a harmful one.
    if claims.htm != method:
        return "`htm` is not the method of this request"
    if claims.htu != url and not is_same_url(claims.htu, url):
        return "`htu` is not the URL of this request"
    # 2. A proof made for another token of the same key: a wide one in place of a narrow one.
    if token is not None and not hmac.compare_digest(
        (claims.ath or "").encode("utf-8", "replace"), hash_token(token).encode()
    ):
        return "`ath` is not the hash of this access token"
    return None


def is_timely(claims: ProofClaims, now_s: int, since_s: int = 0) -> bool:
    """Whether a proof was made about now. `since_s`: nothing older counts, however slow a clock."""
    return max(now_s - SKEW_S, since_s) <= claims.iat <= now_s + SKEW_S


def is_same_url(htu: str, url: str) -> bool:
    """Whether two URLs are one, their queries and fragments left out (RFC 9449 §4.3, check 9)."""
    found = normalise_url(htu)
    return found is not None and found == normalise_url(url)


def normalise_url(text: str) -> str | None:
    """Return a URL in its normal form without query and fragment; None for what is none.

    Syntax- and scheme-based normalisation of RFC 3986 §6.2.2 and §6.2.3: case of scheme, host and
    escapes, escapes that need not be, dot segments, the default port, the empty path.
    """
    if len(text) > _URL_MAX_CHARS or not _URL.fullmatch(text):
        return None
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return None
    scheme, host, path = parts.scheme, parts.hostname, _unescape(parts.path)
    if scheme not in _DEFAULT_PORTS or not host or "@" in parts.netloc or path is None:
        return None
    host = f"[{host}]" if ":" in host else host
    place = "" if port is None or port == _DEFAULT_PORTS[scheme] else f":{port}"
    return f"{scheme}://{host}{place}{_without_dots(path)}"


def _unescape(path: str) -> str | None:
    """Write every escape in its one normal way; None where one is broken."""
    if "%" not in path:
        return path
    broken = False

    def replace(match: re.Match[str]) -> str:
        nonlocal broken
        digits = match[1] or ""
        if not _HEX.fullmatch(digits):
            broken = True
            return ""
        char = chr(int(digits, 16))
        return char if char in _UNRESERVED else f"%{digits.upper()}"

    found = _ESCAPE.sub(replace, path)
    return None if broken else found


def _without_dots(path: str) -> str:
    """Remove dot segments (RFC 3986 §5.2.4)."""
    if "/." not in path:
        return path or "/"
    kept: list[str] = []
    *folders, last = path.split("/")[1:]
    for segment in folders:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if last == "..":
        del kept[-1:]
    kept.append("" if last in {".", ".."} else last)
    return "/" + "/".join(kept)
