"""Openings: the values behind the chain's commitments, kept encrypted and erasable.

Each data subject has a key of its own (DEK), wrapped under the key of the deployment (KEK) in one
small file under `openings/keys/`, named by a keyed hash of the subject. Deleting that file makes
every opening of the subject unreadable; the chain holds only commitments and still verifies.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import re
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec import Struct

from gateway.adapters.audit.audit_files import Files, list_segments, segment_name
from gateway.adapters.audit.audit_keys import KEK_BYTES
from gateway.adapters.audit.audit_reader import read_lines
from gateway.adapters.audit.audit_seek import find_line
from gateway.core.approvals.approval import person
from gateway.core.entry import Entry, Opening
from gateway.core.errors import ConfigurationError
from gateway.core.log.chain import commit, place

SALT_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_DEK_BYTES: Final = 32
_CACHED_SUBJECTS: Final = 4096
_KEYS_TRIED_MAX: Final = 8
_WRAPPED_BYTES: Final = _NONCE_BYTES + _DEK_BYTES + 16
_PLACE: Final = b"cs/opening/v1"
_ERASING: Final = ".erasing"
_UNREADABLE: Final = ".unreadable"
_KEY_ID: Final = re.compile(r"[0-9a-f]{32}")


class Vault:
    """The subjects' keys on disk. Not for two threads at once, except `erase`."""

    def __init__(self, directory: Path, kek: bytes, boot: str, files: Files) -> None:
        if len(kek) != KEK_BYTES:
            raise ConfigurationError(f"the audit key encryption key is not {KEK_BYTES} bytes")
        self._directory: Final = directory
        self._files: Final = files
        self._boot: Final = boot
        self._wrapping: Final = AESGCM(hmac.digest(kek, b"cs/kek/wrap/v1", "sha256"))
        self._naming: Final = hmac.digest(kek, b"cs/kek/name/v1", "sha256")
        self._ciphers: Final[dict[str, tuple[str, AESGCM]]] = {}
        self._unsynced: Final[list[Path]] = []

    def cipher(self, subject: str) -> tuple[str, AESGCM]:
        """Return a subject's key id and this boot's cipher, making the key where there is none.

        INVARIANT: no nonce repeats under a cipher. Nonces count records, and a record number can
        return after a crash; so each boot derives a cipher of its own from the subject's key.
        """
        cached = self._ciphers.get(subject)
        if cached is None:
            key_id = self.key_id(subject)
            dek = self.load(key_id) or self._create(key_id)
            cached = (key_id, derive(dek, self._boot))
            if len(self._ciphers) >= _CACHED_SUBJECTS:
                self._ciphers.clear()
            self._ciphers[subject] = cached
        return cached

    def key_id(self, subject: str) -> str:
        """Return the id of a subject's key, 32 hex digits, which tells nothing without the KEK.

        All names of one person lead to one key, so that none of them is forgotten when it is
        erased.
        """
        return hmac.digest(self._naming, person(subject).encode(), "sha256")[:16].hex()

    def load(self, key_id: str) -> bytes | None:
        """Return a subject's key; None when it was erased, or was wrapped under another KEK.

        Nor is there one where `key_id` is none: nobody vouches for what stands in an opening.
        """
        if not is_key_id(key_id):
            return None
        with contextlib.suppress(FileNotFoundError, InvalidTag):
            blob = self._path(key_id).read_bytes()
            if len(blob) > _NONCE_BYTES:  # shorter: a crash came before it was on the disk
                nonce, wrapped = blob[:_NONCE_BYTES], blob[_NONCE_BYTES:]
                return self._wrapping.decrypt(nonce, wrapped, key_id.encode())
        return None

    def is_of_another_kek(self) -> bool:
        """Whether keys are kept here, and none of some that are tried was wrapped under this KEK.

        What a crash left of a key says nothing: it is shorter, or nothing but zeros.
        """
        tried = 0
        nothing = (FileNotFoundError, NotADirectoryError)  # whoever opens the log says so
        with contextlib.suppress(*nothing), os.scandir(self._directory) as found:
            for file in found:
                blob = Path(file).read_bytes() if not Path(file).suffix else b""
                if len(blob) == _WRAPPED_BYTES and any(blob):
                    if self.load(file.name) is not None:
                        return False
                    tried += 1
                    if tried == _KEYS_TRIED_MAX:
                        break
        return tried > 0

    def erase(self, subject: str) -> bool:
        """Delete a subject's key durably. Return whether there was one.

        What the storage below keeps (snapshots, backups, worn flash cells) is out of reach here.
        """
        return self.erase_key(self.key_id(subject))

    def erase_key(self, key_id: str) -> bool:
        """Delete a key by its id, as `erase` does, and the mark that it was about to be."""
        self._ciphers.clear()
        path = self._path(key_id)
        existed = self.has_key(key_id)
        for file in (path, path.with_suffix(_UNREADABLE)):
            with contextlib.suppress(FileNotFoundError):
                self._files.overwrite(file)
                file.unlink()
        self._files.sync_directory(self._directory)
        self.unmark(key_id)
        return existed

    def has_key(self, key_id: str) -> bool:
        """Whether anything is kept of a key, readable or not."""
        path = self._path(key_id)
        return path.exists() or path.with_suffix(_UNREADABLE).exists()

    def mark(self, key_id: str, event_id: str) -> None:
        """Say durably that the record of this event id erases a key.

        A crash can come between that record and the erasure: `finish` then makes up for it.
        """
        self._files.replace(self._path(key_id).with_suffix(_ERASING), event_id.encode())
        self._files.sync_directory(self._directory)

    def unmark(self, key_id: str) -> None:
        """Take back `mark`, durably: nothing is to be erased, or all of it was.

        INVARIANT: no mark is left when the subject gets a new key, which it would erase.
        """
        self._path(key_id).with_suffix(_ERASING).unlink(missing_ok=True)
        self._files.sync_directory(self._directory)

    def finish(self, recorded: Container[str]) -> None:
        """Erase what a crash left marked, where its event id is `recorded`; else drop the mark."""
        for mark in sorted(self._directory.glob(f"*{_ERASING}")):
            if mark.read_text(errors="replace") in recorded:
                self.erase_key(mark.stem)
            else:
                self.unmark(mark.stem)

    def sync(self) -> None:
        """Return once every key made so far is on the disk."""
        while self._unsynced:
            with contextlib.suppress(FileNotFoundError):  # erased since
                self._files.sync_path(self._unsynced.pop())
            if not self._unsynced:
                self._files.sync_directory(self._directory)

    def _create(self, key_id: str) -> bytes:
        dek, nonce = os.urandom(_DEK_BYTES), os.urandom(_NONCE_BYTES)
        path = self._path(key_id)
        with contextlib.suppress(FileNotFoundError):
            path.rename(path.with_suffix(_UNREADABLE))
        path.touch(mode=0o600)
        path.write_bytes(nonce + self._wrapping.encrypt(nonce, dek, key_id.encode()))
        self._unsynced.append(path)
        return dek

    def _path(self, key_id: str) -> Path:
        return self._directory / key_id


