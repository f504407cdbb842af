"""Cases in which lines are spelled otherwise, cut off, or hold what is no line at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tests.conformance.audit.bases import SHORT, short
from tests.conformance.audit.case import Case, Finding
from tests.conformance.audit.structural import broken
from tests.conformance.audit.tampering import Draft, resign
from tests.conformance.audit.writer import STRANGER, WITNESS, Files, Key

Spelling = Callable[[bytes], bytes]
HOLE = 40

MIDDLE, SEALED, NEXT, FIRST_OF_LAST, BEFORE_LAST, LAST = SHORT


def draft() -> Draft:
    """Return the short log, to be changed."""
    return Draft(short().files(copy=False))


def cases() -> Iterator[Case]:
    """Yield all of them."""
    yield from _spellings()
    yield from _garbage()
    yield from _cut_off()
    yield from _holes()
    yield from _checkpoint_lines()
    yield from _checkpoint_keys()


def respell(seq: int, how: Spelling, *, seal: bool = False) -> Draft:
    """Return the plain log with one line spelled otherwise."""
    tampered = draft()
    line = tampered.lines[tampered.after(seq) if seal else tampered.at(seq)]
    line.data = how(line.data)
    return tampered


def swapped(old: bytes, new: bytes) -> Spelling:
    """Return a spelling in which the first `old` is `new`."""

    def respelled(data: bytes) -> bytes:
        assert old in data
        return data.replace(old, new, 1)

    return respelled


def _first_member_last(data: bytes) -> bytes:
    first, rest = data.removesuffix(b"}\n").removeprefix(b"{").split(b",", 1)
    return b"{" + rest + b"," + first + b"}\n"


SPELLINGS: list[tuple[str, str, Spelling]] = [
    ("space", "white space after a colon", swapped(b'":', b'": ')),
    ("space-at-end", "white space before the LF", swapped(b"}\n", b"} \n")),
    ("key-order", "another order of the members", _first_member_last),
    ("crlf", "CR LF at the end of the line", swapped(b"}\n", b"}\r\n")),
    ("duplicate", "a member twice, the same", swapped(b'"v":1', b'"v":1,"v":1')),
    (
        "duplicate-first",
        "a member twice, the first forged",
        swapped(b'"type":', b'"type":"x","type":'),
    ),
    ("escaped", "a character escaped that need not be", swapped(b'"boot-1"', b'"boo\\u0074-1"')),
    ("slash", "a solidus escaped", swapped(b"com/audit", b"com\\/audit")),
    ("float", "a number with a fraction", swapped(b'"v":1', b'"v":1.0')),
    ("exponent", "a number with an exponent", swapped(b'"v":1', b'"v":1e0')),
    ("minus-zero", "an added minus zero", swapped(b'"v":1', b'"v":1,"w":-0')),
    ("big", "an added integer of 2^53", swapped(b'"v":1', b'"v":1,"w":9007199254740992')),
    ("surrogate", "an added lone surrogate", swapped(b'"v":1', b'"v":1,"w":"\\ud800"')),
    ("name", "an added name that is not ASCII", swapped(b'"v":1', '"v":1,"é":1'.encode())),
    ("hex", "a control character in capital hex", swapped(b'"v":1', b'"v":1,"w":"\\u001F"')),
    ("long-escape", "a LF in the long escape", swapped(b'"v":1', b'"v":1,"w":"\\u000a"')),
]


def _spellings() -> Iterator[Case]:
    for number, (name, what, how) in enumerate(SPELLINGS):
        seq = (MIDDLE, 0, LAST, NEXT)[number % 4]
        text = f"A record is spelled otherwise: {what}."
        yield broken(f"spelling-{name}", text, respell(seq, how), "not_canonical", seq)
    what = "A checkpoint line with white space after the colon."
    tampered = respell(SEALED, swapped(b'{"cp":', b'{"cp": '), seal=True)
    yield broken("spelling-checkpoint-space", what, tampered, "not_canonical", SEALED)
    what = "A checkpoint line with the dash of its signature escaped."
    tampered = respell(SEALED, swapped("—".encode(), b"\\u2014"), seal=True)
    yield broken("spelling-checkpoint-escaped", what, tampered, "not_canonical", SEALED)
    what = "A checkpoint line with CR LF."
    tampered = respell(LAST, swapped(b"}\n", b"}\r\n"), seal=True)
    yield broken("spelling-checkpoint-crlf", what, tampered, "not_canonical", LAST)
    story = short()
    story.put("call.refused", op="op-long", stage="x", reason="y" * 16_384, count=1)
    story.seal()
    what = "A record of more than 16,384 bytes, signed."
    yield broken("record-too-long", what, story.files(copy=False), "not_canonical", LAST + 1)


def _garbage() -> Iterator[Case]:
    for name, data in (
        ("text", b"not a record\n"),
        ("empty-line", b"\n"),
        ("array", b"[1,2,3]\n"),
        ("half-a-record", b'{"boot":"boot-1","log":\n'),
        ("not-utf8", b'{"boot":"\xff\xfe"}\n'),
        ("nan", b'{"boot":NaN}\n'),
    ):
        what = "Something that is no JSON object stands in the place of a record."
        tampered = draft()
        tampered.lines[tampered.at(MIDDLE)].data = data
        yield broken(f"garbage-{name}", what, tampered, "edited", MIDDLE)
    tampered = draft()
    tampered.lines[0].data = b"\x7fELF\x02\x01\x01\n"
    what = "Something that is no JSON object stands in the place of the first record."
    yield broken("garbage-first", what, tampered, "edited", 0)
    tampered = draft()
    tampered.lines[tampered.after(SEALED)].data = b'{"cp":}\n'
    what = "Something that is no JSON object stands in the place of a checkpoint line."
    yield broken("garbage-checkpoint", what, tampered, "edited", SEALED)
    what = "The first bytes of a checkpoint line were changed, so that it is none by its look."
    tampered = respell(SEALED, lambda data: data.replace(b'{"cp":', b'{"cp#:'), seal=True)
    yield broken("garbage-checkpoint-prefix", what, tampered, "edited", SEALED)
    tampered = draft()
    tampered.insert(len(tampered.lines), b"#\n")
    what = "A line that is no JSON object stands behind the last batch."
    yield broken("garbage-at-end", what, tampered, "edited", LAST + 1)


def _cut_off() -> Iterator[Case]:
    for seq, where in (
        (LAST, "last"),
        (BEFORE_LAST, "second to last"),
        (FIRST_OF_LAST, "third to last"),
    ):
        tampered = draft()
        tampered.cut(tampered.at(seq) + 1)
        what = f"The log ends with the {where} record; the checkpoint line of its batch is gone."
        yield broken(f"cut-after-record-{seq}", what, tampered, "missing", seq)
    for seq, keep in ((LAST, 100), (BEFORE_LAST, 9), (FIRST_OF_LAST, 300)):
        tampered = draft()
        line = tampered.lines[tampered.at(seq)]
        tampered.cut(tampered.at(seq) + 1)
        line.data = line.data[:keep]
        what = f"The log ends {keep} bytes into a record."
        yield broken(f"cut-in-record-{seq}", what, tampered, "torn", seq)
    for keep in (7, 120):
        what = f"The log ends {keep} bytes into its last checkpoint line."
        tampered = draft()
        tampered.lines[-1].data = tampered.lines[-1].data[:keep]
        yield broken(f"cut-in-checkpoint-{keep}", what, tampered, "torn", LAST)
    tampered = respell(LAST, lambda data: data[:-1], seal=True)
    yield broken("cut-last-lf", "The last LF of the log is gone.", tampered, "torn", LAST)
    tampered = draft()
    tampered.insert(len(tampered.lines), tampered.lines[tampered.at(LAST)].data[:50])
    what = "The start of a line stands behind the last batch."
    yield broken("torn-behind-last-batch", what, tampered, "torn", LAST + 1)
    only = {"00000000000000000000.jsonl": b""}
    yield broken("empty-log", "The only segment is empty.", only, "missing", 0)
    what = "A directory without any segment: nothing to verify, and no finding."
    yield Case("no-segment", what, {"log.vkey": b"\n"}, exit=2)
    tampered = draft()
    tampered.cut(1)
    what = "The log ends with its first record."
    yield broken("cut-after-genesis", what, tampered, "missing", 0)


def _holes() -> Iterator[Case]:
    def zeros(data: bytes) -> bytes:
        return data[:60] + b"\0" * HOLE + data[60 + HOLE :]

    what = "Zero bytes stand in a record of the last batch, as after a power failure."
    yield broken("hole-in-last-batch", what, respell(BEFORE_LAST, zeros), "torn", BEFORE_LAST)
    what = "Zero bytes stand in the last checkpoint line."
    yield broken("hole-in-last-checkpoint", what, respell(LAST, zeros, seal=True), "torn", LAST)
    what = "The whole last batch is zero bytes."
    tampered = draft()
    tail = sum(len(line.data) for line in tampered.lines[tampered.at(FIRST_OF_LAST) :])
    tampered.cut(tampered.at(FIRST_OF_LAST))
    tampered.insert(len(tampered.lines), b"\0" * tail)
    yield broken("hole-instead-of-last-batch", what, tampered, "torn", FIRST_OF_LAST)
    what = "Zero bytes stand in a record in the middle of the log: no interrupted write does that."
    yield broken("hole-in-the-middle", what, respell(MIDDLE, zeros), "edited", MIDDLE)
    what = "Zero bytes stand in a checkpoint line in the middle of the log."
    tampered = respell(SEALED, zeros, seal=True)
    yield broken("hole-in-middle-checkpoint", what, tampered, "edited", SEALED)


Rewrite = Callable[[str], str]


def _part(number: int, how: Rewrite) -> Rewrite:
    def rewritten(note: str) -> str:
        lines = note.split("\n")
        lines[number] = how(lines[number])
        return "\n".join(lines)

    return rewritten


def _unused_bits(text: str) -> str:
    """Return base64 that decodes to the same bytes, with unused bits that are not zero."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    body = text.rstrip("=")
    return body[:-1] + alphabet[alphabet.index(body[-1]) + 1] + text[len(body) :]


