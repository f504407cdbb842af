"""The gateway's settings: `load_config` reads them, and says everything that is wrong at once.

Nothing is read when this module is imported.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import pydantic

from gateway.adapters.keys.jose_assertions import load_key_set
from gateway.config.apps import AppSection
from gateway.config.base import BASE
from gateway.config.checks import (
    AT_MOST,
    NEVER_ZERO,
    SET_ELSEWHERE,
    Known,
    build_grant,
    find_contradictions,
    split_listen,
)
from gateway.config.faults import Pruned, explain, find_texts
from gateway.config.file import Source, load_source
from gateway.config.models import AgentSection, ConfigShape, LauncherSection
from gateway.core.limits import Limits
from gateway.core.oauth.apps import App, Apps, Strangers
from gateway.core.oauth.federation import TrustedIssuer
from gateway.core.tokens.clients import Agent, Client, ClientRegistry, Launcher
from gateway.core.tokens.issuing import Site

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_SQLITE: Final = "sqlite:///"
_NOTHING: Final = (None, "")
_NO_FILE: Final = (_SQLITE, "sqlite:///:memory:")
_NO_AGENTS: Final = ("launcher", "app")


class Config(ConfigShape):
    """A configuration without mistakes. Paths are absolute where the file's own path was."""

    @property
    def address(self) -> tuple[str, int]:
        """Host and port to listen on."""
        found = split_listen(self.listen)
        assert found is not None  # noqa: S101 - checked when it was loaded
        return found

    def call_limits(self) -> Limits:
        """Return the limits of the call path, overrides applied."""
        return Limits(
            policy_deadline_ms=self.policy.deadline_ms,
            access_token_max_s=self.tokens.ttl_s,
            **self.limits,
        )

    def site(self) -> Site:
        """Return what tokens say of this deployment."""
        return Site(
            issuer=self.tokens.issuer,
            public_url=self.public_url,
            environment=self.environment,
            ttl_s=self.tokens.ttl_s,
            run_max_s=self.tokens.run_max_s,
            max_depth=self.tokens.max_depth,
        )

    def trusted_issuers(self) -> tuple[TrustedIssuer, ...]:
        """Return the identity providers whose word about people is taken."""
        return tuple(
            TrustedIssuer(
                issuer=one.issuer,
                launcher=one.launcher,
                audience=one.audience or self.public_url,
                jwks_uri=one.jwks_uri,
                person_claim=one.person_claim,
            )
            for one in self.tokens.trusted_issuers
        )

    def client_registry(self) -> ClientRegistry:
        """Return the launchers and agents."""
        return ClientRegistry(self.file_clients())

    def file_clients(self) -> tuple[Client, ...]:
        """Return the launchers and agents of the file, as they stand there."""
        return tuple(
            _build_client(section)
            for section in self.clients
            if not isinstance(section, AppSection)
        )

    def apps(self) -> Apps:
        """Return the apps of the file, and what apps that name themselves may be."""
        documents = self.oauth.client_id_metadata_documents
        strangers = Strangers(
            agent=documents.agent,
            grants=tuple(build_grant(grant) for grant in documents.grants),
            documents=documents.enabled,
            hosts=documents.allowed_hosts,
            registration=self.oauth.dynamic_registration,
        )
        found = [_build_app(one) for one in self.clients if isinstance(one, AppSection)]
        return Apps(found, strangers=strangers)


def load_config(path: Path, env: Mapping[str, str]) -> Config:
    """Read the configuration at `path`, overridden by `env` (`COUNTERSIGN__A__B`, `…_FILE`).

    Raises `ConfigurationError`: each line of it is one mistake, `file:line: key: what; hint`.
    """
    source = load_source(path, env)
    _fill_in(source.data, path.resolve().parent)
    config, pruned = _validate(source, path.resolve().parent)
    noted = {problem.path for problem in source.problems}
    for found, message, hint in find_contradictions(config, _known(source.data)):
        where = pruned.original(found)
        if not any(where[:n] in noted for n in range(1, len(where) + 1)):
            source.note(where, message, hint)
    source.check()
    return config


