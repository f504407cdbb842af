"""Proofs of possession at the token endpoint (RFC 9449 §5): they bind the token that is issued."""

from __future__ import annotations

from fastapi import Request
from msgspec import Struct

from gateway.core.errors import RequestError
from gateway.core.oauth.dpop import Possession
from gateway.core.proofs.possession import ProofDesk
from gateway.core.refusal import Refusal, kind_of
from gateway.http.oauth_forms import Failure


class Bound(Struct, frozen=True):
    """What a proof is worth here. `jkt` is empty where none was sent; `headers` go with the reply.

    `failure` says why nothing is issued on it; `code` is the reason for the log.
    """

    jkt: str = ""
    failure: Failure | None = None
    code: str = ""
    headers: dict[str, str] = {}


def read_possession(request: Request, path: str) -> Possession | None:
    """Return what a token request shows of a key; None where it shows none.

    Raises `RequestError` for two `DPoP` headers: each of two readers could believe another one.
    """
    proofs = request.headers.getlist("dpop")
    if len(proofs) > 1:
        raise RequestError("`DPoP` is given twice", code="request_invalid")
    if not proofs:
        return None
    return Possession(proof=proofs[0].encode("latin-1"), method=request.method, path=path)


def judge_possession(desk: ProofDesk | None, shown: Possession | None, now_s: int) -> Bound:
    """Say what key a token is to be bound to."""
    if shown is None:
        return Bound()
    if desk is None:
        return Bound(failure=Failure("invalid_dpop_proof", "proofs are not taken here"))
    found = desk.check(shown, now_s, token=None)
    headers = {} if shown.next_nonce is None else {"DPoP-Nonce": shown.next_nonce}
    if not isinstance(found, Refusal):
        return Bound(jkt=found, headers=headers)
    return Bound(failure=_tell(found, headers), code=found.code)


def _tell(refusal: Refusal, headers: dict[str, str]) -> Failure:
    text = refusal.detail or kind_of(refusal.code).text
    match refusal.code:
        case "proof_nonce":
            return Failure("use_dpop_nonce", text, 400, headers)
        case "proof_overloaded":
            return Failure("temporarily_unavailable", text, 503)
        case _:
            return Failure("invalid_dpop_proof", text, 400, headers)
