"""Which packages judge results: what a replay of past calls shows only where one did so before.

What a tool answered is on record where policy was asked about it. A package that begins to ask
withholds or changes answers of which the log knows nothing.
"""

from __future__ import annotations

from typing import Final

from gateway.adapters.policy.policy_bundle import Bundle
from gateway.adapters.policy.policy_scope import Scope

_RESULT: Final = ("context", "result")


def tell_watchers(bundle: Bundle, before: Bundle | None = None) -> list[str]:
    """Return the packages that judge results by what they say of themselves, or read results.

    With `before`, all that could deny, hold or oblige then, and could not of the same tools there.
    """
    found = _find_watchers(bundle)
    if before is None:
        return sorted(name for name, scope in found.items() if scope.phases or _reads(bundle, name))
    known = _find_watchers(before)
    return sorted(name for name in found if name not in known or known[name] != found[name])


def _reads(bundle: Bundle, name: str) -> bool:
    return any(path[:2] == _RESULT for path in bundle.packages[name].inputs)


def _find_watchers(bundle: Bundle) -> dict[str, Scope]:
    """Return what each of them concerns."""
    scopes = {
        name: package.scope or Scope()
        for name, package in bundle.packages.items()
        if package.answers_results and name not in bundle.silent
    }
    return {
        name: scope
        for name, scope in scopes.items()
        if scope.phases is None or "result" in scope.phases
    }
