from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.core.log.chain import Chain
from gateway.core.log.note import NoteKey, build_key, build_vkey

ORIGIN = "gateway.example.com/audit"
VECTORS = Path(__file__).parents[4] / "shared" / "vectors"

Build = Callable[[Sequence[Sequence[dict[str, Any]]]], list[bytes]]


@pytest.fixture(scope="session")
def signer() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


@pytest.fixture(scope="session")
def key(signer: Ed25519PrivateKey) -> NoteKey:
    return build_key(ORIGIN, signer.public_key())


@pytest.fixture(scope="session")
def build(signer: Ed25519PrivateKey, key: NoteKey) -> Build:
    """Make the lines (no LF) of a log from batches of fields; the first record is the genesis."""

    def make(batches: Sequence[Sequence[dict[str, Any]]]) -> list[bytes]:
        chain = Chain(ORIGIN)
        lines: list[bytes] = []
        for batch in batches:
            for fields in batch:
                kind = "genesis" if chain.seq == 0 else "call.intent"
                named = {"key": build_vkey(key)} if chain.seq == 0 else {}
                line, _ = chain.append(
                    type=kind,
                    op=f"op-{chain.seq}",
                    boot="b",
                    ts=chain.seq,
                    fields={**named, **fields},
                    max_bytes=16_384,
                )
                lines.append(line)
            lines.append(chain.seal(key, signer)[0])
        return lines

    return make


@pytest.fixture(scope="session")
def vectors() -> Callable[[str], list[dict[str, Any]]]:
    """Read one of the shared vector files, or skip where the checkout has none."""

    def read(name: str) -> list[dict[str, Any]]:
        path = VECTORS / name
        if not path.exists():
            pytest.skip(f"no shared test vectors beside this checkout: {name}")
        return [orjson.loads(line) for line in path.read_bytes().splitlines()]

    return read
