"""A real OPA as the policy engine (DESIGN §3), behind `PolicyEngine`. What goes wrong denies."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final, Literal

from msgspec import Struct, UnsetType

from gateway.adapters.opa.opa_asking import (
    Active,
    Ask,
    Pending,
    ask_counted,
    ask_many,
    ask_one,
    check_revision,
    read_raw,
)
from gateway.adapters.opa.opa_bundle import name_root
from gateway.adapters.opa.opa_link import OpaAnswer, OpaLink
from gateway.adapters.opa.opa_push import PULLED, push, remove, remove_others
from gateway.adapters.opa.opa_routes import Routes
from gateway.adapters.opa.opa_shelf import Shelf
from gateway.adapters.policy.policy_bundle import Bundle
from gateway.adapters.policy.policy_trial import try_bundle
from gateway.adapters.regorus.regorus_policy import INPUT_MAX_BYTES, RegorusPolicy
from gateway.core.errors import CountersignError, PolicyError
from gateway.core.limits import Limits
from gateway.core.policy.decision import Decision, Phase
from gateway.core.policy.policy_answer import INVALID, deny, read_answer

ASKED_MAX: Final = 2048
_BATCH: Final = 32
"""Inputs in one request."""

_LOOK_S: Final = 0.1
_TRIAL_S: Final = 10.0


class OpaTimes(Struct, frozen=True):
    """Seconds: until an OPA must be there at the start, must have pulled, and between looks."""

    start_s: float = 10.0
    pull_s: float = 120.0
    watch_s: float = 1.0


_TIMES: Final = OpaTimes()


class OpaPolicy:
    """`PolicyEngine` on a real OPA. Nothing is asked before `start`.

    `bundles`: `push` puts each bundle into OPA, which then serves no other gateway; `pull` has OPA
    fetch it from `shelf`. `deadline_ms` bounds each answer, the way there and back included.
    `report` is told what is wrong with OPA, and None once nothing is.
    """

    def __init__(
        self,
        bundle: Bundle,
        link: OpaLink,
        *,
        bundles: Literal["push", "pull"] = "push",
        deadline_ms: int = Limits().policy_deadline_ms,
        times: OpaTimes = _TIMES,
        report: Callable[[str | None], None] = lambda _: None,
    ) -> None:
        self.shelf = Shelf()
        self._bundle = bundle
        self._link = link
        self._pulls = bundles == "pull"
        self._deadline_s = deadline_ms / 1000
        self._times = times
        self._report = report
        self._active: Active | None = None
        self._pending: Pending | None = None
        self._tools: dict[str, tuple[str, str]] = {}
        self._under_way = 0
        self._swap = asyncio.Lock()
        self._trouble: str | None = ""
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def revision(self) -> str:
        """`sha256:…` of the active bundle (before `start`: of the one given)."""
        return self._active.revision if self._active else self._bundle.revision

    @property
    def endpoint(self) -> str:
        """Where OPA is."""
        return str(self._link.endpoint)

    @property
    def healthy(self) -> bool:
        """Whether OPA held the active bundle when it was last looked at."""
        return self._trouble is None

    async def start(self) -> None:
        """Reach OPA and have it hold the bundle; where it pulls, it may do so later.

        Raises `ConfigurationError` (`policy_invalid`, `policy_selftest_failed`) when the bundle
        may not be used and `PolicyError` when no OPA is there within `times.start_s`.
        """
        await self._link.open()
        await self._reach()
        await self.activate(self._bundle)
        if not self._pulls:
            await remove_others(self._link, name_root(self.revision))
        await self._look()
        self._spawn(self._watch())

    async def stop(self) -> None:
        """Ask no more. What was pushed stays in OPA until the next gateway comes."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._active = None
        self._trouble = "the policy engine was stopped"
        await self._link.close()

    async def activate(self, bundle: Bundle) -> None:
        """Have OPA hold a bundle, try it there and in the embedded engine, and switch to it.

        When anything is wrong with it, it raises as `start` does, and the old bundle stays.
        """
        async with self._swap:
            await _try_embedded(bundle)
            if self._pulls:
                await self._offer(Active(bundle, PULLED, self._tools))
            else:
                await self._push(bundle)

    def set_tools(self, tools: Mapping[str, tuple[str, str]]) -> None:
        """Tell which tools there are: id → (server, effect). Replaces what was told before."""
        self._tools = dict(tools)
        pending = self._pending.active if self._pending else None
        for active in (self._active, pending):
            if active is not None:
                active.routes = Routes(active.bundle.packages, self._tools)

    def reads_ledger(self, tool_id: str, phase: Phase) -> bool:
        """See `PolicyEngine`."""
        return self._running().routes.reads_ledger(tool_id, phase)

    def reads_day(self, tool_id: str, phase: Phase) -> bool:
        """See `PolicyEngine`."""
        return self._running().routes.reads_day(tool_id, phase)

    def concerns(self, tool_id: str, phase: Phase) -> bool:
        """See `PolicyEngine`."""
        return self._running().routes.concerns(tool_id, phase)

    async def decide(self, tool_id: str, phase: Phase, document: bytes) -> Decision:  # noqa: ARG002 - the port's
        """See `PolicyEngine`.

        `PolicyError` codes: `policy_timeout`, `policy_error` (OPA failed on this input),
        `policy_revision_foreign` (another bundle answered), `policy_overloaded` (retryable),
        `policy_unavailable`.
        """
        _check_size(document)
        ask = ask_one(self._link, document, self._deadline_s)
        active, answer = await self._ask(ask)
        if answer is None:
            return deny(INVALID, active.revision, "what OPA answered is no answer")
        return read_answer(read_raw(answer.decision), active.revision)

    async def decide_many(self, items: Sequence[tuple[str, bytes]], phase: Phase) -> list[Decision]:  # noqa: ARG002 - the port's
        """See `PolicyEngine`. Several in one request, which may take as long as all of them."""
        documents = [document for _, document in items]
        for document in documents:
            _check_size(document)
        batches = [documents[at : at + _BATCH] for at in range(0, len(documents), _BATCH)]
        found = await asyncio.gather(*map(self._decide_batch, batches), return_exceptions=True)
        for each in found:
            if isinstance(each, BaseException):
                raise each
        return [decision for each in found if isinstance(each, list) for decision in each]

    async def _decide_batch(self, documents: Sequence[bytes]) -> list[Decision]:
        active, answer = await self._ask(ask_many(self._link, documents, self._deadline_s))
        if answer is None:
            return [deny(INVALID, active.revision, "what OPA answered is no answer")] * len(
                documents
            )
        found = {} if isinstance(answer.decisions, UnsetType) else answer.decisions
        raws = (
            read_raw(found[key]) if (key := str(n)) in found else None
            for n in range(len(documents))
        )
        return [read_answer(raw, active.revision) for raw in raws]

    async def _ask(self, ask: Ask) -> tuple[Active, OpaAnswer | None]:
        """Return an answer of the active bundle, and that bundle.

        INVARIANT: nothing is believed that another bundle answered.
        """
        if self._under_way >= ASKED_MAX:
            raise PolicyError(
                "too many decisions are waiting; try again",
                code="policy_overloaded",
                retryable=True,
            )
        self._under_way += 1
        try:
            active = self._settled()
            answer = await ask_counted(active, ask)
            if self._is_pending(answer):
                await self._turn()
                active = self._settled()
                answer = await ask_counted(active, ask)
        finally:
            self._under_way -= 1
        check_revision(answer, active.revision)
        return active, answer

    def _is_pending(self, answer: OpaAnswer | None) -> bool:
        pending = self._pending
        return (
            pending is not None
            and answer is not None
            and answer.revision == pending.active.revision
        )

    async def _turn(self) -> None:
        """OPA has pulled the next bundle before we knew: wait until it is tried."""
        if (pending := self._pending) is not None:
            pending.seen.set()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(pending.done.wait(), self._deadline_s)

    def _running(self) -> Active:
        if self._active is None:
            raise PolicyError("the policy engine is not running; start it first")
        return self._active

    def _settled(self) -> Active:
        active = self._running()
        if not active.settled:
            raise PolicyError(f"{self._link.endpoint} has not pulled the bundle yet")
        return active

    # How a bundle gets into OPA

    async def _push(self, bundle: Bundle) -> None:
        active = Active(bundle, await push(self._link, bundle), self._tools)
        old = self._active
        try:
            await self._try(active)
        except BaseException:
            if old is None or old.revision != bundle.revision:
                with contextlib.suppress(PolicyError):
                    await remove(self._link, name_root(bundle.revision))
            raise
        self._switch(active)
        if old is not None and old.revision != bundle.revision:
            self._spawn(self._retire(old))

    async def _offer(self, active: Active) -> None:
        await self.shelf.put(active.bundle)
        if self._active is None:
            self._active, self._bundle = active, active.bundle
            return
        pending = self._pending = Pending(active)
        try:
            await self._wait_until_pulled(pending)
            await self._try(active)
        except BaseException:
            await self.shelf.put(self._active.bundle)
            raise
        else:
            self._switch(active)
        finally:
            self._pending = None
            pending.done.set()

    async def _wait_until_pulled(self, pending: Pending) -> None:
        try:
            async with asyncio.timeout(self._times.pull_s):
                while not pending.seen.is_set():
                    if await self._holds(pending.active):
                        return
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(pending.seen.wait(), _LOOK_S)
        except TimeoutError:
            raise PolicyError(
                f"{self._link.endpoint} did not pull the bundle within {self._times.pull_s:g} s; "
                "see what its log says of bundles"
            ) from None

    def _switch(self, active: Active) -> None:
        active.settled = True
        self._active, self._bundle = active, active.bundle
        self._tell(None)

    async def _try(self, active: Active) -> None:
        async def decide(_tool: str, _phase: Phase, document: bytes) -> Decision:
            answer = await ask_one(self._link, document, _TRIAL_S)(active.place)
            check_revision(answer, active.revision)
            return read_answer(
                None if answer is None else read_raw(answer.decision), active.revision
            )

        await try_bundle(decide)

    async def _retire(self, old: Active) -> None:
        await old.drained()
        async with self._swap:
            if self._running().revision != old.revision:  # it may be in use again by now
                with contextlib.suppress(PolicyError):  # the next start takes it away
                    await remove(self._link, name_root(old.revision))

    # Whether it is still there

    async def _reach(self) -> None:
        """Wait until OPA is there: it may have been started a moment later."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._times.start_s
        while True:
            try:
                return await self._link.check(max(0.1, min(2.0, until - loop.time())))
            except PolicyError as error:
                if loop.time() >= until:
                    raise PolicyError(f"no OPA to decide: {error}") from None
            await asyncio.sleep(_LOOK_S)

    async def _holds(self, active: Active) -> bool:
        try:
            answer = await self._link.ask(active.place.one, b"{}", _TRIAL_S)
        except PolicyError:
            return False
        return answer is not None and answer.revision == active.revision

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._times.watch_s)
            await self._look()

    async def _look(self) -> None:
        """See that OPA holds the bundle. One that was pushed and is gone is pushed again."""
        active = self._running()
        try:
            answer = await self._link.ask(active.place.one, b"{}", _TRIAL_S)
            if active is not self._active or self._pending is not None:
                return
            if answer is None or answer.revision != active.revision:
                await self._restore()
            elif not active.settled:
                await self._try(active)
                active.settled = True
        except CountersignError as error:
            self._tell(str(error))
        else:
            self._tell(None)

    async def _restore(self) -> None:
        if self._pulls:
            raise PolicyError(f"{self._link.endpoint} has not pulled the bundle yet")
        async with self._swap:
            await push(self._link, self._running().bundle)

    def _tell(self, trouble: str | None) -> None:
        if trouble != self._trouble:
            self._trouble = trouble
            self._report(trouble)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _check_size(document: bytes) -> None:
    if len(document) > INPUT_MAX_BYTES:
        text = f"the input has {len(document)} bytes; policy is asked about {INPUT_MAX_BYTES}"
        raise PolicyError(text, code="policy_error")


async def _try_embedded(bundle: Bundle) -> None:
    """See that the embedded engine takes a bundle: it is what decisions are recomputed with."""
    engine = RegorusPolicy(bundle, workers=1, deadline_ms=int(_TRIAL_S * 1000))
    await engine.start()
    await engine.stop()
