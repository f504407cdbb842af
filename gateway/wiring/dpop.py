"""Proofs of keys, put together: those of requests (RFC 9449) and those of clients (RFC 7523)."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from gateway.adapters.keys.dpop_replay import MemoryUsedProofs
from gateway.adapters.keys.jose_assertions import JoseAssertions
from gateway.adapters.keys.jose_dpop import JoseProofs
from gateway.config.settings import Config
from gateway.core.oauth import metadata as oauth
from gateway.core.oauth.dpop_nonce import Nonces
from gateway.core.ports import Clock, SpentNames
from gateway.core.proofs.client_proof import AssertionDesk
from gateway.core.proofs.possession import ProofDesk
from gateway.core.tokens.clients import ClientRegistry


@dataclass(frozen=True, kw_only=True)
class ProofDesks:
    """Who judges proofs: at calls, and at the token endpoint.

    Each remembers for itself what was used. A public app at the token endpoint is known by its
    name alone: whoever fills that memory in its name must not stop the calls of others.
    """

    calls: ProofDesk
    tokens: ProofDesk


def build_proof_desks(config: Config, clock: Clock) -> ProofDesks:
    """Return the judges of proofs. The secret of their nonces ends with this process."""
    nonces = Nonces(secrets.token_bytes(32)) if config.tokens.dpop_nonces else None
    began_ns, reader = clock.monotonic_ns(), JoseProofs()

    def build() -> ProofDesk:
        return ProofDesk(
            reader=reader,
            used=MemoryUsedProofs(),
            public_url=config.public_url,
            nonces=nonces,
            up_s=lambda: (clock.monotonic_ns() - began_ns) // 1_000_000_000,
        )

    return ProofDesks(calls=build(), tokens=build())


def build_assertion_desk(
    config: Config, clients: ClientRegistry, spent: SpentNames
) -> AssertionDesk:
    """Return the judge of clients' assertions."""
    audiences = frozenset({config.tokens.issuer, config.public_url + oauth.TOKEN_PATH})
    return AssertionDesk(clients=clients, reader=JoseAssertions(), spent=spent, audiences=audiences)