def is_key_id(text: str) -> bool:
    """Whether a text is the id of a key, and so the name of its file."""
    return _KEY_ID.fullmatch(text) is not None


class SaltStock:
    """Fresh randomness for salts, fetched from the system for 256 of them at a time.

    So not every record costs a system call. Not for two threads at once.
    """

    def __init__(self) -> None:
        self._stock = b""
        self._at = 0

    def take(self, size: int) -> bytes:
        """Return `size` bytes that were never returned before."""
        if self._at + size > len(self._stock):
            self._stock, self._at = os.urandom(max(size, 256 * SALT_BYTES)), 0
        self._at += size
        return self._stock[self._at - size : self._at]


def commit_openings(
    entry: Entry, random_bytes: Callable[[int], bytes] = os.urandom
) -> tuple[dict[str, Any], list[bytes]]:
    """Return the entry's fields with a commitment for each opening, and the salts, in order.

    The entry itself stays as it is. Raises `ValueError` where a field is in the way.
    """
    if not entry.openings:
        return entry.fields, []
    fields = dict(entry.fields)
    salts: list[bytes] = []
    random = random_bytes(SALT_BYTES * len(entry.openings))
    for number, opening in enumerate(entry.openings):
        salt = random[number * SALT_BYTES : (number + 1) * SALT_BYTES]
        place(fields, opening.path, commit(salt, opening.path, opening.value))
        salts.append(salt)
    return fields, salts


def derive(dek: bytes, boot: str) -> AESGCM:
    """Return the cipher of one boot for a subject's key."""
    return AESGCM(hmac.digest(dek, b"cs/opening/v1\x00" + boot.encode(), "sha256"))


class Unsealed(Struct, frozen=True):
    """The openings of record `seq` on their way to the disk, each with its salt, in order."""

    seq: int
    openings: tuple[Opening, ...]
    salts: list[bytes]


class Sealed(Struct, frozen=True):
    """One line of an openings file: the values of one record under one subject's key."""

    seq: int
    n: int
    key: str
    boot: str
    ct: bytes


_encode_line: Final = msgspec.json.Encoder().encode


