"""Believing a caller: the first stage of the path (DESIGN §1), the only one that reads tokens."""

from __future__ import annotations

from gateway.core.call import AuthenticatedCall, RawCall
from gateway.core.errors import CredentialError
from gateway.core.ports import Barred, Clock, TokenVerifier
from gateway.core.refusal import Refusal


class Authenticator:
    """Turns a raw call into an authenticated one, or says why not.

    `barred` is asked anew for every call, and again by later stages: a genuine token is no use
    once its authority has been taken back.
    """

    def __init__(self, *, tokens: TokenVerifier, barred: Barred, clock: Clock) -> None:
        self._tokens = tokens
        self.barred = barred
        self._clock = clock

    def authenticate(self, raw: RawCall, scope: str | None) -> AuthenticatedCall | Refusal:
        """Believe the token or say why not. The clock is read here, once per call."""
        now_ns = self._clock.now_ns()
        if raw.credential is None:
            return Refusal("authenticate", "token_missing")
        # 1. Forged, altered, expired tokens, and those for other services.
        try:
            claims = self._tokens.verify(raw.credential, now_ns // 1_000_000_000)
        except CredentialError as error:
            return Refusal("authenticate", error.code)
        # 2. Authority that ended before its token: a run that is over, a pulled switch.
        if (code := self.barred(claims)) is not None:
            return Refusal("authenticate", code)
        # 3. A token for looking, used for calling.
        if scope is not None and scope not in claims.scopes:
            return Refusal("authenticate", "scope_insufficient")
        return AuthenticatedCall(raw, claims, now_ns)
