"""The gate: which policies may become a bundle. Every mistake is found at once, with its place."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

from msgspec import Struct

from gateway.adapters.policy import policy_ast
from gateway.adapters.policy.gate.input_types import InputTypes
from gateway.adapters.policy.gate.policy_bindings import find_binding_faults
from gateway.adapters.policy.gate.policy_counts import find_counted_texts
from gateway.adapters.policy.gate.policy_data_faults import find_data_faults
from gateway.adapters.policy.gate.policy_digits import find_digit_faults
from gateway.adapters.policy.gate.policy_guards import find_unguarded
from gateway.adapters.policy.gate.policy_heads import find_head_faults
from gateway.adapters.policy.gate.policy_items import find_item_faults
from gateway.adapters.policy.gate.policy_literals import find_literal_faults
from gateway.adapters.policy.gate.policy_names import find_unknown_names, suggest
from gateway.adapters.policy.gate.policy_passed import Outline, name_packages, outline, passed
from gateway.adapters.policy.gate.policy_portable import find_unportable
from gateway.adapters.policy.gate.policy_rules import Definitions
from gateway.adapters.policy.policy_ast import Fault, Use
from gateway.adapters.policy.policy_builtins import ALLOWED, REMEDIES
from gateway.adapters.policy.policy_faults import Mistake, explain_syntax, find_long_lines
from gateway.adapters.policy.policy_library import Library, find_library_fault
from gateway.adapters.policy.policy_package import (
    DECISION_SETS,
    LIBRARY,
    Package,
    Source,
    build_packages,
)
from gateway.adapters.policy.policy_scope import Scope, find_unread, read_annotations, read_scope

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
_TAB_COLUMNS: Final = 4
_BELOW_NOT: Final = (
    "undefined_below_not",
    "below `not` may be undefined, which engines treat differently",
    "put the expression into a rule or function of its own and negate that, or bind it before",
)
_WITH_ELSE: Final = (
    "undefined_before_else",
    "in the value of a rule with `else` may be undefined, which engines treat differently",
    "bind it in the rule's body",
)


def read_packages(
    sources: Mapping[str, str],
    data: Mapping[str, Any],
    faults: list[Mistake],
    library: Library,
    types: InputTypes | None,
) -> dict[str, Package]:
    """Return the packages in these sources (path → Rego), adding every mistake to `faults`.

    Those of the library are among them, as `countersign.lib.<name>`. Without `types` comparisons
    are not looked at, nor anything else that bundles of earlier versions were not asked for.
    """
    if not sources:
        faults.append(
            Mistake(
                "no policies",
                0,
                0,
                "no_policies",
                "the folder has no .rego file",
                "write one with `countersign policy new`, or copy the default pack with "
                "`countersign init`",
            )
        )
    refused = _Refused({})
    if types is not None and not faults:
        known = _read_new(sources, library, types)
        if not isinstance(known, _Refused):
            packages, outlines = known
            faults += find_data_faults(data, [each.source for each in outlines])
            return {} if faults else packages
        refused = known
    found = list(_parse(sources, faults, refused.parsed))
    scopes: dict[str, Scope] = {}
    if refused.faults:
        faults += refused.faults
    else:
        scopes = _look(found, sources, library, types, faults)
    # With a file that cannot be read, packages that it defines would seem unknown.
    if len(found) == len(sources):
        faults += find_data_faults(data, found)
    return {} if faults else build_packages((*found, *library.values()), scopes)


class _Refused(Struct):
    """Modules that do not pass: those that could be parsed; every mistake if all were looked at."""

    parsed: Mapping[str, Source]
    faults: list[Mistake] | None = None


def _read_new(
    sources: Mapping[str, str], library: Library, types: InputTypes
) -> tuple[dict[str, Package], list[Outline]] | _Refused:
    """Return the packages and the outlines of `sources`, if they pass.

    Only what has not passed before is looked at.
    """
    faults: list[Mistake] = []
    seen = {path: passed.find_module(f"policies/{path}", text) for path, text in sources.items()}
    unseen = {path: sources[path] for path, known in seen.items() if known is None}
    new = {source.path: source for source in _parse(unseen, faults)}
    if faults:
        return _Refused(new)
    outlines = [known or outline(new[path]) for path, known in seen.items()]
    shared = [outline(source) for source in library.values()]
    named = name_packages((*outlines, *shared), types)
    if named is None:
        return _Refused(new)
    kept = {name: passed.find_package(each.key) for name, each in named.items()}
    packages = {name: package for name, package in kept.items() if package is not None}
    asked = named.keys() - packages.keys()
    needed = asked.union(*(named[name].requires for name in asked))
    paths = [each.source.path for each in outlines if each.source.name in needed]
    new |= {each.path: each for each in _parse({p: sources[p] for p in paths if p not in new}, [])}
    found = [new[path] for path in paths]
    told = [source for source in found if source.name in asked]
    if asked:
        scopes = _look(told, sources, library, types, faults, beside=found)
        if faults:
            return _Refused(new, faults if len(told) == len(sources) else None)
        built = build_packages((*found, *library.values()), scopes)
        packages = {name: packages.get(name) or built[name] for name in named}
    passed.keep((*outlines, *shared), {named[name].key: packages[name] for name in named})
    return packages, outlines


def _look(
    told: list[Source],
    sources: Mapping[str, str],
    library: Library,
    types: InputTypes | None,
    faults: list[Mistake],
    *,
    beside: list[Source] | None = None,
) -> dict[str, Scope]:
    """Return the scopes of the modules `told`; add their mistakes, in the order of `sources`."""
    found = told if beside is None else beside
    paths = {source.path for source in told}
    faults += _in_order(sources, _find_faults(found, library, types, paths))
    return read_scopes(told, faults)


def _in_order(sources: Mapping[str, str], found: Iterator[Mistake]) -> list[Mistake]:
    order = {path: number for number, path in enumerate(sources)}
    return sorted(found, key=lambda each: (order[each.file], each.row, each.col))


def _find_faults(
    found: list[Source], library: Library, types: InputTypes | None, told: set[str]
) -> Iterator[Mistake]:
    """Yield the mistakes in the modules whose paths are `told`."""
    definitions = Definitions((*found, *library.values()))
    uncertain = _uncertain(found)
    refused: set[tuple[str, int]] = set()
    asked = [source for source in found if source.path in told]
    for source in asked:
        yield from _module_faults(source, definitions, library)
        for fault in _undefined_faults(source, uncertain):
            refused.add((fault.file, fault.row))
            yield fault
        yield from find_unportable(source)
    if types is None:
        return
    for source in asked:
        yield from _unread_scopes(source)
        yield from find_unknown_names(source, definitions)
        yield from find_binding_faults(source, definitions)
        yield from find_head_faults(source, definitions)
        yield from find_digit_faults(source)
        yield from find_item_faults(source)
        yield from find_literal_faults(source)
        yield from find_counted_texts(source, definitions, types)
    yield from definitions.find_recursion(told)
    yield from definitions.find_conflicts(told)
    for fault in find_unguarded(definitions, types, told):
        # What may be undefined below `not` has to be written anew anyway.
        if (fault.file, fault.row) not in refused:
            yield fault


def _parse(
    sources: Mapping[str, str],
    faults: list[Mistake],
    parsed: Mapping[str, Source] = MappingProxyType({}),
) -> Iterator[Source]:
    """Yield each module that can be parsed; those in `parsed` are taken from there."""
    for path, text in sources.items():
        if path in parsed:
            yield parsed[path]
            continue
        long = list(find_long_lines(path, text))
        module = Fault(0, 0, "") if long else policy_ast.parse_module(path, text)
        if long:
            faults += long
        elif isinstance(module, Fault):
            faults.append(_syntax_fault(path, text, module))
        elif len(module.package) != 2 or module.package[0] != "policies":  # noqa: PLR2004
            message = f"package `{'.'.join(module.package)}` is not `policies.<name>`"
            hint = "rename it, without deeper nesting"
            faults.append(Mistake(path, module.package_line, 1, "package_name", message, hint))
        elif _NAME.fullmatch(module.package[1]) is None:
            message = (
                f"package name `{module.package[1]}` is not `[a-z][a-z0-9_]*` of at most 64 "
                "characters"
            )
            line = module.package_line
            faults.append(Mistake(path, line, 1, "package_name", message, "rename it"))
        else:
            yield Source(path, text, module)


def _syntax_fault(path: str, text: str, fault: Fault) -> Mistake:
    lines = text.splitlines()
    line = lines[fault.line - 1] if fault.line <= len(lines) else ""
    # The engine counts four columns for a tab.
    column, width = 1, 1
    while width < fault.column and column <= len(line):
        width += _TAB_COLUMNS if line[column - 1] == "\t" else 1
        column += 1
    return explain_syntax(path, line, fault.line, column, fault.text)


def _module_faults(source: Source, definitions: Definitions, library: Library) -> Iterator[Mistake]:
    module = source.module
    functions = {rule.name for rule in module.rules if rule.kind == "function"}
    for rule in module.rules:
        if rule.name in DECISION_SETS and not (rule.kind == "set" and rule.plain):
            message = f"`{rule.name}` is not a partial set"
            hint = f'write `{rule.name} contains {{"code": "…"}} if {{ … }}`'
            yield _at(source, Use((), rule.line, rule.start), "not_a_set", message, hint)
    for call in module.calls:
        name = ".".join(call.path)
        if call.path[0] == "data" or (len(call.path) == 1 and name in functions):
            continue
        if name not in ALLOWED:
            near = suggest(name, ALLOWED | functions)
            hint = (
                REMEDIES.get(name) or near or "see `countersign policy builtins` for those that are"
            )
            message = f"`{name}` is not available to policies"
            yield _at(source, call, "function_unknown", message, hint)
    for use in (*module.refs, *module.calls):
        text = _data_fault(use.path, definitions, library) if use.path[0] == "data" else None
        if text is not None:
            code, message = text
            yield _at(source, use, code, *message.split("; ", 1))


def _at(source: Source, use: Use, code: str, message: str, hint: str = "") -> Mistake:
    text = source.text.encode()
    column = use.start - text.rfind(b"\n", 0, use.start)
    return Mistake(source.path, use.line, column, code, message, hint)


def _uncertain(found: list[Source]) -> set[tuple[str, str]]:
    """Return (package, rule) of rules that may be undefined."""
    rules = [(source.name, rule) for source in found for rule in source.module.rules]
    certain = {(name, rule.name) for name, rule in rules if rule.certain}
    return {(name, rule.name) for name, rule in rules} - certain


def _undefined_faults(source: Source, uncertain: set[tuple[str, str]]) -> Iterator[Mistake]:
    """Refuse what the embedded engine and OPA decide differently (ast.Module: why)."""
    texts = (
        (source.module.negated, _BELOW_NOT),
        (source.module.fallible, _WITH_ELSE),
    )
    for uses, (code, message, hint) in texts:
        for use in uses:
            if len(use.path) > 1 or (source.name, use.path[0]) in uncertain:
                name = ".".join(part or "[…]" for part in use.path)
                yield _at(source, use, code, f"`{name}` {message}", hint)


def _data_fault(
    path: tuple[str, ...], definitions: Definitions, library: Library
) -> tuple[str, str] | None:
    if len(path) == 1 or path[1] == "":
        return "reads_everything", "reads all of `data`; name the document that it needs"
    # 1. An author may use the shipped library, and nothing else of what decides.
    if path[: len(LIBRARY)] == LIBRARY:
        text = find_library_fault(path, library)
        return ("library_unknown", text) if text else None
    if path[1] in {"countersign", "applies_to"}:
        return (
            "data_reserved",
            f"reads `data.{path[1]}`, which decides about it; read your own data",
        )
    return _package_fault(path, definitions) if path[1] == "policies" else None


def _package_fault(path: tuple[str, ...], definitions: Definitions) -> tuple[str, str] | None:
    if len(path) == 2 or path[2] == "":  # noqa: PLR2004
        text = "reads all of `data.policies`; name the package that it needs"
        return "reads_everything", text
    packages = {package[1]: package for package in definitions.packages() if len(package) == 2}  # noqa: PLR2004
    if path[2] not in packages:
        near = suggest(path[2], packages) or "add it"
        return "package_unknown", f"reads unknown package `policies.{path[2]}`; {near}"
    names = definitions.names_in(packages[path[2]])
    rule = path[3] if len(path) > 3 else ""  # noqa: PLR2004
    if rule and rule not in names:
        near = suggest(rule, names) or "add it"
        return "rule_unknown", f"`policies.{path[2]}` has no `{rule}`; {near}"
    return None


def read_scopes(found: list[Source], faults: list[Mistake]) -> dict[str, Scope]:
    """Return what packages concern, by their annotations; add what is wrong with these."""
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
        for line, text in wrong:
            message, _, hint = text.partition("; ")
            faults.append(Mistake(source.path, line, 1, "annotation_invalid", message, hint))
    return scopes


def _unread_scopes(source: Source) -> Iterator[Mistake]:
    for line in find_unread(source.text):
        message = "nobody reads an `applies_to` that stands here"
        hint = (
            "write it as `# METADATA`, `# custom:`, `#   applies_to:`, line below line, "
            "none of them empty, above `package`"
        )
        yield Mistake(source.path, line, 1, "annotation_invalid", message, hint)
