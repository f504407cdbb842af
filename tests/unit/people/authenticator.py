"""A passkey in software (WebAuthn level 2), which can be told to lie."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import struct
from typing import Any, Final

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

PRESENT: Final = 0x01
VERIFIED: Final = 0x04
_ATTESTED: Final = 0x40


class Authenticator:
    """One credential for one RP. Each use counts up."""

    def __init__(self, *, rp_id: str = "gw.example", origin: str = "https://gw.example") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._rp_id, self.origin = rp_id, origin
        self.credential_id = os.urandom(32)
        self.counter = 0
        self.flags = PRESENT | VERIFIED
        self.handle: str | None = None

    def create(self, options: dict[str, Any]) -> dict[str, Any]:
        self.handle = options["user"]["id"]
        client = self._client_data("webauthn.create", options["challenge"])
        length = struct.pack(">H", len(self.credential_id))
        attested = bytes(16) + length + self.credential_id + self._cose_key()
        data = self._data(self.flags | _ATTESTED) + attested
        attestation = cbor2.dumps({"fmt": "none", "attStmt": {}, "authData": data})
        response = {"clientDataJSON": b64(client), "attestationObject": b64(attestation)}
        return self._credential(response)

    def get(self, options: dict[str, Any]) -> dict[str, Any]:
        self.counter += 1
        client = self._client_data("webauthn.get", options["challenge"])
        data = self._data(self.flags)
        signed = self._key.sign(data + hashlib.sha256(client).digest(), ec.ECDSA(hashes.SHA256()))
        return self._credential(
            {
                "clientDataJSON": b64(client),
                "authenticatorData": b64(data),
                "signature": b64(signed),
                "userHandle": self.handle,
            }
        )

    def _credential(self, response: dict[str, Any]) -> dict[str, Any]:
        key_id = b64(self.credential_id)
        return {"id": key_id, "rawId": key_id, "type": "public-key", "response": response}

    def _client_data(self, kind: str, challenge: str) -> bytes:
        said = {"type": kind, "challenge": challenge, "origin": self.origin, "crossOrigin": False}
        return json.dumps(said).encode()

    def _data(self, flags: int) -> bytes:
        rp_hash = hashlib.sha256(self._rp_id.encode()).digest()
        return rp_hash + bytes([flags]) + struct.pack(">I", self.counter)

    def _cose_key(self) -> bytes:
        numbers = self._key.public_key().public_numbers()
        x, y = numbers.x.to_bytes(32, "big"), numbers.y.to_bytes(32, "big")
        return cbor2.dumps({1: 2, 3: -7, -1: 1, -2: x, -3: y})


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")
