"""A candidate bundle that is asked about many inputs at once, and about equal ones only once.

A decision depends on nothing but the bundle, the tool, the phase and what the packages that are
heard read of the input. Those parts are known from the source (`Package.inputs`); inputs that are
equal there are decided alike, so most of a month's traffic is looked up, not evaluated.

INVARIANT: what cannot be told from the source, or read as such, is evaluated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from itertools import islice, takewhile
from typing import Final

from gateway.adapters.policy import policy_ast
from gateway.adapters.policy.policy_ast import Fault
from gateway.adapters.policy.policy_bundle import Bundle
from gateway.adapters.regorus.regorus_plain import Read, build_reader
from gateway.adapters.regorus.regorus_policy import RegorusPolicy
from gateway.core.errors import PolicyError
from gateway.core.policy.asked import Asked
from gateway.core.policy.decision import Decision

MEMO_MAX: Final = 1 << 18
DEADLINE_MS: Final = 5_000
_CROWDED: Final = frozenset({"policy_worker_died", "policy_overloaded", "policy_unavailable"})
"""Codes that can be another question's fault, asked in the same batch."""

_AT_ONCE: Final = 64
"""Fewer than wait for a worker that was slow once (`regorus_fleet`)."""

_PATIENCE: Final = 100
_PAUSE_S: Final = 0.05
_DIGEST_BYTES: Final = 32


class Candidate:
    """One bundle in workers of its own. Nothing runs before `start`.

    `memo_max`: how many answers are remembered; 0 evaluates every input.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        workers: int = 1,
        deadline_ms: int = DEADLINE_MS,
        memo_max: int = MEMO_MAX,
    ) -> None:
        self.revision: Final = bundle.revision
        self.evaluated = 0
        self.remembered = 0
        self._bundle: Final = bundle
        self.engine: Final = RegorusPolicy(bundle, workers=workers, deadline_ms=deadline_ms)
        self._tools: Final[dict[str, tuple[str, str]]] = {}
        self._memo_max: Final = memo_max
        self._memo: Final[dict[bytes, Decision]] = {}
        self._routes: Final[dict[tuple[str, str, str, str], tuple[bytes, Read | None]]] = {}
        self._common: Final = _read_by_all(bundle)

    async def start(self) -> None:
        """Start the workers. Raises as `RegorusPolicy.start` does."""
        await self.engine.start()

    async def stop(self) -> None:
        """Kill the workers."""
        await self.engine.stop()

    async def decide(self, questions: Sequence[Asked]) -> list[Decision | str]:
        """Decide on each; a code (`policy_error`, …) where there is no answer."""
        # What cannot be named is a question of its own.
        keys = [self._key(each) or b"%d" % number for number, each in enumerate(questions)]
        memo = self._memo
        open_ = {key: asked for key, asked in zip(keys, questions, strict=True) if key not in memo}
        fresh = await self._evaluate(open_) if open_ else {}
        self.evaluated += len(open_)
        self.remembered += len(questions) - len(open_)
        found = [fresh[key] if key in fresh else memo[key] for key in keys]
        self._remember(fresh)
        return found

    def _remember(self, fresh: dict[bytes, Decision | str]) -> None:
        memo = self._memo
        if len(memo) + len(fresh) > self._memo_max:
            memo.clear()
        for key, answer in fresh.items():
            if len(key) == _DIGEST_BYTES and not isinstance(answer, str):
                memo[key] = answer

    def _key(self, asked: Asked) -> bytes | None:
        """Name everything that the decision depends on; None where that is not known."""
        if not self._memo_max:
            return None
        route = (asked.phase, asked.tool_id, asked.server, asked.effect)
        try:
            number, read = self._routes[route]
        except KeyError:
            number, read = b"%d:" % len(self._routes), self._build_reader(*route)
            self._routes[route] = number, read
        found = None if read is None else read(asked.document)
        if found is None:
            return None
        return blake2b(number + found[0].encode(), digest_size=_DIGEST_BYTES).digest()

    def _build_reader(self, phase: str, tool_id: str, server: str, effect: str) -> Read | None:
        """Return what reads of an input all that is read when such a call is judged."""
        packages = {**self._bundle.packages, **self._bundle.library}
        heard = [
            name
            for name, package in self._bundle.packages.items()
            if package.scope is None or package.scope.matches(tool_id, server, effect, phase)
        ]
        loaded = set(heard).union(*(packages[name].requires for name in heard))
        paths = set(self._common or ()).union(*(packages[name].inputs for name in loaded))
        if self._common is None or () in paths:
            return None
        return build_reader(sorted(paths))

    async def _evaluate(self, open_: dict[bytes, Asked]) -> dict[bytes, Decision | str]:
        self._tell_tools(open_.values())
        found: dict[bytes, Decision | str] = {}
        waiting = iter(open_.items())
        while part := list(islice(waiting, _AT_ONCE)):
            answers = await self.engine.decide_each([asked.document for _, asked in part])
            for (key, asked), answer in zip(part, answers, strict=True):
                if not isinstance(answer, PolicyError):
                    found[key] = answer
                elif answer.code in _CROWDED:
                    found[key] = await self._ask_alone(asked)
                else:
                    found[key] = answer.code
        return found

    async def _ask_alone(self, asked: Asked) -> Decision | str:
        """Ask once more, and again while the workers have too much to do."""
        code = "policy_overloaded"
        for _ in range(_PATIENCE):
            try:
                return await self.engine.decide(asked.tool_id, asked.phase, asked.document)
            except PolicyError as error:
                code = error.code
            if code != "policy_overloaded":
                break
            await asyncio.sleep(_PAUSE_S)
        return code

    def _tell_tools(self, questions: Iterable[Asked]) -> None:
        new = False
        for asked in questions:
            if asked.phase != "issue" and asked.tool_id not in self._tools:
                self._tools[asked.tool_id] = (asked.server, asked.effect)
                new = True
        if new:
            self.engine.set_tools(self._tools)


def _read_by_all(bundle: Bundle) -> frozenset[tuple[str, ...]] | None:
    """Return what the entry point reads of an input; None where that cannot be told."""
    found: set[tuple[str, ...]] = set()
    for path, source in bundle.modules()[""]:
        module = policy_ast.parse_module(path, source)
        if isinstance(module, Fault):
            return None
        uses = (use.path[1:] for use in module.refs if use.path[0] == "input")
        found |= {tuple(takewhile(bool, path)) for path in uses}
    return None if () in found else frozenset(found)
