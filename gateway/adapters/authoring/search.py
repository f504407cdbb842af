"""The search for a run that breaks a statement (POL-09). It finds, or it says how far it looked.

Where a statement speaks of a run's labels, first runs of a call that gives them and one that the
statement is about. Then single calls, drawn around the values that somebody wrote down; then runs
made of calls that go, the same one again and again and different ones in a row; then all of it at
random. The same seed tries the same runs in the same order.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from math import ceil
from random import Random
from typing import Any, Final

import orjson
from msgspec import Struct, structs

from gateway.adapters.authoring.search_premise import Premise
from gateway.adapters.authoring.search_runs import (
    WEEKEND_S,
    WORKDAY_S,
    Moment,
    Scenario,
    Stage,
    Step,
    World,
)
from gateway.adapters.authoring.search_values import Arguments, Pool
from gateway.core.policy.statement import Facts, Statement, StatementError, ToolFacts, is_number

_BATCH: Final = 64
_KEPT: Final = 64
_BEST: Final = 6
_LENGTHS: Final = (2, 3, 4, 6, 10, 20)
_LENGTH_MAX: Final = 400
_SINGLES: Final = 0.4
_SINGLES_MAX: Final = 1_500
_LEADING: Final = 0.3
_LEADING_MAX: Final = 600


class Finding(Struct, frozen=True):
    """A run that breaks a statement, in the last of its moments."""

    scenario: Scenario
    moments: tuple[Moment, ...]


class Seed(Struct, frozen=True):
    """A recorded call to start from."""

    world: World
    step: Step


class Ground(Struct, frozen=True, kw_only=True):
    """What is searched over."""

    stage: Stage
    arguments: Mapping[str, Arguments]
    pool: Pool
    environments: tuple[str, ...]
    seeds: tuple[Seed, ...] = ()


class _Going(Struct, frozen=True):
    """A call that went, and how near it came to what a condition measures."""

    score: float
    world: World
    step: Step


class Search:
    """One statement's search. `tries` runs were played; `is_cut`, where time ended it before."""

    def __init__(self, ground: Ground, statement: Statement, seed: int) -> None:
        """Raises `StatementError` where the statement speaks of no tool that there is."""
        self.tries = 0
        self.is_cut = False
        self._ground: Final = ground
        self._statement: Final = statement
        self._random: Final = Random(f"{seed}:{statement.id}:{statement.text}")  # noqa: S311
        self.facts: Final[Facts] = {
            tool.id: ToolFacts(tool.review.effect, tool.review.sums)
            for tool in ground.stage.tools.values()
        }
        self.tools: Final = self._find_tools()
        self.premise: Final = Premise(statement, ground.stage.tools, self.tools)
        self._went: Final[dict[str, list[Step]]] = {}
        self._going: Final[list[_Going]] = []
        self._others: Final[list[_Going]] = []

    def _find_tools(self) -> tuple[str, ...]:
        """Return the tools that a call which breaks the statement can be of."""
        wanted = {name: self._statement.fixed(name) for name in ("tool", "effect", "server")}
        found = tuple(
            tool.id
            for tool in self._ground.stage.tools.values()
            if (wanted["tool"] is None or tool.id in wanted["tool"])
            and (wanted["effect"] is None or tool.review.effect in wanted["effect"])
            and (wanted["server"] is None or tool.server in wanted["server"])
        )
        if not found:
            raise StatementError(f"no tool of the catalog is what `{self._statement.text}` names")
        return found

    async def run(self, tries: int, seconds: float) -> Finding | None:
        """Look until one is found, `tries` runs were played or `seconds` are over."""
        end = time.monotonic() + seconds
        for draw in self._stages(tries):
            while self.tries < tries and time.monotonic() < end:
                batch = draw(min(_BATCH, tries - self.tries))
                if not batch:
                    break
                if (found := await self._play(batch)) is not None:
                    return found
        self.is_cut = self.tries < tries
        return None

    def _stages(self, tries: int) -> Iterable[Callable[[int], list[Scenario]]]:
        """Yield what draws the next few runs; the next stage comes when one draws none."""
        leading = min(ceil(tries * _LEADING), _LEADING_MAX) if self.premise.before else 0
        singles = leading + min(int(tries * _SINGLES), _SINGLES_MAX)
        yield lambda count: [self._led() for _ in range(min(count, leading - self.tries))]

        def draw_singles(count: int) -> list[Scenario]:
            return [self._single() for _ in range(min(count, singles - self.tries))]

        yield draw_singles
        planned = iter(self._planned())
        yield lambda count: list(islice(planned, count))
        yield lambda count: [self._any() for _ in range(count)]

    async def _play(self, batch: Sequence[Scenario]) -> Finding | None:
        played = await asyncio.gather(*map(self._ground.stage.play, batch))
        for scenario, moments in zip(batch, played, strict=True):
            self.tries += 1
            self._see(moments)
            if (found := self.judge(scenario, moments)) is not None:
                return found
            self._learn(scenario, moments)
        return None

    def _see(self, moments: Sequence[Moment]) -> None:
        for moment in () if self.premise.is_reached else moments:
            self.premise.see(moment, orjson.loads(moment.document), self.facts)

    def judge(self, scenario: Scenario, moments: Sequence[Moment]) -> Finding | None:
        """Return the finding that a played run is, if any: up to where it breaks the statement."""
        for number, moment in enumerate(moments):
            if moment.goes not in self._statement.outcomes:
                continue
            if self._statement.is_broken(moment.goes, orjson.loads(moment.document), self.facts):
                return Finding(scenario, tuple(moments[: number + 1]))
        return None

    def _learn(self, scenario: Scenario, moments: Sequence[Moment]) -> None:
        """Keep calls that go: what sequences are made of."""
        for moment in moments if self.premise.before else ():
            if moment.goes in {"permit", "approved"}:
                went = self._went.setdefault(moment.tool, [])
                went.append(scenario.steps[moment.step])
                del went[:-_KEPT]
        if len(scenario.steps) != 1 or not moments or moments[-1].goes in {"deny", "hold"}:
            return
        step = scenario.steps[0]
        score = self._score(moments[-1])
        kept = self._going if step.tool in self.tools else self._others
        if any(one.step == step and one.world == scenario.world for one in kept):
            return
        kept.append(_Going(score, scenario.world, step))
        kept.sort(key=lambda one: -one.score)
        del kept[_KEPT:]

    def _score(self, moment: Moment) -> float:
        """Return the most that a condition measures of a call: more of it is nearer to a bound."""
        document = orjson.loads(moment.document)
        values = [each.value(document, self.facts) for each in self._statement.conditions]
        return max((float(value) for value in values if is_number(value)), default=0.0)

    # --- what is drawn ---

    def _led(self) -> Scenario:
        """Draw a run that gets the labels which the statement speaks of, and then a call."""
        random = self._random
        tools = [*map(random.choice, self.premise.before), random.choice(self.tools)]
        world = self._world()
        if random.random() < 0.5:  # noqa: PLR2004
            world = self._fit(World(environment=world.environment))
        steps = []
        for tool in tools:
            went = self._went.get(tool)
            is_known = went is not None and random.random() < 0.5  # noqa: PLR2004
            steps.append(random.choice(went) if went and is_known else self._step(tool))
        texts = tuple(each for each in steps[-1].args.values() if isinstance(each, str))
        if texts and random.random() < 0.3:  # noqa: PLR2004
            world = structs.replace(world, allowed_values={"named": texts})  # by the launcher
        return Scenario(world, tuple(steps))

    def _single(self) -> Scenario:
        random = self._random
        seeds = self._ground.seeds
        if seeds and random.random() < 0.3:  # noqa: PLR2004
            seed = random.choice(seeds)
            varied = self._ground.arguments[seed.step.tool].vary(seed.step.args, random)
            args = seed.step.args if varied is None else varied
            return Scenario(self._fit(seed.world), (structs.replace(seed.step, args=args),))
        others = [each for each in self._ground.arguments if each not in self.tools]
        pick = others if others and random.random() < 0.15 else self.tools  # noqa: PLR2004
        return Scenario(self._world(), (self._step(random.choice(pick)),))

    def _step(self, tool: str) -> Step:
        random = self._random
        args = self._ground.arguments[tool].draw(random)
        if args is None:
            args = {}
        claimed: dict[str, Any] = {}
        if random.random() < 0.1:  # noqa: PLR2004
            claimed = {
                "confidence": random.choice([0, 1]),
                "intent": self._ground.pool.string(random),
            }
        return Step(tool, args, claimed, random.choice(("now", "last")))

    def _world(self) -> World:
        random, pool = self._random, self._ground.pool

        def maybe(share: float) -> str:
            return random.choice(pool.named) if pool.named and random.random() < share else ""

        roles = tuple(sorted({each for each in (maybe(0.3), maybe(0.2)) if each}))
        key = maybe(0.2)
        return self._fit(
            World(
                environment=random.choice(self._ground.environments),
                agent=maybe(0.3) or "agent",
                owner=maybe(0.2),
                roles=roles,
                human=maybe(0.1) or None,
                client=maybe(0.1) or "launcher",
                workflow=maybe(0.2),
                origin=random.choice(("launcher", "launcher", "agent")),
                allowed_values={key: (pool.string(random),)} if key else {},
                start_s=random.choice((WORKDAY_S, WORKDAY_S, WEEKEND_S)),
            )
        )

    def _fit(self, world: World) -> World:
        """Return a world in which what the statement fixes is so."""
        for name in ("environment", "agent", "owner"):
            fixed = self._statement.fixed(name)
            if fixed and getattr(world, name) not in fixed:
                world = structs.replace(world, **{name: str(self._random.choice(fixed))})
        return world

    def _planned(self) -> Iterable[Scenario]:
        """Yield runs of calls that went: each of the best again and again, then after others."""
        best = self._going[:_BEST]
        for going in best:
            enough = self._enough(going.score)
            for count in sorted({*_LENGTHS, *enough}):
                for approve in ("now", "last"):
                    step = structs.replace(going.step, approve=approve)
                    yield Scenario(going.world, (step,) * count)
        for other in self._others:
            for going in best:
                yield Scenario(going.world, (other.step, going.step))

    def _enough(self, score: float) -> set[int]:
        """Return how many calls of this score pass a bound that the statement names."""
        found: set[int] = set()
        for condition in self._statement.conditions:
            bound = str(condition.right).lstrip("> =").replace(",", "").replace("_", "")
            if score > 0 and bound.replace(".", "", 1).isdigit():
                found.add(ceil(float(bound) / score) + 1)
        return {count for count in found if 1 < count <= _LENGTH_MAX}

    def _any(self) -> Scenario:
        random = self._random
        if not self._going or random.random() < 0.4:  # noqa: PLR2004
            return self._single()
        known = [*self._going, *self._others[:_BEST]]
        first = random.choice(self._going)
        steps = []
        for _ in range(random.randint(2, 12)):
            step = random.choice(known).step
            if random.random() < 0.3:  # noqa: PLR2004
                varied = self._ground.arguments[step.tool].vary(step.args, random)
                step = step if varied is None else structs.replace(step, args=varied)
            steps.append(structs.replace(step, approve=random.choice(("now", "last"))))
        return Scenario(first.world, tuple(steps))
