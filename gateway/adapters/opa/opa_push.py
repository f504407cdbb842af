"""Puts bundles into an OPA that takes them: each below a root of its own, beside the one in use.

OPA loads one module per request, each in a transaction of its own, so the parts of one bundle
could be seen without the others. INVARIANT: the module that answers comes last and goes first: a
root that answers is whole.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from msgspec import Struct

from gateway.adapters.opa.opa_bundle import ANSWER_PATH, ROOT, Pushed, build_pushed
from gateway.adapters.opa.opa_link import OpaLink
from gateway.adapters.policy.policy_bundle import Bundle
from gateway.core.errors import ConfigurationError, PolicyError


class Place(Struct, frozen=True):
    """Where in an OPA a bundle answers: about one input, and about many."""

    one: str = "countersign/answer"
    many: str = "countersign/answers"


PULLED: Final = Place()
"""A bundle that OPA has pulled stands where it says itself."""


async def push(link: OpaLink, bundle: Bundle) -> Place:
    """Put a bundle into OPA, whole, and return where it answers.

    Raises `ConfigurationError` (`policy_invalid`) with OPA's words when OPA refuses it, and
    `PolicyError` when OPA is not there. Nothing of it is left then, as far as OPA can be reached.
    """
    pushed = await asyncio.to_thread(build_pushed, bundle)
    try:
        await link.put_data(pushed.root, pushed.data)
        await _load(link, pushed)
    except BaseException:
        await _forget(link, pushed)
        raise
    below = f"{pushed.root}/countersign"
    return Place(one=f"{below}/answer", many=f"{below}/answers")


async def remove(link: OpaLink, name: str) -> None:
    """Take a pushed bundle away."""
    prefix = f"{ROOT}/{name}/"
    await _remove_modules(link, [id_ for id_ in await _pushed_ids(link) if id_.startswith(prefix)])
    await link.delete("data", f"{ROOT}/{name}")


async def remove_others(link: OpaLink, name: str) -> None:
    """Take away what earlier gateways pushed and did not take away, all but the bundle `name`."""
    names = {each.split("/")[1] for each in await _pushed_ids(link)}
    for other in sorted(names - {name}):
        await remove(link, other)


async def _load(link: OpaLink, pushed: Pushed) -> None:
    """Load the modules. One that calls what is not there yet is tried again after the others."""
    *waiting, answering = pushed.modules
    while waiting:
        refused = []
        words = ""
        for path, source in waiting:
            found = await _put(link, pushed, path, source)
            if found is not None:
                refused.append((path, source))
                words = words or found
        if len(refused) == len(waiting):
            raise _not_taken(words)
        waiting = refused
    words = await _put(link, pushed, *answering) or ""
    if words:
        raise _not_taken(words)


async def _put(link: OpaLink, pushed: Pushed, path: str, source: str) -> str | None:
    """Load one module; return why OPA refuses it, or None. Raises where OPA is not there."""
    try:
        await link.put_policy(f"{pushed.root}/{path}", source)
    except PolicyError as error:
        if error.code != "policy_error":
            raise
        return str(error).replace(f"{pushed.root}/", "")
    return None


async def _forget(link: OpaLink, pushed: Pushed) -> None:
    with contextlib.suppress(PolicyError):
        await remove(link, pushed.name)


async def _pushed_ids(link: OpaLink) -> list[str]:
    return [each for each in await link.list_policies() if each.startswith(f"{ROOT}/")]


async def _remove_modules(link: OpaLink, ids: list[str]) -> None:
    """The one that answers first; then until nothing calls a module that would go missing."""
    waiting = sorted(ids, key=lambda each: (not each.endswith(f"/{ANSWER_PATH}"), each))
    while waiting:
        left = []
        for each in waiting:
            try:
                await link.delete("policies", each)
            except PolicyError as error:
                if error.code != "policy_error":
                    raise
                left.append(each)
        if len(left) == len(waiting):
            raise PolicyError(f"{link.endpoint} keeps `{left[0]}`; start it anew")
        waiting = left


def _not_taken(words: str) -> ConfigurationError:
    return ConfigurationError(f"OPA refuses the policies: {words}", code="policy_invalid")
