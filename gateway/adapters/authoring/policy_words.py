"""Names in rules that a deployment does not have: tools, servers, sums and labels.

To the engine such a name is a text like any other: what is compared with it is silent for good.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, Literal

from msgspec import Struct

from gateway.adapters.authoring.policy_reach import (
    Names,
    Path,
    member_texts,
    names_in_rule,
    path_of,
    plain_rules,
    texts_of,
)
from gateway.adapters.authoring.policy_settings import shipped_text
from gateway.adapters.policy.gate.policy_names import suggest
from gateway.adapters.policy.gate.policy_portable import below, mistake_at
from gateway.adapters.policy.policy_faults import Mistake
from gateway.adapters.policy.policy_package import LIBRARY, Source
from gateway.adapters.policy.policy_syntax import Node, unwrap

Kind = Literal["tool", "server", "sum", "label", "tool_label"]
_RUN: Final = ("input", "context", "run")
_FAMILY: Final = ("input", "context", "family")
_VALUES: Final[dict[Path, Kind]] = {
    ("input", "resource", "id"): "tool",
    ("input", "resource", "server"): "server",
    (*_RUN, "labels", ""): "label",
    ("input", "resource", "labels", ""): "tool_label",
}
_KEYS: Final[dict[Path, Kind]] = {
    (*_RUN, "sums"): "sum",
    (*_FAMILY, "sums"): "sum",
    (*_FAMILY, "last_24h", "sums"): "sum",
    (*_RUN, "counts"): "tool",
    (*_FAMILY, "counts"): "tool",
}
_FUNCTIONS: Final[dict[Path, Kind]] = {
    (*LIBRARY, "sums", "run"): "sum",
    (*LIBRARY, "sums", "family"): "sum",
    (*LIBRARY, "sums", "day"): "sum",
    (*LIBRARY, "labels", "run_has"): "label",
    (*LIBRARY, "labels", "tool_has"): "tool_label",
}


class Known(Struct, frozen=True):
    """What one names in rules. `resources`: tools, and agents, which are what runs are asked for.

    `added`: labels that obligations add; None where some are known only when they are added.
    """

    file: str
    resources: frozenset[str]
    servers: frozenset[str]
    sums: frozenset[str]
    labels: frozenset[str]
    added: frozenset[str] | None = frozenset()


def find_unknown_words(sources: Iterable[Source], known: Known) -> list[Mistake]:
    """Return a warning for each name in a rule that is none of these.

    The default pack speaks of what any deployment may have, so what is unchanged is left out.
    """
    modules: dict[Path, list[Source]] = {}
    for source in sources:
        modules.setdefault(source.module.package, []).append(source)
    known = Known(
        known.file, known.resources, known.servers, known.sums, known.labels, _added(modules)
    )
    told: dict[tuple[str, int, int], Mistake] = {}
    for package in modules.values():
        plain = plain_rules(package)
        for source in package:
            if shipped_text(source.path) == source.text:
                continue
            for rule in source.module.tree:
                names = names_in_rule(source, rule, plain, {})
                for kind, text, node in _words(rule, names):
                    said = _fault(kind, text, known)
                    if said is not None:
                        found = _warning(source, node, *said)
                        told.setdefault((found.file, found.row, found.col), found)
    return [told[place] for place in sorted(told)]


def _words(rule: Node, names: Names) -> Iterator[tuple[Kind, str, Node]]:
    for kind, body in below(rule):
        if kind in {"BoolExpr", "AssignExpr"} and body["op"] in {"Eq", "Ne"}:
            for place, side in ((body["lhs"], body["rhs"]), (body["rhs"], body["lhs"])):
                yield from _of(_VALUES, path_of(place, names), texts_of(side, names))
        elif kind == "Membership":
            collection = path_of(body["collection"], names)
            texts = texts_of(body["value"], names)
            yield from _of(_VALUES, (*collection, ""), texts)
            members = member_texts(body["collection"], names)
            yield from _of(_VALUES, path_of(body["value"], names), members)
        elif kind == "RefBrack":
            yield from _of(_KEYS, path_of(body["refr"], names), texts_of(body["index"], names))
        elif kind == "Call" and body["params"]:
            function, (first, *more) = path_of(body["fcn"], names), body["params"]
            yield from _of(_FUNCTIONS, function, texts_of(first, names))
            if function == ("object", "get") and more:
                yield from _of(_KEYS, path_of(first, names), texts_of(more[0], names))


def _of(
    kinds: dict[Path, Kind], path: Path, texts: Iterable[tuple[str, Node]]
) -> Iterator[tuple[Kind, str, Node]]:
    kind = kinds.get(path)
    if kind is not None:
        yield from ((kind, text, node) for text, node in texts)


def _fault(kind: Kind, text: str, known: Known) -> tuple[str, str, str] | None:
    """Return (code, message, hint) of a name that is none of its kind."""
    if kind == "tool" and text not in known.resources:
        hint = suggest(text, known.resources) or "an id is `<server>.<tool>`, as manifests name it"
        return "tool_unknown", f"no manifest of {known.file} has the tool `{text}`", hint
    if kind == "server" and text and text not in known.servers:
        hint = suggest(text, known.servers)
        return "server_unknown", f"{known.file} has no server `{text}`", hint
    if kind == "sum" and text not in known.sums:
        return "sum_unknown", *_about_sum(text, known)
    if kind == "tool_label" and text not in known.labels:
        hint = suggest(text, known.labels) or "name it under `labels` of a tool"
        return "label_unknown", f"no manifest of {known.file} gives a tool the label `{text}`", hint
    if kind == "label" and known.added is not None and text not in known.labels | known.added:
        near = suggest(text, known.labels | known.added)
        message = f"no manifest of {known.file} and no `add_label` gives the label `{text}`"
        hint = near or "name it under `labels` of a tool; only launchers could give it to a run now"
        return "label_unknown", message, hint
    return None


def _about_sum(key: str, known: Known) -> tuple[str, str]:
    tool, _, pointer = key.partition("#")
    message = f"no manifest of {known.file} adds up `{key}`: this sum is 0 whatever is spent"
    near = suggest(key, known.sums)
    if tool in known.resources and pointer.startswith("/") and not near:
        return message, f"list `{pointer}` under `sums` of `{tool}`"
    return message, near or "a key is `<server>.<tool>#/<argument>`, listed under `sums`"


def _added(modules: dict[Path, list[Source]]) -> frozenset[str] | None:
    found: set[str] = set()
    for package in modules.values():
        for source in package:
            for kind, body in below(source.module.tree):
                members = _members(body) if kind == "Object" else {}
                said = unwrap(members["type"])[1] if "type" in members else {}
                if said.get("value") != "add_label":
                    continue
                labels = members.get("labels", {"Var": {}})
                items = labels.get("Array", {}).get("items", [{"Var": {}}])
                if any(unwrap(item)[0] not in {"String", "RawString"} for item in items):
                    return None
                found |= {unwrap(item)[1]["value"] for item in items}
    return frozenset(found)


def _members(body: Node) -> dict[str, Node]:
    return {
        name["value"]: field[-1]
        for field in body["fields"]
        for kind, name in (unwrap(field[-2]),)
        if kind in {"String", "RawString"}
    }


def _warning(source: Source, node: Node, code: str, message: str, hint: str) -> Mistake:
    told = mistake_at(source, node, code, message, hint)
    return Mistake(told.file, told.row, told.col, told.code, told.message, told.hint, "warning")
