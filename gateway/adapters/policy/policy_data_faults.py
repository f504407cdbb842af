"""What is wrong with the data of policies: reserved names, and an authority that nobody can use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from gateway.adapters.policy.policy_faults import Mistake, in_file
from gateway.adapters.policy.policy_names import suggest
from gateway.adapters.policy.policy_package import Source
from gateway.core.names import is_server_id

_RESERVED: Final = ("policies", "countersign", "applies_to")


def find_data_faults(data: Mapping[str, Any], found: list[Source]) -> Iterator[Mistake]:
    """Yield mistakes in the merged data and in `authority`, for these policies."""
    for key in _RESERVED:
        if key in data:
            text = f"`{key}` is reserved for the gateway; rename it"
            yield in_file("data.json", "data_reserved", text)
    permitting = {
        source.name: source
        for source in reversed(found)
        if any(rule.name == "permit" for rule in source.module.rules)
    }
    authority = data.get("authority")
    owned = authority.get("policies") if isinstance(authority, dict) else None
    if authority is None and not permitting:
        return
    if not isinstance(owned, dict) or set(authority or {}) != {"policies"}:
        yield _authority(
            "is missing or malformed; it says which servers each package may permit: "
            '{"policies": {"' + min(permitting, default="name") + '": ["server"]}}'
        )
        return
    yield from _owned_faults(owned, {source.name for source in found})
    for name, source in sorted(permitting.items()):
        if not owned.get(name):
            rule = next(rule for rule in source.module.rules if rule.name == "permit")
            yield Mistake(
                source.path,
                rule.line,
                1,
                "permit_without_authority",
                f"`permit` of `policies.{name}` can never count",
                f'name its servers in authority.json: "{name}": ["server"]',
            )


def _owned_faults(owned: Mapping[str, Any], names: set[str]) -> Iterator[Mistake]:
    for name, servers in owned.items():
        if name not in names:
            near = suggest(name, names) or "add or remove it"
            yield _authority(f"there is no package `policies.{name}`; {near}")
        if not isinstance(servers, list) or not all(
            isinstance(server, str) and (server == "*" or is_server_id(server))
            for server in servers
        ):
            yield _authority(f'`{name}` has no list of server ids; give one, or ["*"]')


def _authority(text: str) -> Mistake:
    return in_file("authority.json", "authority_invalid", text)
