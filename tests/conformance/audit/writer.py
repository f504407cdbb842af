"""Writes audit logs as docs/spec/audit-log-v1.md says, with fixed keys, times and salts.

It is for the corpus alone: it writes what it is told, also what no honest gateway would, and it
shares no code with the gateway or with a verifier.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

ORIGIN: Final = "log.example.com/audit"
START_US: Final = 1_700_000_000_000_000
ZEROS: Final = "0" * 64
ED25519: Final = 0x01
COSIGNATURE: Final = 0x04
HASHES_PER_TILE: Final = 256

Record = dict[str, Any]
Files = dict[str, bytes]


def encode(value: object) -> bytes:
    """RFC 8785 within the profile (section 2): ASCII names, integers, no lone surrogates."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode()


def b64(data: bytes) -> str:
    """RFC 4648 section 4, with padding."""
    return base64.b64encode(data).decode()


def commit(path: str, value: str) -> Record:
    """Return the commitment to `value` at `path` (section 7) under a salt made from both."""
    salt = hashlib.sha256(f"salt {path} {value}".encode()).digest()
    mac = hmac.digest(salt, b"cs/commit/v1\0" + path.encode() + b"\0" + value.encode(), "sha256")
    return {"bytes": len(value.encode()), "c": base64.urlsafe_b64encode(mac).decode().rstrip("=")}


def tag(nonce: str, label: str, value: str) -> str:
    """Return a tag (section 7): equal tags under one nonce mean equal values."""
    mac = hmac.digest(nonce.encode(), label.encode() + b"\0" + value.encode(), "sha256")
    return base64.urlsafe_b64encode(mac).decode()[:22]


def leaf_hash(line: bytes) -> bytes:
    """Return the leaf of a record line; its LF is no part of it (section 3)."""
    return hashlib.sha256(b"\0" + line.removesuffix(b"\n")).digest()


def tree_root(leaves: list[bytes]) -> bytes:
    """RFC 6962 section 2.1, as it stands there."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    left, right = tree_root(leaves[:split]), tree_root(leaves[split:])
    return hashlib.sha256(b"\1" + left + right).digest()


class Key:
    """A signing key whose seed is the hash of its label, so that every run has the same one."""

    def __init__(self, label: str, *, name: str = ORIGIN, algorithm: int = ED25519) -> None:
        seed = hashlib.sha256(f"countersign corpus {label}".encode()).digest()
        self.name = name
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        public = bytes([algorithm]) + self._private.public_key().public_bytes_raw()
        self.id = hashlib.sha256(name.encode() + b"\n" + public).digest()[:4]
        self.vkey = f"{name}+{self.id.hex()}+{b64(public)}"

    def blob(self, message: str) -> bytes:
        """Key id and signature, as a signature line carries them."""
        return self.id + self._private.sign(message.encode())

    def line(self, text: str, *, signed: str | None = None) -> str:
        """Return the signature line over `text`, or one that was made over `signed` instead."""
        return f"— {self.name} {b64(self.blob(text if signed is None else signed))}\n"

    def cosign(self, text: str, time: int) -> str:
        """`<name> <base64>` of a witness over a checkpoint's text (section 4.3)."""
        signature = self.blob(f"cosignature/v1\ntime {time}\n{text}")[4:]
        return f"{self.name} {b64(self.id + time.to_bytes(8, 'big') + signature)}"


EPOCHS: Final = [Key(f"epoch {number}") for number in range(4)]
STRANGER: Final = Key("stranger")
WITNESS: Final = Key("witness", name="witness.example.net/w1", algorithm=COSIGNATURE)


def note_text(size: int, root: bytes, *, origin: str = ORIGIN) -> str:
    """Return the text of a checkpoint, which is what is signed."""
    return f"{origin}\n{size}\n{b64(root)}\n"


def checkpoint_line(note: str) -> bytes:
    """Return the line of a segment that carries `note`."""
    return encode({"cp": note}) + b"\n"


