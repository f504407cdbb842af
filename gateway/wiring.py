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
import sys
from collections.abc import Callable, Coroutine, Generator, Mapping
from importlib.metadata import version
from typing import Any, Final

import structlog
import uvicorn
import uvloop

from connectors.catalog import Catalog
from connectors.http_pool import HttpPool
from connectors.manifest import Manifest, UpstreamAuth, load_manifest
from connectors.refresh import Refresher
from connectors.upstreams import Endpoint, Transport, build_transport
from gateway.adapters.audit_keys import load_or_create, load_or_create_kek
from gateway.adapters.bundle_store import save_bundle
from gateway.adapters.file_audit import FileAuditLog
from gateway.adapters.jose_tokens import JoseIssuer, JoseVerifier
from gateway.adapters.outbox_relay import OutboxRelay
from gateway.adapters.policy_bundle import Bundle, load_bundle_dir
from gateway.adapters.policy_watch import PolicyWatcher
from gateway.adapters.regorus_policy import RegorusPolicy
from gateway.adapters.sql_approvals import SqlApprovals
from gateway.adapters.sql_idempotency import SqlIdempotency
from gateway.adapters.sql_ledger import SqlLedger
from gateway.adapters.sql_runs import SqlRuns
from gateway.adapters.sql_store import SqlState
from gateway.adapters.system import SystemClock, SystemIds
from gateway.adapters.token_keys import load_or_create_token_key, load_token_key
from gateway.config import Config
from gateway.config_models import HttpServerSection, StdioServerSection
from gateway.core.caller import CallerCache
from gateway.core.canonical import digest_of
from gateway.core.entry import Entry
from gateway.core.errors import ConfigurationError, CountersignError
from gateway.core.ledger import Ledger
from gateway.core.records import build_orphan
from gateway.core.refusal import Refusal, Stage
from gateway.core.token import Claims
from gateway.dispatch import Dispatcher, Step
from gateway.enforce import Enforcement
from gateway.holding import Deployment, HoldDesk
from gateway.http.app import GatewayApp, build_api
from gateway.http.approvals import ApprovalDeps
from gateway.http.approvals import build_router as build_approvals_router
from gateway.http.challenge import Challenges
from gateway.http.humans import HumanEntry, Humans
from gateway.http.issue_desk import IssueDeps
from gateway.http.mcp import McpEndpoint
from gateway.http.oauth import build_oauth_router
from gateway.http.origin import OriginCheck
from gateway.http.rest import RestEndpoint
from gateway.http.runs import build_runs_router
from gateway.http.status_tool import StatusTool
from gateway.http.tools_admin import ToolsAdmin
from gateway.judge import Judge
from gateway.logs import configure_logging
from gateway.refusals import RefusalRecorder

SWEEP_S: Final = 1.0
SNAPSHOT_S: Final = 30.0
GRACE_S: Final = 20
_log: Final = structlog.get_logger("gateway")

