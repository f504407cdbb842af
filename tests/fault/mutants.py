"""Puts one mistake into the code: the text of a function changed in one place."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from msgspec import Struct


class Mutant(Struct, frozen=True):
    """In the function `name` of `owner`, `new` stands where `old` stood, which was there once."""

    what: str
    owner: Any
    name: str
    old: str
    new: str


@contextmanager
def planted(mutant: Mutant) -> Iterator[None]:
    """Let the mistake be there for a while."""
    before = inspect.getattr_static(mutant.owner, mutant.name)
    setattr(mutant.owner, mutant.name, _build(mutant))
    try:
        yield
    finally:
        setattr(mutant.owner, mutant.name, before)


def _build(mutant: Mutant) -> Any:  # noqa: ANN401 - whatever the function is
    function = getattr(mutant.owner, mutant.name)
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(mutant.old) == 1, f"`{mutant.old}` is not in {mutant.name} once"
    changed = "from __future__ import annotations\n" + source.replace(mutant.old, mutant.new)
    names: dict[str, Any] = {}
    exec(changed, function.__globals__, names)  # noqa: S102 - our own words
    return names[mutant.name]