def _flip(text: str) -> str:
    return text[:-20] + ("A" if text[-20] != "A" else "B") + text[-19:]


NOTES: list[tuple[str, str, Rewrite]] = [
    ("size", "another size", _part(1, lambda size: str(int(size) + 1))),
    ("size-smaller", "a smaller size", _part(1, lambda size: str(int(size) - 1))),
    ("size-zero-before", "a size with a leading zero", _part(1, lambda size: "0" + size)),
    ("size-word", "a size that is no number", _part(1, lambda _: "many")),
    ("size-plus", "a size with a plus sign", _part(1, lambda size: "+" + size)),
    (
        "root",
        "another root",
        _part(2, lambda root: "A" + root[1:] if root[0] != "A" else "B" + root[1:]),
    ),
    ("root-bits", "a root whose base64 has unused bits", _part(2, _unused_bits)),
    ("root-unpadded", "a root without padding", _part(2, lambda root: root.rstrip("="))),
    ("root-short", "a root of 31 bytes", _part(2, lambda _: "A" * 40 + "AA==")),
    ("signature", "a bit of the signature flipped", _part(4, _flip)),
    ("signature-bits", "a signature whose base64 has unused bits", _part(4, _unused_bits)),
    ("signature-short", "a signature without its last bytes", _part(4, lambda line: line[:-8])),
    ("signature-gone", "no signature line", lambda note: note.split("\n\n")[0] + "\n\n"),
    ("hyphen", "a hyphen instead of the dash", _part(4, lambda line: line.replace("—", "-"))),
    ("extra-line", "an extension line", lambda note: note.replace("\n\n", "\nextension\n\n", 1)),
    ("origin", "another origin", _part(0, lambda _: "other.example.com/audit")),
    ("no-last-lf", "no LF at the end of the note", lambda note: note.removesuffix("\n")),
    ("trailing-text", "text behind the signature", lambda note: note + "more\n"),
]


