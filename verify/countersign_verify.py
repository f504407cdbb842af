#!/usr/bin/env python3
"""Verify a Countersign audit log: `python3 countersign_verify.py DIR`.

One file, written from docs/spec/audit-log-v1.md alone; it shares no code with the gateway and runs
on a bare Python 3.11. `orjson` and `cryptography` make it faster where they are installed, and
change no answer. Section numbers in comments are those of the spec.

Exit codes: 0 valid; 1 integrity failure; 2 usage or I/O; 3 valid, but below the asked assurance;
4 fork or rollback against what was seen before.
"""

# ruff: noqa: PLR2004 (sizes of hashes and keys are in the spec's words beside them)

from __future__ import annotations

import argparse
import base64
import gc
import hashlib
import heapq
import importlib
import itertools
import json
import os
import re
import sys
import time
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

Json = dict[str, Any]

OK, BROKEN, USAGE, WEAK, FORKED = 0, 1, 2, 3, 4
LINE_MAX = 16_384  # bytes of a record line without its LF (§2)
BLOCK = 1 << 16  # bytes read at a time
BATCH_MAX = 4_096  # lines kept for a diagnosis; a longer batch is checked in pieces
REGION_MAX = 4_096  # lines behind a break that are compared with what should stand there
REGION_BYTES = 1 << 23
TRIES_MAX = 64  # bad signatures until the search for a good one behind a break is given up
SCANS_MAX = 8  # times that the rest of the log is searched for a record that is not in its place
FINDINGS_KEPT = 1_000
PATIENCE_S = 10  # that another verification may take to write its memory
INT_LIMIT = 2**53
CP = b'{"cp":'
TORN = b"\n"  # put before bytes without an LF at the end of a segment: no line begins so
SEGMENT = re.compile(r"[0-9]{20}\.jsonl")
ORIGIN = re.compile(r"[!-*,-~]{1,256}")


class UnusableError(Exception):
    """The log cannot be judged: wrong usage, or a file that cannot be read. Exit code 2."""


class Finding(NamedTuple):
    """One thing that is wrong: its class, the number of the record, the place, plain words."""

    kind: str
    seq: int
    place: str
    what: str
    rule: str = ""


# --- Ed25519 (RFC 8032), for a Python without `cryptography` -------------------------------------

