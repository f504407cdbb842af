"""The part of the composition root that gives upstreams their credentials."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from connectors.auth_binding import UpstreamAuth
from connectors.credential_http import CredentialProblem
from connectors.credentials import CredentialMaker
from connectors.http_pool import HttpPool
from connectors.manifest import Manifest, load_manifest
from connectors.oauth_upstream import Asserter, TokenFetcher
from connectors.secret_sources import SecretSources, read_private_file, read_variable
from connectors.secret_vault import VaultReader
from connectors.upstreams import Endpoint, find_binding
from gateway.adapters.broker.broker_socket import SocketBroker
from gateway.adapters.keys.token_keys import LocalSigner, load_or_create_token_key
from gateway.brokering import CachingBroker
from gateway.config.models import AuthSection, CredentialsSection, HttpServerSection, ServerSection
from gateway.config.settings import Config
from gateway.core.credentials import CredentialAsk, CredentialFailure
from gateway.core.errors import ConfigurationError
from gateway.core.ports import Clock, CredentialBroker, Ids

_SHARED: Final = frozenset({"header", "query", "basic", "env"})


def read_auth(section: AuthSection | None) -> UpstreamAuth | None:
    """Return the binding that a configuration gives in place of the manifest's."""
    return None if section is None else UpstreamAuth(**section.model_dump())


def build_endpoint(section: ServerSection) -> Endpoint:
    """Return where a configured server is."""
    auth = read_auth(section.auth)
    if isinstance(section, HttpServerSection):
        return Endpoint(url=section.url, auth=auth, shared=section.shared)
    return Endpoint(
        command=section.command,
        env=section.env,
        cwd=section.cwd,
        auth=auth,
        shared=section.shared,
    )


def load_manifests(config: Config, only: str | None = None) -> dict[str, Manifest]:
    """Read the manifest of every server (or of one). Raises `ConfigurationError`."""
    found: dict[str, Manifest] = {}
    for name, section in config.servers.items():
        if only not in (None, name):
            continue
        manifest = found[name] = load_manifest(section.manifest)
        if manifest.id != name:
            raise ConfigurationError(
                f"servers.{name}.manifest: the manifest is of `{manifest.id}`; name the server as "
                "its manifest does"
            )
    return found


def find_bindings(config: Config, manifests: Mapping[str, Manifest]) -> dict[str, UpstreamAuth]:
    """Return the binding of every server that has one. Raises `ConfigurationError`."""
    found = {
        name: find_binding(manifest, build_endpoint(config.servers[name]))
        for name, manifest in manifests.items()
    }
    return {name: auth for name, auth in found.items() if auth is not None}


def build_local_broker(
    config: Config,
    bindings: Mapping[str, UpstreamAuth],
    *,
    pool: HttpPool,
    ids: Ids,
    environ: Mapping[str, str],
) -> CachingBroker:
    """Return the broker that reads the secrets in this process.

    Raises `ConfigurationError` for a client secret that is not where it should be: no token is
    asked for at the start, which would tell.
    """
    _check_client_secrets(bindings, environ)
    sources = _build_sources(config.credentials, pool, environ)

    async def secret(reference: str, now_ns: int) -> str:
        return (await sources.read(reference, now_ns)).value

    asserter = None
    if any(auth.per is not None for auth in bindings.values()):
        signer = LocalSigner(load_or_create_token_key(config.credentials.assertion_key))
        asserter = Asserter(issuer=config.tokens.issuer, signer=signer, ids=ids)
    tokens = TokenFetcher(pool, secret=secret, asserter=asserter)
    maker = CredentialMaker(bindings, sources=sources, tokens=tokens)
    return CachingBroker(maker.fetch, forget=maker.forget)


def _check_client_secrets(bindings: Mapping[str, UpstreamAuth], environ: Mapping[str, str]) -> None:
    missing = []
    for server, auth in bindings.items():
        kind, _, where = auth.client_secret_from.partition(":")
        try:
            if kind == "env":
                read_variable(where, environ)
            elif kind == "file":
                read_private_file(Path(where))
        except CredentialProblem as problem:
            missing.append(f"servers.{server}: {problem}")
    if missing:
        raise ConfigurationError("\n".join(missing))


def build_broker(
    config: Config,
    bindings: Mapping[str, UpstreamAuth],
    *,
    pool: HttpPool,
    ids: Ids,
    environ: Mapping[str, str],
) -> CredentialBroker:
    """Return the broker that the gateway uses: a process of its own where one is configured."""
    section = config.credentials
    if section.socket is not None:
        uid = os.getuid() if section.broker_uid is None else section.broker_uid
        return SocketBroker(section.socket, uid=uid, timeout_s=section.timeout_ms / 1000)
    return build_local_broker(config, bindings, pool=pool, ids=ids, environ=environ)


async def check_credentials(
    broker: CredentialBroker, bindings: Mapping[str, UpstreamAuth], clock: Clock
) -> None:
    """Fetch what all calls share, so that a mistake is told at the start and not by a call.

    Raises `ConfigurationError` for a secret that is not where it should be. One whose keeper cannot
    be asked now is asked for again with the first call.
    """
    now_ns = clock.now_ns()
    shared = [server for server, auth in bindings.items() if auth.kind in _SHARED]
    asks = (broker.obtain(CredentialAsk(server=server), now_ns) for server in shared)
    missing = [
        f"servers.{server}: {found.detail}"
        for server, found in zip(shared, await asyncio.gather(*asks), strict=True)
        if isinstance(found, CredentialFailure) and found.reason == "missing"
    ]
    if missing:
        raise ConfigurationError("\n".join(missing))


def _build_sources(
    section: CredentialsSection, pool: HttpPool, environ: Mapping[str, str]
) -> SecretSources:
    address = section.vault.address or environ.get("VAULT_ADDR", "")
    if not address:
        return SecretSources(environ)
    place, plain = section.vault.token_from, SecretSources(environ)

    async def token(now_ns: int) -> str:
        return (await plain.read(place, now_ns)).value

    vault = VaultReader(
        pool,
        address=address,
        token=token,
        renew=lambda: plain.forget(place),
        namespace=section.vault.namespace,
        ttl_s=section.vault.ttl_s,
    )
    return SecretSources(environ, vault=vault)
