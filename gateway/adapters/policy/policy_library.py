"""The library that policies may import, `data.countersign.lib.*`. It is shipped, never written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final

from gateway.adapters.policy.policy_ast import Fault, parse_module
from gateway.adapters.policy.policy_faults import Mistake
from gateway.adapters.policy.policy_package import LIBRARY, Source

PREFIX: Final = "countersign/lib/"
_NAMED: Final = len(LIBRARY) + 1

Library = Mapping[str, Source]
"""Modules of the library by the last part of their package."""


def parse_library(files: Mapping[str, str], faults: list[Mistake]) -> Library:
    """Return the library in these files (path → Rego), adding what is wrong to `faults`.

    INVARIANT: a module is `countersign.lib.<name>` in the file of that name, so that no file can
    stand in for another one.
    """
    found: dict[str, Source] = {}
    for path, text in sorted(files.items()):
        source = _parse(path, text)
        if isinstance(source, Mistake):
            faults.append(source)
        else:
            found[source.module.package[-1]] = source
    return found


@lru_cache(maxsize=64)  # the same dozen modules, whatever is loaded beside them
def _parse(path: str, text: str) -> Source | Mistake:
    module = parse_module(path, text)
    if isinstance(module, Fault):
        return Mistake(path, module.line, module.column, "syntax", module.text)
    expected = (*LIBRARY[1:], path.removeprefix(PREFIX).removesuffix(".rego"))
    if module.package != expected:
        message = f"is not package `{'.'.join(expected)}`"
        return Mistake(path, module.package_line, 1, "package_name", message, "rename it")
    return Source(path, text, module)


def find_library_fault(path: tuple[str, ...], library: Library) -> str | None:
    """Say why a policy may not refer to this path below `data.countersign.lib`, or return None."""
    if len(path) < _NAMED or path[_NAMED - 1] == "":
        return "reads all of the library; import the module that it needs"
    name = path[_NAMED - 1]
    if name not in library:
        return f"reads unknown library `countersign.lib.{name}`; there is {_listed(library)}"
    rules = {rule.name for rule in library[name].module.rules}
    if len(path) > _NAMED and path[_NAMED] not in rules:
        return f"`countersign.lib.{name}` has no `{path[_NAMED]}`; it has {_listed(rules)}"
    return None


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names)) or "none"
