"""Writes an evidence bundle: records of a log with all that proves them, in one ZIP file."""

from __future__ import annotations

import base64
import hashlib
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import IO, BinaryIO, Final

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec import Struct
from msgspec.structs import replace

from gateway.adapters.audit.audit_query import Found
from gateway.adapters.audit.audit_seek import find_rotations, newest_checkpoint
from gateway.adapters.audit.audit_tiles import TileReader
from gateway.adapters.audit.audit_values import ValueReader, commitments_of
from gateway.core.errors import AuditError
from gateway.core.log import evidence, note
from gateway.core.log.evidence import BUNDLE_VERIFIER, VERIFIER, About, Opened
from gateway.core.log.exports import Line
from gateway.core.log.merkle import Node, hash_leaf, inclusion_proof, is_included, root_of
from gateway.core.log.note import SignedCheckpoint
from gateway.core.log.tiles import TILE_WIDTH
from gateway.core.log.tlog_proof import TlogProof, build_proof
from gateway.core.records.audit_access import Span

_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
_SPOOL_BYTES: Final = 8 << 20


class Wanted(Struct, frozen=True, kw_only=True):
    """What goes into a bundle. `values` opens what the records commit to; None leaves it closed.

    `signer` signs the manifest under the log's name.
    """

    directory: Path
    bundles: Path
    created: str
    asked: str
    values: ValueReader | None = None
    signer: Ed25519PrivateKey | None = None


class Evidence(Struct, frozen=True):
    """What was written. `beyond`: records left out because no checkpoint covers them yet."""

    span: Span
    openings: int
    missing_policies: tuple[str, ...]
    beyond: int


class _Tiles(TileReader):
    """Tiles of the first `size` records, each looked up once, and as wide as it can be.

    Where a log has no tiles, every record is then hashed once and not once for each proof. What is
    kept is the tiles above the leaves: 32 bytes for 256 records.
    """

    def __init__(self, directory: Path, size: int) -> None:
        super().__init__(directory)
        self._size: Final = size
        self._above: Final[dict[tuple[int, int], bytes]] = {}

    def hashes(self, level: int, index: int, width: int) -> bytes:
        """See `TileReader`."""
        widest = min(TILE_WIDTH, (self._size >> 8 * level) - index * TILE_WIDTH)
        if level == 0:
            return super().hashes(level, index, max(width, widest))
        found = self._above.get((level, index))
        if found is None:
            found = self._above[level, index] = super().hashes(level, index, max(width, widest))
        return found


def find_verifiers() -> Path:
    """Return the folder of the stand-alone verifiers: in the wheel, or beside the package."""
    package = Path(__file__).resolve().parents[2]
    shipped = package / "verify"
    return shipped if shipped.is_dir() else package.parent / "verify"


def write_evidence(records: Iterable[Found], wanted: Wanted, out: BinaryIO) -> Evidence:
    """Write a bundle of these records. Raises `AuditError` where the log does not add up."""
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        return _Writer(archive, wanted).write(records)


