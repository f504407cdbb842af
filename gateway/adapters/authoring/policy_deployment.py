"""What policies say of a deployment that it does not have: tools, servers, people who approve.

All of it loads. A hold for a group that nobody has is refused when it comes, and a package that no
tool matches is never heard: their authors believe in something that will not happen.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from msgspec import Struct

from gateway.adapters.authoring.policy_words import Known, find_unknown_words
from gateway.adapters.policy.gate.policy_names import suggest
from gateway.adapters.policy.policy_bundle import AUTHORITY_FILE, Bundle, default_pack
from gateway.adapters.policy.policy_faults import Mistake
from gateway.adapters.policy.policy_package import Package, Source
from gateway.adapters.policy.policy_scope import Scope
from gateway.adapters.policy.policy_syntax import Node, head_of, place, unwrap, whole_span
from gateway.core.approvals.seating import APPROVER

_SETTINGS_FILE: Final = "data.json"
_APPROVALS: Final = "countersign.lib.approvals"


class Deployment(Struct, frozen=True):
    """What one names. `tools`: (id, server, effect). `people`: roles and groups of each.

    `file` is how it is called in what is told. `sums`: keys, `<tool id>#<pointer>`. `labels`: what
    manifests give tools.
    """

    file: str
    servers: frozenset[str]
    tools: tuple[tuple[str, str, str], ...]
    people: tuple[frozenset[str], ...]
    agents: frozenset[str] = frozenset()
    sums: frozenset[str] = frozenset()
    labels: frozenset[str] = frozenset()

    @property
    def groups(self) -> frozenset[str]:
        """Every role and group that somebody has."""
        return frozenset[str]().union(*self.people)


class _Seats(Struct, frozen=True):
    """So many votes of these groups, written at one place."""

    file: str
    row: int
    col: int
    groups: tuple[str, ...]
    votes: int = 1


def find_mismatches(
    bundle: Bundle, sources: Iterable[Source], deployment: Deployment
) -> list[Mistake]:
    """Return a warning for each thing that the deployment does not have."""
    sources = list(sources)
    data = json.loads(bundle.data)
    return [
        *_approver_faults(bundle, sources, data, deployment),
        *_scope_faults(bundle, sources, deployment),
        *_word_faults(sources, deployment),
        *_data_faults(bundle, data, deployment),
    ]


def _word_faults(sources: list[Source], deployment: Deployment) -> list[Mistake]:
    known = Known(
        deployment.file,
        frozenset(id_ for id_, _, _ in deployment.tools) | deployment.agents,
        deployment.servers,
        deployment.sums,
        deployment.labels,
    )
    return find_unknown_words(sources, known)


# --- who approves -------------------------------------------------------------------------------


def _approver_faults(
    bundle: Bundle, sources: list[Source], data: Mapping[str, Any], deployment: Deployment
) -> Iterator[Mistake]:
    asked = [seats for source in sources for seats in _seats_in(source)]
    asked += _seats_of_settings(bundle, data)
    told: set[tuple[str, int, str]] = set()
    for seats in asked:
        for group in seats.groups:
            if group not in deployment.groups and (seats.file, seats.row, group) not in told:
                told.add((seats.file, seats.row, group))
                yield _at(seats, "approver_unknown", *_nobody(group, deployment))
        having = sum(1 for groups in deployment.people if groups & set(seats.groups))
        if 0 < having < seats.votes:
            text = f"{seats.votes} votes of {_list(seats.groups)} are asked for, and {having} may"
            hint = "such a hold is refused; ask for fewer, or name more people under `humans:`"
            yield _at(seats, "approvers_too_few", text, hint)


def _nobody(group: str, deployment: Deployment) -> tuple[str, str]:
    near = suggest(group, deployment.groups)
    return (
        f"nobody in {deployment.file} has the role or group `{group}`; a hold for it is refused",
        near or "name it under `humans:`; people registered at the gateway are not known here",
    )


def _seats_in(source: Source) -> Iterator[_Seats]:
    """Yield the seats that a module writes out, and those that a hold without conditions has."""
    text = source.text.encode()
    for rule in source.module.tree:
        kind, head = head_of(rule)
        name = unwrap(head["refr"])[1].get("value")
        written = kind == "Set" and name == "hold" and "Object" in head["key"]
        if written and "approval" not in dict(_members(head["key"])):
            yield _Seats(source.path, *place(text, head["span"]), (APPROVER,))
    yield from _seats_below(source.module.tree, source, text)


def _seats_below(node: object, source: Source, text: bytes) -> Iterator[_Seats]:
    if isinstance(node, list):
        for item in node:
            yield from _seats_below(item, source, text)
    elif isinstance(node, dict):
        if "Object" in node:
            members = dict(_members(node))
            groups = _groups_of(members.get("who"))
            if groups is not None:
                at = place(text, whole_span({"span": groups["Array"]["span"], "of": groups}))
                votes = members.get("approve", {}).get("Number", {}).get("value", 1)
                yield _Seats(source.path, *at, tuple(_texts(groups)), int(votes))
        for kind, body in node.items():
            if kind != "span":
                yield from _seats_below(body, source, text)


def _members(item: Node) -> Iterator[tuple[str, Node]]:
    """Yield (name, value) of an object's members whose names are written out."""
    for field in item["Object"]["fields"]:
        kind, body = unwrap(field[-2])
        if kind in {"String", "RawString"}:
            yield body["value"], field[-1]


def _groups_of(who: Node | None) -> Node | None:
    groups = dict(_members(who)).get("groups") if who and "Object" in who else None
    return groups if groups and "Array" in groups else None