def config_schema() -> dict[str, Any]:
    """Return the JSON Schema of `countersign.yaml`."""
    schema = ConfigShape.model_json_schema()
    schema["properties"]["limits"] |= {
        "additionalProperties": False,
        "properties": {
            one.name: {
                "type": "integer",
                "minimum": int(one.name in NEVER_ZERO),
                "default": one.default,
                **({"maximum": AT_MOST[one.name]} if one.name in AT_MOST else {}),
            }
            for one in msgspec.structs.fields(Limits)
            if one.name not in SET_ELSEWHERE
        },
    }
    return {"$schema": _DIALECT, **schema, "title": "countersign.yaml"}


def _fill_in(data: dict[str, Any], base: Path) -> None:
    """Add the defaults that depend on other keys, and resolve what looks like no path."""
    listen = data.get("listen")
    default = "http://" + (listen if isinstance(listen, str) else "127.0.0.1:8080")
    if data.get("public_url") in _NOTHING:
        data["public_url"] = default
    public_url = data["public_url"]
    if isinstance(public_url, str):
        data["public_url"] = public_url = public_url.rstrip("/")
    tokens = data.setdefault("tokens", {})
    if isinstance(tokens, dict) and tokens.get("issuer") in _NOTHING:
        tokens["issuer"] = public_url if isinstance(public_url, str) else default
    state = data.setdefault("state", {})
    if isinstance(state, dict):
        url = state.setdefault("url", "sqlite:///state.db")
        if isinstance(url, str) and url.startswith(_SQLITE) and url not in _NO_FILE:
            state["url"] = _SQLITE + str(base / url.removeprefix(_SQLITE))


def _validate(source: Source, base: Path) -> tuple[Config, Pruned]:
    """Note every malformed key; return what is left of the configuration without them.

    What is left is good enough to look for contradictions in, so that a typo does not hide them.
    """
    data, pruned = copy.deepcopy(source.data), Pruned()
    while True:
        try:
            return Config.model_validate(data, context={BASE: base}), pruned
        except pydantic.ValidationError as error:
            faults = error.errors(include_url=False, include_input=False)
        if not pruned.paths and any(source.read_as_text(p) for p in find_texts(faults, data)):
            data = copy.deepcopy(source.data)
            continue
        if not pruned.paths:  # later rounds only find what the first one's pruning left bare
            noted = {(problem.path, problem.place) for problem in source.problems}
            for path, message, hint in explain(faults, source.data):
                if (path, source.place(path)) not in noted:
                    broken = source.broken.get(path)
                    reason = f"{message}, and is not YAML: {broken}" if broken else message
                    source.note(path, reason, hint)
        pruned.remove(data, faults)


def _known(data: Mapping[str, Any]) -> Known:
    clients, servers = data.get("clients"), data.get("servers")
    written = [c for c in (clients if isinstance(clients, list) else ()) if isinstance(c, dict)]
    return Known(
        agents=frozenset(str(c.get("id")) for c in written if c.get("kind") not in _NO_AGENTS),
        servers=frozenset(servers if isinstance(servers, dict) else ()),
    )


def _build_app(section: AppSection) -> App:
    return App(
        id=section.id,
        name=section.name or section.id,
        agent=section.agent,
        redirect_uris=section.redirect_uris,
        grants=tuple(build_grant(grant) for grant in section.grants),
        owner=section.owner,
        secret_hash=section.secret_hash or "",
        dpop=section.dpop == "required",
        humans=section.humans,
    )


def _build_client(section: AgentSection | LauncherSection) -> Client:
    grants = tuple(build_grant(grant) for grant in section.grants)
    if isinstance(section, AgentSection):
        return Agent(
            id=section.id,
            owner=section.owner,
            version=section.version,
            roles=section.roles,
            grants=grants,
            secret_hash=section.secret_hash or "",
            may_delegate_to=section.may_delegate_to,
            jwks=_read_keys(section),
            dpop=section.dpop == "required",
        )
    return Launcher(
        id=section.id,
        owner=section.owner,
        secret_hash=section.secret_hash or "",
        jwks=_read_keys(section),
        may_launch=section.may_launch,
        humans=section.humans,
        grants=grants,
    )


def _read_keys(section: AgentSection | LauncherSection) -> tuple[dict[str, Any], ...]:
    """Return the public keys of a client; they were looked at when the file was read."""
    document: Any = section.jwks
    if section.jwks_file is not None:
        document = load_key_set(section.jwks_file)
    return () if document is None else tuple(document["keys"])
