"""Makes a counterexample small: what can be left out is left out, what can be plainer is plainer.

Delta debugging: a change is kept if the run still breaks the statement. Nothing is random here.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil
from typing import Any, Final

from msgspec import structs

from gateway.adapters.authoring.search import Finding, Search
from gateway.adapters.authoring.search_runs import Scenario, Stage, Step, World

PLAYED_MAX: Final = 2_000
_PLAIN: Final = World()


class Minimiser:
    """Makes findings of one search small; plays at most `PLAYED_MAX` runs for each."""

    def __init__(self, search: Search, stage: Stage) -> None:
        self._search: Final = search
        self._stage: Final = stage
        self._left = 0

    async def minimise(self, finding: Finding) -> Finding:
        """Return the smallest that is found: no step, member or word can go without it."""
        self._left = PLAYED_MAX
        while self._left > 0:
            smaller = await self._smaller(finding)
            if smaller.scenario == finding.scenario:
                break
            finding = smaller
        return finding

    async def _smaller(self, finding: Finding) -> Finding:
        finding = await self._fewer_steps(finding)
        for change in (_worlds, _members, _words):
            finding = await self._each(finding, change)
        return await self._numbers(finding)

    async def _try(self, scenario: Scenario) -> Finding | None:
        if self._left <= 0:
            return None
        self._left -= 1
        return self._search.judge(scenario, await self._stage.play(scenario))

    async def _fewer_steps(self, finding: Finding) -> Finding:
        """Leave out halves, quarters, … and then single steps."""
        size = len(finding.scenario.steps)
        while size >= 1:
            start = 0
            while start < len(finding.scenario.steps):
                steps = finding.scenario.steps
                fewer = structs.replace(
                    finding.scenario, steps=steps[:start] + steps[start + size :]
                )
                found = await self._try(fewer) if fewer.steps else None
                if found is None:
                    start += size
                else:
                    finding = found
            size //= 2
        return finding

    async def _each(self, finding: Finding, changes: Any) -> Finding:  # noqa: ANN401 - a function
        """Take every change that leaves it a finding; start anew after each."""
        again = True
        while again and self._left > 0:
            again = False
            for scenario in changes(finding.scenario):
                if (found := await self._try(scenario)) is not None:
                    finding, again = found, True
                    break
        return finding

    async def _numbers(self, finding: Finding) -> Finding:
        """Bring every number as near to 0 as it goes."""
        for number, step in enumerate(finding.scenario.steps):
            for path, value in _leaves(step.args):
                if isinstance(value, int | float) and not isinstance(value, bool) and value:
                    finding = await self._nearer(finding, number, path, value)
        return finding

    async def _nearer(
        self, finding: Finding, number: int, path: tuple[Any, ...], value: float
    ) -> Finding:
        """Halve the way between 0 and a number that breaks it, in whole numbers."""
        sign = 1 if value > 0 else -1
        tried: dict[int, Finding | None] = {}

        async def breaks(size: int) -> bool:
            scenario = _replaced(finding.scenario, number, path, sign * size)
            tried[size] = await self._try(scenario)
            return tried[size] is not None

        low, high = 0, ceil(abs(value))
        if await breaks(0):
            return tried[0] or finding
        if high != abs(value) and not await breaks(high):
            return finding  # a fraction that matters
        while high - low > 1:
            middle = (low + high) // 2
            if await breaks(middle):
                high = middle
            else:
                low = middle
        return tried.get(high) or finding


def _worlds(scenario: Scenario) -> Iterator[Scenario]:
    """Yield the scenario with one thing about its world as it usually is.

    Where it is stays as it was: somebody asked about these environments and no others.
    """
    for name in structs.fields(World):
        plain = getattr(_PLAIN, name.name)
        if name.name != "environment" and getattr(scenario.world, name.name) != plain:
            world = structs.replace(scenario.world, **{name.name: plain})
            yield structs.replace(scenario, world=world)


def _members(scenario: Scenario) -> Iterator[Scenario]:
    """Yield the scenario without a member of arguments, a claim, or waiting for people."""
    for number, step in enumerate(scenario.steps):
        if step.claimed:
            yield _with_step(scenario, number, structs.replace(step, claimed={}))
        if step.approve == "last":
            yield _with_step(scenario, number, structs.replace(step, approve="now"))
        for path, _ in _nodes(step.args):
            yield _with_step(
                scenario, number, structs.replace(step, args=_without(step.args, path))
            )


def _words(scenario: Scenario) -> Iterator[Scenario]:
    """Yield the scenario with one string, flag or list made plainer."""
    for number, step in enumerate(scenario.steps):
        for path, value in _leaves(step.args):
            plainer: tuple[Any, ...] = ()
            if isinstance(value, str):
                plainer = tuple(each for each in ("", "a") if len(each) < len(value))
            elif value is True:
                plainer = (False,)
            for each in plainer:
                yield _replaced(scenario, number, path, each)


def _with_step(scenario: Scenario, number: int, step: Step) -> Scenario:
    steps = (*scenario.steps[:number], step, *scenario.steps[number + 1 :])
    return structs.replace(scenario, steps=steps)


def _replaced(scenario: Scenario, number: int, path: tuple[Any, ...], value: object) -> Scenario:
    step = scenario.steps[number]
    return _with_step(scenario, number, structs.replace(step, args=_set(step.args, path, value)))


def _nodes(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:  # noqa: ANN401
    """Yield (path, value) of every member, outer ones first."""
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, item in items:
        yield (*path, key), item
        yield from _nodes(item, (*path, key))


def _leaves(value: Any) -> list[tuple[tuple[Any, ...], Any]]:  # noqa: ANN401
    return [(path, item) for path, item in _nodes(value) if not isinstance(item, dict | list)]


def _set(value: Any, path: tuple[Any, ...], new: object) -> Any:  # noqa: ANN401
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = _set(copy[path[0]], path[1:], new)
    return copy


def _without(value: Any, path: tuple[Any, ...]) -> Any:  # noqa: ANN401
    copy = dict(value) if isinstance(value, dict) else list(value)
    if len(path) == 1:
        del copy[path[0]]
    else:
        copy[path[0]] = _without(copy[path[0]], path[1:])
    return copy
