"""What stands in an evidence bundle beside the records: manifest, read-me and a page for people.

Everything is derived from the records. INVARIANT: the page fetches nothing, runs nothing and shows
every text as text, whatever an agent or an upstream put into it.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any, Final

import orjson
from msgspec import Struct

from gateway.core.log.exports import COLUMNS, Line
from gateway.core.log.note import NoteKey
from gateway.core.seen import is_seen

FORMAT: Final = "countersign.evidence/v1"
VERIFIER: Final = "countersign_verify.py"
BUNDLE_VERIFIER: Final = "countersign_verify_bundle.py"

_SHOWN: Final = (
    *("seq", "time", "type", "op", "agent", "tool", "decision", "reasons", "status", "delivery"),
    *("approval", "policy_rev"),
)
_VALUE_MAX_CHARS: Final = 2_000
_STYLE: Final = (
    "body{font:14px/1.4 system-ui,sans-serif;margin:2rem;color:#111;background:#fff}"
    "table{border-collapse:collapse}"
    "th,td{border:1px solid #bbb;padding:.2rem .5rem;text-align:left;vertical-align:top}"
    "th{background:#eee}"
    "code,pre,td{font-family:ui-monospace,monospace;font-size:12px;overflow-wrap:anywhere}"
    "pre{white-space:pre-wrap;border:1px solid #bbb;padding:.5rem}"
)
_README: Final = """\
Evidence from the audit log {log}

{records} records, each with a proof that it stands in the log under the signed checkpoint of
{size} records. To verify, offline, with Python 3.11 or newer and nothing else:

    python3 verify/{bundle_verifier} . --key VERIFIER_KEY

from this folder, or with the ZIP's name instead of the dot. VERIFIER_KEY is the log's key that you
hold from elsewhere; `log.vkey` here is a copy and proves nothing. Compare the verifier, too, with
one that you trust: SHA-256 of verify/{verifier} is
{verifier_digest}

What is here
    records.jsonl    the records' lines, byte for byte
    proofs/          a C2SP tlog-proof of each, by record number
    checkpoint       the signed checkpoint that the proofs lead to
    epochs.jsonl     how the signing key changed, each change signed by the key before
    policies/        the policies that decided, by the SHA-256 that the records name
    openings.jsonl   values behind commitments, where they were asked for and could be opened
    summary.html     all of this for reading; it is derived, and proves nothing
    manifest.json    SHA-256 of every file

What this proves: that these records stand in the log as they are here, since the checkpoint was
signed. What it does not prove: that no other record of the log fits what was asked for ({asked}).
Verify the whole log for that (docs/spec/audit-log-v1.md).
"""


class Opened(Struct, frozen=True):
    """A value behind a commitment, or why there is none. `salt` and `value` are bytes."""

    seq: int
    path: str
    salt: bytes = b""
    value: bytes | None = None
    why: str = ""


class About(Struct, frozen=True, kw_only=True):
    """What a bundle is about. `root` in hex; `asked`: the filters, in words."""

    log: str
    created: str
    asked: str
    records: int
    first: int | None
    last: int | None
    size: int
    root: str
    missing_policies: tuple[str, ...] = ()
    verifier_digest: str = ""


def build_manifest(about: About, digests: Mapping[str, str]) -> bytes:
    """Return the manifest, JSON. `digests`: SHA-256 in hex by the path of each file."""
    body = {
        "format": FORMAT,
        "log": about.log,
        "created": about.created,
        "asked": about.asked,
        "records": about.records,
        "first": about.first,
        "last": about.last,
        "checkpoint": {"size": about.size, "root": about.root},
        "missing_policies": list(about.missing_policies),
        "files": dict(sorted(digests.items())),
    }
    return orjson.dumps(body, option=orjson.OPT_INDENT_2) + b"\n"


def build_signed_text(manifest: bytes) -> str:
    """Return what a signature of a bundle is over: the text of a C2SP signed note."""
    return f"{FORMAT}\n{hashlib.sha256(manifest).hexdigest()}\n"


def build_note(text: str, key: NoteKey, signature: bytes) -> str:
    """Return a C2SP signed note."""
    return f"{text}\n— {key.name} {base64.b64encode(key.id + signature).decode()}\n"


def build_readme(about: About) -> bytes:
    """Return the page that an auditor reads first."""
    return _README.format(
        log=about.log,
        records=about.records,
        size=about.size,
        asked=about.asked or "every record",
        verifier=VERIFIER,
        bundle_verifier=BUNDLE_VERIFIER,
        verifier_digest=about.verifier_digest,
    ).encode()


def write_opened(opened: Opened) -> bytes:
    """Return a line of `openings.jsonl`."""
    line: dict[str, Any] = {"seq": opened.seq, "path": opened.path}
    if opened.value is None:
        line["why"] = opened.why
    else:
        line["salt"] = base64.b64encode(opened.salt).decode()
        line["value"] = base64.b64encode(opened.value).decode()
    return orjson.dumps(line) + b"\n"


def page_head(about: About) -> bytes:
    """Return the start of the page, up to the first row of the table."""
    digest = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    facts = {
        "log": about.log,
        "records": f"{about.records}, numbers {about.first} to {about.last}",
        "asked for": about.asked or "every record",
        "checkpoint": f"{about.size} records, root {about.root}",
        "made": about.created,
    }
    listed = "".join(f"<tr><th>{_safe(k)}</th><td>{_safe(v)}</td></tr>" for k, v in facts.items())
    heads = "".join(f"<th>{_safe(name)}</th>" for name in _SHOWN)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f'<meta name="referrer" content="no-referrer"><title>Evidence from {_safe(about.log)}'
        f"</title><style>{_STYLE}</style></head><body>\n<h1>Evidence from an audit log</h1>\n"
        f"<table>{listed}</table>\n<p>This page is derived from <code>records.jsonl</code> and "
        "proves nothing by itself; <code>README.txt</code> says how to verify.</p>\n"
        f"<h2>Records</h2>\n<table><tr>{heads}</tr>\n"
    ).encode()


def page_row(line: Line) -> bytes:
    """Return a record's row."""
    cells = "".join(f"<td>{_safe(COLUMNS[name](line))}</td>" for name in _SHOWN)
    return f"<tr>{cells}</tr>\n".encode()


def page_tail(opened: Iterable[Opened]) -> Iterable[bytes]:
    """Yield the rest of the page: the opened values."""
    yield b"</table>\n"
    titled = False
    for value in opened:
        if not titled:
            yield b"<h2>Opened values</h2>\n"
            titled = True
        text = f"not there: {value.why}"
        if value.value is not None:
            text = value.value.decode("utf-8", "replace")
        if len(text) > _VALUE_MAX_CHARS:
            text = f"{text[:_VALUE_MAX_CHARS]}… ({len(text)} characters in all)"
        head = f"<h3>{value.seq} {_safe(value.path)}</h3>"
        yield f"{head}<pre>{_safe(text)}</pre>\n".encode()
    yield b"</body></html>\n"


def _safe(text: str) -> str:
    r"""Return text for HTML; characters that cannot be seen or turn text around as `\u{…}`."""
    shown = "".join(
        char if is_seen(char) or char == "\n" else f"\\u{{{ord(char):x}}}" for char in text
    )
    return escape(shown, quote=True)
