"""What passed the gate before, by its content: of a folder in which one file changed, that is read.

A package passes or not by its own modules, those that it reads, and the types of the input. Where
all of these are as they were, so is the answer. What did not pass is not remembered: every mistake
is found anew, with its place.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Final

from msgspec import Struct, structs

from gateway.adapters.policy.gate.input_types import InputTypes
from gateway.adapters.policy.policy_package import Package, Source, close_over, find_reads

_KEPT_MAX: Final = 8192
"""Modules, and packages, of which an outline is kept: a few hundred bytes each, and their rules."""


class Outline(Struct, frozen=True):
    """What is kept of a module: `source` without its text and tree, and which packages it reads."""

    source: Source
    reads: frozenset[str]
    digest: bytes


Key = tuple[InputTypes, bytes]


class Passed:
    """Modules and packages that passed. Fit for use by several threads: what is lost is redone."""

    def __init__(self) -> None:
        self._outlines: dict[bytes, Outline] = {}
        self._packages: dict[Key, Package] = {}

    def find_module(self, path: str, text: str) -> Outline | None:
        """Return what is kept of a module of this path and text."""
        return self._outlines.get(_digest(path, text))

    def find_package(self, key: Key) -> Package | None:
        """Return a package that passed with everything that `name_packages` counts in."""
        return self._packages.get(key)

    def keep(self, outlines: Iterable[Outline], packages: Mapping[Key, Package]) -> None:
        """Keep what has passed."""
        found = {outline.digest: outline for outline in outlines}
        if len(self._outlines) + len(found) > _KEPT_MAX:
            self._outlines.clear()
        if len(self._packages) + len(packages) > _KEPT_MAX:
            self._packages.clear()
        self._outlines |= found
        self._packages |= packages

    def forget(self) -> None:
        """Forget everything: the next gating is as slow as the first."""
        self._outlines.clear()
        self._packages.clear()


passed: Final = Passed()
"""Of this process."""


def outline(source: Source) -> Outline:
    """Return what may be kept of a module."""
    empty = structs.replace(
        source.module, refs=(), calls=(), negated=(), fallible=(), imports={}, tree=[]
    )
    kept = Source(source.path, "", empty)
    return Outline(kept, find_reads([source]), _digest(source.file, source.text))


class Named(Struct, frozen=True):
    """A package: what names all on which its passing stands, and the packages that it requires."""

    key: Key
    requires: frozenset[str]


def name_packages(outlines: Iterable[Outline], types: InputTypes) -> dict[str, Named] | None:
    """Return the packages of these modules; None where one reads a package that is not there."""
    modules: dict[str, list[Outline]] = {}
    for each in outlines:
        modules.setdefault(each.source.name, []).append(each)
    direct = {
        name: frozenset[str]().union(*(each.reads for each in own)) - {name}
        for name, own in modules.items()
    }
    if not frozenset[str]().union(*direct.values()) <= modules.keys():
        return None
    digests = {
        name: hashlib.sha256(b"".join(each.digest for each in own)).digest()
        for name, own in modules.items()
    }
    found = {}
    for name in sorted(modules):
        requires = close_over(name, direct)
        parts = (digests[name], *(digests[each] for each in sorted(requires)))
        found[name] = Named((types, hashlib.sha256(b"".join(parts)).digest()), requires)
    return found


def _digest(path: str, text: str) -> bytes:
    return hashlib.sha256(path.encode() + b"\0" + text.encode()).digest()
