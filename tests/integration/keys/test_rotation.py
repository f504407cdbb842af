"""A whole gateway changes its token key under traffic: no call fails, and old tokens live on."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.adapters.audit.audit_reader import read_records
from gateway.adapters.audit.audit_verify import verify
from gateway.adapters.system import SystemClock
from gateway.config.settings import load_config
from gateway.core.tokens.clients import hash_secret
from gateway.wiring.gateway import Gateway
from tests.e2e.site import Site, secret_of
from tests.e2e.stub import Stub
from tests.integration.keys.hsm import PIN, SoftHsm

pytestmark = [pytest.mark.network, pytest.mark.req("TOK-07")]

AGENTS = 4
STEP_S = 90
MARGIN_S = 2 * STEP_S
PEOPLE = {"ada": ["admin"], "opal": ["operator"], "dana": ["approver"]}


class SteppedClock(SystemClock):
    """The machine's clock, `ahead_s` later."""

    ahead_s = 0

    def now_ns(self) -> int:
        return super().now_ns() + self.ahead_s * 1_000_000_000


class Traffic:
    """A gateway, agents that call a tool without a pause, and what came of it."""

    def __init__(self, gateway: Gateway, site: Site, clock: SteppedClock) -> None:
        assert gateway.app is not None
        transport = httpx.ASGITransport(app=gateway.app)
        self.http = httpx.AsyncClient(transport=transport, base_url=site.url)
        self.clock = clock
        self.site = site
        self.statuses: list[int] = []
        self.kids: set[str] = set()
        self._stopping = False

    async def run(self) -> None:
        """Call as one agent of one run until told to stop, getting a new token in time."""
        run = await self._launch()
        token = ""
        while not self._stopping:
            if not token or read_part(token, 1)["exp"] - self._now_s() < MARGIN_S:
                token = await self.token(run)
            self.statuses.append((await self.call(token)).status_code)

    async def call(self, token: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"}
        body = {"arguments": {"value": "x"}}
        return await self.http.post("/v1/tools/stub__echo/call", json=body, headers=headers)

    async def token(self, run: dict[str, Any]) -> str:
        form = {"grant_type": "client_credentials"}
        auth = (run["run_id"], run["run_credential"])
        answer = await self.http.post("/oauth/token", data=form, auth=auth)
        assert answer.status_code == httpx.codes.OK, answer.text
        token: str = answer.json()["access_token"]
        self.kids.add(read_part(token, 0)["kid"])
        return token

    async def held_token(self) -> str:
        return await self.token(await self._launch())

    async def published(self) -> list[str]:
        keys = (await self.http.get("/oauth/jwks.json")).json()["keys"]
        return [key["kid"] for key in keys]

    async def step_until(self, *kids_or_count: object) -> list[str]:
        """Let time pass in steps, while there is traffic, until the key set looks like this."""
        async with asyncio.timeout(30):
            while True:
                found = await self.published()
                if [*kids_or_count] in ([len(found)], found):
                    return found
                self.clock.ahead_s += 0 if self._stopping else STEP_S
                await self.some_calls()

    async def some_calls(self) -> None:
        """Return once every agent has called again, or nobody calls."""
        until = len(self.statuses) + 3 * AGENTS
        while True:
            await asyncio.sleep(0.005)
            if self._stopping or len(self.statuses) >= until:
                return

    def stop(self) -> None:
        self._stopping = True

    async def as_person(self, name: str, method: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer {secret_of(name)}"}
        return await self.http.request(method, "/v1/token-keys", headers=headers)

    async def _launch(self) -> dict[str, Any]:
        body = {"agent": "helper", "grants": [{"server": "stub"}]}
        auth = ("launcher", secret_of("launcher"))
        answer = await self.http.post("/v1/runs", json=body, auth=auth)
        assert answer.status_code == httpx.codes.CREATED, answer.text
        run: dict[str, Any] = answer.json()
        return run

    def _now_s(self) -> int:
        return self.clock.now_ns() // 1_000_000_000


def read_part(token: str, place: int) -> dict[str, Any]:
    part = token.split(".")[place]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return found


@pytest.fixture
def stub() -> Iterator[Stub]:
    running = Stub()
    yield running
    running.stop()


@pytest.fixture
async def traffic(
    tmp_path: Path, stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Traffic]:
    monkeypatch.setattr("gateway.wiring.gateway.KEYS_CHECK_S", 0.02)
    people = [
        {"id": name, "roles": roles, "secret_hash": hash_secret(secret_of(name))}
        for name, roles in PEOPLE.items()
    ]
    urls, listings = {"stub": stub.url}, {"stub": stub.listing()}
    site = Site(tmp_path / "site", urls=urls, listings=listings, humans=people)
    gateway = Gateway(load_config(site.path, os.environ))
    clock = gateway._clock = SteppedClock()  # noqa: SLF001 - no public way to wait for minutes
    await gateway.start()
    found = Traffic(gateway, site, clock)
    yield found
    await found.http.aclose()
    await gateway.stop()


@pytest.mark.slow
async def test_a_rotation_under_traffic_costs_no_call(traffic: Traffic) -> None:
    (first,) = await traffic.published()
    async with asyncio.TaskGroup() as group:
        for _ in range(AGENTS):
            group.create_task(traffic.run())
        await traffic.some_calls()
        assert (await traffic.as_person("ada", "POST")).status_code == httpx.codes.OK
        _, second = await traffic.step_until(2)  # at once: it is published, and does not sign
        assert traffic.kids == {first}
        old = await traffic.held_token()
        await traffic.step_until(second, first)
        new = await traffic.held_token()
        assert [read_part(token, 0)["kid"] for token in (old, new)] == [first, second]
        await traffic.step_until(second)
        assert (await traffic.call(old)).status_code == httpx.codes.UNAUTHORIZED  # long over
        traffic.stop()
    assert set(traffic.statuses) == {200}
    assert len(traffic.statuses) > 50
    assert traffic.kids == {first, second}
    changes = [r for r in read_records(traffic.site.audit) if r["type"] == "token_key.change"]
    assert [(record["kid"], record["state"]) for record in changes] == [
        (first, "next"),
        (first, "active"),
        (second, "next"),
        (first, "retired"),
        (second, "active"),
        (first, "gone"),
    ]
    assert verify(traffic.site.audit, every_signature=True).valid


async def test_a_token_of_the_former_key_lives_on(traffic: Traffic) -> None:
    (first,) = await traffic.published()
    await traffic.as_person("ada", "POST")
    _, second = await traffic.step_until(2)
    traffic.stop()
    traffic.clock.ahead_s += 350
    old = await traffic.held_token()
    traffic.clock.ahead_s += 20
    await traffic.step_until(second, first)
    for token in (old, await traffic.held_token()):
        assert (await traffic.call(token)).status_code == httpx.codes.OK
    assert traffic.kids == {first, second}


async def test_who_may_see_keys_and_who_may_change_them(traffic: Traffic) -> None:
    seen = await traffic.as_person("opal", "GET")
    assert seen.status_code == httpx.codes.OK
    (key,) = seen.json()["keys"]
    assert (key["state"], key["source"]) == ("active", "file:tokens.pem")
    assert (await traffic.as_person("opal", "POST")).json()["code"] == "role_missing"
    assert (await traffic.as_person("dana", "GET")).json()["code"] == "role_missing"
    assert (await traffic.as_person("nobody", "GET")).status_code == httpx.codes.UNAUTHORIZED
    assert len(await traffic.published()) == 1


@pytest.mark.req("TOK-12")
async def test_a_gateway_with_its_key_in_an_hsm_fails_closed_without_it(
    tmp_path: Path, stub: Stub, hsm: SoftHsm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HSM_PIN", PIN)
    site = Site(
        tmp_path / "site",
        urls={"stub": stub.url},
        listings={"stub": stub.listing()},
        tokens={"keys": [hsm.uri("one")]},
    )
    gateway = Gateway(load_config(site.path, os.environ))
    await gateway.start()
    traffic = Traffic(gateway, site, SteppedClock())
    try:
        token = await traffic.held_token()
        assert (await traffic.call(token)).status_code == httpx.codes.OK
        (worker,) = find_workers()
        os.kill(worker, signal.SIGSTOP)
        os.kill(worker, signal.SIGKILL)
        with pytest.raises(AssertionError, match="temporarily_unavailable"):
            await traffic.held_token()
        assert (await traffic.call(token)).status_code == httpx.codes.OK
    finally:
        await traffic.http.aclose()
        await gateway.stop()
    issued = [r for r in read_records(site.audit) if r["type"] == "token.issue"]
    assert len(issued) == 1
    assert not (site.folder / "keys" / "tokens.pem").exists()
    assert find_workers() == []


def find_workers() -> list[int]:
    """Return the processes of ours that hold a PKCS#11 module."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            status = (path.parent / "stat").read_text().rpartition(")")[2].split()
            ours = int(status[1]) == os.getpid() and status[0] != "Z"
            if ours and b"pkcs11_worker" in path.read_bytes():
                found.append(int(path.parent.name))
    return found