Server = HttpServerSection | StdioServerSection


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
        self._policy = RegorusPolicy(
            load_bundle_dir(config.policy.path),
            workers=config.policy.workers,
            deadline_ms=config.policy.deadline_ms,
        )
        self._ended_runs: set[str] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._stack = contextlib.AsyncExitStack()
        self._ready: dict[str, Callable[[], bool]] = {}
        self.app: GatewayApp | None = None

    async def start(self) -> None:
        """Bring everything up, in the order that each part needs. Raises `ConfigurationError`."""
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise

    async def _start(self) -> None:
        config, origin = self._config, self._config.audit.origin
        # 1. State and log. The log replays what the ledger snapshot has not seen yet.
        await self._state.open(environment=config.environment, log_origin=origin)
        self._stack.push_async_callback(self._state.close)
        sequence, families = await self._ledger_store.load()
        self._ledger.restore(families)
        audit = self._open_log(origin, sequence)
        await audit.start()
        self._stack.push_async_callback(audit.close)
        self._stack.push_async_callback(self._snapshot, audit)
        # 2. Policy. Nothing is decided before a bundle has passed its own tests.
        bundle = load_bundle_dir(config.policy.path)
        await self._policy.start()
        self._stack.push_async_callback(self._policy.stop)
        await self._note_bundle(audit, bundle)
        # 3. Upstreams.
        pool = HttpPool()
        self._stack.push_async_callback(pool.close)
        transports: dict[str, Transport] = {}
        refresher = Refresher(self._catalog, transports, changed=self._tools_changed)
        self._build_transports(transports, pool, refresher)
        await refresher.refresh_all()
        # 4. The path, then everything that was under way when the gateway last stopped.
        dispatcher = await self._build_path(audit, transports, refresher)
        await dispatcher.recover(audit.recovered.operations)
        for op, intent in audit.recovered.open_intents.items():
            await audit.record(build_orphan(op, intent.seq, intent.approval))
        self._stack.push_async_callback(dispatcher.close)
        # 5. What goes on by itself.
        self._stack.push_async_callback(self._cancel_tasks)
        self._spawn(refresher.run())
        self._spawn(_every(SWEEP_S, dispatcher.sweep))
        self._spawn(_every(SNAPSHOT_S, lambda: self._snapshot(audit)))
        if config.dev:
            self._spawn(self._watcher(audit).run())

    async def stop(self) -> None:
        """Let calls under way end, then take everything down in reverse."""
        await self._stack.aclose()

    def _open_log(self, origin: str, fold_from: int) -> FileAuditLog:
        config = self._config.audit
        signer, vkey = load_or_create(config.key, name=origin)
        log = FileAuditLog.open(
            config.dir,
            origin=origin,
            signer=signer,
            kek=load_or_create_kek(config.kek),
            clock=self._clock,
            limits=self._limits,
            deployment={
                "environment": self._config.environment,
                "issuer": self._config.tokens.issuer,
            },
            fold=self._ledger.replay,
            fold_from=fold_from,
            segment_max_bytes=config.segment_max_bytes,
        )
        _log.info("audit_open", dir=str(config.dir), size=log.size, vkey=vkey)
        return log

    def _build_transports(
        self,
        transports: dict[str, Transport],
        pool: HttpPool,
        refresher: Refresher,
    ) -> None:
        for server_id, server in self._config.servers.items():
            manifest = load_manifest(server.manifest)
            if manifest.id != server_id:
                raise ConfigurationError(
                    f"servers.{server_id}.manifest: the manifest is of `{manifest.id}`; name the "
                    "server as its manifest does"
                )
            self._catalog.review(manifest, prefix=server.prefix)
            transport = self._build_transport(server, manifest, pool, refresher)
            self._stack.push_async_callback(transport.close)
            transports[server_id] = transport

    def _build_transport(
        self, server: Server, manifest: Manifest, pool: HttpPool, refresher: Refresher
    ) -> Transport:
        given = server.auth
        auth = None if given is None else UpstreamAuth(given.header, given.value_from)
        if isinstance(server, HttpServerSection):
            endpoint = Endpoint(url=server.url, auth=auth, shared=server.shared)
        else:
            endpoint = Endpoint(
                command=server.command,
                env=server.env,
                cwd=server.cwd,
                auth=auth,
                shared=server.shared,
            )
        return build_transport(
            manifest,
            endpoint,
            pool=pool,
            clock=self._clock,
            limits=self._limits,
            environ=os.environ,
            on_list_changed=refresher.notice,
        )

    async def _build_path(
        self, audit: FileAuditLog, transports: Mapping[str, Transport], refresher: Refresher
    ) -> Dispatcher:
        config, clock, ids, limits = self._config, self._clock, self._ids, self._limits
        key = load_or_create_token_key(config.tokens.key)
        previous = [load_token_key(path) for path in config.tokens.previous_keys]
        verifier = JoseVerifier(
            [key, *previous],
            issuer=config.tokens.issuer,
            audience=config.public_url,
            environment=config.environment,
        )
        now_s = clock.now_ns() // 1_000_000_000
        self._ended_runs.update(await self._runs.find_ended(now_s))
        registry, humans = config.client_registry(), _people(config)
        callers, relay = CallerCache(), OutboxRelay(self._approvals, audit).drain
        endpoints = {name: _endpoint_digest(server) for name, server in config.servers.items()}
        refusals = RefusalRecorder(audit=audit, clock=clock, ids=ids, limits=limits)
        self._stack.push_async_callback(_forgiving, refusals.flush)
        self._spawn(_every(10.0, refusals.flush))
        judge = Judge(
            policy=self._policy,
            ledger=self._ledger,
            callers=callers,
            audit=audit,
            catalog=self._catalog.view,
            limits=limits,
        )
        desk = HoldDesk(
            store=self._approvals,
            runs=self._runs,
            relay=relay,
            people=humans.everyone(),
            owners=registry.owners,
            endpoints=endpoints,
            deployment=Deployment(
                config.tokens.issuer, config.environment, config.audit.origin
            ),
            clock=clock,
            ids=ids,
        )
        enforcement = Enforcement(
            tokens=verifier,
            catalog=self._catalog.view,
            judge=judge,
            audit=audit,
            transports=transports,
            holds=desk,
            refusals=refusals,
            callers=callers,
            revoked=self._revoked,
            clock=clock,
            limits=limits,
        )
        dispatcher = Dispatcher(
            store=self._approvals,
            runs=self._runs,
            desk=desk,
            judge=judge,
            enforcement=enforcement,
            relay=relay,
            refresh=refresher.refresh,
            active=lambda agent: registry.agent(agent) is not None,
            revoked=self._revoked,
            endpoints=endpoints,
            clock=clock,
            ids=ids,
            limits=limits,
            reached=self._reached,
        )

        async def refuse(stage: Stage, reason: str) -> None:
            refused = await refusals.refuse_stranger(ids.new(), Refusal(stage, reason))
            if refused.refusal.stage == "record":
                raise CountersignError("no record could be made", code=refused.refusal.code)

        issue = IssueDeps(
            site=config.site(),
            clients=registry,
            runs=self._runs,
            issuer=JoseIssuer(key, previous=previous),
            policy=self._policy,
            audit=audit,
            clock=clock,
            ids=ids,
            refuse=refuse,  # type: ignore[arg-type]  # the routes name only stages there are
            revoked=self._revoked,
            on_run_ended=self._ended_runs.add,
        )
        approvals = ApprovalDeps(
            store=self._approvals,
            humans=humans,
            clock=clock,
            ids=ids,
            relay=relay,
            on_approved=dispatcher.schedule,
            on_decided=desk.changed,
        )
        challenges = Challenges(config.public_url)
        origins = OriginCheck(config.public_url, dev=config.dev)
        self.app = GatewayApp(
            mcp=McpEndpoint(
                enforcement=enforcement,
                status_tool=StatusTool(enforcement=enforcement, desk=desk),
                catalog=self._catalog.view,
                challenges=challenges,
                origin=origins,
                ids=ids,
                limits=limits,
            ),
            rest=RestEndpoint(
                enforcement=enforcement,
                approvals=self._approvals,
                keys=SqlIdempotency(self._state),
                challenges=challenges,
                origin=origins,
                clock=clock,
                ids=ids,
                limits=limits,
            ),
            api=build_api(
                [
                    build_oauth_router(issue),
                    build_runs_router(issue),
                    build_approvals_router(approvals),
                    ToolsAdmin(humans=humans, states=self._catalog.states).router(),
                ],
                version("countersign"),
            ),
            ready=lambda: {name: check() for name, check in self._ready.items()},
        )
        self._ready |= {
            "audit": lambda: audit.healthy,
            "policy": lambda: bool(self._policy.worker_pids),
        }
        return dispatcher

    def _revoked(self, claims: Claims) -> bool:
        return claims.run_id in self._ended_runs

    def _tools_changed(self, _server: str) -> None:
        tools = self._catalog.view().callable_tools(None)
        self._policy.set_tools({tool.id: (tool.server, tool.review.effect) for tool in tools})

    async def _note_bundle(self, audit: FileAuditLog, bundle: Bundle) -> None:
        """Keep the bundle, so that its decisions can be recomputed; then say that it decides now."""
        await asyncio.to_thread(save_bundle, self._config.audit.dir / "bundles", bundle)
        fields = {"rev": bundle.revision, "packages": sorted(bundle.packages)}
        await audit.record(Entry(type="policy.activate", op=self._ids.new(), fields=fields))

    def _watcher(self, audit: FileAuditLog) -> PolicyWatcher:
        async def activate(bundle: Bundle) -> None:
            await self._policy.activate(bundle)
            await self._note_bundle(audit, bundle)

        return PolicyWatcher(self._config.policy.path, activate)

    async def _snapshot(self, audit: FileAuditLog) -> None:
        """Keep what families spent, with the sequence number from which the log goes on."""
        await self._ledger_store.save(audit.size, self._ledger.snapshot())

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


