r"""Witnesses' cosignatures: C2SP cosignature/v1 and the words of tlog-witness, read strictly.

A cosignature is one more signature line under a checkpoint's note::

    — <witness name> <base64(key id ‖ time (8 bytes, big-endian, seconds) ‖ signature)>\n

over `cosignature/v1\ntime <seconds>\n` and the note's text. It says that, at that time, this was
the largest tree that the witness had seen of the log, grown from every one that it saw before.
Nothing that a witness sends is believed beyond what its key, named in the configuration, signed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence
from typing import Final, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from msgspec import Struct

from gateway.core.entry import Entry
from gateway.core.log.merkle import HASH_BYTES
from gateway.core.log.note import Checkpoint, NoteKey, check_name, sign

ANSWER_MAX_BYTES: Final = 16_384
"""More than sixteen signature lines of the longest kind in use."""
SKEW_MAX_S: Final = 300
"""How far a cosignature's time may be from the clock here, either way."""

_ALGORITHM: Final = b"\x04"
_KEY_ID_BYTES: Final = 4
_TIME_BYTES: Final = 8
_SIGNATURE_BYTES: Final = 64
_PROOF_MAX: Final = 63
_SIZE_TYPE: Final = "text/x.tlog.size"
_SIZE_MAX_DIGITS: Final = 19
_FIELD_PRIME: Final = 2**255 - 19
_SIGN_BIT: Final = 1 << 255
_ORDER_8_Y: Final = int.from_bytes(
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"
)
# The y coordinates of the eight points of order 8 and less, each with its second spelling.
_LOW_ORDER_Y: Final = frozenset(
    {0, 1, _FIELD_PRIME - 1, _FIELD_PRIME, _FIELD_PRIME + 1, _ORDER_8_Y, _FIELD_PRIME - _ORDER_8_Y}
)

Reason = Literal[
    "unreachable",  # no connection, or it broke
    "timed_out",
    "too_large",  # an answer past the limit, not read
    "redirected",  # never followed
    "unavailable",  # 5xx: the witness has a fault of its own
    "busy",  # 429
    "rejected",  # any other status; the witness does not understand us
    "log_unknown",  # 404: the witness was not told of this log
    "key_unknown",  # 403: it knows the log under another key, such as that of an earlier epoch
    "moving",  # told another size twice: somebody else submits this log's checkpoints
    "ahead",  # it has cosigned more records than this log has
    "inconsistent",  # it has cosigned another history of this log
    "malformed",  # not the answer of a witness
    "not_cosigned",  # lines, but none of this witness's key
    "bad_signature",
    "time_off",  # signed, but for another time than now
    "unproven",  # our own proof could not be made
]
"""Why there is no cosignature."""

FORKED: Final[frozenset[Reason]] = frozenset({"ahead", "inconsistent"})
"""What an honest witness says of a log that was cut back or rewritten."""


class Cosignature(Struct, frozen=True):
    """A cosignature as read, not yet believed: `is_cosigned` tells. `time_s`: since 1970."""

    name: str
    key_id: bytes
    time_s: int
    signature: bytes


class Lines(Struct, frozen=True):
    """The witness answered with signature lines."""

    body: bytes


class Conflict(Struct, frozen=True):
    """The witness's latest cosigned checkpoint has another size than the request said."""

    size: int


class NoCosignature(Struct, frozen=True):
    """There is no cosignature, and why."""

    reason: Reason


def build_witness_key(name: str, public: bytes) -> NoteKey:
    """Return the key of a witness: 32 bytes of Ed25519 under its name.

    Raises `ValueError` for a name that cannot be one, and for a key under which anybody can sign.
    """
    Ed25519PublicKey.from_public_bytes(public)
    if int.from_bytes(public, "little") % _SIGN_BIT in _LOW_ORDER_Y:
        raise ValueError("a key under which anybody can sign")
    head = hashlib.sha256(check_name(name).encode() + b"\n" + _ALGORITHM + public).digest()
    return NoteKey(name, head[:_KEY_ID_BYTES], public)


def build_witness_vkey(key: NoteKey) -> str:
    """Write a witness's key as C2SP verifier key of algorithm 0x04."""
    return f"{key.name}+{key.id.hex()}+{_to_base64(_ALGORITHM + key.public)}"


def parse_witness_vkey(text: str) -> NoteKey:
    """Read a witness's verifier key. Raises `ValueError` for any other spelling or algorithm."""
    name, _, rest = text.partition("+")
    _, _, encoded = rest.partition("+")
    try:
        raw = _from_base64(encoded)
        key = build_witness_key(name, raw[1:])
    except ValueError:
        raise ValueError("not a witness's verifier key; expected `name+hash+key`") from None
    if raw[:1] != _ALGORITHM:
        raise ValueError("not a witness's verifier key; cosignatures are of algorithm 0x04")
    if build_witness_vkey(key) != text:
        raise ValueError("the verifier key does not match its own hash; copy it again")
    return key


def parse_cosignature(entry: str) -> Cosignature:
    """Read `<name> <base64>`. Raises `ValueError` for anything but the one spelling."""
    name, _, encoded = entry.partition(" ")
    blob = _from_base64(encoded)
    if len(blob) != _KEY_ID_BYTES + _TIME_BYTES + _SIGNATURE_BYTES:
        raise ValueError("not as long as a cosignature")
    time_s = int.from_bytes(blob[_KEY_ID_BYTES:-_SIGNATURE_BYTES])
    if time_s >= 1 << 63:
        raise ValueError("a time that cannot be")
    return Cosignature(
        check_name(name), blob[:_KEY_ID_BYTES], time_s, blob[_KEY_ID_BYTES + _TIME_BYTES :]
    )


