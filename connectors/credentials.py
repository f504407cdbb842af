"""From bindings and references to credentials: the part of a broker that reads secrets.

It runs in the gateway, or in `countersign broker`, which is a process of its own.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

from connectors.auth_binding import SLOT, UpstreamAuth
from connectors.credential_http import CredentialProblem
from connectors.oauth_upstream import AccessToken, TokenFetcher
from connectors.secret_sources import Secret, SecretSources
from gateway.core.credentials import (
    CredentialAsk,
    CredentialFailure,
    UpstreamCredential,
)

_NOTHING: Final = UpstreamCredential()


class CredentialMaker:
    """Makes the credential for each ask, by the binding of its server.

    ::

        maker = CredentialMaker({"billing": UpstreamAuth(…)}, sources=sources, tokens=tokens)
        broker = CachingBroker(maker.fetch, forget=maker.forget)
    """

    def __init__(
        self,
        bindings: Mapping[str, UpstreamAuth],
        *,
        sources: SecretSources,
        tokens: TokenFetcher,
    ) -> None:
        self._bindings = bindings
        self._sources = sources
        self._tokens = tokens

    async def fetch(
        self, ask: CredentialAsk, now_ns: int
    ) -> UpstreamCredential | CredentialFailure:
        """Return the credential for an ask, made anew."""
        auth = self._bindings.get(ask.server)
        if auth is None:
            return CredentialFailure(reason="missing", detail="no server of this id has `auth`")
        try:
            if auth.kind in ("oauth_client_credentials", "token_exchange"):
                return await self._from_token(auth, ask, now_ns)
            return build_credential(auth, await self._sources.read(auth.value_from, now_ns))
        except CredentialProblem as problem:
            if problem.failure.reason == "refused":
                self._forget(auth)
            return problem.failure

    def forget(self, ask: CredentialAsk, _credential: UpstreamCredential) -> None:
        """Read the secrets behind a rejected credential anew next time."""
        auth = self._bindings.get(ask.server)
        if auth is not None:
            self._forget(auth)

    def _forget(self, auth: UpstreamAuth) -> None:
        for reference in auth.references:
            self._sources.forget(reference)

    async def _from_token(
        self, auth: UpstreamAuth, ask: CredentialAsk, now_ns: int
    ) -> UpstreamCredential:
        if ask.purpose == "list" and auth.per is not None and auth.listing == "none":
            return _NOTHING
        token: AccessToken = await self._tokens.fetch(auth, ask, now_ns)
        return UpstreamCredential(
            headers=(("Authorization", f"Bearer {token.value}"),),
            secrets=(token.value,),
            refresh_ns=token.refresh_ns,
            expires_ns=token.expires_ns,
        )


def build_credential(auth: UpstreamAuth, secret: Secret) -> UpstreamCredential:
    """Put a secret where its binding says. Raises `CredentialProblem` where it does not fit."""
    value = secret.value
    secrets: tuple[str, ...] = (value,)
    headers: tuple[tuple[str, str], ...] = ()
    query: tuple[tuple[str, str], ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    match auth.kind:
        case "basic":
            pair = base64.b64encode(f"{auth.user}:{value}".encode()).decode()
            headers, secrets = (("Authorization", f"Basic {pair}"),), (value, pair)
        case "query":
            query = ((auth.parameter, quote(value, safe="")),)
        case "env":
            env = ((auth.variable, value),)
        case _:
            if not value.isascii():
                why = f"the secret in `{auth.value_from}` is no header value; it has to be ASCII"
                raise CredentialProblem("missing", why)
            headers = ((auth.header, auth.scheme.replace(SLOT, value)),)
            secrets = (value, *value.split(" ")[1:])  # one that was stored with its scheme
    return UpstreamCredential(
        headers=headers,
        query=query,
        env=env,
        secrets=secrets,
        refresh_ns=secret.refresh_ns,
        expires_ns=secret.expires_ns,
    )