_P = 2**255 - 19
_L = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, -1, _P) % _P
_I = pow(2, (_P - 1) // 4, _P)
Point = tuple[int, int, int, int]
_ZERO: Point = (0, 1, 1, 0)


def _add(p: Point, q: Point) -> Point:
    a = (p[1] - p[0]) * (q[1] - q[0]) % _P
    b = (p[1] + p[0]) * (q[1] + q[0]) % _P
    c = 2 * p[3] * q[3] * _D % _P
    d = 2 * p[2] * q[2] % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _point(data: bytes) -> Point | None:
    """Decode a point; None where the encoding is not the canonical one of a curve point."""
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, y & (2**255 - 1)
    if y >= _P:
        return None
    square = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
    x = pow(square, (_P + 3) // 8, _P)
    if (x * x - square) % _P:
        x = x * _I % _P
    if (x * x - square) % _P or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = _P - x
    return x, y, 1, x * y % _P


def _encoded(p: Point) -> bytes:
    inverse = pow(p[2], -1, _P)
    x, y = p[0] * inverse % _P, p[1] * inverse % _P
    return (y | (x & 1) << 255).to_bytes(32, "little")


_BASE = _point(bytes.fromhex("58" + "66" * 31))


def is_low_order(public: bytes) -> bool:
    """Whether a public key is no point, or one of the eight under which forging is easy."""
    point = _point(public)
    if point is None:
        return True
    for _ in range(3):
        point = _add(point, point)
    return point[0] % _P == 0 and (point[1] - point[2]) % _P == 0


def plain_ed25519(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether the signature is good (cofactorless, S below the group order)."""
    key, s = _point(public), int.from_bytes(signature[32:], "little")
    if key is None or len(signature) != 64 or s >= _L or _BASE is None:
        return False
    digest = hashlib.sha512(signature[:32] + public + message).digest()
    k = int.from_bytes(digest, "little") % _L
    minus: Point = (_P - key[0], key[1], 1, _P - key[3])
    table = (_ZERO, _BASE, minus, _add(_BASE, minus))
    total = _ZERO
    for bit in range(252, -1, -1):
        total = _add(total, total)
        if index := (s >> bit & 1) | (k >> bit & 1) << 1:
            total = _add(total, table[index])
    return _encoded(total) == signature[:32]


# --- What publishers sign (§9.3): JWTs under Ed25519 or ES256 (FIPS 186-5, P-256) -----------------

_Q = 2**256 - 2**224 + 2**192 + 2**96 - 1
_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
_G = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)
_SPKI_ED25519 = bytes.fromhex("302a300506032b6570032100")
_SPKI_P256 = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")
Affine = tuple[int, int]


def _plus(p: Affine | None, q: Affine | None) -> Affine | None:
    """Add two points of P-256; None is the point at infinity."""
    if p is None or q is None:
        return q if p is None else p
    if p[0] == q[0] and (p[1] + q[1]) % _Q == 0:
        return None
    if p == q:
        slope = (3 * p[0] * p[0] - 3) * pow(2 * p[1], -1, _Q) % _Q
    else:
        slope = (q[1] - p[1]) * pow(q[0] - p[0], -1, _Q) % _Q
    x = (slope * slope - p[0] - q[0]) % _Q
    return x, (slope * (p[0] - x) - p[1]) % _Q


def plain_p256(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether the ES256 signature (r and s, 64 bytes) over the message is that key's."""
    key = int.from_bytes(public[:32]), int.from_bytes(public[32:])
    r, s = int.from_bytes(signature[:32]), int.from_bytes(signature[32:])
    on_curve = (key[1] ** 2 - key[0] ** 3 + 3 * key[0] - _B) % _Q == 0 and max(key) < _Q
    if len(signature) != 64 or not on_curve or not (0 < r < _ORDER and 0 < s < _ORDER):
        return False
    inverse = pow(s, -1, _ORDER)
    one = int.from_bytes(sha256(message).digest()) * inverse % _ORDER
    two = r * inverse % _ORDER
    both, total = _plus(_G, key), None
    for bit in range(255, -1, -1):
        total = _plus(total, total)
        chosen = (None, _G, key, both)[(one >> bit & 1) | (two >> bit & 1) << 1]
        total = _plus(total, chosen)
    return total is not None and total[0] % _ORDER == r


def unbase64url(text: str) -> bytes:
    """Decode base64url without padding, canonical only. Raises ValueError."""
    data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    if base64.urlsafe_b64encode(data).rstrip(b"=").decode() != text:
        raise ValueError("not canonical")
    return data


def read_statement(token: str, kid: str, key: str) -> Json | None:
    """What a publisher's JWT says; None where it is not signed by this key (§9.3)."""
    try:
        head, payload, tail = token.split(".")
        header, signature = json.loads(unbase64url(head)), unbase64url(tail)
        said, public = json.loads(unbase64url(payload)), base64.b64decode(key, validate=True)
    except (ValueError, RecursionError):
        return None
    if type(header) is not dict or type(said) is not dict or "crit" in header:
        return None
    if header.get("typ") != "countersign-release+jwt" or header.get("kid") != kid:
        return None
    message = f"{head}.{payload}".encode()
    if len(public) == 44 and public.startswith(_SPKI_ED25519):
        good = header.get("alg") in {"EdDSA", "Ed25519"}
        return said if good and is_signed(public[12:], message, signature) else None
    if len(public) == 91 and public.startswith(_SPKI_P256) and header.get("alg") == "ES256":
        return said if plain_p256(public[27:], message, signature) else None
    return None


def _load(name: str) -> Any:  # noqa: ANN401 (a module that may not be there)
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


class Tools:
    """What may not be there, or None: `orjson`, `cryptography` for Ed25519, locks on Windows."""

    fcntl: Any = _load("fcntl")
    orjson: Any = _load("orjson")
    ed25519: Any = _load("cryptography.hazmat.primitives.asymmetric.ed25519")

    @classmethod
    def none(cls) -> None:
        """Do without them, as `--plain` asks."""
        cls.orjson = cls.ed25519 = None


def is_signed(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether the Ed25519 signature over the message is that key's."""
    if Tools.ed25519 is None:
        return plain_ed25519(public, message, signature)
    try:
        Tools.ed25519.Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except Exception:  # noqa: BLE001 (whatever the library says, it is not a good signature)
        return False
    return True


# --- Verifier keys, signed notes, checkpoints (C2SP signed-note, tlog-checkpoint, cosignature) ---


def unbase64(text: str) -> bytes:
    """Decode base64 in its one spelling. Raises ValueError for any other."""
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        raise ValueError("no base64") from None
    if base64.b64encode(data).decode() != text:
        raise ValueError("base64 in another spelling than the one")
    return data


def uncounted(text: str) -> int:
    """Read a decimal number without leading zeros, of 16 digits at most. Raises ValueError."""
    if not (text.isascii() and text.isdigit() and len(text) <= 16 and str(int(text)) == text):
        raise ValueError("no plain decimal number")
    return int(text)


class Key(NamedTuple):
    """A verifier key: `<name>+<hex key id>+<base64(algorithm ‖ public key)>`."""

    name: str
    id: bytes
    algorithm: int
    public: bytes
    text: str


def read_key(text: str, algorithm: int = 1) -> Key:
    """Read a verifier key strictly. Raises ValueError with plain words."""
    parts = text.split("+", 2)
    if len(parts) != 3 or not ORIGIN.fullmatch(parts[0]):
        raise ValueError("no verifier key of the form name+id+base64")
    data = unbase64(parts[2])
    if len(data) != 33 or data[0] != algorithm:
        raise ValueError(f"not the 32 bytes of an Ed25519 key of algorithm {algorithm}")
    kid = sha256(parts[0].encode() + b"\n" + data).digest()[:4]
    if kid.hex() != parts[1]:
        raise ValueError("the key id does not belong to the key")
    if is_low_order(data[1:]):
        raise ValueError("a key under which anybody can sign")
    return Key(parts[0], kid, algorithm, data[1:], text)


class Note(NamedTuple):
    """A checkpoint with the signature lines under it: (key name, key id ‖ signature) each."""

    origin: str
    size: int
    root: bytes
    text: str
    signatures: tuple[tuple[str, bytes], ...]
    whole: str


def read_note(whole: str) -> Note:
    """Read a signed checkpoint strictly. Raises ValueError with plain words."""
    text, gap, tail = whole.partition("\n\n")
    lines = text.split("\n")
    if not gap or len(lines) != 3 or not tail.endswith("\n"):
        raise ValueError("not a checkpoint of three lines, an empty one and signatures")
    if not ORIGIN.fullmatch(lines[0]):
        raise ValueError("no origin")
    size, root = uncounted(lines[1]), unbase64(lines[2])
    if len(root) != 32:
        raise ValueError("the root has not 32 bytes")
    signatures = []
    for line in tail[:-1].split("\n"):
        dash, _, rest = line.partition(" ")
        name, _, blob = rest.partition(" ")
        if dash != "\u2014" or not ORIGIN.fullmatch(name):
            raise ValueError("a signature line in another form")
        signatures.append((name, unbase64(blob)))
    return Note(lines[0], size, root, text + "\n", tuple(signatures), whole)


def is_note_signed(note: Note, key: Key) -> bool:
    """Whether a line under the note is a good signature of this key."""
    return any(
        name == key.name
        and blob[:4] == key.id
        and len(blob) == 68
        and is_signed(key.public, note.text.encode(), blob[4:])
        for name, blob in note.signatures
    )


def is_cosigned(text: str, key: Key, name: str, blob: bytes) -> bool | None:
    """Whether a witness's cosignature (§4.3) is good; None where it is not of this witness."""
    if name != key.name or blob[:4] != key.id:
        return None
    if len(blob) != 76:
        return False
    seconds = int.from_bytes(blob[4:12], "big")
    return is_signed(key.public, f"cosignature/v1\ntime {seconds}\n{text}".encode(), blob[12:])


# --- Lines (§2) ---------------------------------------------------------------------------------


def _bounded(text: str) -> int:
    number = int(text) if len(text) < 18 else INT_LIMIT
    if not -INT_LIMIT < number < INT_LIMIT:
        raise ValueError("a number beyond 2^53")
    return number


def _refused(text: str) -> None:
    raise ValueError(f"`{text[:20]}` is no whole number")


_decode = json.JSONDecoder(parse_float=_refused, parse_int=_bounded, parse_constant=_refused).decode
_encode = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, check_circular=False
).encode
_FOLD = bytes.maketrans(b",[-eE", b":::..")


def is_plain(value: object) -> bool:
    """Whether a JSON value has ASCII names only and no number that is not whole (§2)."""
    if isinstance(value, dict):
        return all(name.isascii() and is_plain(item) for name, item in value.items())
    if isinstance(value, list):
        return all(is_plain(item) for item in value)
    return not isinstance(value, float)


def plain_record(line: bytes) -> Json | None:
    """Read a line with the standard library; None where it is not canonical."""
    try:
        text = line.decode()
        record = _decode(text)
        if _encode(record) != text or len(line) > LINE_MAX or not isinstance(record, dict):
            return None
        return record if text.isascii() or is_plain(record) else None
    except (ValueError, RecursionError):
        return None


def record_reader() -> Callable[[bytes], Json | None]:
    """The function that reads a line: with orjson, where it is there.

    What orjson does not take goes the plain way, for one answer from both. It takes numbers that
    are not whole: with all digits left out, they show as a point or an `e` right after what can
    stand before a number; only then is each value looked at.
    """
    if Tools.orjson is None:
        return plain_record
    loads, dumps = Tools.orjson.loads, Tools.orjson.dumps
    option = Tools.orjson.OPT_SORT_KEYS | Tools.orjson.OPT_STRICT_INTEGER

    def fast_record(line: bytes) -> Json | None:
        try:
            record: Json = loads(line)
            if dumps(record, None, option) != line:
                return None
        except (ValueError, TypeError):
            return plain_record(line)
        if len(line) > LINE_MAX or type(record) is not dict:
            return None
        folded = line.translate(_FOLD, b"0123456789")
        if (b":." in folded or not line.isascii()) and not is_plain(record):
            return None
        return record

    return fast_record


def loose_record(line: bytes) -> Json | None:
    """Read a line that is not canonical, to say what was done to it; None where it is no JSON."""
    try:
        record = json.loads(line.decode(), parse_constant=_refused)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def record_leaf(line: bytes) -> bytes:
    """`SHA-256(0x00 ‖ line)` (§3)."""
    return sha256(b"\0" + line).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """`SHA-256(0x01 ‖ left ‖ right)` (§3)."""
    return sha256(b"\1" + left + right).digest()


def grow(stack: list[bytes], size: int, leaves: Iterable[bytes]) -> list[bytes]:
    """Add leaves to the roots of the full subtrees of a tree of `size` leaves.

    Answers the roots of the subtrees of 256 leaves that this completes: the level-1 tile hashes.
    """
    tiled = []
    for leaf in leaves:
        node, index = leaf, size
        if index & 255 == 255:
            for _ in range(8):
                node = sha256(b"\1" + stack.pop() + node).digest()
            tiled.append(node)
            index >>= 8
        while index & 1:
            node = sha256(b"\1" + stack.pop() + node).digest()
            index >>= 1
        stack.append(node)
        size += 1
    return tiled


def root_of(stack: Sequence[bytes]) -> bytes:
    """Work out the tree's root from its full subtrees (RFC 6962 §2.1)."""
    if not stack:
        return sha256(b"").digest()
    root = stack[-1]
    for node in stack[-2::-1]:
        root = sha256(b"\1" + node + root).digest()
    return root


def included_root(index: int, size: int, leaf: bytes, path: Sequence[bytes]) -> bytes | None:
    """Work out the root that an inclusion proof leads to (RFC 9162 §2.1.3.2); None if to none."""
    if not 0 <= index < size:
        return None
    fn, sn, root = index, size - 1, leaf
    for node in path:
        if sn == 0:
            return None
        if fn & 1 or fn == sn:
            root = node_hash(node, root)
            while fn and not fn & 1:
                fn, sn = fn >> 1, sn >> 1
        else:
            root = node_hash(root, node)
        fn, sn = fn >> 1, sn >> 1
    return root if sn == 0 else None


class Line(NamedTuple):
    """A line with the segment that it stands in and its number there, from 1."""

    data: bytes
    segment: str
    number: int

    @property
    def place(self) -> str:
        """Where a reader finds the line."""
        return f"{self.segment}:{self.number}"


class Segments:
    """The lines of all segments, one after the other, without their LF; reads bounded blocks."""

    def __init__(self, folder: Path, names: list[str]) -> None:
        self.folder = folder
        self.names = names
        self.segment = ""
        self.number = 0

    @property
    def place(self) -> str:
        """Where the line that was handed out last stands."""
        return f"{self.segment}:{self.number}"

    def __iter__(self) -> Iterator[bytes]:
        for segment in self.names:
            self.segment, self.number = segment, 0
            try:
                with (self.folder / self.segment).open("rb", buffering=0) as file:
                    yield from self._lines(file.read)
            except OSError as error:
                reason = error.strerror or "it cannot be read"
                raise UnusableError(f"`{self.folder / self.segment}`: {reason}") from None

    def _lines(self, read: Callable[[int], bytes | None]) -> Iterator[bytes]:
        rest = b""
        while block := read(BLOCK):
            lines = (rest + block).split(b"\n")
            rest = lines.pop()[: LINE_MAX + 1]  # a line too long stays too long
            for line in lines:
                self.number += 1
                yield line
        if rest:
            self.number += 1
            yield TORN + rest


# --- What the records say together (§6.2) --------------------------------------------------------

RULES = {
    "boot_unknown": "it names a process run that no boot record before it began",
    "boot_count": "the boot record counts other open intents than there are",
    "key_mismatch": "the key that it names is not the epoch's",
    "outcome_without_intent": "a call ended that had never been announced by an intent",
    "outcome_mismatch": "it closes another intent than the last one of its operation",
    "second_outcome": "the call had ended before: one intent is closed twice",
    "second_intent": "the call was sent a second time under one operation id",
    "orphan_open": "the call was under way when its process died; nothing says what became of it",
    "intent_open": "the gateway shut down in order, but the call never ended",
    "effect_despite_deny": "the call went ahead although it was not permitted",
    "effect_despite_kill": "the call was sent although somebody had stopped it",
    "policy_unknown": "it was decided by a policy that had never been activated",
    "token_unknown": "the call used a token that was never issued",
    "token_mismatch": "the call's agent, run or family is not that of its token",
    "token_expired": "the call used a token that had expired",
    "token_revoked": "the call was sent although its token, run, family or agent had been revoked",
    "token_scope": "the token did not allow this tool or this kind of effect",
    "run_ended": "its run had ended before",
    "approval_unknown": "it names an approval that was never asked for",
    "approval_mismatch": "it is not about what the approval was asked for",
    "approval_missing": "the call needed an approval and had none",
    "approval_args": "the call's arguments are not those that were approved",
    "approval_late": "the vote or grant came after the approval had expired or was decided",
    "approval_expired": "the call came after the approval had expired",
    "approval_self": "somebody voted who may not vote on this call",
    "approval_twice": "one person voted twice",
    "approval_quorum": "fewer different people approved it than had to",
    "approval_decided": "the approval was already at an end, or not yet at this point",
    "approval_reused": "one approval was used for a second call",
    "hold_persons": "a legal hold was set or released by fewer than two persons",
    "hold_broken": "a subject was erased that was under a legal hold",
    "release_unsigned": "policies came to decide that two publishers had not signed",
    "release_replayed": "an older release came to decide again without a new signature",
    "release_withdrawn": "a release decided that was withdrawn, or no publisher withdrew it",
    "event_twice": "an event was recorded twice",
    "malformed": "a field has a form that the spec does not know",
}
SENT, NOT_SENT, REFUSED, HELD = 1, 2, 4, 8  # what is known of an operation
DENIED, ENDED, USED = 1, 2, 4  # what is known of an approval that is over
RUN_OVER, TOKEN_OVER, EVENT = 1, 1, 1
GRACE_US = 60_000_000  # how much later than a time limit a record may stand (§6.2)
TOKEN_KEPT_S = 3_600


class Marks:
    """A table from ids to four flags in 8 bytes each: what is over, for as long as the log is.

    It keeps 60 bits of a keyed hash, so that 10^6 ids confuse one in 10^6 times at most.
    """

    def __init__(self) -> None:
        self._room = 1 << 10
        self._table = array("Q", bytes(8 * self._room))
        self._used = 0

    def get(self, name: object) -> int:
        """The flags of an id; 0 where none were set."""
        key = (hash(name) & 0xFFFFFFFFFFFFFFF0) or 16
        mask, table = self._room - 1, self._table
        slot = (key >> 4) & mask
        while (found := table[slot]) and found & ~15 != key:
            slot = (slot + 1) & mask
        return found & 15

    def add(self, name: object, flags: int) -> None:
        """Set flags of an id."""
        key = (hash(name) & 0xFFFFFFFFFFFFFFF0) or 16
        mask, table = self._room - 1, self._table
        slot = (key >> 4) & mask
        while (found := table[slot]) and found & ~15 != key:
            slot = (slot + 1) & mask
        self._used += not found
        table[slot] = found | key | flags
        if self._used * 5 > self._room * 3:
            self._widen()

    def _widen(self) -> None:
        old, self._room = self._table, self._room * 2
        self._table = table = array("Q", bytes(8 * self._room))
        mask = self._room - 1
        for entry in old:
            if entry:
                slot = (entry >> 4) & mask
                while table[slot]:
                    slot = (slot + 1) & mask
                table[slot] = entry


def _part(record: Json, name: str) -> Json:
    value = record.get(name)
    return value if type(value) is dict else {}


class Intent(NamedTuple):
    """A call under way, and the rules that it breaks if it turns out to have been sent."""

    seq: int
    segment: str
    number: int
    boot: object
    approval: object
    doubts: tuple[str, ...] = ()
    is_reported: bool = False  # as left open

    @property
    def place(self) -> str:
        """Where the intent stands."""
        return f"{self.segment}:{self.number}"


class Allowance:
    """Which tools and effects a token allows; shared by tokens that allow the same."""

    def __init__(self, entries: list[Json]) -> None:
        self.entries = entries
        self._known: dict[tuple[object, object, object], bool] = {}

    def covers(self, tool: Json) -> bool:
        """Whether one entry covers the tool and its effect."""
        key = tool.get("server"), tool.get("id"), tool.get("effect")
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = any(self._covers(entry, *key) for entry in self.entries)
        return known

    @staticmethod
    def _covers(entry: Json, server: object, tool: object, effect: object) -> bool:
        name, effects = entry["tool"], entry.get("effects")
        return (
            entry["server"] in ("*", server)
            and (name == "*" or f"{server}.{name}" == tool)
            and (effects is None or "*" in effects or effect in effects)
        )


class Token(NamedTuple):
    """An issued token: its record, agent, run and family, its end in seconds, what it allows."""

    seq: int
    owner: tuple[object, object, object]
    exp: int
    callable: bool
    allow: Allowance | None


class Approval:
    """A held call's approval until it is over (§9.2)."""

    def __init__(self, request: Json) -> None:
        self.request = {
            name: request.get(name)
            for name in ("binding", "agent", "run", "tool", "op", "args_tag")
        }
        self.expires: int = request["expires"]
        self.quorum: int = request["quorum"] + 0  # a TypeError where it is no number
        self.sod = frozenset(request.get("sod") or ())
        self.issued = -1  # the record that issued the token of the request
        self.phase = "pending"
        self.granted = False
        self.approving: set[object] = set()
        self.voters: set[object] = set()


# From which phases (§9.2) an approval may come to a state, and whether that is its end.
STATES = {
    "grant": (("pending",), False),
    "deny": (("pending",), True),
    "expire": (("pending", "granted"), True),
    "cancel": (("pending", "granted"), True),
    "stale": (("granted",), True),
    "unknown": (("lost",), False),
    "resolve": (("unknown",), True),
}


class Releases:
    """Whose signatures count, and which release decides (§9.3)."""

    def __init__(self, pinned: frozenset[str]) -> None:
        self.pinned = pinned  # keys that the reader knows; empty: those that the log names
        self.trust: Json | None = None  # of this process run
        self.current: tuple[object, object] | None = None
        self.top = 0
        self.back: Json | None = None  # where a halt of the current one leads
        self._left: set[object] = set()  # releases that were halted or gone back from
        self._withdrawn: set[tuple[object, ...]] = set()
        self._seen: set[tuple[object, object]] = set()
        self._read: dict[tuple[str, str], Json | None] = {}

    def broken(self, record: Json) -> str | None:
        """The rule that an activation breaks, if any; takes note of it."""
        if self.trust is None and not self.pinned:
            return None
        place = record.get("release"), record.get("number")
        said = self._signed(record)
        rule = "release_unsigned" if said is None else None
        if said is not None and _withdrawal_of(said) in self._withdrawn:
            rule = "release_withdrawn"
        number = place[1] if type(place[1]) is int else 0
        is_back = self.back == {"release": place[0], "number": place[1]} and place in self._seen
        if rule is None and place != self.current and number <= self.top and not is_back:
            rule = "release_replayed"
        if place != self.current:
            self.back = None
            self._leave(said, record)
        self.current, self.top = place, max(self.top, number)
        self._seen.add(place)
        return rule

    def halt(self, record: Json) -> None:
        """Take note of the way back from the release that decides."""
        if (record.get("release"), record.get("number")) == self.current:
            self.back = record.get("back_to")
            self._left.add(record.get("release"))

    def withdraw(self, record: Json) -> str | None:
        """Take note of what decides no more; the rule that it breaks, if any."""
        found = self._read_words(record)
        if found is None or found[0].get("act") != "withdraw":
            return "release_withdrawn"
        self._withdrawn.add(_withdrawal_of(found[0]))
        return None

    def _leave(self, said: Json | None, record: Json) -> None:
        """Take note of what was gone back from; two publishers can say that it is good again."""
        if said is not None and said.get("act") == "rollback" and self.current is not None:
            self._left.add(self.current[0])
        if len(record.get("kids") or ()) > 1:
            self._left.discard(record.get("release"))

    def _signed(self, record: Json) -> Json | None:
        """What enough publishers said of this release, for this log and place in the row."""
        found, trust = self._read_words(record), self.trust or {}
        if found is None or found[0].get("act") == "withdraw":
            return None
        said, count = found
        release = record.get("release")
        is_back = said.get("act") == "rollback" and trust["rollback"] == "one"
        is_back = is_back and any(one[0] == release for one in self._seen)
        needed = 1 if is_back and release not in self._left else 2
        return said if count >= needed else None

    def _read_words(self, record: Json) -> tuple[Json, int] | None:
        """What publishers say alike, about this record's place, and how many of them."""
        trust, statements = self.trust or {}, record.get("statements") or ()
        named = {one["kid"]: one for one in trust.get("publishers", ())}
        people, said = set[object](), list[Json]()
        for kid, token in zip(record.get("kids") or (), statements, strict=True):
            publisher = named.get(kid)
            if publisher is None or (self.pinned and publisher["key"] not in self.pinned):
                return None
            statement = self._statement(token, kid, publisher["key"])
            if statement is None:
                return None
            people.add(publisher["person"])
            said.append(statement)
        keys = {named[kid]["key"] for kid in record.get("kids") or ()}
        if not said or any(one != said[0] for one in said):
            return None
        first = said[0]
        about = first.get("rev"), first.get("number"), first.get("env"), first.get("log")
        here = record.get("release"), record.get("number"), trust["environment"], record["log"]
        return (first, min(len(people), len(keys))) if about == here else None

    def _statement(self, token: str, kid: str, key: str) -> Json | None:
        if (token, key) not in self._read:  # the same ones stand there at every start
            self._read[token, key] = read_statement(token, kid, key)
        return self._read[token, key]


def _withdrawal_of(said: Json) -> tuple[object, ...]:
    """What a statement is about, whether it asks for it or takes it back (§9.3)."""
    return said.get("number"), said.get("rev"), said.get("shadow_s", 0), said.get("again", 0)


class Story:
    """Judges what records say together; remembers what is open, and little of what is over."""

    def __init__(
        self, breach: Callable[[int, str, str], None], publishers: frozenset[str] = frozenset()
    ) -> None:
        self._breach = breach
        self._releases = Releases(publishers)
        self.seq, self._segment, self._number = 0, "", 0
        self.unscoped = 0  # intents whose token did not say what it allows
        self.key = ""  # the epoch's, set by the chain
        self.last_ts = self.boot_ts = 0
        self._boot: object = None
        self._wrong_boot: object = None
        self._genesis: tuple[object, str] | None = None
        self._open: dict[object, Intent] = {}
        self._ops, self._runs, self._done, self._old_tokens = Marks(), Marks(), Marks(), Marks()
        self._events = Marks()
        self._revisions: set[object] = set()
        self._tokens: dict[object, Token] = {}
        self._expiry: list[tuple[int, str]] = []
        self._allowances: dict[str, Allowance] = {}
        names = ("jti", "root", "run", "agent", "client")
        self._revoked: dict[str, dict[object, int]] = {name: {} for name in names}
        self._is_revoking = False
        self._kills: dict[object, tuple[object, object]] = {}
        self._approvals: dict[object, Approval] = {}
        self._holds: dict[object, object] = {}
        judges: dict[str, Callable[[Json], None]] = {
            "genesis": self._on_genesis,
            "boot": self._on_boot,
            "shutdown": self._on_shutdown,
            "call.intent": self._on_intent,
            "call.outcome": self._on_end,
            "call.orphan": self._on_end,
            "call.refused": self._on_refused,
            "approval.request": self._on_request,
            "approval.vote": self._on_vote,
            "run.end": self._on_run_end,
            "token.issue": self._on_issue,
            "token.revoke": self._on_revoke,
            "kill.set": self._on_kill,
            "kill.lift": self._on_lift,
            "policy.activate": self._on_policy,
            "policy.trust": self._on_trust,
            "policy.halt": self._on_halt,
            "policy.withdraw": self._on_withdraw,
            "hold.set": self._on_hold,
            "hold.release": self._on_hold,
            "redact": self._on_redact,
        }
        judges.update({f"approval.{state}": self._on_state for state in STATES})
        self._judges = judges

    def _break(self, rule: str) -> None:
        self._breach(self.seq, self.place, rule)

    def feed(self, records: Sequence[Json], segment: str, number: int) -> None:
        """Judge records that follow each other, the first at line `number` of the segment."""
        judges, revisions = self._judges, self._revisions
        self._segment = segment
        for self._number, record in enumerate(records, number):
            self.seq = record["seq"]
            try:
                judge = judges.get(record["type"])
                if record["boot"] != self._boot and record["type"] not in {"boot", "genesis"}:
                    self._on_strange_boot(record["boot"])
                policy = record.get("policy")
                if policy and policy["rev"] not in revisions:
                    self._break("policy_unknown")
                if "event" in record:
                    self._on_event(record["event"])
                if judge:
                    judge(record)
            except (AttributeError, KeyError, TypeError, ValueError):
                self._break("malformed")
        if records:
            self.last_ts = records[-1]["ts"]

    @property
    def place(self) -> str:
        """Where the record at hand stands."""
        return f"{self._segment}:{self._number}"

    def close(self, *, is_live: bool) -> None:
        """Judge what the end of the log leaves open; a log being written has no end yet."""
        for intent in self._open.values():
            if not is_live:
                self._sent(intent)
            is_orphan = intent.boot != self._boot and self.last_ts - self.boot_ts > GRACE_US
            if is_orphan and not intent.is_reported:
                self._breach(intent.seq, intent.place, "orphan_open")

    def _sent(self, intent: Intent) -> None:
        for rule in intent.doubts:
            self._breach(intent.seq, intent.place, rule)

    # Process runs

    def _on_genesis(self, record: Json) -> None:
        self._genesis = record["boot"], self.place

    def _on_boot(self, record: Json) -> None:
        self._boot, self.boot_ts = record.get("op"), record["ts"]
        self._releases.trust = None
        if record["boot"] != self._boot:
            self._break("boot_unknown")
        if self._genesis and self._genesis[0] != self._boot:
            self._breach(0, self._genesis[1], "boot_unknown")
        self._genesis = None
        if record.get("key") != self.key:
            self._break("key_mismatch")
        if record.get("open_intents") != len(self._open):
            self._break("boot_count")

    def _on_strange_boot(self, boot: object) -> None:
        if boot != self._wrong_boot:  # once for each run that nobody began
            self._wrong_boot = boot
            self._break("boot_unknown")

    def _on_shutdown(self, record: Json) -> None:
        for op, intent in self._open.items():
            rule = "intent_open" if intent.boot == record["boot"] else "orphan_open"
            if not intent.is_reported:
                self._breach(intent.seq, intent.place, rule)
            self._open[op] = intent._replace(is_reported=True)

    def _on_event(self, event: object) -> None:
        if self._events.get(event):
            self._break("event_twice")
        self._events.add(event, EVENT)

    def _on_policy(self, record: Json) -> None:
        self._revisions.add(record["rev"])
        try:
            rule = self._releases.broken(record)
        except (AttributeError, KeyError, TypeError, ValueError):
            rule = "release_unsigned"
        if rule:
            self._break(rule)

    def _on_trust(self, record: Json) -> None:
        self._releases.trust = record

    def _on_halt(self, record: Json) -> None:
        self._releases.halt(record)

    def _on_withdraw(self, record: Json) -> None:
        try:
            rule = self._releases.withdraw(record)
        except (AttributeError, KeyError, TypeError, ValueError):
            rule = "release_withdrawn"
        if rule:
            self._break(rule)

    # Calls

    def _on_intent(self, record: Json) -> None:
        op, approval = record["op"], record.get("approval")
        known = self._ops.get(op)
        if known & SENT or op in self._open:
            self._break("second_intent")
        intent = Intent(self.seq, self._segment, self._number, record["boot"], approval)
        self._open[op] = intent
        actor, tool, decision = record.get("actor"), record.get("tool"), record.get("decision")
        actor = actor if type(actor) is dict else {}
        tool = tool if type(tool) is dict else {}
        if known & REFUSED or type(decision) is not dict or decision.get("outcome") != "permit":
            self._break("effect_despite_deny")
        if approval is None:
            if known & HELD:
                self._break("approval_missing")
            self._check_token(record, actor, tool)
        else:
            self._use_approval(record, approval, actor)
        doubts = []
        if self._kills and self._is_killed(actor, tool):
            doubts.append("effect_despite_kill")
        if self._is_revoking and self._revoked_at(actor) > self._issued(actor, approval):
            doubts.append("token_revoked")
        if self._runs.get(actor.get("run")):
            doubts.append("run_ended")
        if doubts:
            self._open[op] = intent._replace(doubts=tuple(doubts))

    def _is_killed(self, actor: Json, tool: Json) -> bool:
        """Whether a kill that stands stops this call."""
        meant = {
            ("all", "*"),
            ("agent", actor.get("agent")),
            ("client", actor.get("client")),
            ("run", actor.get("run")),
            ("run", actor.get("root")),
            ("actor", f"{actor.get('run')}/{actor.get('agent')}"),
            ("tool", tool.get("id")),
            ("server", tool.get("server")),
        }
        return not meant.isdisjoint(self._kills.values())

    def _revoked_at(self, actor: Json) -> int:
        """The last record that revoked anything that the call stands on; -2 if none did."""
        gone = self._revoked
        return max(gone[name].get(actor.get(name), -2) for name in gone)

    def _issued(self, actor: Json, approval: object) -> int:
        """Where the token was issued: a revocation ends what was issued before it."""
        token = self._tokens.get(actor.get("jti"))
        held = self._approvals.get(approval)
        return token.seq if token else held.issued if held else -1

    def _check_token(self, record: Json, actor: Json, tool: Json) -> None:
        jti = actor.get("jti")
        token = self._tokens.get(jti)
        if token is None:
            self._break("token_expired" if self._old_tokens.get(jti) else "token_unknown")
            return
        if token.owner != (actor.get("agent"), actor.get("run"), actor.get("root")):
            self._break("token_mismatch")
        if record["ts"] > token.exp * 1_000_000 + GRACE_US:
            self._break("token_expired")
        if token.allow is None:
            self.unscoped += 1
        if not token.callable or (token.allow and not token.allow.covers(tool)):
            self._break("token_scope")

    def _on_end(self, record: Json) -> None:
        op = record["op"]
        intent = self._open.pop(op, None)
        if intent is None:
            ended = self._ops.get(op) & (SENT | NOT_SENT)
            self._break("second_outcome" if ended else "outcome_without_intent")
            return
        if record.get("intent") != intent.seq:
            self._break("outcome_mismatch")
        delivery = record.get("delivery")
        self._ops.add(op, NOT_SENT if delivery == "not_sent" else SENT)
        if delivery != "not_sent":
            self._sent(intent)
        approval = self._approvals.get(intent.approval)
        if approval is None or intent.approval is None:
            return
        if delivery == "not_sent":
            approval.phase = "granted"
        elif delivery == "sent":
            self._retire(intent.approval, USED)
        else:
            approval.phase = "lost"

    def _on_refused(self, record: Json) -> None:
        self._ops.add(record["op"], REFUSED)

    # Approvals (§9.2)

    def _retire(self, name: object, flags: int) -> None:
        self._done.add(name, flags)
        del self._approvals[name]

    def _use_approval(self, record: Json, name: object, actor: Json) -> None:
        approval = self._approvals.get(name)
        if approval is None:
            self._use_ended(self._done.get(name))
            return
        asked = approval.request
        about = (record["op"], record["tool"], actor.get("agent"), actor.get("run"))
        if about != (asked["op"], asked["tool"], asked["agent"], asked["run"]):
            self._break("approval_mismatch")
        if not approval.granted:
            self._break("approval_missing")
        if record.get("args_tag") != asked["args_tag"]:
            self._break("approval_args")
        if record["ts"] > approval.expires * 1_000_000 + GRACE_US:
            self._break("approval_expired")
        if approval.phase in {"sending", "lost", "unknown"}:
            self._break("approval_reused")
        approval.phase = "sending"

    def _use_ended(self, over: int) -> None:
        if not over:
            self._break("approval_unknown")
        elif over & DENIED:
            self._break("approval_missing")
        elif over & ENDED:
            self._break("approval_decided")
        if over & USED:
            self._break("approval_reused")

    def _on_request(self, record: Json) -> None:
        name = record["approval"]
        self._ops.add(record["op"], HELD)
        if name in self._approvals or self._done.get(name):
            self._break("approval_decided")
            return
        approval = Approval(record)
        if token := self._tokens.get(_part(record, "actor").get("jti")):
            approval.issued = token.seq
        self._approvals[name] = approval

    def _found(self, record: Json) -> Approval | None:
        """The approval that a record is about; None, after saying why, where it is over."""
        name = record["approval"]
        approval = self._approvals.get(name)
        if approval is None:
            if not self._done.get(name):
                self._break("approval_unknown")
                return None
            is_vote = record["type"] == "approval.vote"
            self._break("approval_late" if is_vote else "approval_decided")
            return None
        asked = approval.request
        if any(record.get(part) != asked[part] for part in ("binding", "agent", "run", "tool")):
            self._break("approval_mismatch")
        return approval

    def _on_vote(self, record: Json) -> None:
        approval = self._found(record)
        if approval is None:
            return
        tag = record["voter_tag"]
        if approval.phase != "pending" or record["at"] > approval.expires:
            self._break("approval_late")
        if tag in approval.sod:
            self._break("approval_self")
        if tag in approval.voters:
            self._break("approval_twice")
        approval.voters.add(tag)
        if record["decision"] == "approve":
            approval.approving.add(tag)

    def _on_state(self, record: Json) -> None:
        approval = self._found(record)
        if approval is None:
            return
        state = record["type"].partition(".")[2]
        before, is_end = STATES[state]
        if approval.phase not in before:
            self._break("approval_decided")
        if state == "grant":
            if record["at"] > approval.expires:
                self._break("approval_late")
            if len(approval.approving) < approval.quorum:
                self._break("approval_quorum")
            approval.granted = True
            approval.phase = "granted" if approval.phase == "pending" else approval.phase
        elif is_end:
            used = USED if approval.phase in {"lost", "unknown"} else 0
            self._retire(record["approval"], used | (DENIED if state == "deny" else ENDED))
        else:
            approval.phase = "unknown"

    # Authority

    def _on_issue(self, record: Json) -> None:
        now = record["ts"] // 1_000_000
        while self._expiry and self._expiry[0][0] + TOKEN_KEPT_S < now:
            gone = heapq.heappop(self._expiry)[1]
            if (kept := self._tokens.get(gone)) and kept.exp + TOKEN_KEPT_S < now:
                del self._tokens[gone]
                self._old_tokens.add(gone, TOKEN_OVER)
        if self._runs.get(record["run"]):
            self._break("run_ended")
        scopes, allow = record["scopes"], record.get("allow")
        jti, exp = record["jti"], record["exp"]
        shared = None
        if allow is not None:
            if len(self._allowances) > 256:
                self._allowances.clear()
            shared = self._allowances.setdefault(_encode(allow), Allowance(allow))
        owner = record["agent"], record["run"], record["root"]
        self._tokens[jti] = Token(self.seq, owner, exp, "tools:call" in scopes, shared)
        heapq.heappush(self._expiry, (exp, jti))

    def _on_revoke(self, record: Json) -> None:
        self._is_revoking = True
        for name, gone in self._revoked.items():
            if record.get(name) is not None:
                gone[record[name]] = self.seq

    def _on_kill(self, record: Json) -> None:
        self._kills[record["kill"]] = record["kind"], record["target"]

    def _on_lift(self, record: Json) -> None:
        self._kills.pop(record["kill"], None)

    def _on_run_end(self, record: Json) -> None:
        self._runs.add(record["run"], RUN_OVER)

    # Personal data

    def _on_hold(self, record: Json) -> None:
        if len(set(record["persons"])) < 2:
            self._break("hold_persons")
        if record["type"] == "hold.set":
            self._holds[record["hold"]] = record["subject"]
        else:
            self._holds.pop(record["hold"], None)

    def _on_redact(self, record: Json) -> None:
        if any(subject in ("*", record["subject"]) for subject in self._holds.values()):
            self._break("hold_broken")


# --- Tiles (§5) ----------------------------------------------------------------------------------


TILE = re.compile(r"([0-9]|[1-5][0-9]|6[0-3])/((?:x[0-9]{3}/)*[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?")


def is_whole(node: bytes) -> bool:
    """Whether a tile holds a hash in this place: a power failure leaves it short or zero (§5)."""
    return len(node) == 32 and any(node)


class Tiles:
    """Compares the hashes worked out with the tiles that stand beside the segments."""

    def __init__(self, folder: Path, differs: Callable[[int, str], None]) -> None:
        self.folder = folder
        self.stands = folder.is_dir()
        self.absent = 0  # full level-0 tiles that are not there
        self._differs = differs
        self._levels: list[list[bytes]] = [[]]
        self._counts = [0]

    def feed(self, leaves: Iterable[bytes], tiled: Iterable[bytes]) -> None:
        """Take the next leaf hashes, and the roots of the level-0 tiles that they complete."""
        if self.stands:
            self._levels[0].extend(leaves)
            for node in tiled:
                self._complete(0, node)

    def close(self) -> None:
        """Compare the partial tiles of the right edge."""
        for level, hashes in enumerate(self._levels if self.stands else ()):
            folder = self._path(level, self._counts[level]).with_suffix(".p")
            for width, data in self._partials(folder):
                self._compare(level, self._counts[level], hashes[:width], data)

    def leaves(self, first: int, end: int) -> list[bytes] | None:
        """The leaf hashes that level 0 holds for these records; None where one is missing."""
        found = b""
        for index in range(first >> 8, (end + 255) >> 8):
            data = self._bytes(self._path(0, index))
            for _, partial in self._partials(self._path(0, index).with_suffix(".p")):
                data = data or b""
                data = max(data, partial, key=len)
            if data is None:
                return None
            found += data
        found = found[32 * (first & 255) : 32 * (end - (first & ~255))]
        hashes = [found[at : at + 32] for at in range(0, len(found), 32)]
        return hashes if len(found) == 32 * (end - first) else None

    def _complete(self, level: int, node: bytes) -> None:
        hashes = self._levels[level][:256]
        del self._levels[level][:256]
        data = self._bytes(self._path(level, self._counts[level]))
        if data is not None:
            self._compare(level, self._counts[level], hashes, data)
        elif level == 0:
            self.absent += 1
        self._counts[level] += 1
        if level + 1 == len(self._levels):
            self._levels.append([])
            self._counts.append(0)
        above = self._levels[level + 1]
        above.append(node)
        if len(above) == 256:
            stack: list[bytes] = []
            grow(stack, 0, above)
            self._complete(level + 1, stack[0])

    def _compare(self, level: int, index: int, hashes: list[bytes], data: bytes) -> None:
        if b"".join(hashes) == data[: 32 * len(hashes)]:
            return
        for at, mine in enumerate(hashes):
            theirs = data[32 * at : 32 * at + 32]
            if theirs != mine and is_whole(theirs):
                path = self._path(level, index).relative_to(self.folder.parent)
                self._differs((256 * index + at) << (8 * level), f"{path}:{at}")
                return

    def beyond(self, size: int) -> str:
        """The path of a tile with hashes of more records than these; empty if there is none."""
        for folder, _, names in os.walk(self.folder):
            parts = Path(folder).relative_to(self.folder).parts
            for name in names:
                match = TILE.fullmatch("/".join([*parts, name]))
                if match is None:
                    continue
                level, index = int(match[1]), int(re.sub("[x/]", "", match[2]))
                end = 256 * index + int(match[3] or 256)
                while end << (8 * level) > size and end > 256 * index:
                    data = self._bytes(Path(folder, name)) or b""
                    at = 32 * (end - 256 * index)
                    if is_whole(data[at - 32 : at]):
                        return f"tile/{match[0]}"
                    end -= 1
        return ""

    def _path(self, level: int, index: int) -> Path:
        parts = [f"{index % 1000:03d}"]
        while index := index // 1000:
            parts.insert(0, f"x{index % 1000:03d}")
        return self.folder.joinpath(str(level), *parts)

    @staticmethod
    def _bytes(path: Path) -> bytes | None:
        try:
            with path.open("rb") as file:
                return file.read(256 * 32 + 1)
        except OSError:
            return None

    def _partials(self, folder: Path) -> Iterator[tuple[int, bytes]]:
        try:
            names = sorted(path.name for path in folder.iterdir())
        except OSError:
            return
        for name in names:
            if re.fullmatch(r"[1-9][0-9]{0,2}", name) and (data := self._bytes(folder / name)):
                yield int(name), data[: 32 * int(name)]


# --- The chain (§6.1) ----------------------------------------------------------------------------


RARE = frozenset({"key.rotate", "checkpoint.witnessed"})  # types that the chain itself reads


class Epoch(NamedTuple):
    """A signing key and the first record that its signatures cover alone (§4.2)."""

    number: int
    key: Key
    first_seq: int


@dataclass
class Known:
    """A checkpoint that the reader has from elsewhere; `is_seen` where it is its own memory."""

    note: Note
    source: str
    is_seen: bool = False


@dataclass
class Report:
    """What was found, and what was checked."""

    findings: list[Finding] = field(default_factory=list)
    more: int = 0
    warnings: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    origin: str = ""
    records: int = 0
    size: int = 0
    root: bytes = b""
    checkpoints: int = 0
    first_ts: int | None = None
    last_ts: int | None = None
    epochs: list[Epoch] = field(default_factory=list)
    last_note: str = ""
    witnessed: dict[str, int] = field(default_factory=dict)  # name -> largest size cosigned
    cosigned: dict[int, set[str]] = field(default_factory=dict)  # size -> names
    conflict: tuple[str, str] | None = None  # two signed notes that cannot both be true
    weak: list[str] = field(default_factory=list)
    has_fork: bool = False

    def add(self, finding: Finding) -> None:
        """Keep a finding; those past a bound are only counted."""
        self.has_fork |= finding.kind in {"forked", "rewound"}
        if len(self.findings) < FINDINGS_KEPT:
            self.findings.append(finding)
        else:
            self.more += 1


class Chain:
    """Reads a log once from its first line to its last and checks §6.1 as it goes.

    INVARIANT: nothing is taken into the tree, the tiles or the story before the batch's checkpoint
    line has the root over it; what does not fit goes to `_mend`, which finds out what was done.
    """

    def __init__(
        self,
        folder: Path,
        names: list[str],
        *,
        hints: dict[bytes, Key],
        publishers: frozenset[str] = frozenset(),
    ) -> None:
        self.report = Report()
        self.segments = Segments(folder, names)
        self.tiles = Tiles(folder / "tile", self._tile_differs)
        self.story: Story | None = Story(self._breach, publishers)
        self.hints = hints  # keys by id, used only where the log's own are damaged
        self.known: list[Known] = []  # by size, the largest first
        self.compared: list[tuple[Known, Note]] = []  # with the log's own line at or past it
        self.witnesses: list[Key] = []
        self.all_signatures = False
        self.size = 0
        self.uncovered = 0  # whole records at the end without a checkpoint line
        self.prev: str | None = "0" * 64  # None: not known, after a gap
        self.ts = -INT_LIMIT
        self.pending: str | None = None
        self.last_cp: Line | None = None
        self.stack: list[bytes] = []
        self.is_anchored = True  # the tree is known, so that roots can be compared
        self.is_stopped = False
        self.rare: list[tuple[int, Json]] = []  # of the batch at hand, with their index in it
        self.pieces = 0  # records of the batch at hand that were taken in already
        self.key: Key | None = None
        self.head = self.dash = b""
        self.sizes, self.roots = array("Q"), array("Q")
        self.signature: tuple[Note, Key] | None = None  # the last one, if not yet checked
        self.signed_size = 0  # records under the last signature that was checked
        self.was_signed_badly = False
        self.breaches: list[tuple[int, Finding]] = []  # with the record that showed it
        self.doubted_from = INT_LIMIT  # records from here on bear no good signature
        self.strange_keys: dict[bytes, Finding] = {}
        self.is_last_strange = False  # the last checkpoint line was signed by another key
        self.moved: set[bytes] = set()  # leaves reported as out of their place
        self.moved_seqs: set[int] = set()
        self.scans = 0
        self.record = record_reader()

    # Findings

    def find(self, kind: str, seq: int, place: str, what: str) -> None:
        """Report that the log is not as it was written."""
        self.report.add(Finding(kind, max(seq, 0), place, what))

    def _breach(self, seq: int, place: str, rule: str) -> None:
        if self.story and len(self.breaches) < FINDINGS_KEPT:
            finding = Finding("semantic", seq, place, RULES[rule], rule)
            self.breaches.append((self.story.seq, finding))
        else:
            self.report.more += 1

    def _tile_differs(self, seq: int, place: str) -> None:
        self.doubted_from = min(self.doubted_from, seq)
        what = "the record is not the one whose hash the tile keeps: one of the two was changed"
        self.find("edited", seq, place, what)

    # The walk

    def walk(self) -> None:
        """Read every line; findings go to the report."""
        source = iter(self.segments)
        lines: Iterator[bytes] = source
        batch: list[bytes] = []
        segments, start = self.segments, ("", 0)
        while True:
            for data in lines:
                if data[:6] == CP:
                    if not self._close(batch, data, start):
                        break
                    batch = []
                elif not batch:
                    start = segments.segment, segments.number
                    batch.append(data)
                elif segments.number == 1:
                    break
                else:
                    batch.append(data)
                    if len(batch) == BATCH_MAX and not self._piece(batch, start):
                        batch.pop()
                        break
            else:
                break
            lines = self._mend(self._numbered(batch, start, data), source)
            batch = []
        if batch or self.pieces:
            self._end(batch, start, source)
        self._sign_off()

    def _read(self, batch: list[bytes]) -> tuple[list[Json], list[bytes]] | None:
        """The records of a batch and their leaves, where each line is as rules 1 and 2 want it."""
        if not self.size and not self.begin(batch):
            return None
        size, prev, ts, pending = self.size, self.prev, self.ts, self.pending
        origin, read = self.report.origin, self.record
        records, leaves = list[Json](), list[bytes]()
        self.rare.clear()
        try:
            for line in batch:
                record = read(line)
                if (
                    record is None
                    or record["seq"] != size
                    or (record["prev"] != prev and prev is not None)
                    or record["log"] != origin
                    or record["v"] != 1
                    or record["ts"] < ts
                    or record.get("cp") != pending
                    or ((kind := record["type"]) == "genesis") is not (size == 0)
                    or record["v"] is True  # a bool equals 1 or 0
                    or ((size < 2 or ts < 2) and bool in (type(record["seq"]), type(record["ts"])))
                ):
                    return None
                if kind in RARE:
                    self.rare.append((len(records), record))
                leaf = sha256(b"\0" + line).digest()
                prev, pending, ts = leaf.hex(), None, record["ts"]
                size += 1
                records.append(record)
                leaves.append(leaf)
        except (KeyError, TypeError):
            return None
        return records, leaves

    def begin(self, batch: list[bytes]) -> bool:
        """Take the log's name and first key from `genesis`."""
        record = self.record(batch[0]) if batch else None
        if record is None or record.get("type") != "genesis":
            return False
        origin = record.get("log")
        try:
            key = read_key(str(record.get("key")))
        except ValueError:
            return False
        if not isinstance(origin, str) or key.name != origin:
            return False
        self._name(origin)
        self.report.epochs = [Epoch(0, key, 0)]
        self.use(key)
        return True

    def use(self, key: Key) -> None:
        """Expect this key's signatures from here on."""
        self.key = key
        if self.story:
            self.story.key = key.text

    def _name(self, origin: str) -> None:
        self.report.origin = origin
        escaped = json.dumps(origin)[1:-1].encode()
        self.head = CP + b'"' + escaped + b"\\n"
        self.dash = b"\\n\\n\xe2\x80\x94 " + escaped + b" "

    def _close(self, batch: list[bytes], data: bytes, start: tuple[str, int]) -> bool:
        """Check a batch with its checkpoint line and take it in; False where anything is amiss."""
        if (self.segments.number == 1) or not (batch or self.pieces):
            return False
        got = self._read(batch)
        if got is None or self.key is None:
            return False
        records, leaves = got
        tiled: list[bytes] = []
        size, stack = self.size + len(leaves), self.stack[:]
        if self.is_anchored:
            tiled = grow(stack, self.size, leaves)
            root = root_of(stack)
        elif (note := self.note(data)) is not None:
            root = note.root
        else:
            return False
        text = b"%d\\n" % size + base64.b64encode(root)
        prefix = self.head + text + self.dash
        if not data.startswith(prefix) or not data.endswith(b'\\n"}'):
            return False
        try:
            blob = unbase64(data[len(prefix) : -4].decode())
        except ValueError:
            return False
        if len(blob) != 68:
            return False
        origin = self.report.origin
        body = f"{origin}\n{size}\n{base64.b64encode(root).decode()}\n"
        dash = f"{body}\n\u2014 {origin} {base64.b64encode(blob).decode()}\n"
        note = Note(origin, size, root, body, ((origin, blob),), dash)
        if not self._fits_segment(start):
            return False
        self._take(records, leaves, tiled, start)
        self.stack = stack
        self._commit(note, Line(data, self.segments.segment, self.segments.number))
        if self.rare:
            self._rotations(len(records), start)
        return True

    def _fits_segment(self, start: tuple[str, int]) -> bool:
        """A segment bears the number of its first record as its name."""
        return start[1] != 1 or self.pieces > 0 or int(start[0][:20]) == self.size

    def _take(
        self,
        records: list[Json],
        leaves: list[bytes],
        tiled: list[bytes],
        start: tuple[str, int],
    ) -> None:
        if not records:
            return
        self._note_times(records)
        self.prev, self.pending = leaves[-1].hex(), None
        self.size += len(records)
        self.report.records = self.size
        if self.is_anchored:
            self.tiles.feed(leaves, tiled)
        for index, record in self.rare:
            if record["type"] == "checkpoint.witnessed":
                self._witnessed(record, f"{start[0]}:{start[1] + index}")
        if self.story:
            self.story.feed(records, *start)

    def _note_times(self, records: list[Json]) -> None:
        if self.report.first_ts is None:
            self.report.first_ts = records[0]["ts"]
        self.report.last_ts = self.ts = records[-1]["ts"]

    def _piece(self, batch: list[bytes], start: tuple[str, int]) -> bool:
        """Take in a part of a batch too long to be kept; its root is compared at its end."""
        got = self._read(batch)
        if got is None or not self._fits_segment(start):
            return False
        self._take(*got, grow(self.stack, self.size, got[1]), start)
        self.pieces += len(batch)
        batch.clear()
        return True

    def _commit(self, note: Note, line: Line) -> None:
        """Take in a checkpoint line that has the right size and root."""
        report = self.report
        self.pending, self.last_cp, self.pieces = sha256(line.data).hexdigest(), line, 0
        self.sizes.append(note.size)
        self.roots.append(int.from_bytes(note.root[:8], "big"))
        report.checkpoints += 1
        report.size, report.root, report.last_note = note.size, note.root, note.whole
        blob = note.signatures[0][1]
        self.is_last_strange = self.key is not None and blob[:4] != self.key.id
        if self.is_last_strange:
            self.note_strange(blob[:4], self.size - 1, line)
            self.signature = None
        elif self.key:
            self.signature = note, self.key
            if self.all_signatures:
                self._sign_off()
        while self.known and self.known[-1].note.size <= note.size:
            self.compared.append((self.known.pop(), note))

    def note_strange(self, kid: bytes, seq: int, line: Line) -> None:
        """Keep where a key signed first that should not have; its class is told at the end."""
        finding = Finding("wrong_key", max(seq, 0), line.place, kid.hex())
        self.strange_keys.setdefault(kid, finding)
        self.doubted_from = min(self.doubted_from, self.signed_size)

    def _judge_strange(self) -> None:
        for kid, finding in self.strange_keys.items():
            keys = [*self.hints.values()] if self.is_stopped else []
            if any(key.id == kid for key in [*keys, *(epoch.key for epoch in self.report.epochs)]):
                what = "the checkpoint line is signed by a key of this log, but not by its epoch's"
                self.report.add(finding._replace(kind="out_of_epoch", what=what))
            else:
                what = f"the checkpoint line is signed by key {kid.hex()}, no key of this log"
                self.report.add(finding._replace(what=what))

    def _sign_off(self) -> None:
        """Check the last signature: that of an epoch, of the log, or of each line if asked."""
        if self.signature is None or self.last_cp is None:
            return
        (note, key), self.signature = self.signature, None
        if is_note_signed(note, key):
            self.signed_size = note.size
            return
        self.doubted_from = min(self.doubted_from, self.signed_size)
        if not self.was_signed_badly:
            what = "the signature under the checkpoint line is not good: what it covers was changed"
            self.find("edited", note.size - 1, self.last_cp.place, what)
        self.was_signed_badly = True

    # Keys (§4.2)

    def _rotations(self, count: int, start: tuple[str, int]) -> None:
        first = self.size - count
        for index, record in self.rare:
            if record["type"] == "key.rotate":
                place = f"{start[0]}:{start[1] + index}"
                self._rotate(record, first + index, place, is_last=index == count - 1)

    def _rotate(self, record: Json, seq: int, place: str, *, is_last: bool) -> None:
        epochs = self.report.epochs
        try:
            key = read_key(str(record.get("key")))
            fault = "" if key.name == self.report.origin else "the key has another name"
        except ValueError as error:
            self.find("out_of_epoch", seq, place, f"the next key cannot be used: {error}")
            return
        if not is_last:
            fault = "the change of keys is not the last record of its batch"
        elif any(epoch.key.public == key.public for epoch in epochs):
            fault = "the next key had its time before"
        elif self.is_anchored and record.get("epoch") != epochs[-1].number + 1:
            fault = "the change of keys names another epoch than the next"
        if fault:
            self.find("out_of_epoch", seq, place, fault)
        self._sign_off()
        epochs.append(Epoch(epochs[-1].number + 1, key, self.size))
        self.use(key)

    # Checkpoints from elsewhere, witnesses (§4.3)

    def take_cosignatures(self, note: Note) -> None:
        """Count the good cosignatures of known witnesses under a checkpoint of this log."""
        for name, blob in note.signatures:
            for witness in self.witnesses:
                good = is_cosigned(note.text, witness, name, blob)
                if good:
                    self._cosigned(note.size, name)
                elif good is False:
                    what = f"the cosignature of {name} at {note.size:,} records is not good"
                    self.find("edited", note.size - 1, "witness", what)

    def _cosigned(self, size: int, name: str) -> None:
        seen = self.report.witnessed
        seen[name] = max(size, seen.get(name, 0))
        self.report.cosigned.setdefault(size, set()).add(name)
        if len(self.report.cosigned) > 1_000:
            del self.report.cosigned[min(self.report.cosigned)]

    def _witnessed(self, record: Json, place: str) -> None:
        seq, size, root = record["seq"], record.get("size"), record.get("root")
        at = bisect_left(self.sizes, size) if type(size) is int and size > 0 else len(self.sizes)
        if (
            at == len(self.sizes)
            or self.sizes[at] != size
            or not (isinstance(root, str) and re.fullmatch("[0-9a-f]{64}", root))
            or self.roots[at] != int(root[:16], 16)
        ):
            what = "witnesses are said to have cosigned a checkpoint that this log never had"
            self.find("edited", seq, place, what)
            return
        head = base64.b64encode(bytes.fromhex(root)).decode()
        text = f"{self.report.origin}\n{size}\n{head}\n"
        entries = record.get("cosignatures")
        for entry in entries if isinstance(entries, list) else [None]:
            name, _, blob = str(entry).partition(" ")
            try:
                data = unbase64(blob)
            except ValueError:
                data = b""
            if len(data) != 76 or not ORIGIN.fullmatch(name):
                self.find("edited", seq, place, f"the cosignature of `{name[:80]}` cannot be read")
                return
            for witness in self.witnesses:
                good = is_cosigned(text, witness, name, data)
                if good:
                    self._cosigned(size, name)
                elif good is False:
                    self.find("edited", seq, place, f"the cosignature of {name} is not good")

    @staticmethod
    def note(data: bytes) -> Note | None:
        """Read a checkpoint line strictly, in its one spelling; None if it is none."""
        try:
            value = json.loads(data[:LINE_MAX].decode())
            if not isinstance(value, dict) or list(value) != ["cp"]:
                return None
            if _encode(value).encode() != data or not isinstance(value["cp"], str):
                return None
            note = read_note(value["cp"])
        except (ValueError, RecursionError):
            return None
        if len(note.signatures) != 1 or len(note.signatures[0][1]) != 68:
            return None
        return note

    def close(self, *, is_live: bool) -> None:
        """Judge what only the end of the log can tell."""
        self.tiles.close()
        if self.story:
            self.story.close(is_live=is_live)
        self._judge_strange()
        if not self.report.checkpoints and not self.report.findings:
            self.find(
                "missing", 0, self.segments.place, "the log is empty: it has not even a start"
            )
        for shown_by, finding in self.breaches:
            if shown_by < self.doubted_from:  # what lies behind a break is not judged
                self.report.add(finding)

    # Where the chain breaks: see Damage

    def tell(self, item: Found) -> None:
        """Take up what a record that is as written says."""
        if item.record:
            self._note_times([item.record])
            if item.record.get("type") == "checkpoint.witnessed":
                self._witnessed(item.record, item.line.place)
            if self.story:
                self.story.feed([item.record], item.line.segment, item.line.number)

    def resume(self, items: list[Found], written: list[bytes], note: Note, line: Line) -> None:
        """Go on behind a checkpoint line: the lines before it, their leaves ([]: not known)."""
        if not self.report.origin:
            self._name(note.origin)
        last = items[-1].record if items else None
        for item in items:
            if item.record and item.record.get("type") == "key.rotate" and item.record is not last:
                self._rotate(item.record, item.seq or 0, item.line.place, is_last=True)
        if self.is_anchored and written:
            self.tiles.feed(written, grow(self.stack, self.size, written))
        else:
            self.is_anchored = False
        stamps = [item.record.get("ts") for item in items if item.record and item.is_canonical]
        self.ts = max([self.ts, *(stamp for stamp in stamps if type(stamp) is int)])
        self.prev = written[-1].hex() if written else None
        self.size = self.report.records = note.size
        self._commit(note, line)
        if last and last.get("type") == "key.rotate" and items[-1].is_canonical:
            self._rotate(last, note.size - 1, items[-1].line.place, is_last=True)

    def _numbered(self, batch: list[bytes], start: tuple[str, int], data: bytes) -> list[Line]:
        lines = [Line(line, start[0], start[1] + i) for i, line in enumerate(batch)]
        return [*lines, Line(data, self.segments.segment, self.segments.number)]

    def _mend(self, lines: list[Line], source: Iterator[bytes]) -> Iterator[bytes]:
        """Say what was done where a batch does not fit; answer the lines to go on with."""
        return Damage(self, lines, source).judge()

    def _end(self, batch: list[bytes], start: tuple[str, int], source: Iterator[bytes]) -> None:
        """Judge lines at the end of the log that no checkpoint line covers (rule 5)."""
        lines = self._numbered(batch, start, b"")[:-1]
        rest = batch.pop()[1:] if batch and batch[-1][:1] == TORN else None
        if batch and self._read(batch) is None:
            self._mend(lines, source)
            return
        self.uncovered = len(batch)
        count = self.size + len(batch)
        place = lines[-1].place if lines else self.segments.place
        if is_locked(self.segments.folder / "LOCK"):
            what = f"{len(batch)} records of a batch that is being written at this moment"
            self.report.unchecked.append(what)
        elif rest is None:
            what = "no checkpoint line covers the records at the end"
            self.find("missing", count - 1, place, what)
        else:
            what = "the log breaks off within a line: an interrupted write, or a cut"
            self.find("torn", count - (rest[:3] == b'{"c'), place, what)


def is_locked(path: Path) -> bool:
    """Whether a process holds the log's lock: then its last batch may be under way."""
    fcntl = Tools.fcntl
    if fcntl is None:
        return False
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


# --- What was done where the chain breaks --------------------------------------------------------


class Found(NamedTuple):
    """A line that stands where a record should: as it is, and what it says, if it says anything."""

    line: Line
    leaf: bytes
    record: Json | None
    is_canonical: bool

    @property
    def seq(self) -> int | None:
        """The number that the record gives itself."""
        seq = self.record.get("seq") if self.record else None
        return seq if type(seq) is int else None

    @property
    def prev(self) -> bytes | None:
        """The leaf that the record says was before it."""
        prev = self.record.get("prev") if self.record else None
        is_hash = isinstance(prev, str) and re.fullmatch("[0-9a-f]{64}", prev)
        return bytes.fromhex(str(prev)) if is_hash else None


class Damage:
    """Compares what stands behind a break with what was written there.

    The lines up to the next checkpoint line with a good signature are read. What was written
    follows from that line's root, the tiles, and each record's word on the one before it.
    """

    def __init__(self, chain: Chain, lines: list[Line], source: Iterator[bytes]) -> None:
        self.chain = chain
        segments = chain.segments
        behind = (Line(data, segments.segment, segments.number) for data in source)
        self.stream: Iterator[Line] = itertools.chain(lines, behind)
        self.first = chain.size
        if not self.first:
            chain.begin([line.data for line in lines[:1]])
        self.keys = dict(chain.hints)
        if chain.key:
            self.keys[chain.key.id] = chain.key
        self.found: list[Found] = []
        self.marks: list[tuple[int, Line]] = []  # checkpoint lines, with the records before each
        self.anchor: Note | None = None
        self.after: Line | None = None
        self.is_cut_off = False  # the region grew past its bound
        self.written: dict[int, bytes] = {}
        self.is_certain = False
        self.is_explained = False  # by an exchange that is reported already
        self.is_last_unsaid = False  # no record behind the last one says what it was
        self.is_strange = False  # a line here is signed by a key that is reported already

    def judge(self) -> Iterator[bytes]:
        """Report what was done; answer the lines behind, for the chain to go on with."""
        self._gather()
        end = self.anchor.size if self.anchor else self.first + len(self.found)
        self._reconstruct(end)
        findings = self._differences(end)
        if findings:
            findings = self._amiss_marks(before=findings[0].seq) + findings
            self.chain.story = None
            self.chain.doubted_from = min(self.chain.doubted_from, findings[0].seq)
            self.chain.report.unchecked.append(
                f"what the records from {findings[0].seq:,} on say together"
            )
        elif not self.is_explained:
            findings = self._amiss()
        for finding in findings:
            self.chain.find(*finding[:4])
        return self._resume([finding.kind for finding in findings])

    # Reading on to a checkpoint line that can be trusted

    def _gather(self) -> None:
        room, tries = REGION_BYTES, 0
        while line := self.after or next(self.stream, None):
            self.after = None
            room -= len(line.data)
            if line.data[:6] == CP:
                self.marks.append((self.first + len(self.found), line))
                note = self._trusted(line.data)
                tries += note is None
                if note and self._is_anchor(note):
                    self.anchor = note
                    return
            else:
                self.found.append(self._seen(line))
            if len(self.found) > REGION_MAX or room < 0 or tries > TRIES_MAX:
                self.is_cut_off = True
                return

    def _seen(self, line: Line) -> Found:
        record = self.chain.record(line.data)
        is_canonical = record is not None
        if record is None:
            record = loose_record(line.data)
        if record and record.get("type") in {"key.rotate", "genesis", "boot"}:
            try:  # the key may sign the next line that can be trusted
                key = read_key(str(record.get("key")))
                if record["type"] == "key.rotate" or not self.first:
                    self.keys[key.id] = key
            except ValueError:
                pass
        return Found(line, record_leaf(line.data), record, is_canonical)

    def _trusted(self, data: bytes) -> Note | None:
        """A checkpoint line beyond the last good one, with a good signature."""
        note = self.chain.note(data)
        origin = self.chain.report.origin
        if note is None or note.size <= self.first or (origin and note.origin != origin):
            return None
        key = self.keys.get(note.signatures[0][1][:4])
        return note if key and is_note_signed(note, key) else None

    def _is_anchor(self, note: Note) -> bool:
        """Whether the line stands where it belongs, rather than between records that go on."""
        count = self.first + len(self.found)
        self.after = next(self.stream, None)
        if note.size == count or self.after is None:
            return True
        behind = self._seen(self.after)
        last = self.found[-1].leaf.hex() if self.found else self.chain.prev
        return behind.seq != count or behind.prev is None or behind.prev.hex() != last

    # Working out what was written

    def _reconstruct(self, end: int) -> None:
        """Fill `written` (record number -> leaf), for certain where it gives the signed root."""
        chain, anchor = self.chain, self.anchor
        if anchor and chain.is_anchored and end - self.first <= REGION_MAX:
            tiled = chain.tiles.leaves(self.first, end) if chain.tiles.stands else None
            if tiled and self._leads_to(anchor.root, tiled):
                self._know(tiled)
                return
        options = self._options(end)
        if anchor and chain.is_anchored and len(options) == end - self.first:
            tries = max(4, 100_000 // len(options))
            for choice in itertools.islice(itertools.product(*options.values()), min(256, tries)):
                if self._leads_to(anchor.root, choice):
                    self._know(choice)
                    return
            if self.is_last_unsaid:
                options.pop(end - 1)  # nothing but the root speaks for the last one
        self.written = {seq: leaves[0] for seq, leaves in options.items()}

    def _options(self, end: int) -> dict[int, list[bytes]]:
        """What may have been written at each place, as far as the lines bear witness to it."""
        said: dict[int, list[tuple[bytes, Found]]] = {}
        stands: dict[int, list[bytes]] = {}
        seqs = {item.leaf: item.seq for item in self.found}
        for item in self.found:
            if item.seq is not None and self.first <= item.seq < end:
                stands.setdefault(item.seq, []).append(item.leaf)
        for item in [*self.found, *([self._seen(self.after)] if self.after else [])]:
            before = -1 if item.seq is None else item.seq - 1
            if item.prev and self.first <= before < end and seqs.get(item.prev, before) == before:
                said.setdefault(before, []).append((item.prev, item))
        self.is_last_unsaid = end - 1 not in said
        return {
            seq: self._ranked(seq, said, stands.get(seq, [])) for seq in sorted({*said, *stands})
        }

    @staticmethod
    def _ranked(
        seq: int, said: dict[int, list[tuple[bytes, Found]]], stands: list[bytes]
    ) -> list[bytes]:
        """What may have been written at a place, the likeliest first.

        First what stands there and the next record confirms; then what the next record says, if
        the one after confirms that one; then what stands there; then what the next one says.
        """
        words = said.get(seq, [])
        confirmed = {leaf for leaf, _ in said.get(seq + 1, [])}
        ranked = [leaf for leaf, _ in words if leaf in stands]
        ranked += [leaf for leaf, item in words if item.leaf in confirmed]
        ranked += [*stands, *(leaf for leaf, _ in words)]
        return list(dict.fromkeys(ranked))

    def _leads_to(self, root: bytes, leaves: Iterable[bytes]) -> bool:
        stack = self.chain.stack[:]
        grow(stack, self.first, leaves)
        return root_of(stack) == root

    def _know(self, leaves: Iterable[bytes]) -> None:
        self.written = dict(enumerate(leaves, self.first))
        self.is_certain = True

    # Comparing

    def _differences(self, end: int) -> list[Finding]:
        """The events between what was written and what stands, one finding for each."""
        places = {leaf: seq for seq, leaf in self.written.items()}
        kept = self._in_order([places.pop(item.leaf, None) for item in self.found])
        findings, extras, at = [], list[Found](), self.first
        for index, item in enumerate([*self.found, None]):
            seq = kept.get(index) if item else end
            if seq is None and item:
                extras.append(item)
                continue
            if seq is not None and (seq > at or extras):
                finding = self._event(at, max(seq, at), extras, self.found[index:])
                findings += [finding] if finding else []
            extras, at = [], (seq or 0) + 1
        if not self.is_certain:
            broken = self._first_broken(end)
            if broken and (not findings or broken.seq < findings[0].seq):
                return [broken]
        return findings

    @staticmethod
    def _in_order(seqs: list[int | None]) -> dict[int, int]:
        """The longest part of the lines that stands in the order of its numbers: index -> seq."""
        tails: list[int] = []
        ends: list[int] = []
        before: dict[int, int] = {}
        for index, seq in enumerate(seqs):
            if seq is not None:
                at = bisect_left(ends, seq)
                ends[at : at + 1] = [seq]
                tails[at : at + 1] = [index]
                before[index] = tails[at - 1] if at else -1
        kept, index = {}, tails[-1] if tails else -1
        while index >= 0:
            kept[index] = seqs[index] or 0
            index = before[index]
        return kept

    def _event(self, at: int, end: int, extras: list[Found], rest: list[Found]) -> Finding | None:
        """One finding for the records `at` to `end` that are gone and the lines in their stead."""
        moved, first = self.chain.moved, extras[0] if extras else None
        gone = {
            leaf for seq in range(at, min(end, at + REGION_MAX)) if (leaf := self.written.get(seq))
        }
        seqs = range(at, min(end, at + REGION_MAX))
        is_told = all(seq in self.chain.moved_seqs for seq in seqs) or bool(gone)
        if is_told and all(leaf in moved for leaf in [*gone, *(item.leaf for item in extras)]):
            self.is_explained = True
            return None  # the other half of an exchange that is reported already
        place = first.line.place if first else rest[0].line.place if rest else self._place
        if first is None:
            kind, what = self._gone(at, end, rest)
        elif at == end:
            kind, what = self._extra(at, first, rest)
        else:
            kind, what = self._other(at, end, extras, rest)
        if kind == "reordered":
            moved |= gone | {item.leaf for item in extras}
            self.chain.moved_seqs |= {*seqs, *(item.seq for item in extras if item.seq)}
        is_mark = kind == "torn" and first and first.line.data[1:4] == b'{"c'
        is_mark = is_mark or what.startswith("the checkpoint line")
        return Finding(kind, max(at - bool(is_mark), 0), place, what)

    @property
    def _place(self) -> str:
        return self.marks[-1][1].place if self.marks else self.chain.segments.place

    def _gone(self, at: int, end: int, rest: list[Found]) -> tuple[str, str]:
        count = f"{end - at:,} record{'s' if end - at > 1 else ''}"
        if self._stands(at, self.written.get(at), rest):
            return "reordered", "the record that belongs here stands further on"
        return "deleted", f"{count} from {at:,} on should stand before this place and are gone"

    def _extra(self, at: int, first: Found, rest: list[Found]) -> tuple[str, str]:
        if is_torn := self._torn(first):
            return is_torn
        if self._foreign(first):
            return "wrong_log", "a line of another log stands here"
        if rest and (first.record or {}).get("type") is None and self._is_unmarked(rest):
            return "edited", "the checkpoint line here cannot be read any more"
        seq = first.seq
        if seq is not None and seq > at and not self._stands(seq, first.leaf, rest):
            if self.is_certain and self.written.get(seq) == first.leaf:
                return "reordered", f"record {seq:,} stands here, too early"
            claim = b'"prev":"%s"' % first.leaf.hex().encode()
            end = [line for line in self._search(b"\\n%d\\n" % (seq + 1)) if line[:6] == CP]
            if any(item.prev == first.leaf for item in rest) or end or self._search(claim):
                return "reordered", f"record {seq:,} stands here, too early"
        return "inserted", f"a line that was never written here (it calls itself record {seq})"

    def _other(self, at: int, end: int, extras: list[Found], rest: list[Found]) -> tuple[str, str]:
        """What happened where other lines stand than were written."""
        first = extras[0]
        seq, is_one = first.seq, len(extras) == 1 == end - at
        if is_torn := self._torn(first):
            return is_torn
        if self._foreign(first) and (seq == at or len(extras) >= end - at):
            return "wrong_log", "a line of another log stands here"
        follows = first.prev is not None and first.prev.hex() == self._leaf_before(at)
        if len(first.line.data) > LINE_MAX:
            return "not_canonical", f"the line has more than {LINE_MAX:,} bytes"
        if first.record is None:
            return "edited", "the line is no record any more"
        if seq == at and (follows or len(extras) >= end - at):
            if not first.is_canonical:
                return "not_canonical", "the record is spelled otherwise than it was written"
            return "edited", "the record was changed after it was written"
        if seq != at and is_one and follows:
            return "edited", "the record's number was changed after it was written"
        others = [*extras[1:], *rest]
        if self._stands(at, self.written.get(at), others):
            return "reordered", f"record {seq} stands here; record {at:,} stands further on"
        if seq is not None and seq < at:
            return "inserted", f"record {seq:,} stands here again"
        return "deleted", f"record {at:,} is gone; record {seq} stands in its place"

    def _is_unmarked(self, rest: list[Found]) -> bool:
        """Whether the next record names a checkpoint line, and none stands before it."""
        count = self.first + len(self.found) - len(rest)
        return bool((rest[0].record or {}).get("cp")) and all(at != count for at, _ in self.marks)

    def _torn(self, item: Found) -> tuple[str, str] | None:
        if item.line.data[:1] == TORN:
            return "torn", "the segment breaks off within a line: an interrupted write, or a cut"
        if item.record is None and b"\0" in item.line.data and self.after is None:
            return "torn", "zero bytes stand in the last batch: an interrupted write"
        return None

    def _foreign(self, item: Found) -> bool:
        origin = item.record.get("log") if item.record else None
        return isinstance(origin, str) and origin != (self.chain.report.origin or self._origin)

    @property
    def _origin(self) -> str:
        return self.anchor.origin if self.anchor else ""

    def _leaf_before(self, seq: int) -> str | None:
        leaf = self.written.get(seq - 1)
        return self.chain.prev if seq == self.first else leaf.hex() if leaf else None

    def _stands(self, seq: int, leaf: bytes | None, rest: list[Found]) -> bool:
        """Whether a record stands further on, here or behind the lines that were read."""
        before = self._leaf_before(seq)

        def fits(item: Found) -> bool:
            if leaf:
                return item.leaf == leaf
            return item.seq == seq and (not before or (item.prev or b"").hex() == before)

        behind = self._search(b'"seq":%d,"' % seq)
        return any(map(fits, rest)) or any(fits(self._seen(Line(data, "", 0))) for data in behind)

    def _search(self, needle: bytes) -> list[bytes]:
        """The lines behind those that were read that hold these bytes; not done too often."""
        chain = self.chain
        chain.scans += 1
        if chain.scans > SCANS_MAX:
            return []
        segments = Segments(chain.segments.folder, chain.segments.names)
        last = chain.segments.segment, chain.segments.number - (self.after is not None)
        return [
            line
            for line in segments
            if needle in line and (segments.segment, segments.number) > last
        ]

    def _first_broken(self, end: int) -> Finding | None:
        """The first link that does not hold, where nothing tells what was written."""
        prev = self.chain.prev
        for seq, item in enumerate(self.found, self.first):
            if item.seq != seq:
                return None
            if prev is not None and (item.prev is None or item.prev.hex() != prev):
                count = self.first + len(self.found)
                kind = "deleted" if count < end else "inserted" if count > end else "edited"
                return Finding(kind, seq, item.line.place, "the record does not follow on the last")
            prev = item.leaf.hex()
        return None

    # Where all records are as written

    def _amiss(self) -> list[Finding]:
        """What is wrong with the checkpoint lines, or else with the records as they were signed."""
        findings = self._amiss_marks()
        if findings or self.is_strange:
            return findings
        wrong = self._amiss_records()
        if wrong is None:
            what = "the lines up to here do not fit together"
            seq = max(self.first + len(self.found) - 1, 0)
            wrong = Finding("edited", seq, self._place, what)
        self.chain.story = None
        self.chain.doubted_from = min(self.chain.doubted_from, wrong.seq)
        return [wrong]

    def _amiss_marks(self, before: int = INT_LIMIT) -> list[Finding]:
        """What is wrong with checkpoint lines, those up to a record that is not as written."""
        chain, findings = self.chain, list[Finding]()
        is_whole = before == INT_LIMIT
        marks = [
            (count, line)
            for count, line in self.marks
            if is_whole or (count <= before and chain.note(line.data) is None)
        ]
        pending, mark, counted = chain.pending, chain.last_cp, self.first - chain.pieces
        for seq, item in enumerate([*self.found, None], self.first):
            while marks and (marks[0][0] <= seq or item is None):
                count, mark = marks.pop(0)
                if wrong := self._judge_mark(count, mark, has_new=count > counted):
                    findings.append(Finding(wrong[0], max(count - 1, 0), mark.place, wrong[1]))
                counted, pending = count, sha256(mark.data).hexdigest()
            if item is None or not is_whole:
                continue
            said = item.record.get("cp") if item.record else None
            is_judged = bool(findings) and findings[-1].seq >= seq - 1
            if seq == self.first and chain.is_last_strange and mark == chain.last_cp:
                self.is_strange = True
            elif said != pending and not is_judged:
                findings += self._wrong_link(seq, item, pending, mark)
            pending = None
        return findings

    def _wrong_link(
        self, seq: int, item: Found, pending: str | None, mark: Line | None
    ) -> list[Finding]:
        """What a record says of the checkpoint line before it, where that is not what stands."""
        said = item.record.get("cp") if item.record else None
        place = mark.place if mark and pending else item.line.place
        if pending is None:
            lines = [line for _, line in self.marks if sha256(line.data).hexdigest() == said]
            if any(line.data in self.chain.moved for line in lines):
                return []
            self.chain.moved.update(line.data for line in lines)
            kind = "reordered" if lines else "deleted"
            what = "the checkpoint line before this record " + (
                "stands further on" if lines else "is gone"
            )
        elif said is None:
            kind, what = "inserted", "a checkpoint line that was never written here"
        else:
            kind = "edited"
            what = "the checkpoint line was changed: the record behind it names another"
        return [Finding(kind, max(seq - 1, 0), place, what)]

    def _judge_mark(self, count: int, line: Line, *, has_new: bool) -> tuple[str, str] | None:
        """What is wrong with a checkpoint line behind `count` records that are as written."""
        chain = self.chain
        note = chain.note(line.data)
        if note is None:
            return self._unreadable(line)
        if line.data in chain.moved:
            return None
        name, blob = note.signatures[0]
        if chain.report.origin and note.origin != chain.report.origin:
            return "edited", "the checkpoint line names another log"
        if name != note.origin:
            return "wrong_key", "the checkpoint line is signed under another name"
        keys = {epoch.key.id: epoch.key for epoch in chain.report.epochs} | self.keys
        is_good = blob[:4] in keys and is_note_signed(note, keys[blob[:4]])
        if note.size != count and (is_good or (blob[:4] not in keys and self._search(line.data))):
            return self._misplaced(count, note.size, line)
        if not has_new and count:
            return "inserted", "a checkpoint line stands here without a new record"
        if not self._is_epochs(blob[:4]):
            self.is_strange = True
            chain.note_strange(blob[:4], count - 1, line)
            return None
        if not is_good and not self.is_strange and not chain.was_signed_badly:
            self.is_strange = True  # one finding for a row of them
            return "edited", "the checkpoint line was changed after it was written"
        self.is_strange |= not is_good
        return None

    def _unreadable(self, line: Line) -> tuple[str, str]:
        loose = loose_record(line.data)
        if loose and _encode(loose).encode(errors="replace") != line.data:
            return "not_canonical", "the checkpoint line is not in its one form"
        if b"\0" in line.data and self.after is None and self.anchor is None:
            return "torn", "zero bytes stand in the last batch: an interrupted write"
        return "edited", "the checkpoint line cannot be read"

    def _misplaced(self, count: int, size: int, line: Line) -> tuple[str, str]:
        """A good checkpoint line stands where it does not belong, between records that do."""
        if any(self._size(other) == count for _, other in self.marks if other != line):
            return "reordered", "the checkpoint line that belongs here stands further on"
        copies = sum(other.data == line.data for _, other in self.marks)
        if size < count or copies > 1 or self._search(line.data):
            return "inserted", f"a copy of the checkpoint line of {size:,} records stands here"
        self.chain.moved.add(line.data)
        return "reordered", f"the checkpoint line of {size:,} records stands here, too early"

    def _is_epochs(self, kid: bytes) -> bool:
        """Whether the key id is that of the epoch, or of one that begins among these lines."""
        key = self.chain.key
        return kid in self.keys and (key is None or kid == key.id or self._rotated(kid))

    def _rotated(self, kid: bytes) -> bool:
        """Whether a `key.rotate` among these lines names the key."""
        return any(
            item.record is not None
            and item.record.get("type") == "key.rotate"
            and f"+{kid.hex()}+" in str(item.record.get("key"))
            for item in self.found
        )

    def _size(self, line: Line) -> int:
        note = self.chain.note(line.data)
        return note.size if note else -1

    def _amiss_records(self) -> Finding | None:
        """The first breach of rules 1 and 2 in records that are as they were signed."""
        chain = self.chain
        prev, ts = chain.prev, chain.ts
        for seq, item in enumerate(self.found, self.first):
            record, place = item.record or {}, item.line.place
            if not item.is_canonical:
                is_long = len(item.line.data) > LINE_MAX
                kind = "not_canonical" if item.record or is_long else "edited"
                what = "the record is not in the one form that the format allows"
                return Finding(kind, seq, place, what)
            if record.get("log") != (chain.report.origin or self._origin):
                return Finding("wrong_log", seq, place, "the record is of another log")
            what = self._misfit(item, seq, ts)
            if prev is not None and record.get("prev") != prev:
                what = what or "it does not follow on the record before"
            if what:
                return Finding("edited", seq, place, what)
            prev, ts = item.leaf.hex(), record["ts"]
        return None

    def _misfit(self, item: Found, seq: int, ts: int) -> str:
        """Why a canonical record of this log does not belong at a place; empty if it does."""
        record = item.record or {}
        if type(record.get("ts")) is not int or record["ts"] < ts:
            return "its time is before that of the record before"
        if item.seq != seq or type(record.get("v")) is not int or record["v"] != 1:
            return "its number or version is not what belongs here"
        if (record.get("type") == "genesis") is not (seq == 0):
            return "a log begins with its one genesis record"
        if not isinstance(record.get("type"), str):
            return "it is of no type"
        if seq == 0 and self.chain.key is None:
            return "the log names itself no key that can be used"
        if item.line.number == 1 and int(item.line.segment[:20]) != seq:
            return "the segment does not begin with the record of its name"
        return ""

    # Going on

    def _resume(self, kinds: list[str]) -> Iterator[bytes]:
        """Set the chain up behind the damage, as far as it is known; answer what it reads next."""
        chain, anchor = self.chain, self.anchor
        is_gap = bool(kinds) and set(kinds) <= {"deleted"}
        if anchor is None or not (self.is_certain or is_gap):
            if self.after or self.is_cut_off or next(self.stream, None):
                chain.report.unchecked.append(f"everything behind {self._place}")
            chain.is_stopped = True
            return iter(())
        leaves = dict.fromkeys(self.written.values(), False)
        genuine = []
        for item in self.found:
            if leaves.get(item.leaf) is False:
                genuine.append(item)
                leaves[item.leaf] = True
        self._take_key(self.keys[anchor.signatures[0][1][:4]], genuine)
        if chain.story:
            for item in genuine:
                chain.tell(item)
        written = list(self.written.values()) if self.is_certain else []
        chain.resume(genuine, written, anchor, self.marks[-1][1])
        rest = (line.data for line in self.stream)
        return itertools.chain([self.after.data], rest) if self.after else rest

    def _take_key(self, key: Key, genuine: list[Found]) -> None:
        """Go on with the key of a good signature, where the record that named it is damaged."""
        chain, epochs = self.chain, self.chain.report.epochs
        if not self.first and not (genuine and genuine[0].seq == 0 and chain.key):
            epochs[:] = [Epoch(0, key, 0)]
            chain.use(key)
        elif not self.is_certain and key != chain.key and not self._rotated(key.id):
            epochs.append(Epoch(epochs[-1].number + 1, key, self.first))
            chain.use(key)


# --- The whole verification ----------------------------------------------------------------------


@dataclass
class Asked:
    """What the reader asked for."""

    folder: Path
    keys: list[Key] = field(default_factory=list)
    witnesses: list[Key] = field(default_factory=list)
    known: list[Known] = field(default_factory=list)
    publishers: frozenset[str] = frozenset()
    all_signatures: bool = False
    semantics: bool = True
    needs_key: bool = False
    needs_witnesses: int = 0


def segment_names(folder: Path) -> list[str]:
    """The names of the segments, in order. Raises UnusableError where there are none."""
    try:
        items = sorted(folder.iterdir())
        names = [item.name for item in items if SEGMENT.fullmatch(item.name)]
        if names:
            return names
        logs = [item for item in items if item.is_dir() and any(item.glob("0" * 20 + ".jsonl"))]
    except NotADirectoryError:
        raise UnusableError(f"`{folder}` is a file: name the log's directory") from None
    except OSError as error:
        raise UnusableError(f"`{folder}`: {error.strerror}") from None
    hint = f"; did you mean `{logs[0]}`?" if logs else ""
    raise UnusableError(f"`{folder}` holds no segment (<20 digits>.jsonl){hint}")


def read_text(path: Path) -> str:
    """The text of a small file. Raises UnusableError where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(1 << 20).decode()
    except UnicodeDecodeError:
        raise UnusableError(f"`{path}` is no text") from None
    except OSError as error:
        raise UnusableError(f"`{path}`: {error.strerror}") from None


class Verifier:
    """Verifies one log directory as a reader asked."""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.names = segment_names(asked.folder)
        self.beside: list[Known] = []
        self.bad_copy = ""
        # INVARIANT: copies are read before the segments, which a live writer makes longer.
        self._read_copy(asked.folder / "checkpoint", is_copy=True)
        self._read_copy(asked.folder / "witness" / "checkpoint", is_copy=False)
        self.hints = {key.id: key for key in asked.keys}
        for text in self._beside("log.vkey").split("\n"):
            try:
                key = read_key(text)
                self.hints.setdefault(key.id, key)
            except ValueError:
                continue

    def _beside(self, name: str) -> str:
        try:
            return read_text(self.asked.folder / name)
        except UnusableError:
            return ""

    def _read_copy(self, path: Path, *, is_copy: bool) -> None:
        source = path.relative_to(self.asked.folder).as_posix()
        if not path.exists():
            return
        try:
            note = read_note(read_text(path))
            if is_copy and (len(note.signatures) != 1 or note.signatures[0][0] != note.origin):
                raise ValueError("it does not bear exactly one signature, the log's")
        except (ValueError, UnusableError) as error:
            self.bad_copy += f"`{source}` cannot be read as a checkpoint: {error}"
            return
        self.beside.append(Known(note, source))

    def run(self) -> Report:
        """Verify; where a signature was bad, once more with all of them, to find the first."""
        chain = self._pass(all_signatures=self.asked.all_signatures)
        if chain.was_signed_badly and not chain.all_signatures:
            chain = self._pass(all_signatures=True)
        report = chain.report
        if self.bad_copy:
            report.add(Finding("edited", max(report.size - 1, 0), "checkpoint", self.bad_copy))
        self._tidy(report)
        self._assure(report)
        return report

    def _pass(self, *, all_signatures: bool) -> Chain:
        publishers = self.asked.publishers
        chain = Chain(self.asked.folder, self.names, hints=self.hints, publishers=publishers)
        chain.all_signatures = all_signatures
        chain.witnesses = self.asked.witnesses
        known = [*self.asked.known, *self.beside]
        chain.known = sorted(known, key=lambda item: -item.note.size)
        if not self.asked.semantics:
            chain.story = None
        chain.walk()
        chain.close(is_live=is_locked(self.asked.folder / "LOCK"))
        self._pinned(chain)
        self._elsewhere(chain)
        self._beyond(chain)
        if chain.story and chain.story.unscoped:
            what = f"the scope of {chain.story.unscoped:,} calls, whose tokens did not list theirs"
            chain.report.unchecked.append(what)
        return chain

    # Rules 6 and 7

    def _pinned(self, chain: Chain) -> None:
        report, keys = chain.report, {key.public for key in self.asked.keys}
        epochs = [epoch for epoch in report.epochs if epoch.key.public in keys]
        if not keys:
            report.warnings.append(
                "UNPINNED_KEY: no --key was given, so anybody could have made this log; it is only"
                " shown to fit together under the key that it names itself"
            )
        elif not epochs and report.epochs and not chain.is_stopped:
            what = "the log was made with other keys than the one that you trust"
            chain.find("wrong_key", 0, "genesis", what)
        elif epochs and epochs[0].first_seq:
            what = f"records before {epochs[0].first_seq:,} are covered by later signatures only"
            report.warnings.append(f"LATE_KEY: the key is that of epoch {epochs[0].number}: {what}")

    def _elsewhere(self, chain: Chain) -> None:
        if not chain.report.epochs:
            return
        for known, passed in chain.compared:
            self._compare(chain, known, passed)
        if chain.is_stopped:
            chain.report.unchecked += [
                f"whether {item.source} is of this log" for item in chain.known
            ]
            return
        count = chain.size + chain.uncovered
        ours = [
            known
            for known in chain.known
            if self._is_ours(chain, known) and (known.note.size > count or known.is_seen)
        ]
        for known in sorted(ours, key=lambda item: not item.is_seen)[:1]:
            size, seen = known.note.size, known.is_seen
            what = f"{known.source} counts {size:,} records; here are {count:,}"
            chain.find("rewound" if seen else "truncated", count, chain.segments.place, what)
            if seen:
                chain.report.conflict = known.note.whole, chain.report.last_note

    def _beyond(self, chain: Chain) -> None:
        """No tile is of more records than there are (rule 8), unless they are being written."""
        count = chain.size + chain.uncovered
        is_told = any(item.kind in {"truncated", "rewound"} for item in chain.report.findings)
        if is_told or chain.is_stopped or is_locked(self.asked.folder / "LOCK"):
            return
        if path := chain.tiles.beyond(count):
            what = f"{path} holds hashes of records that are gone"
            chain.find("truncated", count, chain.segments.place, what)

    def _compare(self, chain: Chain, known: Known, passed: Note) -> None:
        note = known.note
        if not self._is_ours(chain, known):
            return
        if note.size == passed.size and note.root == passed.root:
            chain.take_cosignatures(note)
            return
        what = f"{known.source} tells another history of the first {note.size:,} records"
        chain.find("forked", note.size - 1, known.source, what)
        chain.report.conflict = note.whole, passed.whole

    def _is_ours(self, chain: Chain, known: Known) -> bool:
        """Whether a key of this log signed the checkpoint; a finding where not."""
        note, keys = known.note, [epoch.key for epoch in chain.report.epochs]
        if note.origin == chain.report.origin and any(is_note_signed(note, key) for key in keys):
            return True
        what = f"{known.source} is not signed by a key of this log"
        if known.is_seen:
            what = "another log of this name was seen here before, with other keys"
        chain.find("wrong_key", note.size - 1, known.source, what)
        return False

    # The verdict

    @staticmethod
    def _tidy(report: Report) -> None:
        """Order the findings; a bad signature says nothing more where a tile names the record."""
        tiled = [item.seq for item in report.findings if item.place.startswith("tile/")]
        report.findings = sorted(
            (
                item
                for item in report.findings
                if "signature under" not in item.what or not any(seq <= item.seq for seq in tiled)
            ),
            key=lambda item: (item.seq, item.kind == "semantic"),
        )

    def _assure(self, report: Report) -> None:
        asked = self.asked
        if asked.needs_key and not asked.keys:
            report.weak.append("no pinned key")
        covered = self.covered(report, max(asked.needs_witnesses, 1))
        if asked.needs_witnesses and not covered:
            report.weak.append(f"fewer than {asked.needs_witnesses} known witnesses cosigned it")

    @staticmethod
    def covered(report: Report, count: int) -> int:
        """How many records a checkpoint covers that this many known witnesses cosigned."""
        return max(
            (size for size, names in report.cosigned.items() if len(names) >= count), default=0
        )


def exit_code(report: Report) -> int:
    """The exit code that the report stands for."""
    if report.has_fork:
        return FORKED
    if report.findings:
        return BROKEN
    return WEAK if report.weak else OK


# --- Memory of what was seen before --------------------------------------------------------------


class Memory:
    """The last checkpoint of each log that this reader found valid, in a file of its own."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.logs: dict[str, str] = {}
        if path is None or not path.exists():
            return
        try:
            value = json.loads(read_text(path))
            self.logs = {str(name): str(note) for name, note in value["logs"].items()}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            message = f"`{path}` is not this program's memory: name another with --state, or `none`"
            raise UnusableError(message) from None

    @classmethod
    def default(cls) -> Path:
        """Where it is kept unless said otherwise (XDG Base Directory)."""
        base = os.environ.get("XDG_STATE_HOME", "")
        home = Path(base) if base.startswith("/") else Path.home() / ".local" / "state"
        return home / "countersign" / "verified.json"

    def known(self) -> dict[str, Known]:
        """What was seen, by the log's name."""
        try:
            return {
                name: Known(read_note(note), "your last verification", is_seen=True)
                for name, note in self.logs.items()
            }
        except ValueError as error:
            raise UnusableError(f"`{self.path}` is damaged: {error}") from None

    def keep(self, report: Report) -> None:
        """Remember the last checkpoint of a valid log. Raises OSError, UnusableError.

        Other verifications may have remembered theirs while this one read: those stay, and of the
        same log the longer one.
        """
        if not self.path or not report.last_note:
            return
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with alone(self.path.parent):
            now = Memory(self.path)
            seen = now.known().get(report.origin)
            if seen is None or seen.note.size < read_note(report.last_note).size:
                now.logs[report.origin] = report.last_note
            text = json.dumps({"v": 1, "logs": now.logs}, indent=1, sort_keys=True)
            self._write(self.path, text + "\n")

    def accuse(self, report: Report) -> Path | None:
        """Write the two notes that cannot both be true; answer where. Raises OSError."""
        if not self.path or not report.conflict:
            return None
        name = sha256("".join(report.conflict).encode()).hexdigest()[:16]
        path = self.path.parent / f"fraud-proof-{name}.json"
        proof = {
            "what": "two checkpoints of one log that cannot both be true",
            "log": report.origin,
            "known": report.conflict[0],
            "shown": report.conflict[1],
            "keys": [epoch.key.text for epoch in report.epochs],
        }
        self._write(path, json.dumps(proof, indent=1, ensure_ascii=False) + "\n")
        return path

    @staticmethod
    def _write(path: Path, text: str) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = path.with_name(f"{path.name}.{os.getpid()}.new")
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep others out who write into a folder by way of this. Raises OSError where one stays in."""
    fcntl = Tools.fcntl
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise
                time.sleep(0.01)
        yield
    finally:
        os.close(handle)


# --- One record's proof (§5) ---------------------------------------------------------------------


def read_proof(proof: str) -> tuple[int, list[bytes], Note]:
    """Read a `.tlog-proof`: the record's number, the path, the checkpoint. Raises ValueError."""
    head, _, whole = proof.partition("\n\n")
    first, *rest = head.split("\n")
    if first != "c2sp.org/tlog-proof@v1" or not rest or not rest[0].startswith("index "):
        raise ValueError("it is no c2sp.org/tlog-proof@v1")
    path = [unbase64(text) for text in rest[1:]]
    if any(len(node) != 32 for node in path):
        raise ValueError("a hash has not 32 bytes")
    return uncounted(rest[0][6:]), path, read_note(whole)


def unproven(
    index: int, path: list[bytes], note: Note, line: bytes, keys: list[Key]
) -> Finding | None:
    """Why a proof does not prove the line; None if it does."""
    if not any(is_note_signed(note, key) for key in keys):
        named = ", ".join(f"{name}+{blob[:4].hex()}" for name, blob in note.signatures)
        what = (
            f"its checkpoint is not signed by a key that you trust: it names {named}; "
            "after a change of the key, give that one, too"
        )
        return Finding("wrong_key", index, "proof", what)
    if included_root(index, note.size, record_leaf(line), path) != note.root:
        what = "the line is not the record that stands there in the log"
        return Finding("edited", index, "proof", what)
    record = plain_record(line)
    if record is None:
        what = "the line is not in the one form of a record"
        return Finding("not_canonical", index, "proof", what)
    if record.get("log") != note.origin or record.get("seq") != index:
        return Finding("wrong_log", index, "proof", "the line is of another log or place")
    return None


def check_proof(proof: str, line: bytes, asked: Asked) -> Report:
    """Check a `.tlog-proof` of one record line under a checkpoint signed by a trusted key."""
    report = Report()
    try:
        index, path, note = read_proof(proof)
    except ValueError as error:
        report.add(Finding("edited", 0, "proof", f"the proof cannot be read: {error}"))
        return report
    report.origin, report.size, report.root = note.origin, note.size, note.root
    if wrong := unproven(index, path, note, line.removesuffix(b"\n"), asked.keys):
        report.add(wrong)
        return report
    report.records = 1
    for name, blob in note.signatures:
        for witness in asked.witnesses:
            if is_cosigned(note.text, witness, name, blob):
                report.cosigned.setdefault(note.size, set()).add(name)
                report.witnessed[name] = note.size
    if asked.needs_witnesses and not Verifier.covered(report, asked.needs_witnesses):
        report.weak.append(f"fewer than {asked.needs_witnesses} known witnesses cosigned it")
    return report


# --- Words ---------------------------------------------------------------------------------------

WORDS = {
    "edited": "EDITED",
    "deleted": "DELETED",
    "inserted": "INSERTED",
    "reordered": "REORDERED",
    "truncated": "TRUNCATED",
    "torn": "TORN",
    "forked": "FORKED",
    "rewound": "REWOUND",
    "wrong_key": "WRONG KEY",
    "out_of_epoch": "KEY OUT OF ITS TIME",
    "not_canonical": "NOT CANONICAL",
    "wrong_log": "WRONG LOG",
    "missing": "SIGNATURE MISSING",
    "semantic": "RULE BROKEN",
}
VERDICTS = {
    OK: "VALID",
    BROKEN: "NOT VALID: the log is not as an honest gateway wrote it",
    WEAK: "VALID, but less assured than you asked",
    FORKED: "NOT VALID: another history was shown before",
}
ALWAYS_UNCHECKED = (
    "that tools did what they answered; that nothing happened outside the gateway",
    "that each decision follows from its policy (replay), and the values behind commitments",
)


def moment(stamp: int | None) -> str:
    """A time in words: UTC, to the second."""
    if stamp is None:
        return "?"
    try:
        return datetime.fromtimestamp(stamp // 1_000_000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"{stamp} µs"


def as_json(report: Report, shown: int, proof: Path | None, stats: Json | None) -> str:
    """The report as one JSON object."""
    findings = [
        {"kind": item.kind, "seq": item.seq, "place": item.place, "what": item.what}
        | ({"rule": item.rule} if item.rule else {})
        for item in report.findings
    ]
    value: Json = {
        "valid": not report.findings,
        "exit": exit_code(report),
        "findings": findings[:shown],
        "more_findings": max(len(findings) - shown, 0) + report.more,
        "warnings": report.warnings,
        "below": report.weak,
        "not_checked": [*report.unchecked, *ALWAYS_UNCHECKED],
        "log": report.origin or None,
        "records": report.records,
        "checkpoints": report.checkpoints,
        "epochs": [
            {"epoch": epoch.number, "key": epoch.key.text, "first_seq": epoch.first_seq}
            for epoch in report.epochs
        ],
        "first_ts": report.first_ts,
        "last_ts": report.last_ts,
        "root": report.root.hex() or None,
        "size": report.size,
        "witnessed": report.witnessed,
        "fraud_proof": str(proof) if proof else None,
    }
    return json.dumps(value | ({"stats": stats} if stats else {}))


def as_text(report: Report, shown: int, proof: Path | None) -> str:
    """The report in words for a person."""
    lines = [f"{report.origin or 'this log'}: {VERDICTS[exit_code(report)]}"]
    for item in report.findings[:shown]:
        rule = f" ({item.rule})" if item.rule else ""
        lines.append(f"  record {item.seq:,}: {WORDS[item.kind]}{rule}: {item.what} [{item.place}]")
    if (more := max(len(report.findings) - shown, 0) + report.more) > 0:
        lines.append(f"  and {more:,} more")
    lines += [f"  below what you asked: {what}" for what in report.weak]
    if proof:
        lines.append(f"  both signed checkpoints are kept in {proof}")
    lines += [f"WARNING {warning}" for warning in report.warnings]
    lines.append(
        f"checked: {report.records:,} records in {report.checkpoints:,} batches,"
        f" {moment(report.first_ts)} to {moment(report.last_ts)}"
    )
    for epoch in report.epochs:
        lines.append(f"epoch {epoch.number}: from record {epoch.first_seq:,}, {epoch.key.text}")
    if report.root:
        lines.append(f"root at {report.size:,} records: {report.root.hex()}")
    for name, size in sorted(report.witnessed.items()):
        lines.append(f"witness {name} cosigned the first {size:,} records")
    lines += [f"not checked: {what}" for what in [*report.unchecked, *ALWAYS_UNCHECKED]]
    return "\n".join(
        "".join(char if char.isprintable() else "?" for char in line) for line in lines
    )


# --- Command line --------------------------------------------------------------------------------


class Parser(argparse.ArgumentParser):
    """Answers wrong usage with one line and exit code 2."""

    def error(self, message: str) -> Any:  # noqa: ANN401 (does not return)
        """End with one line."""
        raise UnusableError(f"{message}; try --help")


def parser() -> Parser:
    """Build the command line."""
    build = Parser(
        prog="countersign_verify.py",
        description="Verify a Countersign audit log: what was changed, and where.",
        epilog="exit codes: 0 valid, 1 not valid, 2 usage or I/O, 3 valid but below --require,"
        " 4 fork or rollback against what was seen before",
    )
    add = build.add_argument
    add("dir", nargs="?", metavar="DIR", help="the log's directory, with segments *.jsonl in it")
    add("--key", action="append", default=[], metavar="VKEY|FILE", help="a key that you trust")
    add("--checkpoint", action="append", default=[], metavar="FILE", help="must be of this log")
    add("--witness", action="append", default=[], metavar="VKEY|FILE", help="a witness's key")
    add("--publisher-key", action="append", default=[], metavar="KEY", help="a publisher's key")
    add("--require", action="append", default=[], metavar="key|witness[:K]", help="else exit 3")
    add("--all-signatures", action="store_true", help="check each, not the last of each epoch only")
    add("--no-semantics", action="store_true", help="leave out what the records say together")
    add("--state", metavar="FILE|none", help="memory of verified logs (default: XDG state folder)")
    add("--proof", metavar="FILE", help="check one record's .tlog-proof instead of a log")
    add("--record", metavar="FILE", help="the record line that --proof is for")
    add("--json", action="store_true", help="one JSON object instead of words")
    add("--max-findings", type=int, default=20, metavar="N", help="show at most N (default 20)")
    add("--plain", action="store_true", help="use the standard library alone")
    add("--stats", action="store_true", help="say how fast it was")
    return build


def keys_from(words: list[str], algorithm: int) -> list[Key]:
    """Read keys given as such or as files with one a line. Raises UnusableError."""
    keys = []
    for word in words:
        is_file = word.count("+") < 2 or Path(word).is_file()
        for text in read_text(Path(word)).split("\n") if is_file else [word]:
            if text.strip() and not text.startswith("#"):
                try:
                    keys.append(read_key(text.strip(), algorithm))
                except ValueError as error:
                    raise UnusableError(f"`{text[:80]}` is no verifier key: {error}") from None
        if not keys:
            raise UnusableError(f"`{word}` holds no verifier key")
    return keys


def asked_from(words: argparse.Namespace) -> Asked:
    """What the command line asks for. Raises UnusableError."""
    asked = Asked(Path(words.dir or "."), keys_from(words.key, 1), keys_from(words.witness, 4))
    asked.publishers = frozenset(words.publisher_key)
    asked.all_signatures, asked.semantics = words.all_signatures, not words.no_semantics
    for file in words.checkpoint:
        try:
            asked.known.append(Known(read_note(read_text(Path(file))), str(file)))
        except ValueError as error:
            raise UnusableError(f"`{file}` is no signed checkpoint: {error}") from None
    for need in words.require:
        match = re.fullmatch(r"key|witness(?::([1-9][0-9]?))?", need)
        if match is None:
            raise UnusableError(f"`{need}` cannot be required: say `key` or `witness:<how many>`")
        if need == "key":
            asked.needs_key = True
        else:
            asked.needs_witnesses = int(match[1] or 1)
    if asked.needs_witnesses > len(asked.witnesses):
        raise UnusableError("--require witness needs the keys of as many witnesses: --witness VKEY")
    return asked


def judged(words: argparse.Namespace) -> tuple[Report, Path | None]:
    """Do what the command line asks. Raises UnusableError."""
    asked = asked_from(words)
    if words.proof or words.record:
        if not (words.proof and words.record and asked.keys) or words.dir:
            raise UnusableError("a proof is checked with --proof, --record and --key, without DIR")
        line = Path(words.record).read_bytes()
        return check_proof(read_text(Path(words.proof)), line, asked), None
    if words.dir is None:
        raise UnusableError("name the log's directory; try --help")
    if words.state == "none":
        memory = Memory(None)
    else:
        memory = Memory(Path(words.state) if words.state else Memory.default())
    verifier = Verifier(asked)
    origin = first_origin(asked.folder / verifier.names[0])
    if seen := memory.known().get(origin):
        asked.known.append(seen)
    report = verifier.run()
    proof = None
    try:
        proof = memory.accuse(report)
        if exit_code(report) in {OK, WEAK}:
            memory.keep(report)
    except OSError as error:
        report.warnings.append(f"NO_MEMORY: `{memory.path}`: {error.strerror}")
    return report, proof


def first_origin(segment: Path) -> str:
    """The log's name as its first line says it; empty where it says none."""
    try:
        with segment.open("rb") as file:
            record = loose_record(file.readline(LINE_MAX + 1).removesuffix(b"\n"))
    except OSError as error:
        raise UnusableError(f"`{segment}`: {error.strerror}") from None
    return str(record.get("log")) if record else ""


def main(arguments: list[str] | None = None) -> int:
    """Verify as the command line says; answer the exit code."""
    began = time.perf_counter()
    try:
        words = parser().parse_args(arguments)
        if words.max_findings < 1:
            raise UnusableError("--max-findings takes a number from 1 on")
        if words.plain:
            Tools.none()
        report, proof = judged(words)
    except UnusableError as error:
        sys.stderr.write(f"countersign_verify.py: {error}\n")
        return USAGE
    except OSError as error:
        sys.stderr.write(f"countersign_verify.py: `{error.filename}`: {error.strerror}\n")
        return USAGE
    seconds = time.perf_counter() - began
    stats = {"seconds": round(seconds, 3), "records_per_second": round(report.records / seconds)}
    if words.json:
        out = as_json(report, words.max_findings, proof, stats if words.stats else None)
    else:
        out = as_text(report, words.max_findings, proof)
        if words.stats:
            out += f"\nstats: {stats['seconds']} s, {stats['records_per_second']:,} records/s"
    if why := untold(out):
        sys.stderr.write(f"countersign_verify.py: the verdict cannot be written: {why}\n")
        return USAGE
    return exit_code(report)


def untold(out: str) -> str:
    """Print a verdict; answer why it cannot be, and nothing where its reader reads no further."""
    if sys.stdout is None:
        return "the output is closed"
    try:
        sys.stdout.write(out + "\n")
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # where the rest goes at the end of Python
        return "" if isinstance(error, BrokenPipeError) else str(error.strerror)
    return ""


if __name__ == "__main__":
    gc.disable()  # what is read is freed as it goes; looking for cycles costs a fifth
    if sys.stdout is not None:
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    sys.exit(main())
