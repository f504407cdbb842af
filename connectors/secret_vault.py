"""Secrets in HashiCorp Vault or OpenBao, key/value engine version 2, over HTTP.

API: `GET /v1/<mount>/data/<path>` (developer.hashicorp.com/vault/api-docs/secret/kv/kv-v2).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import quote

from connectors.credential_http import CredentialProblem, CredentialReply, exchange
from connectors.http_pool import HttpPool
from connectors.secret_sources import Secret

TTL_S: Final = 300
_NS: Final = 1_000_000_000
_FORBIDDEN: Final = 403
_WHO: Final = "the vault"


class VaultReader:
    """Reads secrets as one vault token may.

    ::

        VaultReader(pool, address="https://vault.example:8200", token=read_token, renew=forget)

    `token` returns the vault token; `renew` is told that it was refused, before it is asked for
    once more: an agent may have put a new one into its file. A secret is believed for `ttl_s`
    seconds, or for its lease where that is shorter.
    """

    def __init__(
        self,
        pool: HttpPool,
        *,
        address: str,
        token: Callable[[int], Awaitable[str]],
        renew: Callable[[], None],
        namespace: str = "",
        ttl_s: int = TTL_S,
    ) -> None:
        self._pool = pool
        self._address = address.rstrip("/")
        self._token = token
        self._renew = renew
        self._namespace = {"X-Vault-Namespace": namespace} if namespace else {}
        self._ttl_s = ttl_s

    async def read(self, where: str, now_ns: int) -> Secret:
        """Return the secret at `MOUNT/PATH#FIELD`. Raises `CredentialProblem`."""
        place, _, field = where.partition("#")
        mount, _, path = place.partition("/")
        url = f"{self._address}/v1/{quote(mount)}/data/{quote(path)}"
        answer = await self._get(url, now_ns)
        if answer.status == _FORBIDDEN:
            self._renew()
            answer = await self._get(url, now_ns)
        return self._take(answer, place, field, now_ns)

    async def _get(self, url: str, now_ns: int) -> CredentialReply:
        headers = {"X-Vault-Token": await self._token(now_ns), "X-Vault-Request": "true"}
        return await exchange(
            self._pool, "GET", url, who=_WHO, headers={**headers, **self._namespace}
        )

    def _take(self, answer: CredentialReply, place: str, field: str, now_ns: int) -> Secret:
        match answer.status:
            case 200:
                pass
            case 403:
                why = f"the vault does not let its token read `{place}`; give it a policy that does"
                raise CredentialProblem("refused", why)
            case 404:
                raise CredentialProblem("missing", f"the vault has nothing at `{place}`")
            case 503:
                raise CredentialProblem("unreachable", "the vault is sealed or standing by")
            case status:
                raise CredentialProblem("unreachable", f"the vault answered with HTTP {status}")
        document = answer.object(_WHO)
        values = _member(_member(document, "data"), "data")
        value = values.get(field)
        if not isinstance(value, str):
            raise CredentialProblem("missing", f"`{place}` in the vault has no text `{field}`")
        lease_s = document.get("lease_duration")
        ttl_s = self._ttl_s
        if isinstance(lease_s, int) and 0 < lease_s < ttl_s:
            ttl_s = lease_s
        return Secret(value, now_ns + ttl_s * _NS * 4 // 5, now_ns + ttl_s * _NS)


def _member(document: dict[str, Any], name: str) -> dict[str, Any]:
    found = document.get(name)
    if not isinstance(found, dict):
        raise CredentialProblem(
            "malformed", "the vault's answer is none of a key/value engine of version 2"
        )
    return found
