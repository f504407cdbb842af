"""Policy packages: the unit that authors own, annotate and are heard by."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import takewhile
from typing import Final

from msgspec import Struct

from gateway.adapters.policy.policy_ast import Module
from gateway.adapters.policy.policy_scope import Scope
from gateway.adapters.policy.policy_silence import Needs, find_needs

DECISION_SETS: Final = ("permit", "deny", "hold", "obligation")
LIBRARY: Final = ("data", "countersign", "lib")
_LEDGER_FREE: Final = (
    *(("input", name) for name in ("version", "phase", "environment")),
    *(("input", name) for name in ("subject", "action", "resource")),
    *(
        ("input", "context", name)
        for name in ("args", "token", "now_ns", "client", "claimed", "approval", "result")
    ),
    *(("input", "context", "run", name) for name in ("id", "workflow", "labels", "provenance")),
)
"""Parts of the input that cannot be old when the call is charged.

Most are what one call says by itself. Labels and provenance tell what answers the agent may have
seen when it made the call, so what answers meanwhile is no part of that. All else may hold counts,
sums or budgets.
"""

_DAY: Final = ("context", "family", "last_24h")


class Package(Struct, frozen=True):
    """One policy package. `requires`: packages that it reads, and those that they read.

    `reads_ledger`: it or one of those may read more of the input than what one call says by
    itself; `reads_day`: even what other runs of the same agent spent. `answers_results`: it has
    rules that could deny or oblige in phase `result`. `sets`: the decision sets that it defines.
    `inputs`: the parts of the input that its own modules may read, each a path of names below
    `input`; an empty path is all of it. `needs`: see `policy_silence`.
    """

    name: str
    paths: tuple[str, ...]
    scope: Scope | None
    requires: frozenset[str]
    reads_ledger: bool
    answers_results: bool
    sets: frozenset[str]
    inputs: frozenset[tuple[str, ...]]
    reads_day: bool
    needs: Needs = ()


class Source(Struct, frozen=True):
    """One module, parsed; its package is `policies.<name>` or `countersign.lib.<name>`."""

    path: str
    text: str
    module: Module

    @property
    def name(self) -> str:
        """`<name>` of a policy, `countersign.lib.<name>` of the library; never the same."""
        first, *rest = self.module.package
        return ".".join(rest if first == "policies" else self.module.package)

    @property
    def file(self) -> str:
        """Where it lies in a bundle."""
        return f"policies/{self.path}" if self.module.package[0] == "policies" else self.path


def build_packages(found: Iterable[Source], scopes: Mapping[str, Scope]) -> dict[str, Package]:
    """Return the packages by name, in order. Every package that one reads must be among them."""
    modules: dict[str, list[Source]] = {}
    for source in found:
        modules.setdefault(source.name, []).append(source)
    direct = {name: find_reads(sources) - {name} for name, sources in modules.items()}
    packages = {}
    for name in sorted(modules):
        requires = close_over(name, direct)
        read = [source for each in (name, *requires) for source in modules[each]]
        packages[name] = Package(
            name=name,
            paths=tuple(source.file for source in modules[name]),
            scope=scopes.get(name),
            requires=requires,
            reads_ledger=any(map(_reads_ledger, read)),
            answers_results=any(
                rule.name in {"deny", "hold", "obligation"}
                for source in modules[name]
                for rule in source.module.rules
            ),
            sets=frozenset(
                rule.name
                for source in modules[name]
                for rule in source.module.rules
                if rule.name in DECISION_SETS
            ),
            inputs=frozenset(path for source in modules[name] for path in _inputs(source.module)),
            reads_day=any(_meets(path, _DAY) for each in read for path in _inputs(each.module)),
            needs=find_needs((source.module for source in modules[name]), DECISION_SETS),
        )
    return packages


def _inputs(module: Module) -> Iterator[tuple[str, ...]]:
    for use in module.refs:
        if use.path[0] == "input":
            yield tuple(takewhile(bool, use.path[1:]))


def _meets(path: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Whether one of two places in the input lies within the other."""
    shared = min(len(path), len(other))
    return path[:shared] == other[:shared]


def find_reads(sources: Iterable[Source]) -> frozenset[str]:
    """Return the packages that modules read; `""` among them is one that is known only later."""
    uses = [use.path for source in sources for use in (*source.module.refs, *source.module.calls)]
    policies = {(*path, "")[2] for path in uses if path[:2] == ("data", "policies")}
    library = {".".join(path[1:4]) for path in uses if path[: len(LIBRARY)] == LIBRARY}
    return frozenset(policies | library)


def close_over(name: str, direct: Mapping[str, frozenset[str]]) -> frozenset[str]:
    """Return the packages on which one stands, if each directly reads these; itself left out."""
    seen: set[str] = set()
    waiting = set(direct[name])
    while waiting:
        seen.add(each := waiting.pop())
        waiting |= direct[each] - seen
    return frozenset(seen - {name})


def _reads_ledger(source: Source) -> bool:
    """Whether a module may read the ledger. What cannot be told from the source counts as yes."""
    return any(
        use.path[0] == "input"
        and use.path[:2] not in _LEDGER_FREE
        and use.path[:3] not in _LEDGER_FREE
        and use.path[:4] not in _LEDGER_FREE
        for use in source.module.refs
    )
