"""MCP over stdio: a process for each run, or one for all where the manifest says `shared` (§7).

A process is started when a call needs it, ends when nobody has used it for a while, and is ended
with the gateway. One that dies is replaced at the next call, after a pause that grows.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Final

import structlog
from msgspec import Struct

from connectors import mcp_wire as wire
from connectors.credential_use import Credentials, guard_relay, refuse_repeated
from connectors.listing import collect, read_digests
from connectors.mcp_wire import undelivered
from connectors.stdio_process import StdioProcess, spawn
from gateway.core.calls.call import RecordedIntent, Relay, UpstreamResult
from gateway.core.credentials import (
    CredentialAsk,
    UpstreamCredential,
    build_needles,
    holds_any,
)
from gateway.core.errors import UpstreamError
from gateway.core.limits import Limits
from gateway.core.ports import Clock

_log = structlog.get_logger("connectors.stdio")

ENVIRONMENT: Final = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR")
"""All that a server inherits; anything else must be given in the configuration."""

_SHARED: Final = ""
"""The key of the process that belongs to no run: the shared one, and the one asked for tools."""

_NS: Final = 1_000_000_000
_PAUSE_FIRST_NS: Final = _NS // 2
_PAUSE_MAX_NS: Final = 30 * _NS


class StdioLimits(Struct, frozen=True):
    """Bounds on the processes of one server. `idle_s` in seconds."""

    processes_max: int = 32
    idle_s: float = 300.0


def build_environment(own: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    """Return what a server sees: the allow-list out of `environ`, and what is configured for it."""
    return {name: environ[name] for name in ENVIRONMENT if name in environ} | dict(own)


class McpStdioTransport:
    """Reaches an MCP server that the gateway runs itself. Keeps `ports.ToolTransport`'s promises.

    ::

        McpStdioTransport(
            "git", ["mcp-server-git", "--repository", "repo"],
            limits=Limits(),
            clock=clock,                          # core.ports.Clock; only monotonic_ns is read
            env={"GIT_AUTHOR_NAME": "agent"},     # beyond the allow-list
            credentials=None,                     # whose `env` each new process gets, too
            cwd=None,
            shared=manifest.shared,
            stdio_limits=StdioLimits(),
            sleep=asyncio.sleep,
            on_list_changed=refresher.notice,     # called with the server id
        )

    `start` proves that the server runs; without it the first call starts one. `close` ends every
    process and whatever it started in its process group.
    """

    def __init__(
        self,
        server_id: str,
        command: Sequence[str],
        *,
        limits: Limits,
        clock: Clock,
        env: Mapping[str, str] | None = None,
        credentials: Credentials | None = None,
        cwd: Path | None = None,
        shared: bool = False,
        stdio_limits: StdioLimits | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        on_list_changed: Callable[[str], None] | None = None,
    ) -> None:
        self.server_id: Final = server_id
        self._command = tuple(command)
        self._limits = limits
        self._stdio_limits = stdio_limits or StdioLimits()
        self._clock = clock
        self._env = build_environment(env or {}, os.environ)
        self._credentials = credentials
        self._given = UpstreamCredential()
        self._needles: tuple[bytes, ...] = ()
        self._cwd = cwd
        self._shared = shared
        self._sleep = sleep
        self._on_list_changed = on_list_changed
        self._numbers = count(1)
        self._running: dict[str, asyncio.Task[StdioProcess]] = {}
        self._definitions: list[bytes] | None = None
        self._listed: Mapping[str, str] | None = None
        self._failures = 0
        self._not_before_ns = 0
        self._endings: set[asyncio.Task[None]] = set()
        self._reaper: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def processes(self) -> int:
        """How many processes run or are being started."""
        return len(self._running)

    async def start(self) -> None:
        """Start the server once. Raises `UpstreamError` `not_sent` when it cannot be started."""
        self._closed = False
        if self._reaper is None:
            self._reaper = asyncio.create_task(self._reap_forever())
        await self._process(_SHARED)

    async def close(self) -> None:
        """End every process, and forget what it left undone. Calls in flight end `unknown`."""
        self._closed = True
        running, self._running = self._running, {}
        reaper, self._reaper = self._reaper, None
        for task in (reaper, *running.values()):
            if task is not None:
                task.cancel()  # of no effect on a process that has started
        if reaper is not None:
            await asyncio.gather(reaper, return_exceptions=True)
        started = await asyncio.gather(*running.values(), return_exceptions=True)
        await asyncio.gather(*(p.stop() for p in started if isinstance(p, StdioProcess)))
        await asyncio.gather(*self._endings)

    async def call(self, intent: RecordedIntent, relay: Relay | None) -> UpstreamResult:
        """Send the call, once. See `ports.ToolTransport.call`."""
        key = _SHARED if self._shared else intent.intent.resolved.call.claims.run_id
        process = await self._process(key)
        await self._check_offer(process, intent.intent.resolved.tool.name)
        wire.require_go_ahead(intent)
        number = next(self._numbers)
        timeout_ms = min(self._limits.upstream_timeout_ms, intent.intent.deadline_ms)
        try:
            answer = await process.request(
                number,
                wire.build_call(number, intent, modern=False),
                timeout_s=timeout_ms / 1000,
                intent=intent,
                relay=guard_relay(relay, process.needles),
            )
        finally:
            process.used_ns = self._clock.monotonic_ns()
        refuse_repeated(answer, process.needles)
        self._failures = 0
        return answer

    async def list_tools(self) -> list[bytes]:
        """Return the definition of every tool on offer, each byte for byte as sent.

        Raises `UpstreamError`.
        """
        process = await self._process(_SHARED)
        definitions = await self._list(process)
        if definitions != self._definitions:
            self._definitions, self._listed = definitions, read_digests(definitions)
        process.offered = self._listed
        process.used_ns = self._clock.monotonic_ns()
        return definitions

    async def _list(self, process: StdioProcess) -> list[bytes]:
        return await collect(
            lambda cursor: self._list_page(process, cursor),
            within_s=self._limits.upstream_timeout_ms / 1000,
        )

    async def _check_offer(self, process: StdioProcess, name: str) -> None:
        """Raise `UpstreamError` `not_sent` unless a process offers a tool as it was listed.

        Stops a server that was replaced on the disk: it would run what nobody has reviewed, for
        every run that comes, while the process that is listed stays what it was.
        """
        if self._listed is None:
            return
        if process.offered is None:
            try:
                process.offered = read_digests(await self._list(process))
            except UpstreamError as error:
                raise undelivered(f"its tools cannot be listed: {error}") from error
        offered = process.offered.get(name)
        if offered is None or offered == self._listed.get(name):
            return  # what it does not offer, such as before it is ready, it does not run either
        listed = self._running.get(_SHARED)
        if listed is not None and listed.done() and listed.result() is not process:
            self._retire(listed.result(), unless_after=process)
        self._notice()
        raise undelivered("the server offers this tool otherwise than it was listed")

    def _retire(self, listed: StdioProcess, *, unless_after: StdioProcess) -> None:
        """End the process that is listed, so that the next listing is that of a new one."""
        if listed.started_ns <= unless_after.started_ns:
            del self._running[_SHARED]
            self._stop(listed)

    async def _list_page(self, process: StdioProcess, cursor: str | None) -> UpstreamResult:
        number = next(self._numbers)
        params = wire.build_params(modern=False, cursor=cursor)
        body = wire.build_request(number, "tools/list", params)
        timeout_s = self._limits.upstream_timeout_ms / 1000
        answer = await process.request(number, body, timeout_s=timeout_s)
        refuse_repeated(answer, process.needles)
        return answer

    def end_run(self, run_id: str) -> None:
        """End the process of a run that is over. One with calls in flight is left to `reap`."""
        task = self._running.get(run_id)
        if task is not None and task.done() and not task.result().in_flight:
            del self._running[run_id]
            self._stop(task.result())

    async def reap(self) -> None:
        """End the processes that nobody has used for `idle_s`."""
        oldest_ns = self._clock.monotonic_ns() - int(self._stdio_limits.idle_s * _NS)
        idle = [
            task.result()
            for key, task in self._running.items()
            if task.done() and not task.result().in_flight and task.result().used_ns <= oldest_ns
        ]
        self._running = {
            key: task
            for key, task in self._running.items()
            if not task.done() or task.result() not in idle
        }
        # Whoever waits may give up; what is taken out of use is ended all the same.
        await asyncio.gather(*(asyncio.shield(self._stop(process)) for process in idle))

    def _stop(self, process: StdioProcess) -> asyncio.Task[None]:
        """End a process that is no longer among the running ones."""
        ending = asyncio.create_task(process.stop())
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)
        return ending

    async def _reap_forever(self) -> None:
        while True:
            await self._sleep(self._stdio_limits.idle_s / 4)
            await self.reap()

    # Processes

    async def _process(self, key: str) -> StdioProcess:
        """Return the live process of `key`. Raises `UpstreamError`, always `not_sent`."""
        if key not in self._running:
            self._check_pause()
            if self._full:
                await self.reap()
        task = self._running.get(key)
        if task is None:
            if self._full:
                _log.warning("stdio_server_full", server=self.server_id, processes=self.processes)
                raise undelivered("as many server processes run as may; try again later")
            task = self._running[key] = asyncio.create_task(self._start(key))
            task.add_done_callback(_retrieve)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise undelivered("the gateway is stopping") from None
            raise

    @property
    def _full(self) -> bool:
        return len(self._running) >= self._stdio_limits.processes_max

    def _check_pause(self) -> None:
        if self._closed:
            raise undelivered("the gateway is stopping")
        if self._clock.monotonic_ns() < self._not_before_ns:
            raise undelivered("the server died and is not started again yet; try again later")

    async def _environment(self) -> dict[str, str]:
        """What a new process sees, the gateway's credential for it included."""
        if self._credentials is None:
            return self._env
        given = await self._credentials.obtain(CredentialAsk(server=self.server_id))
        if not given.shows_same(self._given):  # the last one is still looked for, too
            self._needles = build_needles((*given.secrets, *self._given.secrets))
            self._given = given
        return self._env | dict(given.env)

    async def _start(self, key: str) -> StdioProcess:
        process = None
        try:
            env = await self._environment()
        except BaseException:
            self._running.pop(key, None)  # it was never started: the next call may try at once
            raise
        needles = self._needles  # its own for as long as it lives, however often they change
        try:
            process = await spawn(
                self._command,
                env=env,
                cwd=self._cwd,
                max_bytes=self._limits.result_max_bytes,
                died=lambda process: self._bury(key, process),
                list_changed=self._notice,
            )
            process.needles = needles
            await process.handshake(self._limits.upstream_timeout_ms / 1000)
        except BaseException as error:
            if process is not None:  # in a task of its own, which nobody cancels
                await asyncio.shield(self._stop(process))
            self._fail(key)
            if isinstance(error, OSError | UpstreamError):
                said = str(error)
                if isinstance(error, OSError) and error.filename is not None:
                    said = f"{error.strerror}: `{error.filename}`"
                if holds_any(said.encode(), needles):  # it tells what it was given
                    said = "what it said repeats the gateway's credential"
                raise undelivered(f"`{self._command[0]}` did not start: {said}") from None
            raise
        process.started_ns = process.used_ns = self._clock.monotonic_ns()
        return process

    def _bury(self, key: str, process: StdioProcess) -> None:
        """Note the death of a process that had started; what it left running is ended."""
        task = self._running.get(key)
        if task is None or not task.done() or task.result() is not process:
            return  # it died while it was started: `_start` sees to it
        _log.warning("stdio_server_died", server=self.server_id, pid=process.pid)
        self._fail(key)
        self._stop(process)

    def _fail(self, key: str) -> None:
        """Forget a process, and let the next one wait: not after one failure, longer after each."""
        self._running.pop(key, None)
        self._failures += 1
        if self._failures > 1:
            pause_ns = min(_PAUSE_FIRST_NS << min(self._failures - 2, 16), _PAUSE_MAX_NS)
            self._not_before_ns = self._clock.monotonic_ns() + pause_ns

    def _notice(self) -> None:
        if self._on_list_changed is not None:
            self._on_list_changed(self.server_id)


def _retrieve(task: asyncio.Task[StdioProcess]) -> None:
    """Take note of an exception that everybody who waited for it has been cancelled for."""
    if not task.cancelled():
        task.exception()
