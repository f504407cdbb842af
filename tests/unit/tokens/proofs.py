"""Keys of clients, and what they sign with them: proofs and assertions, right and wrong ones."""

from __future__ import annotations

import base64
import itertools
import json
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from joserfc.jwk import ECKey, OKPKey, RSAKey

from gateway.core.oauth.dpop import hash_token

Private = EllipticCurvePrivateKey | Ed25519PrivateKey | RSAPrivateKey
_numbers: Final = itertools.count()


def encode(data: bytes) -> bytes:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _name(private: Private) -> ECKey | OKPKey | RSAKey:
    if isinstance(private, EllipticCurvePrivateKey):
        return ECKey.import_key(private)
    if isinstance(private, RSAPrivateKey):
        return RSAKey.import_key(private)
    return OKPKey.import_key(private)


class Holder:
    """Somebody with a key, P-256 unless another is given."""

    def __init__(self, private: Private | None = None, algorithm: str = "ES256") -> None:
        self.private = private or generate_private_key(SECP256R1())
        self.algorithm = algorithm
        self.jwk = _name(self.private)
        self.jkt: str = self.jwk.thumbprint()

    def public(self) -> dict[str, Any]:
        """The public key as a JWK of its required members."""
        found = self.jwk.as_dict(private=False)
        return {name: found[name] for name in ("kty", "crv", "x", "y", "n", "e") if name in found}

    def sign(self, header: object, payload: bytes) -> bytes:
        """Sign these bytes under this header, whatever either says."""
        message = encode(json.dumps(header).encode()) + b"." + encode(payload)
        return message + b"." + encode(self._sign(message))

    def _sign(self, message: bytes) -> bytes:
        if isinstance(self.private, EllipticCurvePrivateKey):
            halves = decode_dss_signature(self.private.sign(message, ECDSA(SHA256())))
            return b"".join(half.to_bytes(32) for half in halves)
        if isinstance(self.private, RSAPrivateKey):
            return self.private.sign(message, PKCS1v15(), SHA256())
        return self.private.sign(message)

    def header(self, **changes: object) -> dict[str, Any]:
        """The header of a proof; a member changed to None is left out."""
        header = {"typ": "dpop+jwt", "alg": self.algorithm, "jwk": self.public(), **changes}
        return {name: value for name, value in header.items() if value is not None}

    def prove(
        self,
        method: str,
        url: str,
        now_s: float,
        *,
        token: bytes | None = None,
        header: dict[str, Any] | None = None,
        **claims: Any,  # noqa: ANN401 - JSON
    ) -> bytes:
        """Make a proof; `claims` changes some, and leaves out those that are None."""
        said: dict[str, Any] = {
            "jti": f"proof-{next(_numbers)}",
            "htm": method,
            "htu": url,
            "iat": now_s,
            "ath": None if token is None else hash_token(token),
            **claims,
        }
        said = {name: value for name, value in said.items() if value is not None}
        return self.sign(header or self.header(), json.dumps(said).encode())
