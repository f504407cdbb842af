"""Deciding whether a request proves that it holds the key of its token (RFC 9449 §4.3)."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Final

from gateway.core.errors import CredentialError
from gateway.core.oauth.dpop import SKEW_S, Possession, find_misfit, is_timely, name_proof
from gateway.core.oauth.dpop_nonce import Nonces
from gateway.core.ports import ProofReader, UsedProofs
from gateway.core.refusal import Refusal

_FULL: Final = "too many proofs are remembered; wait a minute"


class ProofDesk:
    """Judges proofs for one gateway.

    `nonces` is None where none are asked for. `up_s`: how long this process has run, whatever the
    clock was set to since; without nonces, older proofs are refused, for what was used before is
    not remembered.
    """

    def __init__(
        self,
        *,
        reader: ProofReader,
        used: UsedProofs,
        public_url: str,
        nonces: Nonces | None,
        up_s: Callable[[], int] | None = None,
    ) -> None:
        self._reader = reader
        self._used = used
        self._public_url = public_url
        self._nonces = nonces
        self._up_s = up_s if nonces is None else None

    def check(
        self, shown: Possession, now_s: int, *, token: bytes | None, jkt: str | None = None
    ) -> str | Refusal:
        """Return the thumbprint of the key that `shown` proves, or why it proves none.

        `token`: the access token sent along, None at the token endpoint. `jkt`: the one key that
        will do. A request that was accepted once is accepted again: see `Possession`.
        """
        if shown.jkt is not None:
            return shown.jkt
        # 1. No proof, floods of bytes, `alg: none`, HS256, private keys, false signatures.
        if shown.proof is None:
            return _refuse("send a proof in a `DPoP` header", "proof_missing")
        try:
            proof = self._reader.read(shown.proof)
        except CredentialError as error:
            return _refuse(str(error))
        # 2. A thief who has the token and a key, but not the key of the token.
        if jkt is not None and not hmac.compare_digest(proof.jkt.encode(), jkt.encode()):
            return _refuse("the proof is by another key than that of the access token")
        # 3. A proof of another request or for another token.
        url = self._public_url + shown.path
        misfit = find_misfit(proof.claims, method=shown.method, url=url, token=token)
        if misfit is not None:
            return _refuse(misfit)
        # 4. Proofs made in advance, by somebody who had the key for a moment.
        if not self._is_asked_for(shown, proof.claims.nonce, now_s):
            return Refusal("authenticate", "proof_nonce")
        since_s = 0 if self._up_s is None else now_s - self._up_s()
        if not is_timely(proof.claims, now_s, since_s):
            return _refuse("`iat` is not about now; check the clock")
        # 5. The same proof again. INVARIANT: the last check, so that only what was accepted is
        #    remembered, and everything that was accepted is.
        until_s = int(proof.claims.iat) + SKEW_S
        match self._used.remember(name_proof(proof), until_s, now_s):
            case "seen":
                return Refusal("authenticate", "proof_replayed")
            case "full":
                return _refuse(_FULL, "proof_overloaded")
        shown.jkt = proof.jkt
        return proof.jkt

    def _is_asked_for(self, shown: Possession, nonce: str | None, now_s: int) -> bool:
        """Whether the nonce is one of ours; a caller with an old or no nonce is given the new."""
        if self._nonces is None:
            return True
        freshness = self._nonces.judge(nonce, now_s)
        if freshness != "current":
            shown.next_nonce = self._nonces.current(now_s)
        return freshness != "foreign"


def _refuse(detail: str, code: str = "proof_invalid") -> Refusal:
    return Refusal("authenticate", code, detail)
