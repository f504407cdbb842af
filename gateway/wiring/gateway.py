"""The composition root: every adapter is made here, and every collaborator handed over by name.

Read `Gateway.start` for the order in which things come up (the log before anything that writes to
it, recovery before anything that sends) and `Gateway.stop` for the reverse.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
from collections.abc import Callable, Coroutine, Generator, Mapping
from types import FrameType
from typing import Any, Final

import structlog
import uvicorn
import uvloop

from connectors.catalog import Catalog
from connectors.http_pool import HttpPool
from connectors.refresh import Refresher
from connectors.upstreams import Transport, build_transport
from gateway.adapters.audit.file_audit import FileAuditLog
from gateway.adapters.bounded_http import build_client
from gateway.adapters.keys.issuer_tokens import IssuerTokens
from gateway.adapters.state.sql_approvals import SqlApprovals
from gateway.adapters.state.sql_holds import SqlHolds
from gateway.adapters.state.sql_idempotency import SqlIdempotency
from gateway.adapters.state.sql_ledger import SqlLedger
from gateway.adapters.state.sql_runs import SqlRuns
from gateway.adapters.state.sql_spent import SqlSpent
from gateway.adapters.state.sql_store import SqlState
from gateway.adapters.system import SystemClock, SystemIds
from gateway.config.settings import Config
from gateway.core.calls.ledger import Ledger
from gateway.core.errors import CountersignError
from gateway.core.records.call_records import build_orphan
from gateway.core.releases.halting import STEP_S
from gateway.dispatch import Step
from gateway.http.app import GatewayApp
from gateway.http.wire_guard import GuardedProtocol
from gateway.kill_switch import KillSwitch
from gateway.logs import configure_logging, describe
from gateway.wiring.audit import ROTATION_CHECK_S, build_custody, open_log, rotate_if_due
from gateway.wiring.authorize import build_authorization, end_undone_sign_ins
from gateway.wiring.broker import (
    build_broker,
    build_endpoint,
    check_credentials,
    find_bindings,
    load_manifests,
)
from gateway.wiring.decisions import Decisions, start_decisions
from gateway.wiring.forgetting import Forgetting
from gateway.wiring.keys import KEYS_CHECK_S, build_token_keys
from gateway.wiring.kill import find_credentials, start_kill_switch
from gateway.wiring.notices import start_notices
from gateway.wiring.parts import Parts
from gateway.wiring.path import build_path
from gateway.wiring.people import TIDY_S, PeopleDesk, build_people
from gateway.wiring.policy import PolicyInUse
from gateway.wiring.registry import Registered, open_registry
from gateway.wiring.releases import ReleaseKeeper
from gateway.wiring.shadow import Shadowing
from gateway.wiring.witness import build_witnessing

SWEEP_S: Final = 1.0
SNAPSHOT_S: Final = 30.0
FLUSH_S: Final = 10.0
GRACE_S: Final = 20
_log: Final = structlog.get_logger("gateway")


class Gateway:
    """One gateway: made from a configuration, started, served, stopped.

    `reached` is told of each step of a dispatch (`gateway.dispatch.Step`): a seam for fault tests.
    """

    def __init__(
        self, config: Config, *, reached: Callable[[Step], None] = lambda _step: None
    ) -> None:
        self._config = config
        self._reached = reached
        self._limits = config.call_limits()
        self._clock, self._ids = SystemClock(), SystemIds()
        self._state = SqlState(config.state.url)
        self._runs = SqlRuns(self._state)
        self._ledger_store = SqlLedger(self._state)
        self._approvals = SqlApprovals(
            self._state, clock=self._clock, pending_max=self._limits.pending_per_agent_max
        )
        self._ledger = Ledger()
        self._catalog = Catalog()
        self._shadow = Shadowing(config, clock=self._clock, ids=self._ids)
        self._releases = ReleaseKeeper(
            config, clock=self._clock, ids=self._ids, shadow=self._shadow
        )
        self._decisions: Decisions
        self._policy: PolicyInUse  # once the log has said which bundle decides
        self._forgetting = Forgetting(
            self._ledger, self._runs, lambda: self._clock.now_ns() // 1_000_000_000
        )
        self._kept_changes = -1
        self._audit: FileAuditLog | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._stack = contextlib.AsyncExitStack()
        self.app: GatewayApp | None = None

    async def start(self) -> None:
        """Bring everything up, in the order that each part needs. Raises `ConfigurationError`."""
        try:
            await self._start()
        except BaseException:
            # In a task of its own: no deadline holds in one that is cancelled (CPython 3.11.2).
            await asyncio.create_task(self._stack.aclose())
            raise

    async def _start(self) -> None:
        # 1. State and log. The log replays what the ledger snapshot has not seen yet.
        audit = await self._start_log()
        # 2. Policy. Servers, people and clients are from here on those of the release, if any.
        config = await self._start_policy(audit)
        # 3. Upstreams.
        pool = HttpPool()
        self._stack.push_async_callback(pool.close)
        transports: dict[str, Transport] = {}
        refresher = Refresher(self._catalog, transports, changed=self._tools_changed)
        await self._build_transports(transports, pool, refresher)
        await refresher.refresh_all()
        # 4. The path, then everything that was under way when the gateway last stopped.
        await self._forgetting.begin(audit.recovered.ended_runs)
        registered = await open_registry(
            config, state=self._state, audit=audit, clock=self._clock, ids=self._ids
        )
        kills = await self._start_kills(audit)
        parts = self._parts(audit, transports, refresher, registered, kills)
        await parts.custody.settle(audit.recovered.holds)
        await parts.authorization.open()
        self._stack.push_async_callback(parts.authorization.close)
        self._stack.push_async_callback(parts.token_keys.close)
        await parts.token_keys.open()
        path = build_path(parts, reached=self._reached)
        dispatcher = path.dispatcher
        for op, intent in audit.recovered.open_intents.items():
            await audit.record(build_orphan(op, intent.seq, intent.approval))
        await dispatcher.recover(audit.recovered.operations)  # says `unknown` of what is orphaned
        self.app = path.app
        self._stack.push_async_callback(_forgiving, path.refusals.flush)
        self._stack.push_async_callback(path.enforcement.close)
        self._stack.push_async_callback(dispatcher.close)
        # 5. What goes on by itself.
        self._stack.push_async_callback(self._cancel_tasks)
        self._spawn(refresher.run())
        self._follow_kills(kills, path.app)
        if (status := self._decisions.status) is not None:
            path.app.tell("decision_log", status)
        self._spawn(_every(SWEEP_S, dispatcher.sweep))
        self._spawn(_every(FLUSH_S, path.refusals.flush))
        self._spawn(_every(SNAPSHOT_S, self.tidy))
        self._spawn(_every(ROTATION_CHECK_S, self._rotate_key))
        self._spawn(_every(KEYS_CHECK_S, parts.token_keys.turn))
        if config.dev:
            self._spawn(self._policy.build_watcher().run())
        elif self._releases.mode == "required":
            path.app.tell("release", self._releases.tell)
            self._spawn(_every(STEP_S, self._releases.tick))
        self._have_witnessed(audit, path.app)
        await self._let_people_in(parts.people)

    async def _start_policy(self, audit: FileAuditLog) -> Config:
        self._decisions = start_decisions(
            self._config, clock=self._clock, ids=self._ids, stack=self._stack
        )
        self._shadow.open(audit)
        self._stack.push_async_callback(_forgiving, self._shadow.stop)
        self._config, bundle, stated = await self._releases.open(audit)
        self._stack.push_async_callback(_forgiving, self._releases.close)
        self._policy = PolicyInUse(self._config, ids=self._ids, bundle=bundle, stated=stated)
        self._stack.push_async_callback(self._policy.close)
        await self._policy.start(audit)
        self._releases.started(self._policy.activate)
        return self._config

    async def _start_log(self) -> FileAuditLog:
        config = self._config
        await self._state.open(environment=config.environment, log_origin=config.audit.origin)
        self._stack.push_async_callback(self._state.close)
        sequence, families = await self._ledger_store.load()
        self._ledger.restore(families)
        self._audit = audit = self._open_log(sequence)
        self._stack.push_async_callback(audit.close)  # also where it cannot be started
        await audit.start(apart=True, failed=_tell_failed_log)
        # Before the state is first kept anew, which says that it has seen all of the log.
        await end_undone_sign_ins(audit.recovered.sign_ins, self._state)
        await self._forgetting.forget_unknown()
        self._stack.push_async_callback(self.tidy)
        return audit

    async def stop(self) -> None:
        """Let calls under way end, then take everything down in reverse."""
        self.expect_end()
        await self._stack.aclose()

    def expect_end(self) -> None:
        """Say that the end has begun: calls under way no longer wait for a log that hangs."""
        if self._audit is not None:
            self._audit.expect_end()

    async def _let_people_in(self, people: PeopleDesk) -> None:
        self._stack.push_async_callback(_forgiving, people.close)
        self._stack.push_async_callback(self._cancel_tasks)  # before its client is closed
        self._spawn(_every(FLUSH_S, people.deps.log.flush))
        self._spawn(_every(TIDY_S, people.tidy))
        self._spawn(_every(SWEEP_S, self._keep_up))
        await people.announce()

    async def _start_kills(self, audit: FileAuditLog) -> KillSwitch:
        kills = await start_kill_switch(
            state=self._state,
            log=audit,
            clock=self._clock,
            ids=self._ids,
            credentials=find_credentials(self._config),
        )
        self._stack.push_async_callback(kills.close)
        return kills

    def _follow_kills(self, kills: KillSwitch, app: GatewayApp) -> None:
        app.tell("kills", lambda: {"stale": kills.is_stale()})
        self._spawn(kills.run())

    def _have_witnessed(self, audit: FileAuditLog, app: GatewayApp) -> None:
        found = build_witnessing(self._config.audit, audit=audit, clock=self._clock, ids=self._ids)
        if found is not None:
            witnessing, http = found
            self._stack.push_async_callback(http.aclose)
            self._stack.push_async_callback(self._cancel_tasks)  # before its client is closed
            app.tell("witness", witnessing.status)
            self._spawn(witnessing.run())

    def _open_log(self, fold_from: int) -> FileAuditLog:
        log = open_log(self._config, self._clock, fold=self._ledger.replay, fold_from=fold_from)
        _log.info("audit_open", dir=str(self._config.audit.dir), size=log.size, vkey=log.epochs[-1])
        return log

    async def _build_transports(
        self,
        transports: dict[str, Transport],
        pool: HttpPool,
        refresher: Refresher,
    ) -> None:
        config = self._config
        manifests = load_manifests(config)
        bindings = find_bindings(config, manifests)
        broker = build_broker(config, bindings, pool=pool, ids=self._ids, environ=os.environ)
        self._stack.push_async_callback(broker.close)
        await check_credentials(broker, bindings, self._clock)
        for name, manifest in manifests.items():
            server = config.servers[name]
            self._catalog.review(manifest, prefix=server.prefix)
            transport = build_transport(
                manifest,
                build_endpoint(server),
                pool=pool,
                clock=self._clock,
                limits=self._limits,
                broker=broker,
                on_list_changed=refresher.notice,
            )
            self._stack.push_async_callback(transport.close)
            transports[name] = transport

    def _parts(
        self,
        audit: FileAuditLog,
        transports: Mapping[str, Transport],
        refresher: Refresher,
        registered: Registered,
        kills: KillSwitch,
    ) -> Parts:
        return Parts(
            config=self._config,
            limits=self._limits,
            clock=self._clock,
            ids=self._ids,
            runs=self._runs,
            approvals=self._approvals,
            keys=SqlIdempotency(self._state),
            spent=SqlSpent(self._state),
            ledger=self._ledger,
            catalog=self._catalog,
            policy=self._policy.engine,
            releases=self._releases,
            shadow=self._shadow,
            audit=audit,
            token_keys=build_token_keys(self._config, log=audit, clock=self._clock, ids=self._ids),
            custody=build_custody(
                log=audit,
                holds=SqlHolds(self._state),
                clock=self._clock,
                ids=self._ids,
                catalog=self._catalog,
            ),
            transports=transports,
            refresher=refresher,
            ended_runs=self._forgetting.ended,
            registered=registered,
            kills=kills,
            people=build_people(
                self._config,
                state=self._state,
                audit=audit,
                clock=self._clock,
                ids=self._ids,
                registered=registered,
                kills=kills,
            ),
            authorization=build_authorization(self._config, state=self._state, clock=self._clock),
            trusted=self._trusted(),
            decisions=self._decisions,
            notices=start_notices(
                self._config.notify, audit=audit, ids=self._ids, stack=self._stack
            ),
        )

    def _trusted(self) -> IssuerTokens | None:
        issuers = self._config.trusted_issuers()
        if not issuers:
            return None
        http = build_client()
        self._stack.push_async_callback(http.aclose)
        return IssuerTokens(issuers, http=http, clock=self._clock)

    def _tools_changed(self, _server: str) -> None:
        tools = self._catalog.view().callable_tools(None)
        self._policy.engine.set_tools(
            {tool.id: (tool.server, tool.review.effect) for tool in tools}
        )

    async def tidy(self) -> None:
        """Keep what families spent, with the sequence number from which the log goes on."""
        await self._forgetting.tidy()
        if self._audit is not None:
            await self._ledger_store.keep(self._ledger, self._audit)

    async def _keep_up(self) -> None:
        """Let the state know soon that it has seen sign-outs: else a crash signs everybody out."""
        changes = 0 if self._audit is None else self._audit.sign_in_changes
        if changes != self._kept_changes:
            await self.tidy()
            self._kept_changes = changes

    async def _rotate_key(self) -> None:
        if self._audit is not None:
            max_age_h = self._config.audit.key_max_age_h
            await rotate_if_due(self._audit, self._clock, self._ids, max_age_h)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.create_task(work))

    async def _cancel_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _every(seconds: float, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Do `work` again and again; a failure is told and the next turn tries anew."""
    while True:
        await asyncio.sleep(seconds)
        await _forgiving(work)


