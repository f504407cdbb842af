"""From a manifest and an endpoint to a transport: the one place that knows every kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from msgspec import Struct

from connectors.auth_binding import UpstreamAuth, host_of
from connectors.credential_use import Credentials
from connectors.http_pool import HttpPool, read_target
from connectors.manifest import Manifest
from connectors.mcp_http import McpHttpTransport
from connectors.mcp_stdio import McpStdioTransport
from gateway.core.errors import ConfigurationError
from gateway.core.limits import Limits
from gateway.core.ports import Clock, CredentialBroker

Transport = McpHttpTransport | McpStdioTransport

_SCHEMES: Final = frozenset({"http", "https"})


class Endpoint(Struct, frozen=True, kw_only=True):
    """Where a server is: a URL for `http`, a command with its environment for `stdio`.

    `auth` and `shared`, where given, are used in place of the manifest's.
    """

    url: str | None = None
    command: tuple[str, ...] = ()
    env: Mapping[str, str] = {}
    cwd: Path | None = None
    auth: UpstreamAuth | None = None
    shared: bool | None = None


def build_transport(
    manifest: Manifest,
    endpoint: Endpoint,
    *,
    pool: HttpPool,
    clock: Clock,
    limits: Limits,
    broker: CredentialBroker,
    on_list_changed: Callable[[str], None] | None = None,
) -> Transport:
    """Return the transport of one server, not yet started.

    `broker` has its credential, where it has `auth`. Raises `ConfigurationError` for an endpoint
    that does not fit the manifest: other kind, host not in `egress`, `auth` of another kind.
    """
    credentials = _build_credentials(manifest, endpoint, broker, clock)
    if manifest.transport == "stdio":
        _check_command(manifest, endpoint)
        return McpStdioTransport(
            manifest.id,
            endpoint.command,
            limits=limits,
            clock=clock,
            env=endpoint.env,
            credentials=credentials,
            cwd=endpoint.cwd,
            shared=manifest.shared if endpoint.shared is None else endpoint.shared,
            on_list_changed=on_list_changed,
        )
    return McpHttpTransport(
        manifest.id,
        _check_url(manifest, endpoint.url),
        limits=limits,
        pool=pool,
        credentials=credentials,
        on_list_changed=on_list_changed,
    )


def check_endpoint(manifest: Manifest, endpoint: Endpoint) -> None:
    """Raise `ConfigurationError` for an endpoint of which `build_transport` would make nothing."""
    find_binding(manifest, endpoint)
    if manifest.transport == "stdio":
        _check_command(manifest, endpoint)
    else:
        _check_url(manifest, endpoint.url)


def find_binding(manifest: Manifest, endpoint: Endpoint) -> UpstreamAuth | None:
    """Return how the gateway shows itself to a server: as configured, or as its manifest says.

    Raises `ConfigurationError` for a binding that its transport cannot carry, and for a token
    endpoint that no reviewer allowed: whoever edits the configuration could else collect secrets.
    """
    auth = endpoint.auth or manifest.auth
    if auth is None:
        return None
    if auth.fits != manifest.transport:
        raise ConfigurationError(
            f"server `{manifest.id}` is `{manifest.transport}`, which cannot carry `auth` of kind "
            f"`{auth.kind}`; stdio servers take `env`, http servers everything else"
        )
    host = host_of(auth.token_url)
    if host and host not in manifest.egress:
        raise ConfigurationError(
            f"host `{host}` of the `token_url` of server `{manifest.id}` is not in its manifest's "
            "`egress`; have it reviewed and added there"
        )
    return auth


def _build_credentials(
    manifest: Manifest, endpoint: Endpoint, broker: CredentialBroker, clock: Clock
) -> Credentials | None:
    auth = find_binding(manifest, endpoint)
    return None if auth is None else Credentials(broker, clock, per=auth.per)


def _check_command(manifest: Manifest, endpoint: Endpoint) -> None:
    if not endpoint.command:
        raise ConfigurationError(f"server `{manifest.id}` is `stdio`; give its `command`")


def _check_url(manifest: Manifest, url: str | None) -> str:
    """Return the URL if reviewers allow its host. Stops an edited endpoint from taking calls."""
    if not url:
        raise ConfigurationError(f"server `{manifest.id}` is `http`; give its `url`")
    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES or parts.hostname is None or "@" in parts.netloc:
        raise ConfigurationError(
            f"the `url` of server `{manifest.id}` must be http(s)://host/path without a password"
        )
    if parts.hostname not in manifest.egress:
        raise ConfigurationError(
            f"host `{parts.hostname}` of server `{manifest.id}` is not in its manifest's `egress`; "
            "have it reviewed and added there"
        )
    try:
        read_target(url)
    except ValueError as error:
        raise ConfigurationError(f"the `url` of server `{manifest.id}`: {error}") from None
    return url
