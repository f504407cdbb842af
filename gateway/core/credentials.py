"""What an upstream wants to see of the gateway: for whom, how long, and how it looks in an answer.

INVARIANT: a credential shows itself nowhere by accident; its `repr` says only what kind it has.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Sequence
from typing import Final, Literal
from urllib.parse import quote, quote_plus

from msgspec import Struct

NEVER_NS: Final = (1 << 63) - 1
"""The time at which a credential expires that does not."""

_ESCAPED: Final = tuple(
    (b"\\u00%b" % digits, bytes((char,)))
    for char in b"\"&'+/<=>`"
    for digits in sorted({b"%02x" % char, b"%02X" % char})
)
"""What JSON encoders escape besides what they must, each as it is written."""

NEEDLE_MIN_BYTES: Final = 8
"""Shorter secrets are not looked for: they would be found by chance."""

Purpose = Literal["call", "list"]
Reason = Literal[
    "missing", "refused", "unreachable", "timed_out", "malformed", "no_subject", "internal"
]


class CredentialAsk(Struct, frozen=True, kw_only=True):
    """Who asks for which upstream. One that all share has neither agent nor person.

    `purpose`: a tool call, or the gateway's own question what tools there are.
    """

    server: str
    agent: str = ""
    person: str | None = None
    purpose: Purpose = "call"


SET_BACK_NS: Final = 60_000_000_000
"""A clock that shows so much less than when something was kept was set back: how old it is nobody
can tell any more, so it is asked for anew."""


class UpstreamCredential(Struct, frozen=True, kw_only=True):
    """What to add to a request, or to the environment of a server that is started.

    From `refresh_ns` on a newer one is asked for while this one serves on; from `expires_ns` on it
    is not sent any more (nanoseconds since the epoch). `secrets`: every secret text in it.
    """

    headers: tuple[tuple[str, str], ...] = ()
    query: tuple[tuple[str, str], ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    secrets: tuple[str, ...] = ()
    refresh_ns: int = NEVER_NS
    expires_ns: int = NEVER_NS

    def __repr__(self) -> str:
        kinds = [name for name in ("headers", "query", "env") if getattr(self, name)]
        return f"UpstreamCredential({', '.join(kinds)})"

    def shows_same(self, other: UpstreamCredential) -> bool:
        """Whether an upstream would see no difference."""
        return (self.headers, self.query, self.env) == (other.headers, other.query, other.env)


class CredentialFailure(Struct, frozen=True, kw_only=True):
    """There is none. `detail` is for operators; it names places (`env:NAME`), never a value.

    missing      the secret is not where the binding says, or may not be read there
    refused      whoever gives out the credential said no
    unreachable  whoever gives it out could not be asked, timed_out: did not answer in time
    malformed    what it answered cannot be used
    no_subject   it is one for each person, and this call is for nobody
    internal     the broker failed
    """

    reason: Reason
    detail: str = ""


def build_needles(secrets: Iterable[str]) -> tuple[bytes, ...]:
    """Return how secrets look in an answer: as they are, and in the usual encodings.

    Base64 is looked for at each of its three alignments. An upstream that wants to disguise a
    secret can; this is against those that repeat what they were sent.
    """
    found: dict[bytes, None] = {}
    for secret in secrets:
        raw = secret.encode()
        if len(raw) >= NEEDLE_MIN_BYTES:
            found.update(dict.fromkeys(_forms(secret, raw)))
    return tuple(found)


def _forms(secret: str, raw: bytes) -> Iterable[bytes]:
    yield raw
    yield json.dumps(secret)[1:-1].encode()
    if len(bare := json.dumps(secret)[1:-1].replace("\\", "").encode()) >= NEEDLE_MIN_BYTES:
        yield bare
    yield json.dumps(secret, ensure_ascii=False)[1:-1].encode()
    yield quote(secret, safe="").encode()
    yield quote_plus(secret).encode()
    yield raw.hex().encode()
    yield raw.hex().upper().encode()
    for shift in range(3):
        plain = base64.b64encode(b"\0" * shift + raw)
        whole = (shift + len(raw)) * 8 // 6  # digits that no following byte changes
        inner = plain[-(-shift * 8 // 6) : whole]
        yield inner
        yield inner.replace(b"+", b"-").replace(b"/", b"_")


def holds_any(data: bytes, needles: Sequence[bytes]) -> bool:
    """Whether any of `needles` is in `data`. Takes about 1 µs for each 10 KB and needle.

    Encoders escape more than they must (PHP `/`, .NET `+`), and a text may hold JSON of its own, in
    which all that is escaped twice: the data are looked through once more without their escapes.
    """
    for needle in needles:
        if needle in data:
            return True
    if needles and (b"\\u00" in data or b"\\/" in data):
        for escaped, char in _ESCAPED:
            data = data.replace(escaped, char)
        return holds_any(data.replace(b"\\", b""), needles)
    return False