async def _forgiving(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    try:
        await work()
    except CountersignError as error:
        _log.warning("background_work_failed", code=error.code)
    except Exception as error:  # noqa: BLE001 - one bad turn must not end expiry for good
        _log.error("background_work_failed", error=describe(error))


def _tell_failed_log(why: str) -> None:
    hint = "nothing is executed any more; see to the disk, or to what ended it, then restart"
    _log.error("audit_log_failed", why=why, hint=hint)


class _Server(uvicorn.Server):
    """Leaves signals to us: uvicorn would raise them again before the log is closed.

    `ending` is called when it is told to end.
    """

    def __init__(self, config: uvicorn.Config, ending: Callable[[], None]) -> None:
        super().__init__(config)
        self.ending: Final = ending

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Ask the server to end when told to; a second time does not wait for calls."""
        loop = asyncio.get_running_loop()
        for number in _ends():
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end."""
        self.ending()
        self.force_exit = self.should_exit
        super().handle_exit(sig, frame)


def _ends() -> list[signal.Signals]:
    """Return the signals that end a gateway: not a hang-up where it was started to outlive it."""
    hangs_up = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
    return [signal.SIGINT, signal.SIGTERM, *[signal.SIGHUP] * hangs_up]


async def _start(gateway: Gateway) -> bool:
    """Start it; False where it was told to end meanwhile."""
    starting, told = asyncio.create_task(gateway.start()), asyncio.Event()

    def end() -> None:
        if not told.is_set():
            told.set()
            starting.cancel()

    for number in _ends():
        asyncio.get_running_loop().add_signal_handler(number, end)
    try:
        await starting
    except asyncio.CancelledError:
        if not told.is_set():
            raise
    return not told.is_set()


async def _serve(config: Config, reached: Callable[[Step], None]) -> None:
    gateway = Gateway(config, reached=reached)
    try:
        if await _start(gateway):
            await _listen(config, gateway)
        _log.info("stopping")
    finally:
        await gateway.stop()


async def _listen(config: Config, gateway: Gateway) -> None:
    # What is alive now stays alive: the collector need not walk it for every call.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    host, port = config.address
    server = _Server(
        uvicorn.Config(
            gateway.app,  # type: ignore[arg-type]  # the same protocol under another name
            host=host,
            port=port,
            loop="uvloop",
            http=GuardedProtocol,
            ws="none",
            lifespan="off",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            log_config=None,  # its own lines are among ours, without messages of exceptions
            log_level="warning",
            timeout_graceful_shutdown=GRACE_S,
        ),
        gateway.expect_end,
    )
    _log.info("listening", url=f"http://{config.listen}", environment=config.environment)
    await server.serve()


def serve(config: Config, *, reached: Callable[[Step], None] = lambda _step: None) -> None:
    """Run the gateway until told to stop (SIGINT, SIGTERM, SIGHUP). `reached` as for `Gateway`."""
    configure_logging(config.log.format, config.log.level)
    uvloop.run(_serve(config, reached))
