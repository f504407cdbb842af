"""Deciding which client an assertion is by (`private_key_jwt`, RFC 7523 §3)."""

from __future__ import annotations

import hashlib

from gateway.core.canonical import canonicalize
from gateway.core.errors import CredentialError
from gateway.core.oauth.client_assertion import SKEW_S, find_assertion_fault
from gateway.core.ports import AssertionReader, SpentNames
from gateway.core.tokens.clients import Client, ClientRegistry


class AssertionDesk:
    """Tells which client an assertion is by. `audiences`: issuer and token endpoint."""

    def __init__(
        self,
        *,
        clients: ClientRegistry,
        reader: AssertionReader,
        spent: SpentNames,
        audiences: frozenset[str],
    ) -> None:
        self._clients = clients
        self._reader = reader
        self._spent = spent
        self._audiences = audiences

    async def authenticate(
        self, assertion: bytes, client_id: str | None, now_s: int
    ) -> Client | None:
        """Return the client that made `assertion`, or None.

        `client_id` is the one that the request names besides, which then must be the same.
        Raises `CountersignError` `state_unavailable`: nobody is believed on what cannot be spent.
        """
        try:
            # 1. Whose could it be? Nothing is believed yet: this only chooses whose keys to try.
            named = self._reader.peek(assertion)
            client = self._clients.get(named)
            if client is None or not client.jwks or client_id not in {None, named}:
                return None
            # 2. Forged and altered ones, and those under algorithms that are not pinned.
            claims = self._reader.read(assertion, client.jwks)
        except CredentialError:
            return None
        # 3. Those for other servers, stale ones, and those that would be good for hours.
        if find_assertion_fault(claims, named, self._audiences, now_s) is not None:
            return None
        # 4. One that was overheard. Spent durably, so that a restart does not revive it.
        said = canonicalize(["client-assertion", named, claims.jti])  # ids and names have dots
        name = hashlib.sha256(said).digest()
        until_s = int(claims.exp) + SKEW_S
        return client if await self._spent.spend(name, until_s, now_s) else None
