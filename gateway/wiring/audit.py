"""What the composition root makes of the log itself: custody, keys, commands without a gateway."""

from __future__ import annotations

import getpass
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import structlog
from fastapi import APIRouter
from msgspec import Struct

from connectors.catalog import Catalog
from gateway.adapters.audit.audit_files import Files, list_segments
from gateway.adapters.audit.audit_key_file import KeyFile
from gateway.adapters.audit.audit_keys import load_or_create_kek
from gateway.adapters.audit.audit_openings import Vault
from gateway.adapters.audit.audit_recovery import Fold
from gateway.adapters.audit.file_audit import FileAuditLog
from gateway.adapters.state.sql_holds import SqlHolds
from gateway.adapters.state.sql_ledger import SqlLedger
from gateway.adapters.state.sql_store import SqlState
from gateway.adapters.system import SystemClock, SystemIds
from gateway.config.settings import Config
from gateway.core.approvals.declined import Declined
from gateway.core.approvals.holds import HoldStore
from gateway.core.catalog import Review
from gateway.core.errors import ConfigurationError
from gateway.core.kills.kill import Kind
from gateway.core.ports import Clock, Ids
from gateway.core.records.call_records import build_orphan
from gateway.custody import Custody, KeyedLog, rotate_key
from gateway.http.audit_admin import AuditAdminDeps, build_audit_admin_routers, view_keys
from gateway.http.humans import Admit
from gateway.http.kill_admin import view_kill, view_standing
from gateway.kill_switch import KillSwitch
from gateway.wiring.kill import start_kill_switch

ROTATION_CHECK_S: Final = 60.0
"""How often the age of the signing key is looked at, in seconds."""

_HOUR_US: Final = 3_600_000_000
_log: Final = structlog.get_logger("gateway.audit")


def build_custody(
    *, log: FileAuditLog, holds: HoldStore, clock: Clock, ids: Ids, catalog: Catalog
) -> Custody:
    """Return the custody of a running gateway's log."""

    def review(tool_id: str) -> Review | None:
        tools = catalog.view().callable_tools(None)
        return next((tool.review for tool in tools if tool.id == tool_id), None)

    def sensitive(tool_id: str) -> Sequence[str] | None:
        return None if (found := review(tool_id)) is None else found.sensitive

    def sensitive_out(tool_id: str) -> Sequence[str] | None:
        return None if (found := review(tool_id)) is None else found.sensitive_out

    return Custody(
        log=log,
        holds=holds,
        clock=clock,
        ids=ids,
        sensitive=sensitive,
        sensitive_out=sensitive_out,
    )


def build_routers(
    *, config: Config, log: FileAuditLog, custody: Custody, clock: Clock, ids: Ids, admit: Admit
) -> list[APIRouter]:
    """Build the admin routes of the log."""
    deps = AuditAdminDeps(
        custody=custody,
        keys=log,
        rotate=lambda by: rotate_key(log, clock, ids, "command", by),
        key_max_age_h=config.audit.key_max_age_h,
        admit=admit,
    )
    return build_audit_admin_routers(deps)


async def rotate_if_due(log: KeyedLog, clock: Clock, ids: Ids, max_age_h: int) -> None:
    """Let a new key sign where the one in use is `max_age_h` hours old (0: never)."""
    age_us = clock.now_ns() // 1000 - log.epoch_us
    if max_age_h and age_us >= max_age_h * _HOUR_US:
        await rotate_key(log, clock, ids, "schedule")
        _log.info("audit_key_rotated", epoch=len(log.epochs) - 1, vkey=log.epochs[-1])


def open_log(
    config: Config, clock: Clock, *, fold: Fold | None = None, fold_from: int = 0
) -> FileAuditLog:
    """Open the log of a configuration. Raises `ConfigurationError`, also where it is held."""
    settings = config.audit
    return FileAuditLog.open(
        settings.dir,
        origin=settings.origin,
        signer=_find_signer(settings.key, settings.dir),
        kek=_load_kek(settings.kek, settings.dir / "openings" / "keys"),
        clock=clock,
        limits=config.call_limits(),
        deployment={"environment": config.environment, "issuer": config.tokens.issuer},
        fold=fold,
        fold_from=fold_from,
        segment_max_bytes=settings.segment_max_bytes,
        reserve_bytes=settings.reserve_mib * 1024 * 1024,
    )


