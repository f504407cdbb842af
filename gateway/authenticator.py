"""Believing a caller: the first stage of the path (DESIGN §1), the only one that reads tokens."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from gateway.core.calls.call import AuthenticatedCall, RawCall
from gateway.core.catalog import Tool
from gateway.core.errors import CredentialError
from gateway.core.kills.kill import FEED_STALE
from gateway.core.ports import Barred, Clock, TokenVerifier
from gateway.core.proofs.possession import ProofDesk
from gateway.core.refusal import Refusal
from gateway.core.tokens.token import Claims


class Authenticator:
    """Turns a raw call into an authenticated one, or says why not.

    `barred` is asked anew for every call, and again by later stages: a genuine token is no use
    once its authority has been taken back. Without `proofs`, bound tokens are refused.
    `look` looks once more at what other processes stopped, where that was too long ago.
    """

    def __init__(
        self,
        *,
        tokens: TokenVerifier,
        barred: Barred,
        clock: Clock,
        proofs: ProofDesk | None = None,
        look: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._tokens = tokens
        self._proofs = proofs
        self.barred = barred
        self._clock = clock
        self._look = look

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
        # 2. A stolen token, without the key that it is bound to.
        if claims.jkt or raw.possession is not None:
            unproved = self._find_unproved(raw, claims, now_ns // 1_000_000_000)
            if unproved is not None:
                return unproved
        # 3. Authority that ended before its token: a run that is over, a pulled switch.
        if (code := self.barred(claims)) is not None:
            return Refusal("authenticate", code)
        # 4. A token for looking, used for calling.
        if scope is not None and scope not in claims.scopes:
            return Refusal("authenticate", "scope_insufficient")
        return AuthenticatedCall(raw, claims, now_ns)

    async def find_stop(self, claims: Claims, tool: Tool) -> str | None:
        """Return the code that bars a call now; asked a moment later where nobody knows."""
        code = self.barred(claims, tool)
        if code != FEED_STALE or self._look is None:
            return code
        await self._look()
        return self.barred(claims, tool)

    def _find_unproved(self, raw: RawCall, claims: Claims, now_s: int) -> Refusal | None:
        """Say why a token and what is shown of its key do not belong together (RFC 9449 §7.1).

        A bound token as `Bearer` is refused: whoever stole it would only have to leave the proof
        out. One that is bound to nothing is refused as `DPoP`: its proof would prove nothing.
        """
        if not claims.jkt:
            return Refusal("authenticate", "token_unbound")
        if raw.possession is None or self._proofs is None:
            return Refusal("authenticate", "proof_missing")
        shown = self._proofs.check(raw.possession, now_s, token=raw.credential, jkt=claims.jkt)
        return shown if isinstance(shown, Refusal) else None
