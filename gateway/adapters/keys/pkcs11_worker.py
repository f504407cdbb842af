"""The process that holds a PKCS#11 module, so that a crash in it costs a signature and no gateway.

Started as `python -I <this file> <socket fd>`: it needs no packages but `pkcs11`. Frames over the
socket, answered in order:

    request  u32 payload length, u64 id, u8 kind, payload
    reply    u32 payload length, u64 id, u8 kind, payload

`OPEN` carries JSON (`module`, `token`, `serial`, `object`, `id` in hex, `pin`) and is answered with
the public point, 65 bytes; `SIGN` carries data and is answered with r and s, 64 bytes. A PIN comes
over the socket, so that no list of processes shows it.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import socket
import struct
import sys
from typing import Any, Final

FRAME: Final = struct.Struct("<IQB")
OPEN, SIGN = 0, 1
ANSWER, FAULT, REFUSED, DENIED = 0, 1, 2, 3
"""`REFUSED`: the key cannot be had as asked. `DENIED`: nor may one ask again, or the PIN locks."""

READ_BYTES: Final = 1 << 16
POINT_BYTES: Final = 65
SIGNATURE_BYTES: Final = 64
_P256: Final = bytes.fromhex("06082a8648ce3d030107")
"""The DER of `prime256v1`, as CKA_EC_PARAMS holds it."""
_OCTET_STRING: Final = b"\x04\x41"
_UNCOMPRESSED: Final = 4
_PR_SET_PDEATHSIG: Final = 1


class RefusedError(Exception):
    """The key cannot be had. The text is for the operator and holds no secret."""

    kind = REFUSED


class DeniedError(RefusedError):
    """The token does not let us in. Tokens count wrong PINs."""

    kind = DENIED


class Key:
    """One private key in a logged-in session."""

    def __init__(self) -> None:
        self._key: Any = None

    def open(self, wanted: dict[str, str]) -> bytes:
        """Log in, find the key and return its public point. Raises `RefusedError`."""
        try:
            import pkcs11  # noqa: PLC0415 - an optional extra; its absence is told, not a crash
        except ImportError:
            raise RefusedError("python-pkcs11 is missing; install `countersign[pkcs11]`") from None
        try:
            library = pkcs11.lib(wanted["module"])
        except (pkcs11.PKCS11Error, RuntimeError, OSError):
            raise RefusedError("the library of `module-path` cannot be loaded") from None
        try:
            session = _log_in(pkcs11, library, wanted)
            self._key = _find(pkcs11, session, pkcs11.ObjectClass.PRIVATE_KEY, wanted)
            public = _find(pkcs11, session, pkcs11.ObjectClass.PUBLIC_KEY, wanted)
            return _point(pkcs11, self._key, public)
        except pkcs11.PKCS11Error as error:
            raise RefusedError(f"the token answered {type(error).__name__}") from None

    def sign(self, data: bytes) -> bytes:
        """Return r and s. Raises what the module raises."""
        import pkcs11  # noqa: PLC0415 - imported by `open` before

        found = self._key.sign(hashlib.sha256(data).digest(), mechanism=pkcs11.Mechanism.ECDSA)
        return bytes(found)


def _log_in(pkcs11: Any, library: Any, wanted: dict[str, str]) -> Any:  # noqa: ANN401 - optional
    names = {"token_label": wanted["token"], "token_serial": wanted["serial"].encode()}
    try:
        token = library.get_token(**{name: value for name, value in names.items() if value})
    except pkcs11.NoSuchToken:
        raise RefusedError("there is no such token; check `token` and `serial`") from None
    except pkcs11.MultipleTokensReturned:
        raise RefusedError("several tokens have this name; add its `serial`") from None
    try:
        return token.open(user_pin=wanted["pin"] or None)
    except (pkcs11.PinIncorrect, pkcs11.PinInvalid, pkcs11.PinLenRange):
        raise DeniedError("the token refuses the PIN; check `pin-source`") from None
    except pkcs11.PinLocked:
        raise DeniedError("the PIN is locked; unlock the token") from None


def _find(pkcs11: Any, session: Any, kind: Any, wanted: dict[str, str]) -> Any:  # noqa: ANN401
    half = "private" if kind == pkcs11.ObjectClass.PRIVATE_KEY else "public"
    names = {"label": wanted["object"], "id": bytes.fromhex(wanted["id"])}
    asked = {name: value for name, value in names.items() if value}
    try:
        return session.get_key(object_class=kind, **asked)
    except pkcs11.NoSuchKey:
        hint = "log in by `pin-source`, and check `object` and `id`"
        raise RefusedError(f"the token has no {half} key of this name; {hint}") from None
    except pkcs11.MultipleObjectsReturned:
        raise RefusedError(f"several {half} keys have this name; add `id`") from None


def _point(pkcs11: Any, private: Any, public: Any) -> bytes:  # noqa: ANN401 - optional extra
    """Return the uncompressed point of a pair of P-256 keys."""
    if private.key_type != pkcs11.KeyType.EC or public[pkcs11.Attribute.EC_PARAMS] != _P256:
        raise RefusedError("the key is no P-256 key; tokens are signed with ES256 only")
    point = bytes(public[pkcs11.Attribute.EC_POINT]).removeprefix(_OCTET_STRING)
    if len(point) != POINT_BYTES or point[0] != _UNCOMPRESSED:
        raise RefusedError("the token tells no uncompressed public point")
    return point


def answer(key: Key, kind: int, payload: bytes) -> tuple[int, bytes]:
    """Return (kind, payload) for one request. Never raises, and never says more than a type."""
    try:
        if kind == OPEN:
            return ANSWER, key.open(json.loads(payload))
        return ANSWER, key.sign(payload)
    except RefusedError as error:
        return error.kind, str(error).encode()
    except Exception as error:  # noqa: BLE001 - whatever a vendor's module comes up with
        return FAULT, type(error).__name__.encode()


def serve(connection: socket.socket) -> None:
    """Answer frames until the gateway closes its end."""
    key, buffer = Key(), bytearray()
    while chunk := connection.recv(READ_BYTES):
        buffer += chunk
        while len(buffer) >= FRAME.size:
            length, request_id, kind = FRAME.unpack_from(buffer)
            end = FRAME.size + length
            if end > len(buffer):
                break
            kind, reply = answer(key, kind, bytes(buffer[FRAME.size : end]))
            del buffer[:end]
            connection.sendall(FRAME.pack(len(reply), request_id, kind) + reply)


def confine() -> None:
    """No core dump with a PIN in it; ends with the gateway, not with signals to the whole group."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for signaled in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signaled, signal.SIG_IGN)
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415 - needed here only

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    """Run as a worker on the descriptor given as the argument."""
    confine()
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        try:
            serve(connection)
        except (BrokenPipeError, ConnectionResetError):
            os._exit(0)  # the gateway is gone


if __name__ == "__main__":
    main()
