"""What two releases differ in, for people who are asked to sign the second one."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import orjson
from msgspec import Struct

from gateway.core.releases.opa_files import DATA
from gateway.core.releases.release import ENDPOINTS, MANIFESTS, ROLES, Release


class Difference(Struct, frozen=True):
    """One place that differs. `change`: added, removed or changed; `lines`: of a unified diff."""

    kind: str
    place: str
    change: str
    lines: tuple[str, ...] = ()


def compare(before: Release, after: Release) -> list[Difference]:
    """Return every difference: files with their text, and entries of data, endpoints and roles."""
    found: list[Difference] = []
    for path in sorted(before.files.keys() | after.files.keys()):
        old, new = before.files.get(path), after.files.get(path)
        if old == new:
            continue
        if path in (DATA, ENDPOINTS, ROLES):
            found += _compare_documents(path, old, new)
        else:
            lines = _diff(path, old or b"", new or b"")
            found.append(Difference(_kind(path), path, _change(old, new), lines))
    return found


def is_policy_only(environment: str, before: Release, after: Release) -> bool:
    """Whether two releases differ, for a deployment, in nothing but what its engine reads."""

    def rest(release: Release) -> tuple[Any, ...]:
        endpoints = release.endpoints.get(environment, {})
        used = {server: release.manifests.get(server) for server in endpoints}
        return endpoints, used, release.roles.get(environment)

    return rest(before) == rest(after)


def _kind(path: str) -> str:
    if path.startswith(MANIFESTS):
        return "manifest"
    return "rego" if path.endswith(".rego") else "file"


def _compare_documents(path: str, old: bytes | None, new: bytes | None) -> list[Difference]:
    kind = {DATA: "data", ENDPOINTS: "endpoint", ROLES: "role"}[path]
    one, other = (_leaves(orjson.loads(text or b"{}")) for text in (old, new))
    return [
        Difference(
            kind,
            place,
            _change(one.get(place), other.get(place)),
            (
                *((f"-{one[place]}",) if place in one else ()),
                *((f"+{other[place]}",) if place in other else ()),
            ),
        )
        for place in sorted(one.keys() | other.keys())
        if one.get(place) != other.get(place)
    ]


def _leaves(value: Any, place: str = "") -> dict[str, str]:  # noqa: ANN401 - JSON has any type
    """Return JSON Pointer (RFC 6901) → value as JSON, of everything that has nothing below it."""
    if isinstance(value, Mapping) and value:
        found: dict[str, str] = {}
        for key, item in value.items():
            name = str(key).replace("~", "~0").replace("/", "~1")
            found |= _leaves(item, f"{place}/{name}")
        return found
    return {place: orjson.dumps(value).decode()}


def _change(old: object, new: object) -> str:
    if old is None:
        return "added"
    return "removed" if new is None else "changed"


def _diff(path: str, old: bytes, new: bytes) -> tuple[str, ...]:
    one, other = (text.decode("utf-8", "replace").splitlines() for text in (old, new))
    return tuple(difflib.unified_diff(one, other, fromfile=path, tofile=path, lineterm=""))