class OpeningsWriter:
    """Encrypts openings into `openings/<first-seq>.jsonl`, beside the segment of the same name."""

    def __init__(self, directory: Path, vault: Vault, boot: str, files: Files) -> None:
        self._directory: Final = directory
        self._files: Final = files
        self._boot: Final = boot
        self.vault: Final = vault
        self._descriptor: int | None = None
        self._lines: list[bytes] = []
        self._dirty = False

    def open(self, first_seq: int) -> None:
        """Go on in the file of this segment. Ends a line that a crash left torn."""
        self.close()
        path = self._directory / segment_name(first_seq)
        self._descriptor = self._files.append_to(path)
        self._files.sync_directory(self._directory)
        if path.stat().st_size:
            self._files.write(self._descriptor, b"\n")

    @property
    def is_open(self) -> bool:
        """Whether a file is open to write to."""
        return self._descriptor is not None

    def add(self, unsealed: Unsealed) -> None:
        """Encrypt a record's openings, one line for each data subject; `write` writes them.

        The nonce binds the ciphertext to its place: it cannot be moved to another record.
        """
        seq = unsealed.seq
        plain: dict[str, list[bytes]] = {}
        for opening, salt in zip(unsealed.openings, unsealed.salts, strict=True):
            parts = plain.setdefault(opening.subject, [])
            value = opening.value
            parts += (opening.path.encode(), b"\0", salt, len(value).to_bytes(8, "big"), value)
        for index, (subject, parts) in enumerate(plain.items()):
            key_id, cipher = self.vault.cipher(subject)
            text = cipher.encrypt(_nonce(seq, index), b"".join(parts), _PLACE)
            self._lines.append(_encode_line(Sealed(seq, index, key_id, self._boot, text)))

    def write(self) -> None:
        """Write what was added; durable after the next `sync`. Raises `OSError`."""
        if self._lines:
            assert self._descriptor is not None  # noqa: S101 - opened with the segment
            self._files.write(self._descriptor, b"\n".join((*self._lines, b"")))
            self._lines.clear()
            self._dirty = True

    def forget(self) -> None:
        """Drop what was added and not written, after a write that may have been cut short."""
        self._lines = [b""]  # its end ends a torn line; an empty one is passed over

    def sync(self) -> None:
        """Return once keys and openings written so far are on the disk."""
        if self._dirty and self._descriptor is not None:
            self.vault.sync()
            self._files.sync(self._descriptor)
            self._dirty = False

    def close(self) -> None:
        """Sync and close."""
        self.sync()
        self.abandon()

    def abandon(self) -> None:
        """Close without a sync."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _nonce(seq: int, index: int) -> bytes:
    return seq.to_bytes(8, "big") + index.to_bytes(4, "big")


def read_sealed(file: Path) -> Iterator[Sealed]:
    """Yield the lines of one openings file; those that a crash left torn are passed over."""
    decode = msgspec.json.Decoder(Sealed).decode
    if not file.exists():
        return
    with file.open("rb") as lines:
        for line in lines:
            with contextlib.suppress(msgspec.DecodeError):
                yield decode(line)


def count_sealed(directory: Path, key_id: str, *, after: int) -> int:
    """Return how many lines of the log's openings are under a key, of records past `after`."""
    head = re.compile(rb'\{"seq":([0-9]{1,20}),"n":[0-9]+,"key":"%b"' % key_id.encode())
    lines = (line for file in list_segments(directory / "openings") for line in read_lines(file))
    return sum(int(found[1]) > after for found in map(head.match, lines) if found is not None)


def unseal(sealed: Sealed, vault: Vault) -> dict[str, tuple[bytes, bytes]]:
    """Return salt and value by path, not yet believed; nothing where the key was erased."""
    dek = vault.load(sealed.key)
    if dek is None:
        return {}
    try:
        return unseal_with(sealed, derive(dek, sealed.boot))
    except (InvalidTag, OverflowError):
        return {}


def unseal_with(sealed: Sealed, cipher: AESGCM) -> dict[str, tuple[bytes, bytes]]:
    """Return what `unseal` does. Raises `InvalidTag` or `OverflowError` for what is not so."""
    plain = cipher.decrypt(_nonce(sealed.seq, sealed.n), sealed.ct, _PLACE)
    values: dict[str, tuple[bytes, bytes]] = {}
    while plain:
        path, _, rest = plain.partition(b"\0")
        salt, size = rest[:SALT_BYTES], int.from_bytes(rest[SALT_BYTES : SALT_BYTES + 8], "big")
        rest = rest[SALT_BYTES + 8 :]
        values[path.decode()] = salt, rest[:size]
        plain = rest[size:]
    return values


def is_committed(path: str, salt: bytes, value: bytes, commitment: dict[str, Any]) -> bool:
    """Whether the record's commitment at `path` is to this value under this salt."""
    return commit(salt, path, value) == commitment


def read_opening(directory: Path, vault: Vault, seq: int, path: str) -> bytes | None:
    """Return the value committed to at `path` of record `seq` of the log in `directory`.

    None when its subject was erased. Raises `LookupError` when there is no such commitment.
    """
    line = find_line(directory, seq)
    commitment: Any = {} if line is None else orjson.loads(line)
    for name in path.split("."):
        commitment = commitment.get(name) if isinstance(commitment, dict) else None
    if not isinstance(commitment, dict) or "c" not in commitment:
        raise LookupError(f"record {seq} commits to nothing at `{path}`")
    files = [file for file in list_segments(directory / "openings") if int(file.stem) <= seq]
    for sealed in read_sealed(files[-1]) if files else ():
        if sealed.seq == seq:
            salt, value = unseal(sealed, vault).get(path, (b"", b""))
            if salt and is_committed(path, salt, value, commitment):
                return value
    return None
