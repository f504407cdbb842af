"""Which release decides: found in the log, checked, put to use, watched, and taken back.

What it must show before stands in `wiring.release_trial`, what is told of it in
`wiring.release_lookout`.

`ReleaseKeeper` stands between the log, the store of releases and the policy in use. In `dev`, and
with `policy.releases: off`, the files of the folder decide and it does nothing but say so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NamedTuple, Protocol

import structlog
from fastapi import APIRouter

from gateway.adapters.audit.file_audit import FileAuditLog
from gateway.adapters.authoring.replay_memo import Candidate
from gateway.adapters.policy.observed_policy import ObservedPolicy
from gateway.adapters.policy.policy_bundle import Bundle, load_bundle_dir, restore_bundle
from gateway.adapters.releases import impact_run
from gateway.adapters.releases.release_guard import ReleaseGuard
from gateway.adapters.releases.release_store import ReleaseStore
from gateway.config.models import AuditSection
from gateway.config.release import build_rules, overlay, require_two
from gateway.config.settings import Config
from gateway.core.entry import Entry
from gateway.core.errors import AuditError, ConfigurationError, CountersignError, PolicyError
from gateway.core.ports import Clock, Ids, PolicyEngine
from gateway.core.records import impact_told
from gateway.core.records import release_records as records
from gateway.core.releases.difference import is_policy_only
from gateway.core.releases.halting import Limits, Rates, find_jump
from gateway.core.releases.history import History, Publication
from gateway.core.releases.publishing import Mode, Rules, find_unsigned
from gateway.core.releases.release import Release
from gateway.http.humans import Admit
from gateway.http.releases import ReleaseAdmin
from gateway.http.releases_desk import ReleaseDeps, ReleaseDesk, note
from gateway.shadow import ShadowEngine
from gateway.wiring.release_lookout import ReleaseLookout
from gateway.wiring.release_trial import try_out

FOLDER: Final = "releases"
"""Where releases are kept, below the folder of the log."""
_log: Final = structlog.get_logger("gateway.releases")

Activate = Callable[[Bundle, Mapping[str, Any]], Awaitable[None]]
MayPublish = Callable[[str, int], bool]
"""Whether what a person said at a time (seconds) still is the word of a publisher."""


class Shadow(Protocol):
    """Evaluates a candidate beside what decides, without effect (`gateway.shadow`)."""

    async def start(self, bundle: Bundle, label: str) -> None:
        """Begin."""
        ...

    async def stop(self) -> None:
        """End."""
        ...


class Start(NamedTuple):
    """With what a gateway starts: `stated` belongs to the record of the activation."""

    config: Config
    bundle: Bundle
    stated: Mapping[str, Any]


PATIENCE_S: Final = 60
"""For so long it is tried again to put a release to use, where engine or log may soon be back."""


class _Watch(NamedTuple):
    """What is looked at for a while after a release began to decide."""

    publication: Publication
    until_s: int


class ReleaseKeeper:
    """Finds the release that decides and puts others in its place. See the module.

    `beside`: makes the engine that a new release is compared with for a while.
    Raises `ConfigurationError` when made, where files decide and cannot be read.
    """

    def __init__(
        self,
        config: Config,
        *,
        clock: Clock,
        ids: Ids,
        shadow: Shadow | None = None,
        beside: Callable[[Bundle], ShadowEngine] | None = None,
    ) -> None:
        self.mode: Final[Mode] = find_mode(config)
        self.rules: Rules = build_rules(config, can_shadow=shadow is not None)
        self.store: Final = ReleaseStore(config.audit.dir / FOLDER)
        self._config = config
        self._clock = clock
        self._ids = ids
        self._shadow = shadow
        self._folder = None if self.mode == "required" else load_bundle_dir(config.policy.path)
        self._lookout: Final = ReleaseLookout(config, ids)
        self._audit: FileAuditLog | None = None
        self._running: Release | None = None
        self._first: Publication | None = None
        self._turn: Final = asyncio.Lock()
        self._activate: Activate | None = None
        self._limits = Limits(**config.policy.halt.model_dump())
        self.guard: Final = ReleaseGuard(
            beside or (lambda one: Candidate(one, deadline_ms=config.policy.deadline_ms)),
            now_s=self._now_s,
        )
        self._row: Final = asyncio.Lock()
        self._decides: Bundle | None = None
        self._watch: _Watch | None = None
        self._shadowed: tuple[int, int] | None = None
        self._waits = 0
        self._tried: tuple[int, int] | None = None

    @property
    def is_watching(self) -> bool:
        """Whether what decides is compared with the release before."""
        return self._watch is not None

    @property
    def history(self) -> History:
        """The row of releases, as the log has it."""
        return History() if self._audit is None else self._audit.recovered.releases

    async def open(self, audit: FileAuditLog) -> Start:
        """Return what decides from the start. Raises `ConfigurationError`, with how to go on."""
        self._audit = audit
        if self._folder is not None:
            if self.mode == "off":
                _log.warning("policy_releases_off", hint="set `policy.publishers`")
            return Start(self._config, self._folder, {"mode": self.mode})
        require_two(self.rules)
        if self.rules.log == AuditSection.model_fields["origin"].default:
            _log.warning("release_log_unnamed", hint="give `audit.origin` a name of its own")
        publication = self._find_first()
        if publication is None:
            raise ConfigurationError(
                "no release was published here yet; build one with `countersign policy build`, "
                "then publish it with the keys of two publishers: "
                "`countersign policy publish --offline`",
                code="release_none",
            )
        await self._trust(audit)
        release = await self._load(publication)
        self._running, self._first = release, publication
        place = self.store.place(release.revision)
        config = overlay(self._config, release, place)
        self._decides = bundle = await asyncio.to_thread(restore_bundle, release.policy_files)
        await self._look_for_drift()
        return Start(config, bundle, records.activation(publication))

    def started(self, activate: Activate) -> None:
        """Take note that what `open` returned is in use and on record.

        `activate` puts another bundle in its place, with what its record says besides.
        """
        self._activate = activate
        if self._first is not None:
            self._fold_activation(self._first)

    def counted(self, engine: PolicyEngine) -> PolicyEngine:
        """Return an engine that is compared with the one before, where one could be taken back."""
        if self.mode != "required" or not self._limits.enabled:
            return engine
        return ObservedPolicy(engine, self.guard.observe)

    async def settle(self) -> None:
        """Put to use what was published, as far as it can be without a restart."""
        async with self._turn:
            await self._settle()

    async def tick(self) -> None:
        """Look after what decides: halt it, end a shadow, tell of changed files. Every `STEP_S`."""
        if self.mode != "required":
            return
        self.history.see(self._clock.now_ns() // 1_000_000_000)
        async with self._turn:
            await self._look_for_jump()
            await self._settle()
        await self._look_for_drift()
        await self._look_at_gate()

    async def close(self) -> None:
        """End what is beside."""
        await self.guard.end()

    def status(self) -> dict[str, Any]:
        """Return what readers are told besides the history."""
        target = self.history.target
        return {
            "mode": self.mode,
            "differs": self._lookout.differs[:32],
            "gate": self._lookout.gate,
            "waits_for_restart": target is not None and target.number == self._waits,
            "watch": {"watching": self.is_watching, "faults": self.guard.faults},
        }

    def tell(self) -> dict[str, Any]:
        """Return what `/readyz` shows: nothing of what stands in the files."""
        running = self._running
        return {
            "mode": self.mode,
            "release": None if running is None else running.revision,
            "files_differ": bool(self._lookout.differs),
            "gate": self._lookout.gate,
        }

    def routers(self, admit: Admit, may_publish: MayPublish) -> list[APIRouter]:
        """Build the admin routes."""
        desk, step_up_s = self.build_desk(may_publish), self._config.policy.step_up_s
        admin = ReleaseAdmin(desk=desk, admit=admit, status=self.status, step_up_s=step_up_s)
        return [admin.router()]

    def build_desk(self, may_publish: MayPublish) -> ReleaseDesk:
        """Return the desk at which releases are published. Call once the log is open."""
        if self._audit is None:
            raise RuntimeError("releases are published where the log is open")
        return ReleaseDesk(
            ReleaseDeps(
                rules=self.rules,
                history=self.history,
                store=self.store,
                record=self._audit.record,
                try_out=lambda release: try_out(self._config, release),
                settle=self.settle,
                may_publish=may_publish,
                measure=self._measure,
                row=self._row,
                clock=self._clock,
                ids=self._ids,
                is_open=self.mode == "required",
            )
        )

    def open_offline(self, audit: FileAuditLog) -> None:
        """Work on the log of a gateway that is stopped: nothing is put to use."""
        self._audit = audit

    async def _measure(self, release: Release) -> dict[str, Any] | None:
        """Return what a record says of what a release would have changed; keep the whole of it."""
        target = self.history.target
        order = impact_run.Order(
            log=str(self._config.audit.dir),
            kek=str(self._config.audit.kek),
            releases=str(self._config.audit.dir / FOLDER),
            revision=release.revision,
            since_s=0,
            before="" if target is None else target.revision,
        )
        found = await impact_run.measure(order, now_s=self._clock.now_ns() // 1_000_000_000)
        if isinstance(found, str):
            return impact_told.unmeasured(found)
        told = impact_told.summarize(impact_told.read(found))
        await asyncio.to_thread(self.store.save_impact, told["digest"], found)
        await self._prune_impacts(told["digest"])
        return told

    async def _prune_impacts(self, fresh: str) -> None:
        """Remove what no publication can name. Offline it is not known what waits: all stays."""
        if self._activate is None:
            return
        told = [one.impact or {} for one in self.history.proposals.values()]
        named = {str(impact["digest"]) for impact in told if "digest" in impact} | {fresh}
        try:
            await asyncio.to_thread(self.store.prune_impacts, named)
        except (OSError, ConfigurationError) as error:
            _log.warning("impacts_not_pruned", problem=str(error))

    async def _trust(self, audit: FileAuditLog) -> None:
        publishers = [one for _, one in sorted(self.rules.publishers.items())]
        entry = records.build_trust(
            self._ids.new(),
            mode=self.mode,
            environment=self.rules.environment,
            rollback=self.rules.rollback,
            publishers=publishers,
            key_ids=[audit.key_id(one.id) for one in publishers],
        )
        await audit.record(entry)

    async def _load(self, publication: Publication) -> Release:
        """Return a release that may decide. INVARIANT: nothing else ever gets to the engine."""
        unsigned = find_unsigned(self.rules, publication)
        if unsigned is not None:
            raise ConfigurationError(
                f"release {publication.number} (`{publication.revision}`) may not decide: "
                f"{unsigned}; mend `policy.publishers`, or publish anew with `--offline`",
                code="release_unsigned",
            )
        return await asyncio.to_thread(self.store.load, publication.revision)

    def _find_first(self) -> Publication | None:
        """Return what decides from the start: not what should be in the shadow for a while."""
        history = self.history
        target = history.target
        is_new = target is not None and target.act == "publish" and history.is_waiting
        if target is not None and is_new and target.shadow_s and history.active is not None:
            return history.active
        return target

    async def _settle(self) -> None:
        publication = self.history.target
        if self._activate is None or publication is None or not self.history.is_waiting:
            return
        if publication.number == self._waits:
            return
        if publication.act == "publish" and publication.shadow_s and not self._is_shadow_over():
            await self._begin_shadow(publication)
            return
        try:
            await self._end_shadow()
            await self._put_to_use(publication)
        except (CountersignError, OSError) as error:
            told = {"release": publication.revision, "problem": str(error)}
            if _may_pass(error) and self._is_early(publication):
                _log.warning("release_not_activated_yet", **told)
                return
            _log.error("release_not_activated", **told)
            await self._halt(publication, "not_activated", Rates(), Rates())

    def _is_early(self, publication: Publication) -> bool:
        """Whether it was first tried to put this one to use so lately that it is tried again."""
        if self._tried is None or self._tried[0] != publication.number:
            self._tried = publication.number, self._now_s()
        return self._now_s() < self._tried[1] + PATIENCE_S

    async def _put_to_use(self, publication: Publication) -> None:
        assert self._activate is not None  # noqa: S101 - looked at by `settle`
        release = await self._load(publication)
        if self._running is not None and not is_policy_only(
            self._config.environment, self._running, release
        ):
            self._waits = publication.number
            _log.warning("release_waits_for_restart", release=release.revision)
            return
        bundle = await asyncio.to_thread(restore_bundle, release.policy_files)
        await self._activate(bundle, records.activation(publication))
        self._running = release
        self._fold_activation(publication)
        before, self._decides = self._decides, bundle
        if before is not None and self._limits.enabled:
            await self.guard.watch(before, bundle)
            self._watch = _Watch(publication, self._now_s() + self._limits.window_s)
        self._lookout.forget()

    async def _look_for_drift(self) -> None:
        release, target = self._running, self.history.target
        if release is not None and target is not None and self._audit is not None:
            await self._lookout.look_for_drift(release, self.history.active or target, self._audit)

    async def _look_at_gate(self) -> None:
        release, active = self._running, self.history.active
        if release is not None and active is not None and self._audit is not None:
            await self._lookout.look_at_gate(release, active, self._audit)

    async def _look_for_jump(self) -> None:
        watch = self._watch
        if watch is None:
            return
        compared = self.guard.compared
        jumped = find_jump(compared, self._limits)
        if jumped is not None:
            await self._end_watch()
            await self._halt(watch.publication, jumped, compared.before, compared.after)
        elif self._now_s() >= watch.until_s:
            await self._end_watch()

    async def _end_watch(self) -> None:
        self._watch = None
        await self.guard.end()

    async def _halt(
        self, halted: Publication, why: records.HaltReason, before: Rates, after: Rates
    ) -> None:
        """Let the release before decide again. The way back is not watched.

        `before`, `after`: what that one and this one said of the same calls.
        """
        if self._audit is None:
            return
        active = self.history.active
        is_active = active is not None and active.number == halted.number
        back = self.history.find_before(halted.number) if is_active else active
        if back is None:
            _log.error("release_not_halted", release=halted.revision, why=why, hint="the first one")
            return
        _log.error("release_halted", release=halted.revision, why=why, back_to=back.revision)
        entry = records.build_halt(
            self._ids.new(), halted=halted, back=back, why=why, before=before, after=after
        )
        async with self._row:
            await self._audit.record(entry)
            note(self.history, entry, self._clock)
        if is_active:
            await self._settle()
            await self._end_watch()

    async def _begin_shadow(self, publication: Publication) -> None:
        if self._shadow is None:
            raise ConfigurationError(
                "nothing can be evaluated beside here; publish without `--shadow`",
                code="release_no_shadow",
            )
        if self._shadowed is not None and self._shadowed[0] == publication.number:
            return
        await self._end_shadow()
        release = await self._load(publication)
        bundle = await asyncio.to_thread(restore_bundle, release.policy_files)
        await self._shadow.start(bundle, release.revision)
        self._shadowed = publication.number, self._now_s() + publication.shadow_s
        _log.info("release_in_shadow", release=release.revision, seconds=publication.shadow_s)

    def _is_shadow_over(self) -> bool:
        return self._shadowed is not None and self._now_s() >= self._shadowed[1]

    async def _end_shadow(self) -> None:
        if self._shadow is not None and self._shadowed is not None:
            self._shadowed = None
            await self._shadow.stop()

    def _fold_activation(self, publication: Publication) -> None:
        fields = records.activation(publication)
        entry = Entry(type="policy.activate", op="", fields=fields)
        note(self.history, entry, self._clock)

    def _now_s(self) -> int:
        """Return seconds of which only differences mean anything: nobody can set them back."""
        return self._clock.monotonic_ns() // 1_000_000_000


def find_mode(config: Config) -> Mode:
    """Return what decides: files (`dev`, `off`), or a release."""
    return "dev" if config.dev else config.policy.releases


def _may_pass(error: Exception) -> bool:
    """Whether it says nothing about the release: an OPA that starts anew, a log that is busy."""
    if isinstance(error, PolicyError):
        return error.code == PolicyError.default_code
    return isinstance(error, AuditError) and error.retryable