class LogWriter:
    """One log in memory; `seal` ends a batch, `files` is the directory."""

    def __init__(self, *, origin: str = ORIGIN, keys: list[Key] | None = None) -> None:
        self.origin = origin
        self.keys = keys or EPOCHS
        self.epoch = 0
        self.now_us = START_US
        self.boot = ""
        self.leaves: list[bytes] = []
        self.segments: dict[int, list[bytes]] = {0: []}
        self.notes: list[str] = []
        self._sealed: str | None = None

    @property
    def key(self) -> Key:
        """The epoch's key."""
        return self.keys[self.epoch]

    @property
    def size(self) -> int:
        """How many records there are, and so the next one's number."""
        return len(self.leaves)

    def put(self, kind: str, /, **fields: object) -> int:
        """Write one record and return its number; a field that is `...` is left out."""
        self.now_us += 1_000
        record: Record = {
            "v": 1,
            "log": self.origin,
            "seq": self.size,
            "prev": self.leaves[-1].hex() if self.leaves else ZEROS,
            "ts": self.now_us,
            "boot": self.boot,
            "type": kind,
        }
        if self._sealed is not None:
            record["cp"], self._sealed = self._sealed, None
        record |= fields
        line = encode({name: value for name, value in record.items() if value is not ...})
        self._lines().append(line + b"\n")
        self.leaves.append(leaf_hash(line))
        return self.size - 1

    def seal(self, *, key: Key | None = None) -> None:
        """End the batch, if there is one, with a line signed by the epoch's key or by `key`."""
        if self._sealed is None:
            self.put_note(self.note(key=key))

    def put_note(self, note: str) -> None:
        """End the batch with this note, whatever it says."""
        line = checkpoint_line(note)
        self._lines().append(line)
        self.notes.append(note)
        self._sealed = hashlib.sha256(line.removesuffix(b"\n")).hexdigest()

    def note(self, *, size: int | None = None, key: Key | None = None) -> str:
        """Return the checkpoint of the first `size` records, signed."""
        count = self.size if size is None else size
        text = note_text(count, tree_root(self.leaves[:count]), origin=self.origin)
        return text + "\n" + (key or self.key).line(text)

    def new_segment(self) -> None:
        """Let the next batch begin another file."""
        self.segments[self.size] = []

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.now_us += round(seconds * 1_000_000)

    def files(self, *, copy: bool = True, tiles: bool = False) -> Files:
        """Return the directory: segments, `log.vkey`, and the parts that can be made anew."""
        found = {segment_name(at): b"".join(lines) for at, lines in self.segments.items()}
        found["log.vkey"] = "".join(f"{key.vkey}\n" for key in self.keys[: self.epoch + 1]).encode()
        if copy and self.notes:
            found["checkpoint"] = self.notes[-1].encode()
        return found | (build_tiles(self.leaves) if tiles else {})

    def _lines(self) -> list[bytes]:
        return self.segments[max(self.segments)]


def segment_name(first: int) -> str:
    """Return the name of the segment that begins with record `first`."""
    return f"{first:020d}.jsonl"


def build_tiles(leaves: list[bytes]) -> Files:
    """Return the tiles of a tree of these leaves (section 5), none of 1,000 tiles or more."""
    found: Files = {}
    level, hashes = 0, leaves
    while hashes:
        for start in range(0, len(hashes), HASHES_PER_TILE):
            part = hashes[start : start + HASHES_PER_TILE]
            partial = "" if len(part) == HASHES_PER_TILE else f".p/{len(part)}"
            found[f"tile/{level}/{start // HASHES_PER_TILE:03d}{partial}"] = b"".join(part)
        full = len(hashes) // HASHES_PER_TILE
        hashes = [
            tree_root(hashes[n * HASHES_PER_TILE : (n + 1) * HASHES_PER_TILE]) for n in range(full)
        ]
        level += 1
    return found
