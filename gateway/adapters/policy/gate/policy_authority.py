"""Who may permit what: `authority.json`, read strictly.

    {"owners": {"payments": {"packages": ["refunds", "payouts"], "servers": ["billing", "bank"]}},
     "policies": {"payouts": ["bank"]}}

An owner is a team: its packages may permit on its servers, and on no others. `policies` names the
servers of one package, for a package without an owner, or fewer than its owner has. Without
`owners`, `policies` alone says it. Once there are owners, every package that permits has one: a
package that somebody adds under a fine name has no authority by its name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct

from gateway.adapters.policy.gate.policy_names import suggest
from gateway.adapters.policy.policy_faults import Mistake, in_file
from gateway.adapters.policy.policy_package import Source
from gateway.core.names import is_server_id

_FILE: Final = "authority.json"


class _Owner(Struct, frozen=True, forbid_unknown_fields=True):
    packages: tuple[str, ...]
    servers: tuple[str, ...]


class _Authority(Struct, frozen=True, forbid_unknown_fields=True):
    policies: dict[str, tuple[str, ...]] = {}
    owners: dict[str, _Owner] = {}


def expand_authority(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the data with the servers of each owned package under `authority.policies`.

    That is where the entry point looks. Done again, it changes nothing. For data without mistakes.
    """
    if not isinstance(data.get("authority"), dict) or "owners" not in data["authority"]:
        return dict(data)
    found = msgspec.convert(data["authority"], _Authority)
    owned = {
        name: list(owner.servers) for owner in found.owners.values() for name in owner.packages
    }
    given = {name: list(servers) for name, servers in found.policies.items()}
    return {**data, "authority": {**data["authority"], "policies": owned | given}}


def find_authority_faults(authority: object, found: list[Source]) -> Iterator[Mistake]:
    """Yield what is wrong with `authority` (None: there is none), for these policies."""
    permitting = {
        source.name: source
        for source in reversed(found)
        if any(rule.name == "permit" for rule in source.module.rules)
    }
    if authority is None and not permitting:
        return
    unlisted = list(_unlisted(authority))
    if unlisted:
        yield from unlisted
        return
    try:
        known = msgspec.convert(authority, _Authority)
    except msgspec.ValidationError:
        yield _fault(
            "is missing or malformed; it says which servers each package may permit: "
            '{"policies": {"' + min(permitting, default="name") + '": ["server"]}}'
        )
        return
    names = {source.name for source in found}
    yield from _server_faults(known, names)
    yield from _owner_faults(known, names)
    for name, source in sorted(permitting.items()):
        if not _servers_of(known, name):
            rule = next(rule for rule in source.module.rules if rule.name == "permit")
            yield Mistake(
                source.path,
                rule.line,
                1,
                "permit_without_authority",
                f"`permit` of `policies.{name}` can never count",
                "name the package under its owner in authority.json"
                if known.owners
                else f'name its servers in authority.json: "{name}": ["server"]',
            )


def _unlisted(authority: object) -> Iterator[Mistake]:
    policies = authority.get("policies") if isinstance(authority, dict) else None
    for name, servers in policies.items() if isinstance(policies, dict) else ():
        if not isinstance(servers, list) or not all(isinstance(each, str) for each in servers):
            yield _fault(f'`{name}` has no list of server ids; give one, or ["*"]')


def _servers_of(known: _Authority, name: str) -> tuple[str, ...]:
    owned = [owner.servers for owner in known.owners.values() if name in owner.packages]
    if known.owners and not owned:
        return ()
    return known.policies.get(name, owned[0] if owned else ())


def _server_faults(known: _Authority, names: set[str]) -> Iterator[Mistake]:
    rows = [*known.policies.items(), *((f"owner {n}", o.servers) for n, o in known.owners.items())]
    for name, servers in rows:
        if not all(server == "*" or is_server_id(server) for server in servers):
            yield _fault(f'`{name}` has no list of server ids; give one, or ["*"]')
    listed = [*known.policies, *(p for owner in known.owners.values() for p in owner.packages)]
    for name in dict.fromkeys(listed):
        if name not in names:
            near = suggest(name, names) or "add or remove it"
            yield _fault(f"there is no package `policies.{name}`; {near}")


def _owner_faults(known: _Authority, names: set[str]) -> Iterator[Mistake]:
    for name in sorted(names):
        owners = [each for each, owner in known.owners.items() if name in owner.packages]
        if len(owners) > 1:
            told = ", ".join(f"`{each}`" for each in sorted(owners))
            yield _fault(f"`{name}` has several owners ({told}); leave it to one")
    for name, servers in known.policies.items():
        for each, owner in known.owners.items():
            wide = set(servers) - set(owner.servers)
            if name in owner.packages and wide and "*" not in owner.servers:
                told = ", ".join(f"`{server}`" for server in sorted(wide))
                yield _fault(f"`{name}` may permit no more than its owner `{each}`; remove {told}")


def _fault(text: str) -> Mistake:
    return in_file(_FILE, "authority_invalid", text)