def _find_signer(path: Path, log: Path) -> KeyFile:
    """Return where the signing key lives: a new one is made for a new log only."""
    if not path.exists() and list_segments(log):
        raise ConfigurationError(
            f"audit.key: `{path}` is missing, and the log in `{log}` goes on under no other; "
            "put it back, or begin a new log with another `audit.dir`, `audit.origin` and "
            "`state.url`"
        )
    return KeyFile(path)


def _load_kek(path: Path, kept: Path) -> bytes:
    """Return the key-encryption key: a new one only where nothing is kept under another.

    Under a new one nobody's values of before would be found again, nor could they be erased.
    """
    if not path.exists() and kept.is_dir() and any(kept.iterdir()):
        raise ConfigurationError(
            f"audit.kek: `{path}` is missing, and opens what is in `{kept}`; "
            "restore it from its backup, or name another `audit.dir`"
        )
    kek = load_or_create_kek(path)
    if Vault(kept, kek, "", Files()).is_of_another_kek():
        raise ConfigurationError(
            f"audit.kek: `{path}` opens none of the keys in `{kept}`; "
            "restore the one that they were made under, or name another `audit.dir`"
        )
    return kek


class Offline(Struct, frozen=True):
    """The log of a gateway that is stopped, in the hands of whoever runs the command (`by`)."""

    log: FileAuditLog
    custody: Custody
    clock: Clock
    ids: Ids
    max_age_h: int
    by: str
    kills: KillSwitch

    async def kill(self, kind: Kind, target: str, reason: str, for_s: int | None) -> dict[str, Any]:
        """Stop a target, as `POST /v1/kills`."""
        until = None if for_s is None else self.clock.now_ns() // 1_000_000_000 + for_s
        done = await self.kills.kill(kind, target, by=self.by, reason=reason, until=until)
        return view_kill(done)

    async def lift(self, kind: Kind, target: str, reason: str) -> dict[str, Any] | Declined:
        """Let a target go on, as `POST /v1/kills/lift`."""
        done = await self.kills.lift(kind, target, by=self.by, reason=reason)
        if isinstance(done, Declined):
            return done
        return {"lifted": [view_kill(one) for one in done]}

    def view_kills(self) -> dict[str, Any]:
        """Return what `GET /v1/kills` answers."""
        return view_standing(self.kills)

    def view_keys(self) -> dict[str, Any]:
        """Return what `GET /v1/keys` answers."""
        return view_keys(self.log, self.max_age_h)

    async def rotate_key(self) -> None:
        """Let a new key sign."""
        await rotate_key(self.log, self.clock, self.ids, "command", self.by)


@asynccontextmanager
async def open_offline(config: Config) -> AsyncIterator[Offline]:
    """Take the log of a stopped gateway, close what a crash left open, and give it back.

    Nobody is authenticated here: who can read the keys may do everything. The record names the
    account of the operating system. Raises `ConfigurationError` where a gateway holds the log.
    """
    clock, ids = SystemClock(), SystemIds()
    async with AsyncExitStack() as stack:
        state = SqlState(config.state.url)
        stack.push_async_callback(state.close)
        await state.open(environment=config.environment, log_origin=config.audit.origin)
        sequence, _ = await SqlLedger(state).load()
        log = open_log(config, clock, fold_from=sequence)
        stack.push_async_callback(log.close)
        await log.start()
        custody = Custody(
            log=log, holds=SqlHolds(state), clock=clock, ids=ids, sensitive=lambda _tool: None
        )
        await custody.settle(log.recovered.holds)
        for op, intent in log.recovered.open_intents.items():
            await log.record(build_orphan(op, intent.seq, intent.approval))
        kills = await start_kill_switch(state=state, log=log, clock=clock, ids=ids, credentials={})
        stack.push_async_callback(kills.close)
        by = f"os:{getpass.getuser()}"
        yield Offline(log, custody, clock, ids, config.audit.key_max_age_h, by, kills)