class _Writer:
    def __init__(self, archive: zipfile.ZipFile, wanted: Wanted) -> None:
        self._archive: Final = archive
        self._wanted: Final = wanted
        self._digests: Final[dict[str, str]] = {}
        self._node: Node = TileReader(wanted.directory).node
        self._revs: Final[dict[str, None]] = {}
        self._opened = 0
        self._beyond = 0

    def write(self, records: Iterable[Found]) -> Evidence:
        signed, whole = self._checkpoint()
        self._put("checkpoint", whole.encode())
        with _spool() as lines, _spool() as rows, _spool() as values:
            span = self._records(records, signed, whole, lines, rows, values)
            self._copy("records.jsonl", lines)
            if self._wanted.values is not None:
                self._copy("openings.jsonl", values)
            self._epochs()
            missing = tuple(rev for rev in self._revs if not self._policy(rev))
            about = self._about(span, signed, missing)
            about = replace(about, verifier_digest=self._verifiers())
            self._page(about, rows, values)
        self._put("README.txt", evidence.build_readme(about))
        self._manifest(about, signed.checkpoint.origin)
        return Evidence(span, self._opened, missing, self._beyond)

    def _checkpoint(self) -> tuple[SignedCheckpoint, str]:
        """Return the log's last checkpoint, having seen that it is the root of the log's tree."""
        whole = newest_checkpoint(self._wanted.directory)
        if whole is None:
            raise _broken("the log has no checkpoint that can be read")
        signed = note.parse(whole)
        self._node = _Tiles(self._wanted.directory, signed.checkpoint.size).node
        try:
            root = root_of(signed.checkpoint.size, self._node)
        except (LookupError, OSError) as error:
            raise _broken(f"the tree of the log cannot be read: {error}") from None
        if root != signed.checkpoint.root:
            raise _broken("the log's records do not add up to its last checkpoint")
        return signed, whole

    def _records(  # noqa: PLR0917 - what there is, and where it goes
        self,
        records: Iterable[Found],
        signed: SignedCheckpoint,
        whole: str,
        lines: IO[bytes],
        rows: IO[bytes],
        values: IO[bytes],
    ) -> Span:
        count, first, last = 0, None, None
        for found in records:
            seq = found.record["seq"]
            if seq >= signed.checkpoint.size:
                self._beyond += 1
                continue
            self._put(f"proofs/{seq}.tlog-proof", self._prove(seq, found.line, signed, whole))
            lines.write(found.line + b"\n")
            rows.write(evidence.page_row(Line(found.line, found.record)))
            values.writelines(map(evidence.write_opened, self._open(found)))
            policy = found.record.get("policy")
            if isinstance(policy, dict) and isinstance(policy.get("rev"), str):
                self._revs[policy["rev"]] = None
            count, last = count + 1, seq
            first = seq if first is None else first
        return Span(count, first, last)

    def _prove(self, seq: int, line: bytes, signed: SignedCheckpoint, whole: str) -> bytes:
        stated = signed.checkpoint
        path = inclusion_proof(seq, stated.size, self._node)
        if not is_included(hash_leaf(line), seq, stated.size, path, stated.root):
            raise _broken(f"record {seq} does not add up to the log's last checkpoint")
        return build_proof(TlogProof(seq, tuple(path), whole)).encode()

    def _open(self, found: Found) -> Iterator[Opened]:
        """Yield the values that a record commits to, each opened or with the reason why not."""
        reader = self._wanted.values
        if reader is None:
            return
        for path in commitments_of(found.record):
            value = reader.open(found.record, found.segment, path)
            self._opened += value.opened is not None
            yield Opened(found.record["seq"], path, value.salt, value.opened, value.why)

    def _epochs(self) -> None:
        """Write each change of the signing key, proven under the checkpoint of the key before."""
        lines, keys = [], b""
        with suppress(FileNotFoundError):
            keys = (self._wanted.directory / "log.vkey").read_bytes()
        if keys.count(b"\n") != 1:  # no key, or several
            for seq, line, checkpoint in find_rotations(self._wanted.directory):
                path = tuple(inclusion_proof(seq, seq + 1, self._node))
                proof = build_proof(TlogProof(seq, path, checkpoint))
                self._put(f"epochs/{seq}.tlog-proof", proof.encode())
                lines.append(line + b"\n")
        self._put("epochs.jsonl", b"".join(lines))
        self._put("log.vkey", keys)

    def _policy(self, rev: str) -> bool:
        """Write the bundle of a revision as it is stored. Return whether it is there."""
        folder = self._wanted.bundles / rev.removeprefix("sha256:")
        if "/" in rev or not folder.is_dir():
            return False
        for file in sorted(folder.rglob("*")):
            if file.is_file() and file.name != ".manifest":
                name = f"policies/{folder.name}/{file.relative_to(folder).as_posix()}"
                self._put(name, file.read_bytes())
        return True

    def _verifiers(self) -> str:
        """Write the verifiers, and return the SHA-256 of the one that does the work."""
        folder = find_verifiers()
        for name in (VERIFIER, BUNDLE_VERIFIER):
            try:
                self._put(f"verify/{name}", (folder / name).read_bytes())
            except OSError as error:
                raise _broken(f"the verifier is not installed: {error}") from None
        return self._digests[f"verify/{VERIFIER}"]

    def _about(self, span: Span, signed: SignedCheckpoint, missing: tuple[str, ...]) -> About:
        return About(
            log=signed.checkpoint.origin,
            created=self._wanted.created,
            asked=self._wanted.asked,
            records=span.records,
            first=span.first,
            last=span.last,
            size=signed.checkpoint.size,
            root=signed.checkpoint.root.hex(),
            missing_policies=missing,
        )

    def _page(self, about: About, rows: IO[bytes], values: IO[bytes]) -> None:
        rows.seek(0)
        values.seek(0)
        opened = (_read_opened(line) for line in values)
        parts = chain([evidence.page_head(about)], rows, evidence.page_tail(opened))
        self._put_all("summary.html", parts)

    def _manifest(self, about: About, origin: str) -> None:
        manifest = evidence.build_manifest(about, self._digests)
        self._put("manifest.json", manifest)
        if (signer := self._wanted.signer) is not None:
            key, text = (
                note.build_key(origin, signer.public_key()),
                evidence.build_signed_text(manifest),
            )
            signature = signer.sign(text.encode())
            self._put("manifest.note", evidence.build_note(text, key, signature).encode())

    def _put(self, name: str, data: bytes) -> None:
        self._put_all(name, [data])

    def _copy(self, name: str, file: IO[bytes]) -> None:
        file.seek(0)
        self._put_all(name, iter(lambda: file.read(1 << 16), b""))

    def _put_all(self, name: str, parts: Iterable[bytes]) -> None:
        info = zipfile.ZipInfo(name, _EPOCH)
        info.compress_type = zipfile.ZIP_DEFLATED
        info.external_attr = 0o644 << 16
        hashed = hashlib.sha256()
        with self._archive.open(info, "w", force_zip64=True) as file:
            for part in parts:
                hashed.update(part)
                file.write(part)
        self._digests[name] = hashed.hexdigest()


def _read_opened(line: bytes) -> Opened:
    found = orjson.loads(line)
    value = base64.b64decode(found["value"]) if "value" in found else None
    return Opened(found["seq"], found["path"], b"", value, found.get("why", ""))


def _spool() -> tempfile.SpooledTemporaryFile[bytes]:
    return tempfile.SpooledTemporaryFile(_SPOOL_BYTES)


def _broken(message: str) -> AuditError:
    return AuditError(f"{message}; see `countersign audit verify`", code="audit_unavailable")
