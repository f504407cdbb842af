"""The process that holds one bundle and is copied for each worker."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from gateway.adapters.regorus.regorus_engines import Engines, drop_command
from gateway.adapters.regorus.regorus_nursery import LOAD_DEADLINE_S, Birth, Nursery, plant
from gateway.core.errors import ConfigurationError, PolicyError

_OVERDUE: Final = (
    f"its policies gave no answer to sample inputs in {LOAD_DEADLINE_S:g} s; take out what was "
    "changed last, or let `opa eval --profile -d FOLDER -i INPUT data.policies` show which rule "
    "takes so long"
)


class Seed:
    """The process that templates are copied from; started when it is needed, again if it ends."""

    def __init__(self) -> None:
        self._nursery: Nursery | None = None

    @property
    def pids(self) -> list[int]:
        """Its process id, while it runs."""
        return [] if self._nursery is None or self._nursery.lost else [self._nursery.pid]

    async def fork(self) -> Nursery:
        """Return a new template. Raises `PolicyError` when there can be none."""
        if self._nursery is not None:
            with contextlib.suppress(PolicyError):  # it may have ended; nobody has noticed yet
                return await self._nursery.fork_template()
            await self._nursery.aclose()
        self._nursery = plant()
        return await self._nursery.fork_template()

    async def aclose(self) -> None:
        """End it, and with it every template."""
        if self._nursery is not None:
            await self._nursery.aclose()


class Template:
    """The template of one bundle; made again when it is lost. `load` is the command to load it."""

    def __init__(self, seed: Seed, load: bytes) -> None:
        self._seed = seed
        self._load = load
        self._nursery: Nursery | None = None
        self._engines = Engines()
        self._asked: set[int] = set()
        self._turn = asyncio.Lock()

    @property
    def pids(self) -> list[int]:
        """Its process id, while it runs."""
        return [] if self._nursery is None or self._nursery.lost else [self._nursery.pid]

    async def open(self) -> None:
        """Load the bundle, unless that is done. Raises as `fork` does."""
        async with self._turn:
            if self._nursery is None:
                self._nursery = await self._make()

    async def fork(self) -> tuple[Birth, Engines]:
        """Return a new worker, and which engines it holds.

        Raises `ConfigurationError` (`policy_invalid`) when the engine refuses the bundle, and
        `PolicyError` when no process can be had.
        """
        async with self._turn:
            if self._nursery is not None:
                with contextlib.suppress(PolicyError):  # as in `Seed.fork`
                    return await self._nursery.fork_worker(), self._engines.copy()
            self._nursery = await self._make()
            return await self._nursery.fork_worker(), self._engines.copy()

    async def _make(self) -> Nursery:
        await self.aclose()
        try:
            nursery = await self._seed.fork()
            try:
                reply = await nursery.ask(self._load)
            except BaseException as error:
                await nursery.aclose()
                if nursery.overdue and isinstance(error, PolicyError):
                    raise PolicyError(_OVERDUE) from error
                raise
        except PolicyError as error:
            raise PolicyError(f"a policy worker could not load the bundle: {error}") from None
        if faults := reply.get("faults", [reply.get("fault", "no answer")]):
            await nursery.aclose()
            raise ConfigurationError("\n".join(faults), code="policy_invalid")
        self._engines = Engines()
        self._asked.clear()
        return nursery

    async def learn(self, number: int, build: bytes, size: int) -> None:
        """Have workers to come hold an engine, by the command that builds it.

        Nothing is promised: a worker that comes without it builds it for itself.
        """
        if number in self._asked:
            return
        self._asked.add(number)
        async with self._turn:
            if self._nursery is None or self._nursery.lost or self._engines.use(number):
                return
            with contextlib.suppress(PolicyError):
                for gone in self._engines.add(number, size):
                    self._asked.discard(gone)
                    await self._nursery.ask(drop_command(gone))
                if "fault" in await self._nursery.ask(build):
                    self._engines.remove(number)

    async def aclose(self) -> None:
        """End it, and with it every worker."""
        if self._nursery is not None:
            await self._nursery.aclose()
