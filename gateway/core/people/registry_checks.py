"""What an entry of the registry may say, whoever asks for it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final

from msgspec import Struct

from gateway.core.people.registry import ROLES, Body, Person, Registry
from gateway.core.tokens.clients import Agent, Client, Launcher
from gateway.core.tokens.grants import find_ambiguity, find_fault
from gateway.core.tokens.token import Grant

GRANTS_MAX: Final = 64
NAMES_MAX: Final = 256
OWNER_MAX_CHARS: Final = 128

_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_GROUP: Final = re.compile(r"[a-z][a-z0-9-]{0,31}")
_ROLE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}")
_HASH: Final = re.compile(r"sha256:[0-9a-f]{64}")
ANYBODY: Final = "*"


class Deployment(Struct, frozen=True, kw_only=True):
    """What entries are measured against. `dev`: an agent's own secret may do more than read.

    `reserved`: ids that stand for something that is no member, such as an app, by their one name.
    `find_key_fault` says why a JWK set (RFC 7517) does not do for a client, or returns None.
    """

    environment: str
    servers: frozenset[str]
    dev: bool = False
    reserved: frozenset[str] = frozenset()
    find_key_fault: Callable[[object], str | None] = lambda _keys: "no public keys are taken here"


def find_body_fault(body: Body, registry: Registry, deployment: Deployment) -> str | None:
    """Say what is wrong with an entry, in words for the person who wrote it; None if nothing."""
    return next(_find_faults(body, registry, deployment), None)


def is_secret_hash(text: str) -> bool:
    """Whether a text is `sha256:` and 64 hex digits."""
    return _HASH.fullmatch(text) is not None


def _find_faults(body: Body, registry: Registry, deployment: Deployment) -> Iterator[str]:
    if not _ID.fullmatch(body.id):
        yield "an id is letters, digits and `._@-`, at most 64, beginning with one of the former"
    if body.secret_hash and not is_secret_hash(body.secret_hash):
        yield "a `secret_hash` is `sha256:` and 64 hex digits"
    if registry.has_secret(body.secret_hash, but=body.id):
        yield "another entry has the same secret; generate one for each"
    if isinstance(body, Person):
        yield from _check_person(body)
        return
    if len(body.owner) > OWNER_MAX_CHARS or not body.owner.isprintable():
        yield f"an `owner` is at most {OWNER_MAX_CHARS} characters that can be printed"
    yield from _check_grants(body.grants, deployment)
    yield from _check_keys(body, deployment)
    if isinstance(body, Agent):
        yield from _check_agent(body, registry, deployment)
    elif isinstance(body, Launcher):
        yield from _check_launcher(body, registry)


def _check_person(body: Person) -> Iterator[str]:
    for role in body.roles:
        if role not in ROLES:
            yield f"`{role[:32]}` is no role; use any of {', '.join(ROLES)}"
    for group in body.groups:
        # A group of a role's name would be that role wherever policies ask for groups.
        if not _GROUP.fullmatch(group) or group in ROLES:
            yield f"`{group[:32]}` is no group: lower-case letters, digits and `-`, and no role"
    if len(body.groups) > NAMES_MAX:
        yield f"more than {NAMES_MAX} groups"


def _check_keys(body: Client, deployment: Deployment) -> Iterator[str]:
    if not body.jwks:
        return
    if body.secret_hash:
        yield "a secret and `jwks` both prove it; keep one: whoever has either would be it"
    fault = deployment.find_key_fault({"keys": list(body.jwks)})
    if fault is not None:
        yield f"`jwks`: {fault}"


def _check_agent(body: Agent, registry: Registry, deployment: Deployment) -> Iterator[str]:
    if len(body.roles) > NAMES_MAX or not all(map(_ROLE.fullmatch, body.roles)):
        yield "an agent's roles are letters, digits and `._:-`"
    if not deployment.dev and any(set(grant.effects) != {"read"} for grant in body.grants):
        yield 'an agent\'s own secret gives only reading; write `effects: ["read"]`'
    if body.id in body.may_delegate_to:
        yield "an agent hands nothing to itself"
    yield from _check_agents(body.may_delegate_to, registry)


def _check_launcher(body: Launcher, registry: Registry) -> Iterator[str]:
    yield from _check_agents(body.may_launch, registry)
    if len(body.humans) > NAMES_MAX or not all(
        one == ANYBODY or (one and len(one) <= OWNER_MAX_CHARS and one.isprintable())
        for one in body.humans
    ):
        yield "`humans` holds the ids of people, or `*`"


def _check_agents(named: tuple[str, ...], registry: Registry) -> Iterator[str]:
    if len(named) > NAMES_MAX:
        yield f"more than {NAMES_MAX} agents"
    for agent in named:
        found = registry.find(agent, "agent")
        if found is None or found.state == "retired":
            yield f"there is no agent `{agent[:64]}`; create it first"


def _check_grants(grants: tuple[Grant, ...], deployment: Deployment) -> Iterator[str]:
    if len(grants) > GRANTS_MAX:
        yield f"more than {GRANTS_MAX} grants"
        return
    for grant in grants:
        if grant.server not in deployment.servers:
            yield f"there is no server `{grant.server[:32]}`"
        if (fault := find_fault(grant)) is not None:
            yield fault
    if (ambiguity := find_ambiguity(grants)) is not None:
        yield ambiguity
