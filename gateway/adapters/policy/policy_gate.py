"""The gate: which policies may become a bundle. Every mistake is found at once, with its line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from gateway.adapters.policy import policy_ast
from gateway.adapters.policy.policy_ast import Fault, Module
from gateway.adapters.policy.policy_builtins import ALLOWED, REMEDIES
from gateway.adapters.policy.policy_library import Library, find_library_fault
from gateway.adapters.policy.policy_package import (
    DECISION_SETS,
    LIBRARY,
    Package,
    Source,
    build_packages,
)
from gateway.adapters.policy.policy_scope import Scope, read_annotations, read_scope
from gateway.core.names import is_server_id

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
_BELOW_NOT: Final = (
    "below `not` may be undefined, which engines treat differently; put the expression into a "
    "rule or function of its own and negate that, or bind the value before"
)
_WITH_ELSE: Final = (
    "in the value of a rule with `else` may be undefined, which engines treat differently; bind "
    "it in the rule's body"
)
_RESERVED_DATA: Final = ("policies", "countersign", "applies_to")


def read_packages(
    sources: Mapping[str, str], data: Mapping[str, Any], faults: list[str], library: Library
) -> dict[str, Package]:
    """Return the packages in these sources (path → Rego), adding every mistake to `faults`.

    Those of the library are among them, as `countersign.lib.<name>`.
    """
    if not sources:
        faults.append(
            "no policies: the folder has no .rego file; write one, or copy the default pack "
            "with `countersign init`"
        )
    found = list(_parse(sources, faults))
    known = {source.name for source in found}
    uncertain = _uncertain(found)
    for source in found:
        wrong = sorted(
            (*_module_faults(source.module, known, library), *_undefined_faults(source, uncertain)),
            key=lambda fault: fault.line,
        )
        faults += [f"{source.path}:{fault.line}: {fault.text}" for fault in wrong]
    scopes = _read_scopes(found, faults)
    # With a file that cannot be read, packages that it defines would seem unknown.
    if len(found) == len(sources):
        faults += _data_faults(data, found)
    return {} if faults else build_packages((*found, *library.values()), scopes)


def _parse(sources: Mapping[str, str], faults: list[str]) -> Iterator[Source]:
    for path, text in sources.items():
        module = policy_ast.parse_module(path, text)
        if isinstance(module, Fault):
            faults.append(
                f"{path}:{module.line}:{module.column}: {module.text}{_hint(text, module)}"
            )
        elif len(module.package) != 2 or module.package[0] != "policies":  # noqa: PLR2004
            faults.append(
                f"{path}:{module.package_line}: package `{'.'.join(module.package)}` is not "
                "`policies.<name>`; rename it, without deeper nesting"
            )
        elif _NAME.fullmatch(module.package[1]) is None:
            faults.append(
                f"{path}:{module.package_line}: package name `{module.package[1]}` is not "
                "`[a-z][a-z0-9_]*` of at most 64 characters; rename it"
            )
        else:
            yield Source(path, text, module)


def _hint(text: str, fault: Fault) -> str:
    """Say what to do about errors that the engine does not explain."""
    lines = text.splitlines()
    line = lines[fault.line - 1] if fault.line <= len(lines) else ""
    if re.search(r'\$["`]', line):
        return "; string interpolation is not supported, use `sprintf`"
    return ""


def _module_faults(module: Module, known: set[str], library: Library) -> Iterator[Fault]:
    functions = {rule.name for rule in module.rules if rule.kind == "function"}
    for rule in module.rules:
        if rule.name in DECISION_SETS and not (rule.kind == "set" and rule.plain):
            yield Fault(
                rule.line,
                1,
                f"`{rule.name}` is not a partial set; write "
                f'`{rule.name} contains {{"code": "…"}} if {{ … }}`',
            )
    for call in module.calls:
        name = ".".join(call.path)
        if call.path[0] == "data" or (len(call.path) == 1 and name in functions):
            continue
        if name not in ALLOWED:
            remedy = REMEDIES.get(name, "see `countersign policy builtins` for those that are")
            yield Fault(call.line, 1, f"`{name}` is not available to policies; {remedy}")
    for use in (*module.refs, *module.calls):
        if use.path[0] == "data" and (text := _data_fault(use.path, known, library)):
            yield Fault(use.line or module.package_line, 1, text)


def _uncertain(found: list[Source]) -> set[tuple[str, str]]:
    """Return (package, rule) of rules that may be undefined."""
    rules = [(source.name, rule) for source in found for rule in source.module.rules]
    certain = {(name, rule.name) for name, rule in rules if rule.certain}
    return {(name, rule.name) for name, rule in rules} - certain


def _undefined_faults(source: Source, uncertain: set[tuple[str, str]]) -> Iterator[Fault]:
    """Refuse what the embedded engine and OPA decide differently (ast.Module: why)."""
    texts = (
        (source.module.negated, _BELOW_NOT),
        (source.module.fallible, _WITH_ELSE),
    )
    for uses, text in texts:
        for use in uses:
            if len(use.path) > 1 or (source.name, use.path[0]) in uncertain:
                name = ".".join(part or "[…]" for part in use.path)
                yield Fault(use.line, 1, f"`{name}` {text}")


def _data_fault(path: tuple[str, ...], known: set[str], library: Library) -> str | None:
    if len(path) == 1 or path[1] == "":
        return "reads all of `data`; name the document that it needs"
    # 1. An author may use the shipped library, and nothing else of what decides.
    if path[: len(LIBRARY)] == LIBRARY:
        return find_library_fault(path, library)
    if path[1] in {"countersign", "applies_to"}:
        return f"reads `data.{path[1]}`, which decides about it; read your own data"
    if path[1] != "policies":
        return None
    if len(path) == 2 or path[2] == "":  # noqa: PLR2004
        return "reads all of `data.policies`; name the package that it needs"
    return None if path[2] in known else f"reads unknown package `policies.{path[2]}`; add it"


def _read_scopes(found: list[Source], faults: list[str]) -> dict[str, Scope]:
    scopes: dict[str, Scope] = {}
    for source in found:
        wrong: list[tuple[int, str]] = []
        for line, given in read_annotations(source.text, source.module.package_line, wrong):
            scope, texts = read_scope(given)
            wrong += [(line, text) for text in texts]
            if source.name in scopes:
                wrong.append(
                    (line, f"`policies.{source.name}` has a second `applies_to`; keep one")
                )
            if scope is not None:
                scopes[source.name] = scope
        faults += [f"{source.path}:{line}: {text}" for line, text in wrong]
    return scopes


def _data_faults(data: Mapping[str, Any], found: list[Source]) -> Iterator[str]:
    for key in _RESERVED_DATA:
        if key in data:
            yield f"data.json: `{key}` is reserved for the gateway; rename it"
    permitting = {
        source.name: source.path
        for source in found
        if any(rule.name == "permit" for rule in source.module.rules)
    }
    authority = data.get("authority")
    owned = authority.get("policies") if isinstance(authority, dict) else None
    if authority is None and not permitting:
        return
    if not isinstance(owned, dict) or set(authority or {}) != {"policies"}:
        yield (
            "authority.json: is missing or malformed; it says which servers each package may "
            'permit: {"policies": {"' + next(iter(permitting), "name") + '": ["server"]}}'
        )
        return
    names = {source.name for source in found}
    for name, servers in owned.items():
        if name not in names:
            yield f"authority.json: there is no package `policies.{name}`; add or remove it"
        if not isinstance(servers, list) or not all(
            isinstance(server, str) and (server == "*" or is_server_id(server))
            for server in servers
        ):
            yield f'authority.json: `{name}` has no list of server ids; give one, or ["*"]'
    for name, path in permitting.items():
        if not owned.get(name):
            yield (
                f"{path}: `permit` of `policies.{name}` can never count; name its servers in "
                f'authority.json: "{name}": ["server"]'
            )