def _people(config: Config) -> Humans:
    """Everybody at the admin API. What policy calls a group is a role or a group here."""
    return Humans(
        HumanEntry(human.id, (*human.roles, *human.groups), human.secret_hash)
        for human in config.humans
    )


def _endpoint_digest(server: Server) -> str:
    """Where a server is: an approval for one place is no approval for another."""
    if isinstance(server, HttpServerSection):
        return digest_of({"url": server.url})
    return digest_of({"command": list(server.command), "cwd": str(server.cwd)})


class _Server(uvicorn.Server):
    """Leaves signals to us: uvicorn would raise them again before the log is closed."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Ask the server to end on SIGINT and SIGTERM; a second one does not wait for calls."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield


async def _serve(config: Config, reached: Callable[[Step], None]) -> None:
    gateway = Gateway(config, reached=reached)
    await gateway.start()
    try:
        # What is alive now stays alive: the collector need not walk it for every call.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)
        # The commit thread gets its turn within a millisecond, however busy the loop is.
        sys.setswitchinterval(0.001)
        host, port = config.address
        server = _Server(
            uvicorn.Config(
                gateway.app,  # type: ignore[arg-type]  # the same protocol under another name
                host=host,
                port=port,
                loop="uvloop",
                http="httptools",
                ws="none",
                lifespan="off",
                access_log=False,
                proxy_headers=False,
                server_header=False,
                log_level="warning",
                timeout_graceful_shutdown=GRACE_S,
            )
        )
        _log.info("listening", url=f"http://{config.listen}", environment=config.environment)
        await server.serve()
        _log.info("stopping")
    finally:
        await gateway.stop()


def serve(config: Config, *, reached: Callable[[Step], None] = lambda _step: None) -> None:
    """Run the gateway until it is told to stop (SIGINT, SIGTERM). `reached` as for `Gateway`."""
    configure_logging(config.log.format, config.log.level)
    uvloop.run(_serve(config, reached))
