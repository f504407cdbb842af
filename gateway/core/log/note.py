r"""Signed checkpoints: C2SP signed-note and tlog-checkpoint, read strictly.

::

    <origin>\n<size>\n<base64 root>\n\n— <key name> <base64(key id ‖ signature)>\n

Reading accepts exactly what writing produces: one signature, no extension lines, no second
spelling of a number or of base64. Whatever else would be another text with the same meaning.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from msgspec import Struct

from gateway.core.log.merkle import HASH_BYTES

_ED25519: Final = b"\x01"
_KEY_ID_BYTES: Final = 4
_SIGNATURE_BYTES: Final = 64
_ORIGIN_MAX_CHARS: Final = 256
_NOTE_LINES: Final = 5


class NoteKey(Struct, frozen=True):
    """A key that signs notes. `id`: 4 bytes, a hint to tell keys apart, no proof of anything."""

    name: str
    id: bytes
    public: bytes

    def verify(self, signature: bytes, text: bytes) -> bool:
        """Whether `signature` (64 bytes) is this key's over `text`."""
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, text)
        except InvalidSignature:
            return False
        return True


class Checkpoint(Struct, frozen=True):
    """What a checkpoint says: the log `origin` has `size` records under `root` (32 bytes)."""

    origin: str
    size: int
    root: bytes


class SignedCheckpoint(Struct, frozen=True):
    """A checkpoint as read from its note, not yet believed: the signature is still to be verified.

    `text` is what the signature covers.
    """

    checkpoint: Checkpoint
    text: bytes
    key_name: str
    key_id: bytes
    signature: bytes

    def is_signed_by(self, key: NoteKey) -> bool:
        """Whether the note names `key` and the signature is that key's."""
        return self.names(key) and key.verify(self.signature, self.text)

    def names(self, key: NoteKey) -> bool:
        """Whether the note claims to be signed by `key`."""
        return self.key_name == key.name and self.key_id == key.id


def check_name(name: str) -> str:
    """Return `name` if it can be an origin and a key name, else raise `ValueError`."""
    usable = name.isascii() and name.isprintable() and not set(name) & {" ", "+"}
    if not name or len(name) > _ORIGIN_MAX_CHARS or not usable:
        raise ValueError(
            f"`{name}` cannot name a log; use up to {_ORIGIN_MAX_CHARS} printable ASCII characters "
            "without space and plus, such as `gateway.example.com/audit`"
        )
    return name


def build_key(name: str, public: Ed25519PublicKey) -> NoteKey:
    """Return the note key of a public key under the log's name."""
    raw = public.public_bytes_raw()
    head = hashlib.sha256(check_name(name).encode() + b"\n" + _ED25519 + raw).digest()
    return NoteKey(name, head[:_KEY_ID_BYTES], raw)


def build_vkey(key: NoteKey) -> str:
    """Write a key as C2SP verifier key: `<name>+<hex key id>+<base64 0x01 ‖ public key>`."""
    return f"{key.name}+{key.id.hex()}+{_to_base64(_ED25519 + key.public)}"


def parse_vkey(text: str) -> NoteKey:
    """Read a verifier key. Raises `ValueError` for anything but an Ed25519 key of its own id."""
    try:
        name, _, encoded = text.split("+", 2)
        raw = _from_base64(encoded)
        key = build_key(name, Ed25519PublicKey.from_public_bytes(raw[1:]))
    except ValueError:
        raise ValueError("not an Ed25519 verifier key; expected `name+hash+key`") from None
    if build_vkey(key) != text:
        raise ValueError("the verifier key does not match its own hash; copy it again")
    return key


def build_text(checkpoint: Checkpoint) -> bytes:
    """Return the text of a checkpoint, which is what gets signed."""
    root = _to_base64(checkpoint.root)
    return f"{checkpoint.origin}\n{checkpoint.size}\n{root}\n".encode()


def sign(checkpoint: Checkpoint, key: NoteKey, signer: Ed25519PrivateKey) -> str:
    """Return the signed note of a checkpoint. `signer` is the private half of `key`."""
    text = build_text(checkpoint)
    signature = _to_base64(key.id + signer.sign(text))
    return f"{text.decode()}\n— {key.name} {signature}\n"


def parse(note: str) -> SignedCheckpoint:
    """Read a signed checkpoint. Raises `ValueError` for any text that `sign` would not write."""
    lines = note.split("\n")
    if len(lines) != _NOTE_LINES + 1 or lines[3] or lines[5]:
        raise ValueError("a checkpoint has three lines, an empty one and one signature")
    checkpoint = Checkpoint(check_name(lines[0]), _to_size(lines[1]), _from_base64(lines[2]))
    dash, _, rest = lines[4].partition(" ")
    name, _, encoded = rest.partition(" ")
    blob = _from_base64(encoded)
    if dash != "—" or len(blob) != _KEY_ID_BYTES + _SIGNATURE_BYTES:
        raise ValueError("a checkpoint's signature line is malformed")
    if len(checkpoint.root) != HASH_BYTES:
        raise ValueError("a checkpoint's root is not 32 bytes")
    return SignedCheckpoint(
        checkpoint,
        build_text(checkpoint),
        check_name(name),
        blob[:_KEY_ID_BYTES],
        blob[_KEY_ID_BYTES:],
    )


def _to_size(text: str) -> int:
    # `int` also reads `+1`, `1_0`, ` 1` and other scripts' digits
    if not text.isascii() or not text.isdigit() or str(int(text)) != text:
        raise ValueError("a checkpoint's size is not a plain decimal number")
    return int(text)


def _to_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _from_base64(text: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError("not base64") from None
    if _to_base64(data) != text:  # unused bits of the last character must be zero
        raise ValueError("not the one spelling of its base64")
    return data
