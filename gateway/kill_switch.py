"""The kill switch of a running gateway: in force at once, durable, on record, shared (DESIGN §4).

The order of each step decides what a crash can do:

- A kill is in force in memory before anything is waited for; then in the state and in the log,
  and only then answered. Whichever of the two a crash kept, the next start puts into the other.
- What ends a kill is on record first, then out of the state, then out of memory: no call goes
  ahead on a kill that the log still says stands. A lift that broke off leaves the kill standing
  until the next start reads the log, which is right where the two differ.

Other processes share the state. `poll` reads it; a process that could not for `STALE_NS` does not
know what was stopped meanwhile, and refuses every effect until it does.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

import structlog

from gateway.core.approvals.declined import Declined
from gateway.core.catalog import Tool
from gateway.core.entry import Entry, Receipt
from gateway.core.errors import CountersignError
from gateway.core.kills.kill import (
    FEED_STALE,
    REVOCATIONS,
    Kill,
    KillSet,
    KillStore,
    Kind,
    Why,
    aim,
    build_kill_lift,
    build_kill_set,
    name_revocation,
    name_target,
)
from gateway.core.kills.stopped import StoppedPeople
from gateway.core.ports import Clock, Ids
from gateway.core.tokens.token import Claims
from gateway.unbroken import Unbroken

POLL_S: Final = 0.25
"""How often the state is asked what other processes stopped, in seconds."""

LOOK_S: Final = 0.5
"""How long a call waits for a look out of turn, in seconds."""

STALE_NS: Final = 1_000_000_000
"""The age of the last good poll past which nothing but reads goes on, in nanoseconds."""

_NOT_ENDED: Final = object()
_log: Final = structlog.get_logger("gateway.kills")


class KillLog(Protocol):
    """What the switch needs of the log."""

    async def record(self, entry: Entry) -> Receipt:
        """Write a record durably, once for each event id. Raises `AuditError`."""
        ...

    def knows(self, event_id: str) -> bool:
        """Whether the log holds an entry of this event id."""
        ...

    def key_id(self, subject: str) -> str:
        """Return what stands for a data subject in records."""
        ...


class KillSwitch:
    """What is stopped, and who may stop it is decided at the door (`gateway.http.kill_admin`).

    INVARIANT: whatever fails, a kill that was asked for is in force in this process.
    """

    def __init__(
        self,
        *,
        store: KillStore,
        log: KillLog,
        clock: Clock,
        ids: Ids,
        credentials: Callable[[str], Sequence[str]] = lambda _server: (),
        stopped: StoppedPeople | None = None,
    ) -> None:
        self._store: Final = store
        self._log: Final = log
        self._clock: Final = clock
        self._ids: Final = ids
        self._set: Final = KillSet(credentials=credentials, key_id=log.key_id)
        self._stopped: Final = StoppedPeople() if stopped is None else stopped
        self._unstored: Final[dict[str, Kill]] = {}
        self._unrecorded: Final[dict[str, Kill]] = {}
        self._revision: int | None = None
        self._good_ns = clock.monotonic_ns()
        # One at a time at the store: what is read was not overtaken by what is written.
        self._turn: Final = asyncio.Lock()
        self._looking: asyncio.Task[None] | None = None
        self._unbroken: Final = Unbroken()

    # Asked on the path

    def barred(self, claims: Claims, tool: Tool | None = None) -> str | None:
        """Return the refusal code that bars these claims, here or at `tool` (`core.ports.Barred`).

        With a tool that does more than read, also where nobody knows any more what is stopped.
        """
        code = self._set.find(claims, tool)
        if code is None and tool is not None and tool.review.effect != "read" and self.is_stale():
            return FEED_STALE
        return code

    def bars_person(self, person: str) -> bool:
        """Whether a person is stopped: no sign-in, no session, and no votes."""
        return self._set.has_person(person)

    def voids(self, person: str, at_s: int) -> bool:
        """Whether a vote or session of then is void for good: its person was stopped since."""
        return self._stopped.voids(self._log.key_id(person), at_s)

    def bars_tool(self, claims: Claims, tool: Tool) -> bool:
        """Whether a tool is stopped for these claims; asked where nothing takes effect."""
        return self._set.find(claims, tool) is not None

    def is_stale(self) -> bool:
        """Whether the last good look at the state is too old to allow an effect."""
        return self._clock.monotonic_ns() - self._good_ns > STALE_NS

    @property
    def age_ns(self) -> int:
        """The age of the last good look at the state, in nanoseconds."""
        return self._clock.monotonic_ns() - self._good_ns

    # Asked by people

    def standing(self) -> list[Kill]:
        """Return what is stopped, oldest first, revocations included."""
        return self._set.standing()

    async def kill(
        self, kind: Kind, target: str, *, by: str = "", reason: str = "", until: int | None = None
    ) -> Kill:
        """Stop a target: in force when this is first awaited, durable and on record on return.

        Raises `CountersignError`, and the kill is in force here all the same; it is stored and
        recorded as soon as that works again.
        """
        kill = Kill(
            id=name_revocation(target) if kind == "token" else self._ids.new(),
            kind=kind,
            target=aim(kind, target),
            at=self._now_s(),
            until=until,
            by=by,
            reason=reason,
        )
        self._add(kill)
        self._unstored[kill.id] = self._unrecorded[kill.id] = kill
        await self._unbroken.finish(self._keep(kill))
        return kill

    async def lift(self, kind: Kind, target: str, *, by: str, reason: str) -> list[Kill] | Declined:
        """Let a target go on, whoever stopped it and however often; on record before it does.

        Raises `CountersignError`, and then it stays stopped.
        """
        if kind in REVOCATIONS:
            return Declined("kill_final", "what was revoked stays revoked; issue a new token")
        return await self._unbroken.finish(self._lift(kind, aim(kind, target), by, reason))

    # By itself

    async def start(self, recorded: Mapping[str, Kill | None]) -> None:
        """Bring state and log to one word, before anything is served.

        `recorded`: by id, each kill that the log says stands; None for one that it says ended.
        """
        async with self._turn:
            loaded = await self._store.load(None)
            kills = {kill.id: kill for kill in (loaded[1] if loaded is not None else ())}
            lifted = [kill_id for kill_id in kills if recorded.get(kill_id, _NOT_ENDED) is None]
            if lifted:  # a lift that broke off, or a state put back from a backup
                await self._store.end(lifted)
            missing = await self._find_missing(kills, recorded)
            for kill in missing:
                await self._store.put(kill)
            for kill in (*kills.values(), *missing):
                if kill.id not in lifted:
                    self._take_up(kill)
            await self._record_all()
        await self.poll()

    async def poll(self) -> None:
        """Look at what other processes did, end what ran out, store and record what is not yet.

        Raises `CountersignError` where the state does not answer.
        """
        async with self._turn:
            started = self._clock.monotonic_ns()
            for kill in list(self._unstored.values()):
                await self._put(kill)
            loaded = await self._store.load(self._revision)
            self._good_ns = started
            if loaded is not None:
                await self._follow(*loaded)
            await self._record_all()
            await self._end_spent()

    async def look(self) -> None:
        """Look out of turn, for `LOOK_S` at most, whatever comes of it.

        A machine that was busy for a second has missed its turns, and that alone is no reason to
        refuse: who asks may wait a moment.
        """
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._forgiving_poll())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S):
                await asyncio.shield(self._looking)

    async def _forgiving_poll(self) -> None:
        with contextlib.suppress(CountersignError):  # told by the next turn
            await self.poll()

    async def run(self) -> None:
        """Poll until cancelled. What fails is told once for each spell of failure."""
        failing = ""
        while True:
            await asyncio.sleep(POLL_S)
            try:
                await self.poll()
                failing = ""
            except CountersignError as error:
                if error.code != failing:
                    _log.warning("kill_feed_failed", code=error.code)
                failing = error.code

    async def close(self) -> None:
        """Wait until every kill asked for is kept."""
        await self._unbroken.close()

    # Steps

    async def _keep(self, kill: Kill) -> None:
        """Store and record at the same time: neither waits for the other to fail."""
        done = await asyncio.gather(
            self._put_in_turn(kill), self._record(kill), return_exceptions=True
        )
        for failed in done:
            if failed is not None:
                raise failed

    async def _put_in_turn(self, kill: Kill) -> None:
        async with self._turn:
            if kill.id in self._unstored:
                await self._put(kill)

    async def _put(self, kill: Kill) -> None:
        self._know(await self._store.put(kill))
        self._unstored.pop(kill.id, None)

    def _know(self, revision: int) -> None:
        """Note a change of our own: where nobody else changed anything, there is no news in it."""
        if self._revision is not None and revision == self._revision + 1:
            self._revision = revision

    async def _record(self, kill: Kill) -> None:
        await self._log.record(build_kill_set(kill, self._ids.new(), self._log.key_id))
        self._unrecorded.pop(kill.id, None)

    async def _record_all(self) -> None:
        for kill in list(self._unrecorded.values()):
            await self._record(kill)

    async def _lift(self, kind: Kind, target: str, by: str, reason: str) -> list[Kill] | Declined:
        async with self._turn:
            found = self._set.of(kind, target)
            if not found:
                return Declined("kill_not_found", "nothing of this kind and name is stopped")
            for kill in found:
                await self._end(kill, "command", by, reason)
        return found

    async def _end(self, kill: Kill, why: Why, by: str = "", reason: str = "") -> None:
        """Record, forget in the state, forget here: in this order."""
        if kill.id in self._unrecorded:
            await self._record(kill)
        await self._record_end(kill, why, by, reason)
        if kill.kind in REVOCATIONS:
            self._know(await self._store.drop([kill.id]))
        else:
            self._know(await self._store.end([kill.id]))
        self._forget(kill)

    def _forget(self, kill: Kill) -> None:
        self._unstored.pop(kill.id, None)
        self._unrecorded.pop(kill.id, None)
        self._set.remove(kill.id)

    async def _follow(self, revision: int, kills: Sequence[Kill]) -> None:
        """Take over what the state says: first what is stopped, then what is not any more."""
        for kill in kills:
            if self._set.get(kill.id) is None:
                self._take_up(kill)
        found = {kill.id for kill in kills}
        self._revision = None  # until everything is taken over: what fails here is done again
        await self._record_all()
        for kill in self._set.standing():
            if kill.id not in found and kill.id not in self._unstored:
                await self._end(kill, "elsewhere")
        self._revision = revision

    async def _end_spent(self) -> None:
        spent = self._set.spent(self._now_s())
        revoked = [kill for kill in spent if kill.kind in REVOCATIONS]
        if revoked:  # at once: there may be many, of tokens that are over anyway
            self._know(await self._store.drop([kill.id for kill in revoked]))
            for kill in revoked:
                self._forget(kill)
        for kill in spent:
            if kill.kind not in REVOCATIONS:
                await self._end(kill, "expired")

    async def _find_missing(
        self, kills: Mapping[str, Kill], recorded: Mapping[str, Kill | None]
    ) -> list[Kill]:
        """Return what the log has and the state never ended: an old state was put back.

        What ended while this process was down is put on its record first.
        """
        absent = [
            kill for kill_id, kill in recorded.items() if kill is not None and kill_id not in kills
        ]
        ended = await self._store.ended([kill.id for kill in absent]) if absent else set()
        missing: list[Kill] = []
        for kill in absent:
            if kill.id in ended:
                await self._record_end(kill, "elsewhere")
            elif self._is_spent(kill):
                await self._record_end(kill, "expired")
            else:
                missing.append(kill)
        return missing

    async def _record_end(self, kill: Kill, why: Why, by: str = "", reason: str = "") -> None:
        """Put the end of a kill on record. What was revoked has none: its tokens are over."""
        if kill.kind not in REVOCATIONS:
            op = self._ids.new()
            await self._log.record(
                build_kill_lift(kill, op, self._log.key_id, why=why, by=by, reason=reason)
            )

    def _add(self, kill: Kill) -> None:
        self._set.add(kill)
        if kill.kind == "human":  # for good: a lift gives nobody their earlier votes back
            self._stopped.note(name_target(kill, self._log.key_id), kill.at)

    def _take_up(self, kill: Kill) -> None:
        self._add(kill)
        if not self._log.knows(f"kill.set:{kill.id}"):
            self._unrecorded[kill.id] = kill

    def _is_spent(self, kill: Kill) -> bool:
        return kill.is_over(self._now_s())

    def _now_s(self) -> int:
        return self._clock.now_ns() // 1_000_000_000
