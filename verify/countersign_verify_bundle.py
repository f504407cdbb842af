#!/usr/bin/env python3
"""Verify an evidence bundle of a Countersign audit log: `countersign_verify_bundle.py BUNDLE`.

BUNDLE is a ZIP file or the folder that it was unpacked into. Needs Python 3.11 and, beside this
file, `countersign_verify.py`, which knows keys, notes, records and proofs; nothing is unpacked,
imported from the bundle, or fetched.

Exit codes: 0 valid; 1 not valid; 2 usage or I/O; 3 valid, but no key was given and one is required.
"""

from __future__ import annotations

import argparse
import base64
import hmac
import json
import re
import sys
import zipfile
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent))

import countersign_verify as log

FORMAT = "countersign.evidence/v1"
FILE_MAX = 1 << 30  # bytes of one file of a bundle
UNSIGNED = {"manifest.json", "manifest.note"}
SKIPPED = ".manifest"
REVISION = re.compile(r"sha256:([0-9a-f]{64})")
NAME = re.compile(r"[A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)*")
UNPINNED = (
    "UNPINNED_KEY: no key was given, so the one in the bundle was believed; whoever made the bundle"
    " could have made it too: give the log's key that you hold from elsewhere with --key"
)


class Problem(NamedTuple):
    """One thing that is wrong: where, and in plain words what."""

    place: str
    what: str


class Report:
    """What was found."""

    def __init__(self) -> None:
        self.origin = ""
        self.records = self.openings = self.policies = self.size = 0
        self.root = b""
        self.problems: list[Problem] = []
        self.warnings: list[str] = []
        self.signed_by = ""

    def add(self, place: str, what: str) -> None:
        """Take down what is wrong."""
        self.problems.append(Problem(place, what))


# --- Files of a bundle --------------------------------------------------------------------------


class Bundle:
    """The files of a bundle by name. Names that lead elsewhere are refused."""

    def __init__(self, place: Path) -> None:
        self.sizes: dict[str, int] = {}
        self._open: Callable[[str], Any]
        if place.is_dir():
            self._open = lambda name: (place / name).open("rb")
            for path in place.rglob("*"):
                if path.is_symlink():
                    raise log.UnusableError(f"`{path}` is a link; unpack the bundle anew")
                if path.is_file() and "__pycache__" not in path.parts:
                    self._take(path.relative_to(place).as_posix(), path.stat().st_size)
        else:
            archive = zipfile.ZipFile(place)
            self._open = archive.open
            for info in archive.infolist():
                if not info.is_dir():
                    self._take(info.filename, info.file_size)

    def _take(self, name: str, size: int) -> None:
        if not NAME.fullmatch(name) or ".." in name.split("/") or name in self.sizes:
            raise log.UnusableError(
                f"`{name[:80]}` cannot be a file of a bundle, or is there twice"
            )
        if size > FILE_MAX:
            raise log.UnusableError(f"`{name}` is larger than {FILE_MAX} bytes")
        self.sizes[name] = size

    def read(self, name: str) -> bytes:
        """Return a whole file; nothing where it is not there."""
        if name not in self.sizes:
            return b""
        with self._open(name) as file:
            data: bytes = file.read(FILE_MAX)
        return data

    def text(self, name: str) -> str:
        """Return a file of text. Raises ValueError."""
        return self.read(name).decode()

    def digest(self, name: str) -> str:
        """Return the SHA-256 of a file, in hex."""
        hashed = sha256()
        with self._open(name) as file:
            while block := file.read(1 << 16):
                hashed.update(block)
        return hashed.hexdigest()

    def lines(self, name: str) -> Iterator[bytes]:
        """Yield the lines of a file, without their LF."""
        if name in self.sizes:
            with self._open(name) as file:
                for line in file:
                    yield line.removesuffix(b"\n")


# --- Checks, in order ---------------------------------------------------------------------------


def check_files(bundle: Bundle, report: Report) -> Any:  # noqa: ANN401 (JSON)
    """Compare every file with the manifest. Answers the manifest."""
    try:
        manifest = json.loads(bundle.text("manifest.json"))
        listed = manifest["files"]
        if manifest["format"] != FORMAT or not isinstance(listed, dict):
            raise ValueError("it is of another format")
    except (ValueError, KeyError, TypeError) as error:
        raise log.UnusableError(f"this is no evidence bundle: manifest.json: {error}") from None
    for name in sorted(set(listed) | set(bundle.sizes) - UNSIGNED):
        if name not in bundle.sizes:
            report.add(name, "the file is gone")
        elif name not in listed:
            report.add(name, "the manifest does not know this file")
        elif bundle.digest(name) != listed[name]:
            report.add(name, "the file is not as it was")
    return manifest