def build_cosignature(cosignature: Cosignature) -> str:
    """Write `<name> <base64>`, as it stands in `checkpoint.witnessed`."""
    time = cosignature.time_s.to_bytes(_TIME_BYTES)
    return f"{cosignature.name} {_to_base64(cosignature.key_id + time + cosignature.signature)}"


def build_message(time_s: int, text: bytes) -> bytes:
    """Return what a witness signs over a checkpoint's `text` at a time."""
    return b"cosignature/v1\ntime %d\n%b" % (time_s, text)


def is_cosigned(text: bytes, cosignature: Cosignature, key: NoteKey) -> bool:
    """Whether the cosignature is this witness's over this checkpoint's text."""
    if cosignature.name != key.name or cosignature.key_id != key.id:
        return False
    return key.verify(cosignature.signature, build_message(cosignature.time_s, text))


def build_request(old: int, proof: Sequence[bytes], note: str) -> bytes:
    """Return the body of `add-checkpoint`: `old`, the proof from there, and the signed note.

    Raises `ValueError` for what no witness may be sent.
    """
    if len(proof) > _PROOF_MAX or any(len(node) != HASH_BYTES for node in proof):
        raise ValueError("no consistency proof")
    lines = [f"old {old}", *map(_to_base64, proof), "", note]
    return "\n".join(lines).encode()


def read_answer(status: int, content_type: str, body: bytes) -> Lines | Conflict | NoCosignature:
    """Say what a witness's answer to `add-checkpoint` means, before any of it is believed.

    A 409 that tells no size is how a witness answers another root at the size that it has.
    """
    if status == 200:  # noqa: PLR2004 - OK
        return Lines(body)
    if status == 409:  # noqa: PLR2004 - Conflict
        if content_type.partition(";")[0].strip().lower() != _SIZE_TYPE:
            return NoCosignature("inconsistent")
        size = _to_size(body)
        return NoCosignature("malformed") if size is None else Conflict(size)
    return NoCosignature(_reason(status))


def _reason(status: int) -> Reason:
    named: dict[int, Reason] = {
        403: "key_unknown",
        404: "log_unknown",
        422: "inconsistent",
        429: "busy",
    }
    if status in named:
        return named[status]
    by_class: dict[int, Reason] = {3: "redirected", 5: "unavailable"}
    return by_class.get(status // 100, "rejected")


def find_cosignature(
    body: bytes, key: NoteKey, text: bytes, now_s: int
) -> Cosignature | NoCosignature:
    """Return the one cosignature in an answer that `key` made over `text` just now.

    Lines of other keys are none of ours: a witness may sign under several.
    """
    try:
        entries = _entries(body)
        named = [entry for entry in entries if _is_of(entry, key)]
        if not named:
            return NoCosignature("not_cosigned")
        (found,) = {parse_cosignature(entry) for entry in named}
    except ValueError:
        return NoCosignature("malformed")
    # 1. Only over this text: a cosignature of another size, root or log is another's word.
    if not is_cosigned(text, found, key):
        return NoCosignature("bad_signature")
    # 2. Only of now: an old one replayed would tell auditors of a time at which nobody looked.
    if abs(found.time_s - now_s) > SKEW_MAX_S:
        return NoCosignature("time_off")
    return found


def _entries(body: bytes) -> list[str]:
    text = body.decode()
    lines = text.split("\n")
    if len(body) > ANSWER_MAX_BYTES or len(lines) == 1 or lines.pop():
        raise ValueError("not lines")
    heads = {line[:2] for line in lines}
    if heads != {"— "}:
        raise ValueError("not signature lines")
    return [line[2:] for line in lines]


def _is_of(entry: str, key: NoteKey) -> bool:
    name, _, encoded = entry.partition(" ")
    return _from_base64(encoded)[:_KEY_ID_BYTES] == key.id and name == key.name


def build_introduction(checkpoint: Checkpoint, key: NoteKey, signer: Ed25519PrivateKey) -> str:
    """Return one more signature line for a checkpoint's note: the last line of a note by `key`."""
    return sign(checkpoint, key, signer).partition("\n\n")[2]


def build_witnessed_note(note: str, cosignatures: Sequence[Cosignature]) -> str:
    """Return a signed note with cosignatures under it, as in `witness/checkpoint`."""
    return note + "".join(f"— {build_cosignature(one)}\n" for one in cosignatures)


def split_witnessed_note(whole: str) -> tuple[str, list[Cosignature]]:
    """Return the note without cosignatures, and those. Raises `ValueError` for another form."""
    text, gap, tail = whole.partition("\n\n")
    own, _, rest = tail.partition("\n")
    entries = _entries(rest.encode()) if rest else []
    return f"{text}{gap}{own}\n", [parse_cosignature(entry) for entry in entries]


def build_witnessed(op: str, checkpoint: Checkpoint, found: Sequence[Cosignature]) -> Entry:
    """Return the `checkpoint.witnessed` record of a checkpoint."""
    fields = {
        "size": checkpoint.size,
        "root": checkpoint.root.hex(),
        "cosignatures": [build_cosignature(one) for one in found],
    }
    return Entry(type="checkpoint.witnessed", op=op, fields=fields)


def _to_size(body: bytes) -> int | None:
    digits = body[:-1]
    if not body.endswith(b"\n") or not digits.isdigit() or len(digits) > _SIZE_MAX_DIGITS:
        return None
    size = int(digits)
    return size if b"%d" % size == digits else None


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
