"""What a publisher signs: that one release follows another, here and at this place in the row.

The signature in OPA's layout covers every file, and says nothing of where or when. So each
publisher signs a second, short text, which fits into a record of the log:

`{"v":1,"act":…,"env":…,"log":…,"number":…,"prev":…,"rev":…,"shadow_s":…}` as a JWT of the type
`countersign-release+jwt`; with `"again":…` where the same was withdrawn before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from gateway.core.errors import RequestError
from gateway.core.releases.history import Said
from gateway.core.releases.publisher_keys import UNSIGNED, PrivateKey, PublisherKey, find_kid
from gateway.core.releases.publisher_keys import read_jwt as _read_jwt
from gateway.core.releases.publisher_keys import sign_jwt as _sign_jwt

Act = Literal["publish", "rollback", "withdraw"]
TYP: Final = "countersign-release+jwt"
SHADOW_MAX_S: Final = 7 * 86_400


class Statement(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One publisher's word. Two of them must be equal.

    `env` and `log` are of the deployment: a signature for `dev` says nothing in `prod`. `number`
    counts what was published there, from 1: an old one is never asked for again. `prev` is the
    revision that it takes the place of, or empty. `shadow_s`: seconds beside it before that.
    `again`: how often the same was withdrawn before; a signature of before then is good no more.
    Who withdraws says what was said, with another `act`.
    """

    v: Literal[1] = 1
    act: Act
    env: str
    log: str
    number: int
    prev: str
    rev: str
    shadow_s: int = 0
    again: int = 0

    @property
    def said(self) -> Said:
        """What it is about, whether it asks for it or takes it back."""
        return Said(number=self.number, revision=self.rev, shadow_s=self.shadow_s, again=self.again)


class Signed(Struct, frozen=True):
    """A statement, its JWT and the key that signed it."""

    statement: Statement
    token: str
    key: PublisherKey


def sign(private: PrivateKey, statement: Statement) -> str:
    """Return a statement as a JWT."""
    claims: dict[str, Any] = msgspec.to_builtins(statement)
    if not statement.again:
        del claims["again"]
    return _sign_jwt(private, claims, TYP)


def read_statement(token: str, keys: Mapping[str, PublisherKey]) -> Signed:
    """Return what one of `keys` (by kid) signed. Raises `RequestError` (`signature_invalid`)."""
    key = keys.get(find_kid(token))
    if key is None:
        raise RequestError(
            "the key that signed this is none of `policy.publishers`; sign with yours",
            code=UNSIGNED,
        )
    claims = _read_jwt(token, key, TYP)
    return Signed(_convert(claims), token, key)


def _convert(claims: dict[str, Any]) -> Statement:
    try:
        return msgspec.convert(claims, Statement)
    except msgspec.ValidationError as error:
        raise RequestError(f"the statement cannot be read: {error}", code=UNSIGNED) from None