IN_THE_MIDDLE = {"size", "root", "signature", "signature-bits", "origin", "extra-line"}


def _checkpoint_lines() -> Iterator[Case]:
    for name, what, how in NOTES:
        middle = [(SEALED, "in the middle of the log")] if name in IN_THE_MIDDLE else []
        for seq, where in [*middle, (LAST, "at the end of the log")]:
            suffix = "" if seq == LAST else "-middle"
            text = f"A checkpoint line {where} was changed: {what}."
            yield broken(f"note-{name}{suffix}", text, draft().note(seq, how), "edited", seq)
    tampered = respell(SEALED, lambda data: data.replace(b"}\n", b',"x":1}\n'), seal=True)
    what = "A checkpoint line has a second member."
    yield broken("note-second-member", what, tampered, "edited", SEALED)
    tampered = respell(SEALED, lambda _: b'{"cp":1}\n', seal=True)
    yield broken(
        "note-number", "A checkpoint line whose note is a number.", tampered, "edited", SEALED
    )


def _extra_signature(key: Key) -> Rewrite:
    return lambda note: note + key.line(note.split("\n\n")[0] + "\n")


def _checkpoint_keys() -> Iterator[Case]:
    what = "The last checkpoint line has a second signature, of a stranger."
    tampered = draft().note(LAST, _extra_signature(STRANGER))
    yield broken("note-two-signatures", what, tampered, "edited", LAST)
    text = draft().lines[-1].note.split("\n\n")[0] + "\n"
    cosigned = f"— {WITNESS.cosign(text, 1_700_000_100)}\n"
    what = "The last checkpoint line has a witness's cosignature on it, which belongs in a record."
    tampered = draft().note(LAST, lambda note: note + cosigned)
    yield broken("note-cosigned", what, tampered, "edited", LAST)
    for seq in (1, SEALED, LAST):
        tampered = draft().note(seq, lambda note: resign(note, STRANGER))
        what = "A checkpoint line is signed by a stranger's key, and nothing else was changed."
        yield broken(f"note-stranger-{seq}", what, tampered, "wrong_key", seq)
    named = Key("epoch 0", name="other.example.com/audit")
    tampered = draft().note(LAST, lambda note: resign(note, named))
    what = "The last checkpoint line is signed by the right key under another name."
    yield broken("note-key-name", what, tampered, "wrong_key", LAST)
    files: Files = short().files(copy=False)
    what = "The whole log is good, but the reader pinned a stranger's key."
    yield Case("pinned-stranger", what, files, Finding("wrong_key", 0), keys=(STRANGER.vkey,))
