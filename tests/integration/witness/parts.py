"""What the witness tests share: a log in memory, slow proofs, the real witness as a process."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.adapters.audit.memory_audit import MemoryAuditLog
from gateway.core.entry import Entry
from gateway.core.log.cosignature import build_witness_key, build_witness_vkey
from gateway.core.log.merkle import Tree, hash_leaf
from gateway.core.log.note import Checkpoint, NoteKey, build_vkey

ROOT = Path(__file__).parents[3]
OMNIWITNESS = shutil.which("omniwitness", path=f"{ROOT}/.cache/bin{os.pathsep}{os.environ['PATH']}")


class Log:
    """A log in memory, and what the client needs of one. `tag` tells histories apart."""

    def __init__(self, *, tag: str = "", seed: int = 0) -> None:
        signer = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
        self.audit = MemoryAuditLog(origin="log.example/audit", signer=signer)
        self._tag = tag

    async def grow(self, records: int) -> Log:
        for _ in range(records):
            fields = {"n": self.audit.size, "tag": self._tag}
            await self.audit.record(Entry(type="config.change", op="op", fields=fields))
        return self

    @property
    def named(self) -> tuple[str, str]:
        """Its origin and verifier key, as a witness is told them."""
        return self.audit.key.name, build_vkey(self.audit.key)

    def newest(self) -> str:
        note: str = orjson.loads(self.audit.lines[-1])["cp"]
        return note

    def prove(self, old: int, new: Checkpoint) -> list[bytes]:
        lines = [line for line in self.audit.lines if not line.startswith(b'{"cp":')]
        return prove_consistency([hash_leaf(line) for line in lines], old, new.size)


def prove_consistency(leaves: Sequence[bytes], old: int, new: int) -> list[bytes]:
    """RFC 6962 §2.1.2, word for word."""

    def subproof(m: int, part: Sequence[bytes], *, whole: bool) -> list[bytes]:
        n = len(part)
        if m == n:
            return [] if whole else [root_of(part)]
        k = 1 << (n - 1).bit_length() - 1
        if m <= k:
            return [*subproof(m, part[:k], whole=whole), root_of(part[k:])]
        return [*subproof(m - k, part[k:], whole=False), root_of(part[:k])]

    return subproof(old, leaves[:new], whole=True)


def root_of(leaves: Sequence[bytes]) -> bytes:
    tree = Tree()
    for leaf in leaves:
        tree.append(leaf)
    return tree.root()


class WitnessIdentity:
    """A witness's key pair under a name."""

    def __init__(self, name: str, seed: int) -> None:
        self.private = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
        self.public = self.private.public_key().public_bytes_raw()
        self.key: NoteKey = build_witness_key(name, self.public)
        self.vkey = build_witness_vkey(self.key)

    def note_key(self) -> str:
        """The private key as Go's `note` package writes one."""
        head = hashlib.sha256(f"{self.key.name}\n".encode() + b"\x01" + self.public).digest()
        secret = base64.b64encode(b"\x01" + self.private.private_bytes_raw()).decode()
        return f"PRIVATE+KEY+{self.key.name}+{head[:4].hex()}+{secret}"


class Omniwitness:
    """The real witness: its database outlives its processes. `logs`: origin and verifier key."""

    def __init__(
        self, folder: Path, identity: WitnessIdentity, logs: Sequence[tuple[str, str]]
    ) -> None:
        self._folder = folder
        folder.mkdir()
        (folder / "key").write_text(identity.note_key())
        entries = [
            {"Origin": origin, "PublicKey": vkey, "URL": "http://127.0.0.1:1/"}
            for origin, vkey in logs
        ]
        (folder / "logs.yaml").write_bytes(orjson.dumps({"Logs": entries}))  # JSON is YAML
        self.identity = identity

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        """Run it; gives its URL."""
        process = self._start()
        try:
            port = await asyncio.to_thread(_await_port, process)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(process.communicate, timeout=20)

    def _start(self) -> subprocess.Popen[bytes]:
        assert OMNIWITNESS is not None
        return subprocess.Popen(
            [
                *(OMNIWITNESS, "-logtostderr", "-metrics_listen=", "-listen=127.0.0.1:0"),
                *("-private_key_path", self._folder / "key"),
                *("-additional_logs", self._folder / "logs.yaml"),
                *("-db_file", self._folder / "db"),
            ],
            stderr=subprocess.PIPE,
        )


def _await_port(process: subprocess.Popen[bytes]) -> int:
    """It tells no port, so the kernel is asked which one its listening socket has."""
    assert process.stderr is not None
    for line in process.stderr:
        if b"HTTP server goroutine started" in line:
            break
    inodes = {
        match[1]
        for link in Path(f"/proc/{process.pid}/fd").iterdir()
        if (match := re.fullmatch(r"socket:\[(\d+)\]", str(link.readlink())))
    }
    for row in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        columns = row.split()
        if columns[9] in inodes and columns[3] == "0A":
            return int(columns[1].partition(":")[2], 16)
    raise AssertionError("the witness does not listen")