def trusted_keys(bundle: Bundle, report: Report, given: list[log.Key]) -> list[log.Key]:
    """Follow the changes of the signing key from one that is trusted; answers the keys in order.

    Each change is a record, the last under its checkpoint, which the key before it signed (§4.2).
    """
    keys = list(given)
    if not keys:
        report.warnings.append(UNPINNED)
        try:
            keys = [log.read_key(line) for line in bundle.text("log.vkey").split("\n")[:1]]
        except ValueError as error:
            report.add("log.vkey", str(error))
            return []
    for line in bundle.lines("epochs.jsonl"):
        record = log.plain_record(line) or {}
        name = f"epochs/{record.get('seq')}.tlog-proof"
        try:
            index, path, note = log.read_proof(bundle.text(name))
            fresh = log.read_key(str(record.get("key")))
        except ValueError as error:
            report.add(name, str(error))
            continue
        if any(log.is_note_signed(note, key) for key in keys):
            wrong = log.unproven(index, path, note, line, keys)
            if wrong or record.get("type") != "key.rotate" or note.size != index + 1:
                report.add(name, wrong.what if wrong else "it is no change of the key")
            else:
                keys.append(fresh)
    return keys


def check_checkpoint(
    bundle: Bundle,
    report: Report,
    keys: list[log.Key],
    manifest: Any,  # noqa: ANN401 (JSON)
) -> log.Note | None:
    """Check that a trusted key signed the checkpoint that all proofs lead to."""
    try:
        note = log.read_note(bundle.text("checkpoint"))
    except ValueError as error:
        report.add("checkpoint", str(error))
        return None
    report.origin, report.size, report.root = note.origin, note.size, note.root
    signer = next((key for key in keys if log.is_note_signed(note, key)), None)
    if signer is None:
        report.add("checkpoint", "it is not signed by a key that you trust")
        return None
    report.signed_by = signer.text
    if manifest.get("checkpoint") != {"size": note.size, "root": note.root.hex()}:
        report.add("manifest.json", "it tells of another checkpoint")
    return note


def check_records(bundle: Bundle, report: Report, note: log.Note) -> Iterator[Any]:
    """Check each record's proof; yields the records that are proven."""
    unused = {name for name in bundle.sizes if name.startswith("proofs/")}
    for number, line in enumerate(bundle.lines("records.jsonl"), 1):
        place = f"records.jsonl:{number}"
        record = log.plain_record(line)
        if record is None:
            report.add(place, "the line is not in the one form of a record")
            continue
        name = f"proofs/{record.get('seq')}.tlog-proof"
        if name not in unused:
            report.add(place, "there is no proof of this record, or it is here twice")
            continue
        unused.discard(name)
        wrong = _unproven(bundle.read(name), line, record, note)
        if wrong:
            report.add(place, wrong)
            continue
        report.records += 1
        yield record
    for name in sorted(unused):
        report.add(name, "the record that it proves is gone")


def _unproven(proof: bytes, line: bytes, record: Any, note: log.Note) -> str:  # noqa: ANN401
    """Why a proof does not prove a record under the checkpoint; empty if it does."""
    try:
        index, path, stated = log.read_proof(proof.decode())
    except ValueError as error:
        return str(error)
    if stated.whole != note.whole:
        return "its proof is under another checkpoint"
    if log.included_root(index, note.size, log.record_leaf(line), path) != note.root:
        return "the line is not the record that stands there in the log"
    if record.get("log") != note.origin or record.get("seq") != index:
        return "the line is of another log or place"
    return ""


def check_openings(bundle: Bundle, report: Report, records: dict[int, Any]) -> None:
    """Check that each opened value is what its record commits to (§7)."""
    for number, line in enumerate(bundle.lines("openings.jsonl"), 1):
        place = f"openings.jsonl:{number}"
        try:
            opened = json.loads(line)
            seq, path = opened["seq"], opened["path"]
            found: Any = records[seq]
            for name in path.split("."):
                found = found[name]
            if "why" in opened:
                continue
            salt = base64.b64decode(opened["salt"], validate=True)
            value = base64.b64decode(opened["value"], validate=True)
            stated = found["c"], found["bytes"]
        except (ValueError, KeyError, TypeError, AttributeError):
            report.add(place, "it opens nothing that a record here commits to")
            continue
        message = b"cs/commit/v1\0" + path.encode() + b"\0" + value
        mac = base64.urlsafe_b64encode(hmac.digest(salt, message, "sha256")).decode().rstrip("=")
        if stated != (mac, len(value)) or len(salt) != 32:  # noqa: PLR2004 (§7)
            report.add(place, "the value is not what the record commits to")
        else:
            report.openings += 1


