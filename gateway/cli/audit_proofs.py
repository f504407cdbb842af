"""`countersign audit checkpoint|prove|check-proof`: the log's word, for those who hold none of it.

A proof shows one record to whoever has its line and a key of the log (C2SP tlog-proof), or that a
log only grew since a checkpoint that somebody kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import orjson
import typer

from gateway.adapters.audit.audit_proofs import (
    Head,
    LogProver,
    Proven,
    follow_keys,
    head_of,
    load_keys,
    newest_head,
    read_head,
)
from gateway.adapters.audit.audit_seek import find_operation
from gateway.cli.audit_filters import fail, read_vkey, require_log
from gateway.cli.config import load
from gateway.cli.exits import Exit, say_why
from gateway.cli.log_places import find_file
from gateway.core.errors import AuditError, ConfigurationError
from gateway.core.log.cosignature import split_witnessed_note
from gateway.core.log.merkle import HASH_BYTES, hash_leaf
from gateway.core.log.note import NoteKey, SignedCheckpoint, parse, parse_vkey
from gateway.core.log.tlog_proof import find_fault, parse_proof

_SEQ_DIGITS: Final = 20
_LEAF: Final = re.compile(rf"[0-9a-fA-F]{{{2 * HASH_BYTES}}}")


class Output(StrEnum):
    """How data is printed."""

    TABLE = "table"
    JSON = "json"


ConfigOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="The gateway's configuration; else COUNTERSIGN_CONFIG."),
]
DirOption = Annotated[
    Path | None, typer.Option("--dir", metavar="DIR", help="The log's directory, instead.")
]
VkeyOption = Annotated[
    str, typer.Option(help="The log's key, or a file of its keys, kept outside the log.")
]
Format = Annotated[Output, typer.Option("-o", "--output", help="How to print.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(checkpoint)
    app.command()(prove)
    app.command("check-proof")(check_proof)


def checkpoint(
    directory: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="The log's directory.")
    ] = None,
    config: ConfigOption = None,
    output: Format = Output.TABLE,
) -> None:
    """Print the newest signed checkpoint: keep it where the log's owner cannot change it."""
    with _plain():
        head = newest_head(_find_log(directory, config))
    if output is Output.TABLE:
        typer.echo(head.note, nl=False)
        return
    own, cosignatures = split_witnessed_note(head.note)
    signed = parse(own)
    fields = {
        "origin": head.checkpoint.origin,
        "size": head.checkpoint.size,
        "root": head.checkpoint.root.hex(),
        "key": f"{signed.key_name}+{signed.key_id.hex()}",
        "witnesses": [one.name for one in cosignatures],
        "note": head.note,
    }
    typer.echo(orjson.dumps(fields, option=orjson.OPT_INDENT_2))


def prove(
    what: Annotated[
        str, typer.Argument(metavar="[SEQ|OP]", help="Record number or operation id.")
    ] = "",
    *,
    directory: DirOption = None,
    config: ConfigOption = None,
    size: Annotated[
        int | None, typer.Option(metavar="N", help="Under the log's checkpoint of N records.")
    ] = None,
    at: Annotated[
        Path | None,
        typer.Option("--checkpoint", metavar="FILE", help="Under this checkpoint of the log."),
    ] = None,
    consistency: Annotated[
        str, typer.Option(metavar="N|FILE", help="That the log grew from N records, or a note.")
    ] = "",
    vkey: VkeyOption = "",
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write files into this directory.")
    ] = None,
    output: Format = Output.TABLE,
) -> None:
    """Print a record, or those of an operation, each with a proof that it is in the log.

    The proof is under the newest checkpoint. With `--consistency`, print a proof that the log only
    grew, as C2SP tlog-witness writes it. Exit with 8 where the log does not add up.
    """
    if bool(what) == bool(consistency):
        raise fail("name a record or an operation, or else `--consistency`", Exit.USAGE)
    with _plain():
        log = _find_log(directory, config)
        head = _find_head(log, size, at)
        prover = LogProver(log, head, _keys_over(head, log, vkey))
        if consistency:
            typer.echo(_prove_growth(prover, consistency), nl=False)
            return
        for seq in _find_records(log, what):
            _print(prover.prove(seq), out, output)


