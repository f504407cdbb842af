"""Tiles and proofs agree with those of the Go checksum database, which nobody here wrote."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from base64 import b64encode
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.adapters.audit.audit_keys import vkey_of
from gateway.adapters.audit.audit_proofs import LogProver, load_keys, newest_head
from gateway.core.log.tlog_proof import parse_proof
from tests.integration.audit.parts import ORIGIN, Open, note_entry

SOURCE = Path(__file__).parent / "sumdb"
BUILD_TIMEOUT_S = 300


@pytest.fixture(scope="session")
def sumdb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the other implementation; a machine without Go skips what needs it."""
    go = shutil.which("go")
    if go is None:
        pytest.skip("no go; install Go 1.24 or newer")
    binary = tmp_path_factory.mktemp("sumdb") / "sumdb"
    subprocess.run(
        [go, "build", "-o", str(binary), "."],
        cwd=SOURCE,
        env=os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly -buildvcs=false"},
        check=True,
        timeout=BUILD_TIMEOUT_S,
    )
    return binary


@pytest.mark.req("AUD-02")
@pytest.mark.parametrize("records", [1, 252, 253, 254, 700])
async def test_proofs_are_those_that_the_go_checksum_database_makes_from_our_tiles(
    open_log: Open, directory: Path, signer: Ed25519PrivateKey, sumdb: Path, records: int
) -> None:
    log = open_log()
    await log.start()
    await asyncio.gather(*(log.record(note_entry(number)) for number in range(records)))
    await log.close()
    size = records + 3
    asked = [("record", seq) for seq in range(size)] + [("tree", old + 1) for old in range(size)]
    answered = _ask([str(sumdb), str(directory), vkey_of(signer, ORIGIN)], asked)
    prover = LogProver(directory, newest_head(directory), load_keys(directory))
    for (kind, number), line in zip(asked, answered, strict=True):
        if kind == "record":
            proof = parse_proof(prover.prove(number).proof)
            ours = [b64encode(value).decode() for value in proof.hashes]
        else:
            ours = prover.prove_growth(number).partition("\n\n")[0].split("\n")[1:]
        assert line.split() == ours, (kind, number)


def _ask(command: list[str], asked: list[tuple[str, int]]) -> list[str]:
    """Return a line of hashes for each proof asked for."""
    given = "".join(f"{kind} {number}\n" for kind, number in asked)
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()
