"""What is taken away while somebody signs in with it: a new password or a claim leaves nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from gateway.adapters.audit.memory_audit import MemoryAuditLog
from gateway.adapters.signin.passwords import Argon2Passwords
from gateway.adapters.state.sql_store import SqlState
from gateway.core.entry import Entry, Receipt
from gateway.core.people.accounts import Verified
from tests.unit.people.authenticator import Authenticator
from tests.unit.people.conftest import OTHER_PASSWORD, PASSWORD, Browser, World
from tests.unit.people.test_claims import ask_claim, bring
from tests.unit.people.test_command_line_sign_in import allow, code_of, redeem
from tests.unit.people.test_passkey_sign_in import register, use

pytestmark = pytest.mark.req("TOK-08")

Work = Callable[[], Awaitable[object]]


class BusyLog(MemoryAuditLog):
    """Takes its time over the next sign-in: `meanwhile` is done before that is on record."""

    meanwhile: Work | None = None

    async def record(self, entry: Entry) -> Receipt:
        if entry.type == "human.sign_in" and self.meanwhile is not None:
            work, self.meanwhile = self.meanwhile, None
            await work()
        return await super().record(entry)


class BusyPasswords(Argon2Passwords):
    """Takes its time over the next password: `meanwhile` is done before its answer is heard."""

    meanwhile: Work | None = None

    async def verify(self, stored: str | None, password: str) -> Verified:
        work, self.meanwhile = self.meanwhile, None
        found = await super().verify(stored, password)
        if work is not None:
            await work()
        return found


@pytest.fixture
def log() -> BusyLog:
    return BusyLog()


@pytest.fixture
def passwords() -> BusyPasswords:
    return BusyPasswords(time_cost=1, memory_kib=8)


@pytest.fixture
async def world(state: SqlState, log: BusyLog, passwords: BusyPasswords) -> World:
    made = World(state, log=log, passwords=passwords)
    await made.give_password("ann")
    return made


async def change_password(browser: Browser) -> None:
    fields = {"csrf": await browser.csrf(), "old": PASSWORD, "password": OTHER_PASSWORD}
    assert (await browser.post("/account/password", **fields)).status_code == 303


async def claim(world: World) -> None:
    code = (await ask_claim(world, "ann", "ann")).json()["code"]
    assert await bring(world, code) == 303


async def test_a_password_that_is_changed_while_somebody_signs_in_with_it_lets_nobody_in(
    world: World, browser: Browser, log: BusyLog
) -> None:
    await browser.sign_in()
    thief = world.browser()
    log.meanwhile = lambda: change_password(browser)
    assert (await thief.sign_in()).status_code == 403
    assert (await thief.get("/account")).status_code == 303
    assert (await browser.get("/account")).text.count("since") == 1
    assert world.records("human.refused")[-1]["reason"] == "proof_void"
    assert (await browser.sign_in(password=OTHER_PASSWORD)).status_code == 303


async def test_a_password_that_is_hashed_again_does_not_come_back(
    world: World, browser: Browser, passwords: BusyPasswords
) -> None:
    await browser.sign_in()
    older = await Argon2Passwords(time_cost=2, memory_kib=8).hash(PASSWORD)
    await world.accounts.set_password("ann", older, world.clock.now_s)
    passwords.meanwhile = lambda: change_password(browser)
    assert (await world.browser().sign_in()).status_code == 403
    assert (await world.browser().sign_in()).status_code == 403
    assert (await world.browser().sign_in(password=OTHER_PASSWORD)).status_code == 303


async def test_of_two_who_sign_in_at_once_both_come_in_though_one_has_it_hashed_again(
    world: World, browser: Browser, passwords: BusyPasswords
) -> None:
    older = await Argon2Passwords(time_cost=2, memory_kib=8).hash(PASSWORD)
    await world.accounts.set_password("ann", older, world.clock.now_s)
    passwords.meanwhile = world.browser().sign_in
    assert (await browser.sign_in()).status_code == 303
    assert (await browser.get("/account")).status_code == 200


async def test_a_passkey_that_a_claim_removes_while_it_is_used_lets_nobody_in(
    world: World, browser: Browser, log: BusyLog
) -> None:
    await browser.sign_in()
    key, thief = Authenticator(), world.browser()
    await register(browser, key)
    log.meanwhile = lambda: claim(world)
    assert (await use(thief, key)).status_code == 403
    assert (await thief.get("/account")).status_code == 303
    assert world.records("human.refused")[-1]["reason"] == "proof_void"


async def test_a_command_line_outlives_no_session_that_ends_while_it_is_signed_in(
    world: World, browser: Browser, log: BusyLog
) -> None:
    thief = world.browser()
    await thief.sign_in()
    code = code_of(await allow(thief))
    log.meanwhile = lambda: claim(world)
    assert (await redeem(world, code)).json()["error"] == "access_denied"
    assert len(await world.sessions.find("ann")) == 1  # that of the claim
