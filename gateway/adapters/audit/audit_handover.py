"""How an open log passes from the process that opened it to the one that keeps it.

Opening needs much of the gateway (what the log says of calls, keys, people, releases), keeping
needs little. So the gateway opens, and hands over where the log stands: no file is read twice.
"""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec import Struct

from gateway.adapters.audit.audit_builder import RecordBuilder
from gateway.adapters.audit.audit_files import Files, list_segments
from gateway.adapters.audit.audit_keeper import Keeper
from gateway.adapters.audit.audit_openings import OpeningsWriter, Vault
from gateway.adapters.audit.audit_reserve import Reserve
from gateway.adapters.audit.audit_tiles import TileWriter
from gateway.adapters.audit.audit_writer import SegmentWriter
from gateway.core.log import note
from gateway.core.log.chain import Chain
from gateway.core.log.merkle import Tree
from gateway.core.ports import Clock


class Room(Struct, frozen=True):
    """Where a log is, and how much of the disk it may take: see `FileAuditLog.open`."""

    directory: str
    segment_max_bytes: int
    reserve_bytes: int
    record_max_bytes: int


class Handover(Struct, frozen=True, kw_only=True):
    """An open log as it stands between two batches.

    `seq`, `prev`, `link`, `ts`, `nodes`: its `Chain`. `full`, `edges`: its `TileWriter`. `head`:
    its last checkpoint. `seed`: of the key that signs. Holds secrets: it goes over a socket between
    two of our own processes, and nowhere else.
    """

    room: Room
    origin: str
    boot: str
    kek: bytes
    seed: bytes
    seq: int
    prev: str
    link: str | None
    ts: int
    nodes: tuple[bytes, ...]
    full: list[int]
    edges: list[bytes]
    head: str


def hand_over(
    *,
    room: Room,
    builder: RecordBuilder,
    writer: SegmentWriter,
    kek: bytes,
    signer: Ed25519PrivateKey,
) -> Handover:
    """Let go of a log of which nothing is waiting to be written."""
    writer.close()
    chain, (full, edges) = builder.chain, writer.tiles.standing()
    return Handover(
        room=room,
        origin=chain.origin,
        boot=builder.boot,
        kek=kek,
        seed=signer.private_bytes_raw(),
        seq=chain.seq,
        prev=chain.prev,
        link=chain.link,
        ts=chain.ts,
        nodes=tuple(chain.tree.nodes),
        full=full,
        edges=edges,
        head=writer.head,
    )


def take_over(handed: Handover, clock: Clock) -> Keeper:
    """Go on where a log was let go of. Raises `OSError`."""
    files, directory = Files(), Path(handed.room.directory)
    chain = Chain(handed.origin)
    chain.seq, chain.prev, chain.link, chain.ts = handed.seq, handed.prev, handed.link, handed.ts
    chain.tree = Tree.of(handed.seq, handed.nodes)
    signer = Ed25519PrivateKey.from_private_bytes(handed.seed)
    vault = Vault(directory / "openings" / "keys", handed.kek, handed.boot, files)
    writer = build_writer(
        durable=handed.seq,
        vault=vault,
        tiles=TileWriter(directory, files, full=handed.full, edges=handed.edges),
        boot=handed.boot,
        room=handed.room,
        clock=clock,
        files=files,
    )
    writer.head = handed.head
    writer.resume(list_segments(directory)[-1])
    writer.tidy(force=True)  # knows from then on whether the reserve is there
    builder = RecordBuilder(
        chain=chain,
        boot=handed.boot,
        key=note.build_key(handed.origin, signer.public_key()),
        signer=signer,
        record_max_bytes=handed.room.record_max_bytes,
    )
    return Keeper(builder=builder, writer=writer, vault=vault)


def build_writer(
    *,
    durable: int,
    vault: Vault,
    tiles: TileWriter,
    boot: str,
    room: Room,
    clock: Clock,
    files: Files,
) -> SegmentWriter:
    """Build what puts batches on the disk; it goes on with `resume`."""
    directory = Path(room.directory)
    return SegmentWriter(
        directory,
        durable=durable,
        openings=OpeningsWriter(directory / "openings", vault, boot, files),
        tiles=tiles,
        reserve=Reserve(directory / "reserve", room.reserve_bytes, files),
        clock=clock,
        files=files,
        segment_max_bytes=room.segment_max_bytes,
    )