def check_proof(
    proof: Annotated[Path, typer.Argument(metavar="PROOF", help="A `.tlog-proof` file.")],
    *,
    record: Annotated[Path | None, typer.Option(metavar="FILE", help="The record's line.")] = None,
    leaf: Annotated[str, typer.Option(metavar="HEX", help="The record's leaf hash.")] = "",
    vkey: VkeyOption,
) -> None:
    """Check a proof without the log; exit with 8 where it does not show the record."""
    with _plain():
        hashed = _leaf(record, leaf)
        found = parse_proof(proof.read_bytes().decode())
        keys = _read_keys(vkey)
    fault = find_fault(found, hashed, keys)
    if fault is not None:
        raise fail(f"not proven: {fault}{_hint(found.signed, keys)}", Exit.VERIFICATION_FAILED)
    stated = found.signed.checkpoint
    typer.echo(f"record {found.index} of `{stated.origin}` is among its first {stated.size}")


@contextmanager
def _plain() -> Iterator[None]:
    """Tell people in a line what cannot be done."""
    try:
        yield
    except LookupError as error:
        raise fail(str(error.args[0]), Exit.NOT_FOUND) from None
    except AuditError as error:
        raise fail(str(error), Exit.VERIFICATION_FAILED) from None
    except (OSError, ValueError, ConfigurationError) as error:
        raise fail(say_why(error), Exit.USAGE) from None


def _find_log(directory: Path | None, config: Path | None) -> Path:
    if directory is None:
        try:
            directory = load(find_file(config)).audit.dir
        except (ConfigurationError, OSError) as error:
            raise fail(f"{error}\nor name the log's directory", Exit.USAGE) from None
    elif config is not None:
        raise fail("give the log's directory or `--config`, not both", Exit.USAGE)
    require_log(directory)
    return directory


def _find_head(log: Path, size: int | None, at: Path | None) -> Head:
    if size is not None and at is not None:
        raise fail("give `--size` or `--checkpoint`, not both", Exit.USAGE)
    if size is not None:
        return head_of(log, size)
    return newest_head(log) if at is None else read_head(at.read_bytes().decode())


def _find_records(log: Path, what: str) -> list[int]:
    if what.isascii() and what.isdigit() and len(what) <= _SEQ_DIGITS:
        return [int(what)]
    found = find_operation(log, what)
    if not found:
        raise LookupError(f"no record of operation `{what}` in `{log}`")
    return found


def _prove_growth(prover: LogProver, since: str) -> str:
    if since.isascii() and since.isdigit() and len(since) <= _SEQ_DIGITS:
        return prover.prove_growth(int(since))
    old = read_head(Path(since).read_bytes().decode()).checkpoint
    return prover.prove_growth(old.size, old.root)


def _keys_over(head: Head, log: Path, vkey: str) -> list[NoteKey]:
    """Return the keys given and where they lead to, or else those that the log itself names."""
    if not vkey:
        return load_keys(log)
    keys, signed = _read_keys(vkey), parse(split_witnessed_note(head.note)[0])
    return keys if any(map(signed.names, keys)) else follow_keys(log, keys)


def _read_keys(vkey: str) -> list[NoteKey]:
    return [parse_vkey(line) for line in read_vkey(vkey).splitlines()]


def _hint(signed: SignedCheckpoint, keys: Sequence[NoteKey]) -> str:
    """Say which key is lacking: without the log, no key leads to that of a later epoch."""
    if any(map(signed.names, keys)):
        return ""
    return f"; it names the key `{signed.key_name}+{signed.key_id.hex()}`: give that one"


def _leaf(record: Path | None, leaf: str) -> bytes:
    if (record is None) == (not leaf):
        raise fail("give the record with `--record`, or else its hash with `--leaf`", Exit.USAGE)
    if record is not None:
        return hash_leaf(record.read_bytes().removesuffix(b"\n"))
    if _LEAF.fullmatch(leaf) is None:
        raise ValueError(f"`{leaf}` is not {HASH_BYTES} bytes in hex")
    return bytes.fromhex(leaf)


def _print(proven: Proven, out: Path | None, output: Output) -> None:
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        record = out / f"{proven.seq}.json"
        record.write_bytes(proven.line)
        proof = out / f"{proven.seq}.json.tlog-proof"
        proof.write_text(proven.proof)
        typer.echo(f"{record}\n{proof}")
    elif output is Output.JSON:
        fields = {"seq": proven.seq, "record": proven.line.decode(), "proof": proven.proof}
        typer.echo(orjson.dumps(fields, option=orjson.OPT_INDENT_2))
    else:
        typer.echo(b"%b\n%b" % (proven.line, proven.proof.encode()), nl=False)
