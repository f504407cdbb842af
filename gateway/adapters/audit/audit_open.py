"""Opens the log's directory: takes the lock, recovers, settles the key, writes `boot`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec import Struct

from gateway.adapters.audit.audit_builder import RecordBuilder
from gateway.adapters.audit.audit_files import Files, lock_log
from gateway.adapters.audit.audit_handover import Room, build_writer
from gateway.adapters.audit.audit_key_file import KeyFile
from gateway.adapters.audit.audit_openings import Vault
from gateway.adapters.audit.audit_recovery import Fold, Recovered, Recovery, recover
from gateway.adapters.audit.audit_tile_check import TileCheck, refuse
from gateway.adapters.audit.audit_writer import SegmentWriter
from gateway.core.entry import Entry, Receipt
from gateway.core.errors import AuditError, ConfigurationError
from gateway.core.limits import Limits
from gateway.core.log import note
from gateway.core.log.chain import PROFILE
from gateway.core.ports import Clock

_BOOT_BYTES: Final = 16


class LogSettings(Struct, frozen=True, kw_only=True):
    """What `FileAuditLog.open` is given; the meaning of each is told there."""

    directory: Path
    origin: str
    signer: Ed25519PrivateKey | KeyFile
    kek: bytes
    clock: Clock
    limits: Limits
    deployment: dict[str, str]
    fold: Fold | None
    fold_from: int
    room: Room
    files: Files


class OpenedLog(Struct, frozen=True, kw_only=True):
    """A log that is this process's own. `epochs` are its keys; the last began at `epoch_us`.

    `events`: where each event id stands. `signer` is the private half of the last key.
    """

    settings: LogSettings
    lock_fds: tuple[int, ...]
    builder: RecordBuilder
    writer: SegmentWriter
    vault: Vault
    events: dict[str, Receipt]
    recovered: Recovered
    signer: Ed25519PrivateKey
    key_file: KeyFile | None
    epochs: tuple[note.NoteKey, ...]
    epoch_us: int


def open_log(settings: LogSettings) -> OpenedLog:
    """Open the log, or make a new one, and write its `boot` record durably.

    Raises `ConfigurationError` for a log that is held, damaged, another's, signed by another key
    or shorter than the state that reflects it.
    """
    try:
        _make_directories(settings)
        lock_fds = lock_log(settings.directory)
        try:
            return _open_locked(settings, lock_fds, os.urandom(_BOOT_BYTES).hex())
        except BaseException:
            for descriptor in lock_fds:
                os.close(descriptor)
            raise
    except OSError as error:
        raise ConfigurationError(
            f"audit directory `{settings.directory}` cannot be used: {error}; make it writable"
        ) from error


def _open_locked(settings: LogSettings, lock_fds: tuple[int, ...], boot: str) -> OpenedLog:
    directory, files, signer = settings.directory, settings.files, settings.signer
    signers = signer.candidates() if isinstance(signer, KeyFile) else [signer]
    keys = [_key(settings.origin, candidate) for candidate in signers]
    tiles = TileCheck(directory, refuse(directory))
    found = recover(
        directory,
        origin=settings.origin,
        keys=keys,
        files=files,
        fold=settings.fold,
        fold_from=settings.fold_from,
        leaf=tiles.add,
    )
    tiles.finish()
    _check(settings, found)
    in_use = keys.index(found.keys[-1]) if found.keys else 0
    if isinstance(signer, KeyFile):
        signer.settle(adopt=in_use > 0)
    vault = Vault(directory / "openings" / "keys", settings.kek, boot, files)
    vault.finish(found.events)  # before any of these subjects can get a new key
    builder = RecordBuilder(
        chain=found.chain,
        boot=boot,
        key=keys[in_use],
        signer=signers[in_use],
        record_max_bytes=settings.room.record_max_bytes,
    )
    opened = OpenedLog(
        settings=settings,
        lock_fds=lock_fds,
        builder=builder,
        writer=build_writer(
            durable=found.chain.seq,
            vault=vault,
            tiles=tiles.repair(files),
            boot=boot,
            room=settings.room,
            clock=settings.clock,
            files=files,
        ),
        vault=vault,
        events=found.events,
        recovered=found.recovered,
        signer=signers[in_use],
        key_file=signer if isinstance(signer, KeyFile) else None,
        epochs=found.keys or (keys[in_use],),
        epoch_us=found.epoch_us or settings.clock.now_ns() // 1000,
    )
    try:
        _begin(opened, found)
    except BaseException:
        opened.writer.close()
        raise
    return opened


def _begin(opened: OpenedLog, found: Recovery) -> None:
    """Write `genesis` into a new log, and `boot` with what recovery cut."""
    settings, builder, boot = opened.settings, opened.builder, opened.builder.boot
    vkey = note.build_vkey(opened.epochs[-1])
    entries: list[Entry] = []
    if found.genesis is None:
        fields = {"profile": PROFILE, "key": vkey, "deployment": settings.deployment}
        entries.append(Entry(type="genesis", op=boot, fields=fields))
    cut = found.cut
    told = cut and {"segment": cut.segment, "bytes": cut.bytes, "kept_in": cut.kept_in}
    open_intents = len(found.recovered.open_intents)
    start = {"key": vkey, "cut": told, "open_intents": open_intents}
    entries.append(Entry(type="boot", op=boot, fields=start))
    opened.writer.resume(found.segment)
    try:
        for entry in entries:
            builder.add(entry, settings.clock.now_ns() // 1000)
    except AuditError as error:
        raise ConfigurationError(f"the audit log cannot be begun: {error}") from None
    opened.writer.write(builder.seal())
    opened.writer.tidy(force=True)
    write_vkeys(settings, opened.epochs)


def write_vkeys(settings: LogSettings, keys: Sequence[note.NoteKey]) -> None:
    """Write the log's verifier keys, oldest first, for whoever has no better source of them."""
    lines = "".join(note.build_vkey(key) + "\n" for key in keys)
    settings.files.replace(settings.directory / "log.vkey", lines.encode())
    settings.files.sync_directory(settings.directory)


def _check(settings: LogSettings, found: Recovery) -> None:
    """Refuse a log of another deployment, and one that is shorter than the state knows."""
    if found.genesis is not None and found.genesis.get("deployment") != settings.deployment:
        was = _say(found.genesis.get("deployment"))
        raise ConfigurationError(
            f"the audit log in `{settings.directory}` is of the deployment {was}, "
            f"not of {_say(settings.deployment)}; put that back, or name another directory"
        )
    size = found.chain.seq
    if size < settings.fold_from:  # nothing within a shortened log shows that it was longer
        raise ConfigurationError(
            f"the audit log in `{settings.directory}` has {size} records, but the state reflects "
            f"{settings.fold_from}: the log was cut back or replaced; restore it from a backup"
        )


def _say(deployment: object) -> str:
    """Return what a log is stamped with, for people."""
    stamp = deployment.items() if isinstance(deployment, Mapping) else ()
    return ", ".join(f"{name} `{value}`" for name, value in stamp) or "without a stamp"


def _make_directories(settings: LogSettings) -> None:
    directory = settings.directory
    try:
        settings.files.make_directory(directory / "openings" / "keys", 0o700)
        settings.files.make_directory(directory)
    except OSError as error:
        raise ConfigurationError(
            f"audit directory `{directory}` cannot be made: {error.strerror}"
        ) from None


def _key(origin: str, signer: Ed25519PrivateKey) -> note.NoteKey:
    try:
        return note.build_key(origin, signer.public_key())
    except ValueError as error:
        raise ConfigurationError(f"audit origin: {error}") from None
