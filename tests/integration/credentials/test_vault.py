"""The vault is a small strict server here, after the documented API; no real one was at hand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from connectors.credential_http import CredentialProblem
from connectors.http_pool import HttpPool
from connectors.secret_sources import SecretSources
from connectors.secret_vault import VaultReader
from tests.integration.credentials.offices import Kv2, Office, Reply, Request, reply_json

pytestmark = [pytest.mark.network, pytest.mark.req("TOK-09")]

S = 1_000_000_000
TOKEN = "hvs.vault-token-0123456789"


@pytest.fixture
def kv2() -> Kv2:
    return Kv2(TOKEN, {"billing/api": {"token": "vault-secret-1"}})


@pytest.fixture
def vault(kv2: Kv2) -> Iterator[Office]:
    with Office(kv2) as office:
        yield office


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(TOKEN, encoding="utf-8")
    path.chmod(0o600)
    return path


@pytest.fixture
async def sources(vault: Office, token_file: Path) -> AsyncIterator[SecretSources]:
    """Sources with a vault whose token an agent keeps in a file."""
    plain, place = SecretSources({}), f"file:{token_file}"

    async def token(now_ns: int) -> str:
        return (await plain.read(place, now_ns)).value

    async with HttpPool() as pool:
        reader = VaultReader(
            pool,
            address=vault.url + "/",
            token=token,
            renew=lambda: plain.forget(place),
            namespace="team",
            ttl_s=100,
        )
        yield SecretSources({}, vault=reader)


def renew(token_file: Path, token: str) -> None:
    token_file.write_text(token, encoding="utf-8")


async def problem(sources: SecretSources, reference: str, reason: str) -> str:
    with pytest.raises(CredentialProblem) as caught:
        await sources.read(reference, 0)
    assert caught.value.failure.reason == reason
    assert TOKEN not in str(caught.value)
    return str(caught.value)


async def test_a_secret_is_read_and_believed_for_its_time(
    sources: SecretSources, vault: Office, kv2: Kv2
) -> None:
    found = await sources.read("vault:kv/billing/api#token", 0)
    assert (found.value, found.refresh_ns, found.expires_ns) == ("vault-secret-1", 80 * S, 100 * S)
    (asked,) = vault.seen
    assert (asked.method, asked.path) == ("GET", "/v1/kv/data/billing/api")
    assert asked.headers["x-vault-namespace"] == "team"
    kv2.secrets["billing/api"] = {"token": "vault-secret-2"}
    assert (await sources.read("vault:kv/billing/api#token", 80 * S - 1)).value == "vault-secret-1"
    assert (await sources.read("vault:kv/billing/api#token", 80 * S)).value == "vault-secret-2"


async def test_a_shorter_lease_is_kept_to(sources: SecretSources, kv2: Kv2) -> None:
    kv2.lease_s = 10
    assert (await sources.read("vault:kv/billing/api#token", 0)).expires_ns == 10 * S


async def test_a_vault_token_that_was_renewed_in_its_file_is_used(
    sources: SecretSources, kv2: Kv2, token_file: Path, vault: Office
) -> None:
    await sources.read("vault:kv/billing/api#token", 0)
    kv2.token = "hvs.another-token-0123456789"
    renew(token_file, kv2.token)
    sources.forget("vault:kv/billing/api#token")
    found = await sources.read("vault:kv/billing/api#token", 0)  # the old one is still believed
    assert found.value == "vault-secret-1"
    assert len(vault.seen) == 3


@pytest.mark.parametrize(
    ("reference", "reason", "text"),
    [
        ("vault:kv/none#token", "missing", "has nothing at `kv/none`"),
        ("vault:other/billing/api#token", "missing", "has nothing at"),
        ("vault:kv/billing/api#nokey", "missing", "has no text `nokey`"),
    ],
)
async def test_what_is_not_there_is_told(
    sources: SecretSources, reference: str, reason: str, text: str
) -> None:
    assert text in await problem(sources, reference, reason)


async def test_a_token_that_may_not_read_is_told(sources: SecretSources, kv2: Kv2) -> None:
    kv2.token = "hvs.somebody-elses"
    assert "give it a policy" in await problem(sources, "vault:kv/billing/api#token", "refused")


async def test_a_sealed_vault_is_told(sources: SecretSources, kv2: Kv2) -> None:
    kv2.sealed = True
    assert "sealed" in await problem(sources, "vault:kv/billing/api#token", "unreachable")


async def test_a_vault_that_is_away_is_told(sources: SecretSources, vault: Office) -> None:
    vault.stop()
    assert "cannot be asked" in await problem(sources, "vault:kv/a#b", "unreachable")


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (Reply(200, b"<html>"), "malformed"),
        (reply_json({"data": {"token": "a version 1 engine"}}), "malformed"),
        (reply_json({"data": {"data": {"token": 1}}}), "missing"),
        (Reply(200, b"[" * 70_000), "malformed"),
        (Reply(307, b""), "unreachable"),
        (Reply(500, b"vault-secret-1"), "unreachable"),
    ],
)
async def test_an_answer_that_cannot_be_used_is_told(
    sources: SecretSources, vault: Office, reply: Reply, reason: str
) -> None:
    def answer(_request: Request) -> Reply:
        return reply

    vault.answer = answer
    assert "vault-secret" not in await problem(sources, "vault:kv/billing/api#token", reason)
