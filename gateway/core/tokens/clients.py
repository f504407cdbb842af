"""Clients of the gateway: launchers, which hand out authority, and agents, which use it.

Their secrets are generated, 256 bits long, and kept as SHA-256 (DESIGN §4): what cannot be
guessed needs no slow hash.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from typing import Any, Final

from msgspec import Struct

from gateway.core.tokens.token import Grant

_NOBODY: Final = b"sha256:" + b"0" * 64


class Agent(Struct, frozen=True, kw_only=True):
    """An agent: what it may do under its own secret, and whose it is.

    `secret_hash` is `sha256:` and 64 hex digits, or empty: then it acts in launched runs only.
    `may_delegate_to` holds the ids of agents that it may hand a part of its authority to. `jwks`
    are the public keys by which it proves itself in place of a secret (RFC 7523); with `dpop` it
    gets only tokens that are bound to a key (RFC 9449).
    """

    id: str
    owner: str = ""
    roles: tuple[str, ...] = ()
    grants: tuple[Grant, ...] = ()
    secret_hash: str = ""
    may_delegate_to: tuple[str, ...] = ()
    jwks: tuple[dict[str, Any], ...] = ()
    dpop: bool = False
    version: str = ""
    """Which build of it is registered; only policies care."""


class Launcher(Struct, frozen=True, kw_only=True):
    """A workflow system, or a human's session. `grants` is the most that a run of it may have.

    `may_launch` holds agent ids. `humans` holds the people it may name in `on_behalf_of`; `*`
    stands for anybody.
    """

    id: str
    secret_hash: str
    owner: str = ""
    may_launch: tuple[str, ...] = ()
    grants: tuple[Grant, ...] = ()
    humans: tuple[str, ...] = ()
    jwks: tuple[dict[str, Any], ...] = ()


Client = Agent | Launcher


class ClientRegistry:
    """The clients that there are now, by id.

    One that is suspended or retired is not found and has no secret: it gets nothing. Who answers
    for it is still known, because separation of duties does not end with a suspension.
    """

    def __init__(self, clients: Iterable[Client] = ()) -> None:
        self._clients: dict[str, Client] = {}
        self._idle: dict[str, Client] = {}
        for client in clients:
            self.put(client)

    def put(self, client: Client, *, active: bool = True) -> None:
        """Know a client from now on, in place of what was known under its id."""
        self.drop(client.id)
        (self._clients if active else self._idle)[client.id] = client

    def drop(self, client_id: str) -> None:
        """Know a client no longer; nobody known is fine."""
        self._clients.pop(client_id, None)
        self._idle.pop(client_id, None)

    def get(self, client_id: str) -> Client | None:
        """Return an active client, or None."""
        return self._clients.get(client_id)

    def agent(self, agent_id: str) -> Agent | None:
        """Return the active agent of this id; None for a launcher."""
        found = self._clients.get(agent_id)
        return found if isinstance(found, Agent) else None

    def launcher(self, launcher_id: str) -> Launcher | None:
        """Return the active launcher of this id; None for an agent."""
        found = self._clients.get(launcher_id)
        return found if isinstance(found, Launcher) else None

    def owners(self, client_id: str) -> tuple[str, ...]:
        """Return who answers for a client; empty for one that nobody owns or knows."""
        found = self._clients.get(client_id) or self._idle.get(client_id)
        return (found.owner,) if found is not None and found.owner else ()

    def authenticate(self, client_id: str, secret: str) -> Client | None:
        """Return the active client whose secret this is, or None.

        An unknown id, and one that is suspended, takes as long. A client with keys has no secret.
        """
        client = self._clients.get(client_id)
        stored = "" if client is None or client.jwks else client.secret_hash
        return client if is_secret(secret, stored) else None


def is_secret(secret: str, stored_hash: str) -> bool:
    """Whether `stored_hash` is that of `secret`. Constant time; an empty hash fits no secret."""
    expected = stored_hash.encode() or _NOBODY
    return hmac.compare_digest(hash_secret(secret).encode(), expected) and bool(stored_hash)


def hash_secret(secret: str) -> str:
    """SHA-256 of a generated secret, as it stands in the configuration and in the state."""
    return "sha256:" + hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