def _texts(items: Node) -> Iterator[str]:
    for item in items["Array"]["items"]:
        kind, body = unwrap(item)
        if kind in {"String", "RawString"}:
            yield body["value"]


def _seats_of_settings(bundle: Bundle, data: Mapping[str, Any]) -> Iterator[_Seats]:
    """Yield whom the library's usual conditions ask, if a package uses them."""
    using = [each for each in bundle.packages.values() if _APPROVALS in each.requires]
    if not using:
        return
    given = _setting(data, "approval", "groups")
    if isinstance(given, list):
        yield _Seats(_SETTINGS_FILE, 0, 0, tuple(map(str, given)))
    else:
        yield _Seats(_file_of(using[0]), 0, 0, (APPROVER,))


# --- which tools --------------------------------------------------------------------------------


def _scope_faults(
    bundle: Bundle, sources: list[Source], deployment: Deployment
) -> Iterator[Mistake]:
    ids = [id_ for id_, _, _ in deployment.tools]
    for package in bundle.packages.values():
        scope = package.scope
        if scope is None or _waits(package, scope):
            continue
        written = next(each for each in sources if each.name == package.name)
        unknown = False
        for glob in scope.tools or ():
            if not any(Scope(tools=(glob,)).matches(id_, "", "", "") for id_ in ids):
                unknown = True
                text = f"`applies_to` names `{glob}`, and no manifest of {deployment.file} has it"
                yield _in_annotation(written, glob, "tool_unknown", text, suggest(glob, ids))
        for server in scope.servers or ():
            if server not in deployment.servers:
                unknown = True
                text = f"`applies_to` names the server `{server}`, which {deployment.file} has not"
                hint = suggest(server, deployment.servers)
                yield _in_annotation(written, server, "server_unknown", text, hint)
        if not unknown and not _is_heard(scope, deployment):
            text = f"no tool of {deployment.file} is what `policies.{package.name}` is about"
            hint = "its selectors match one by one, and never all of them; look at `effects`"
            if scope.tools is None and scope.servers is None:
                hint = "no manifest gives a tool one of these `effects`; did a review say another?"
            yield _in_annotation(written, "applies_to", "package_unheard", text, hint)


def _waits(package: Package, scope: Scope) -> bool:
    """Whether nothing is odd in it where no tool matches yet.

    The default pack is about what any deployment may come to have; who launches calls no tool.
    """
    if scope.tools is not None or scope.servers is not None:
        return False
    shipped = (default_pack() / _file_of(package)).is_file()
    return scope.effects is None or shipped or scope.phases == ("issue",)


def _is_heard(scope: Scope, deployment: Deployment) -> bool:
    phases = scope.phases or ("call",)
    return any(scope.matches(*tool, phase) for tool in deployment.tools for phase in phases)


def _data_faults(
    bundle: Bundle, data: Mapping[str, Any], deployment: Deployment
) -> Iterator[Mistake]:
    ids = {id_: (id_, server, effect) for id_, server, effect in deployment.tools}
    left_out = _setting(data, "high_risk", "except")
    for tool in map(str, left_out if isinstance(left_out, list) else ()):
        if tool not in ids:
            text = f"`high_risk.except` names `{tool}`, which no manifest has"
            hint = suggest(tool, ids) or "write whole ids, without patterns"
            yield Mistake(_SETTINGS_FILE, 0, 0, "tool_unknown", text, hint, "warning")
        elif not any(_permits(package, ids[tool], data) for package in bundle.packages.values()):
            text = f"`high_risk.except` names `{tool}`, and no other package could permit it"
            hint = "write one that does: `countersign policy new`"
            yield Mistake(_SETTINGS_FILE, 0, 0, "nobody_permits", text, hint, "warning")
    known = {"*", *deployment.servers}
    for name, servers in data.get("authority", {}).get("policies", {}).items():
        for server in servers:
            if server not in known:
                text = f"`{name}` may permit on `{server}`, which {deployment.file} has not"
                hint = suggest(server, deployment.servers)
                yield Mistake(AUTHORITY_FILE, 0, 0, "server_unknown", text, hint, "warning")


def _permits(package: Package, tool: tuple[str, str, str], data: Mapping[str, Any]) -> bool:
    """Whether a package may say yes to a call, not counting the one that it is left out of."""
    servers = data.get("authority", {}).get("policies", {}).get(package.name, ())
    return (
        "permit" in package.sets
        and package.name != "high_risk"
        and bool({"*", tool[1]} & set(servers))
        and (package.scope is None or package.scope.matches(*tool, "call"))
    )


def _setting(data: Mapping[str, Any], *names: str) -> object:
    found: object = data.get("settings")
    for name in names:
        found = found.get(name) if isinstance(found, dict) else None
    return found


# --- places -------------------------------------------------------------------------------------


def _file_of(package: Package) -> str:
    return package.paths[0].removeprefix("policies/")


def _list(groups: Iterable[str]) -> str:
    return ", ".join(f"`{group}`" for group in groups)


def _at(seats: _Seats, code: str, text: str, hint: str) -> Mistake:
    return Mistake(seats.file, seats.row, seats.col, code, text, hint, "warning")


def _in_annotation(source: Source, word: str, code: str, text: str, hint: str) -> Mistake:
    """Return a warning at the line above `package` that has a word, as far as there is one."""
    pattern = re.compile(rf"(?<![\w.*-]){re.escape(word)}(?![\w.*-])")
    lines = source.text.splitlines()[: source.module.package_line]
    row = next((number for number, line in enumerate(lines, 1) if pattern.search(line)), 1)
    return Mistake(source.path, row, 1, code, text, hint, "warning")