def check_policies(bundle: Bundle, report: Report, revisions: set[str], missing: list[str]) -> None:
    """Check that the policies here are those that the records name."""
    for revision in sorted(revisions):
        match = REVISION.fullmatch(revision)
        folder = f"policies/{match[1]}/" if match else "policies//"
        files = sorted(
            (name.removeprefix(folder), bundle.digest(name))
            for name in bundle.sizes
            if name.startswith(folder) and not name.endswith(SKIPPED)
        )
        if not files:
            if revision not in missing:
                report.add(folder, f"the policies `{revision}` are gone")
            report.warnings.append(f"the policies `{revision}` that decided are not in the bundle")
            continue
        listing = json.dumps(files, separators=(",", ":"), ensure_ascii=False)
        if sha256(listing.encode()).hexdigest() != (match and match[1]):
            report.add(folder, "the policies are not those that decided")
        else:
            report.policies += 1


def verify(place: Path, given: list[log.Key]) -> Report:
    """Verify a bundle under the given keys. Raises UnusableError and OSError."""
    report = Report()
    try:
        bundle = Bundle(place)
        manifest = check_files(bundle, report)
        keys = trusted_keys(bundle, report, given)
        note = check_checkpoint(bundle, report, keys, manifest)
        if note is None:
            return report
        opened = {line.get("seq") for line in _loose(bundle.lines("openings.jsonl"))}
        committed: dict[int, Any] = {}
        revisions = set()
        for record in check_records(bundle, report, note):
            revision = _revision(record)
            if revision:
                revisions.add(revision)
            if record["seq"] in opened:
                committed[record["seq"]] = record
        check_openings(bundle, report, committed)
        check_policies(bundle, report, revisions, manifest.get("missing_policies") or [])
        if manifest.get("records") != report.records and not report.problems:
            report.add("manifest.json", "it counts another number of records")
    except (zipfile.BadZipFile, UnicodeDecodeError) as error:
        raise log.UnusableError(f"`{place}` cannot be read: {error}") from None
    return report


def _revision(record: Any) -> str:  # noqa: ANN401 (JSON)
    policy = record.get("policy")
    found = policy.get("rev") if isinstance(policy, dict) else None
    return found if isinstance(found, str) else ""


def _loose(lines: Iterator[bytes]) -> Iterator[Any]:
    for line in lines:
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict):
            yield found


# --- Words and command line ---------------------------------------------------------------------


def as_text(report: Report) -> str:
    """Write a report for people."""
    lines = [f"{place}: {what}" for place, what in report.problems]
    lines += [f"warning: {warning}" for warning in report.warnings]
    if report.problems:
        lines.append("NOT VALID: this bundle is not what the log's key signed")
    else:
        lines += [
            f"valid: {report.records} records stand in the log {report.origin} as they are here",
            f"signed under {report.size} records, root {report.root.hex()}",
            f"by {report.signed_by}",
            f"values opened: {report.openings}; policies: {report.policies}",
            "not checked: whether other records of the log fit what was asked for",
        ]
    return "\n".join(
        "".join(char if char.isprintable() else "?" for char in line) for line in lines
    )


def as_json(report: Report) -> str:
    """Write a report for programs."""
    told = {
        "valid": not report.problems,
        "log": report.origin,
        "records": report.records,
        "openings": report.openings,
        "policies": report.policies,
        "size": report.size,
        "root": report.root.hex(),
        "key": report.signed_by,
        "problems": [problem._asdict() for problem in report.problems],
        "warnings": report.warnings,
    }
    return json.dumps(told, ensure_ascii=False)


def parser() -> argparse.ArgumentParser:
    """Build the command line."""
    build = log.Parser(prog=Path(__file__).name, description="Verify an evidence bundle, offline.")
    add = build.add_argument
    add("bundle", metavar="BUNDLE", help="the ZIP file, or the folder that it was unpacked into")
    add("--key", action="append", default=[], metavar="VKEY|FILE", help="a key that you trust")
    add("--require", choices=["key"], help="exit with 3 where no key was given")
    add("--json", action="store_true", help="one JSON object instead of words")
    add("--plain", action="store_true", help="use the standard library alone")
    return build


def main(arguments: list[str] | None = None) -> int:
    """Verify as the command line says; answer the exit code."""
    try:
        words = parser().parse_args(arguments)
        if words.plain:
            log.Tools.none()
        report = verify(Path(words.bundle), log.keys_from(words.key, 1))
    except log.UnusableError as error:
        sys.stderr.write(f"{Path(__file__).name}: {error}\n")
        return log.USAGE
    except OSError as error:
        sys.stderr.write(f"{Path(__file__).name}: `{error.filename}`: {error.strerror}\n")
        return log.USAGE
    if why := log.untold(as_json(report) if words.json else as_text(report)):
        sys.stderr.write(f"{Path(__file__).name}: the verdict cannot be written: {why}\n")
        return log.USAGE
    if report.problems:
        return log.BROKEN
    return log.WEAK if words.require and not words.key else log.OK


if __name__ == "__main__":
    sys.exit(main())
