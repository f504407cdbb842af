"""What the stories of the other files pass by."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.adapters.audit.memory_audit import MemoryAuditLog
from gateway.adapters.signin.passwords import AT_ONCE, WAITING_MAX, Argon2Passwords
from gateway.adapters.state.sql_sessions import SqlSessions, SqlTickets
from gateway.adapters.state.sql_store import SqlState
from gateway.core.approvals.sessions import (
    HOME,
    LEVELS,
    Session,
    SignedIn,
    is_assured,
    is_fresh,
    is_live,
    local_path,
)
from gateway.core.entry import Entry, Receipt
from gateway.core.errors import AuditError, CountersignError, CredentialError
from gateway.core.people.accounts import build_human_change, find_password_fault, normal_form
from gateway.http.admin_route import require_step_up
from gateway.http.signin_desk import SignInLog
from gateway.http.signin_limits import Rate, Tries
from gateway.http.signin_sessions import Proof
from tests.fixed import NOW_S, CountingIds, FixedClock
from tests.unit.people.authenticator import Authenticator
from tests.unit.people.conftest import Browser, World
from tests.unit.people.test_passkey_sign_in import register, use


def session(**change: object) -> Session:
    fields: dict[str, object] = {
        "id_hash": "h",
        "sid": "s",
        "kind": "browser",
        "person": "ann",
        "auth_time": NOW_S,
        "acr": "session",
        "amr": ("pwd",),
        "created_at": NOW_S,
        "seen_at": NOW_S,
        "expires_at": NOW_S + 100,
        "idle_s": 10,
    }
    return Session(**(fields | change))  # type: ignore[arg-type]


# --- pure


@given(st.text(max_size=40) | st.from_regex(r"[/\\]{1,3}[a-z.:@/\\%0-9]{0,20}", fullmatch=True))
def test_a_path_is_never_another_site(text: str) -> None:
    found = local_path(text)
    assert found in {HOME, text}
    assert found[0] == "/"
    assert found[:2] not in {"//", "/\\"}
    assert all("!" <= char <= "~" and char != "\\" for char in found)


@given(st.sampled_from([*LEVELS, "", "other"]), st.sampled_from([*LEVELS, "", "other"]))
def test_assurance_is_ordered_and_fails_closed(have: str, wanted: str) -> None:
    known = have in LEVELS and wanted in LEVELS
    assert is_assured(have, wanted) == (known and LEVELS.index(have) >= LEVELS.index(wanted))


@given(st.integers(-50, 200), st.integers(0, 20))
def test_a_session_lives_as_long_as_the_shorter_of_its_times(later: int, idle: int) -> None:
    one = session(idle_s=idle)
    assert is_live(one, NOW_S + later) == (later < min(100, idle))


def test_fresh_means_late_enough_and_sure_enough() -> None:
    who = SignedIn(
        person="ann", sid="s", auth_time=NOW_S, acr="session", amr=(), csrf="c", expires_at=0
    )
    assert is_fresh(who, "", None, NOW_S + 10**6)
    assert is_fresh(who, "session", 10, NOW_S + 10)
    assert not is_fresh(who, "session", 10, NOW_S + 11)
    assert not is_fresh(who, "strong", None, NOW_S)
    assert not is_fresh(who, "nonsense", None, NOW_S)


def test_a_password_is_the_same_on_every_keyboard() -> None:
    assert normal_form("u\u0308bung macht") == normal_form("\u00fcbung macht")
    assert find_password_fault("correct horse battery", "") is None
    assert find_password_fault("p" * 300, "") is not None


@pytest.mark.parametrize(
    ("password", "why"),
    [
        ("eleven char", "at least 12"),
        ("correct horse battery " * 12, "at most 256"),
        ("abababababababab", "more different"),
        ("the OLGA who likes gardens", "your own name"),
    ],
)
def test_a_password_that_will_not_do_is_told_why(password: str, why: str) -> None:
    assert why in str(find_password_fault(password, "Olga"))
    assert find_password_fault("c" + "orrect horse!" * 19 + "12345678", "Olga") is None


def test_a_change_by_the_person_is_by_nobody_else() -> None:
    own = build_human_change("op", who="Ann", change="password_set", by="ann")
    assert [one.path for one in own.openings] == ["person"]


@given(st.lists(st.integers(0, 40), max_size=40), st.integers(1, 5), st.integers(1, 10))
def test_tries_never_exceed_burst_and_rate(steps: list[int], burst: int, every: int) -> None:
    tries, now, granted = Tries(Rate(burst, every)), 0.0, 0
    for step in steps:
        now += step
        wait = tries.wait_s("k", now)
        granted += not wait
        if wait:
            assert tries.wait_s("k", now + wait) == 0
            now += wait
            granted += 1
    assert granted <= burst + now / every


def test_the_key_not_used_for_longest_is_forgotten_first() -> None:
    tries = Tries(Rate(1, 100), keys_max=2)
    assert [tries.wait_s(key, 0) for key in ("a", "b", "c", "a")] == [0, 0, 0, 0]
    assert tries.wait_s("c", 0) > 0
    tries.forgive("c")
    assert tries.wait_s("c", 0) == 0


# --- state


async def test_what_is_over_is_forgotten(state: SqlState) -> None:
    sessions, tickets = SqlSessions(state), SqlTickets(state)
    await sessions.put(session(id_hash="a"))
    await sessions.put(session(id_hash="b", idle_s=1_000))
    await tickets.put("p", "secret", b"x", NOW_S + 5)
    await sessions.forget_over(NOW_S + 50)
    await tickets.forget_over(NOW_S + 4)
    assert [one.id_hash for one in await sessions.find("ann")] == ["b"]
    assert await tickets.count("p", NOW_S) == 1
    await tickets.forget_over(NOW_S + 5)
    await sessions.forget_over(NOW_S + 100)
    assert await sessions.find("ann") == []
    assert await tickets.count("p", NOW_S) == 0


async def test_one_session_is_ended_by_its_name(state: SqlState) -> None:
    sessions = SqlSessions(state)
    await sessions.put(session(id_hash="a", sid="1"))
    await sessions.put(session(id_hash="b", sid="2"))
    assert await sessions.end_all("ann", sid="1") == 1
    assert await sessions.get("a") is None
    await sessions.touch("b", NOW_S - 5)  # never back
    found = await sessions.get("b")
    assert found is not None
    assert found.seen_at == NOW_S


@pytest.mark.req("TOK-08")
async def test_a_ticket_is_taken_by_one_of_many(state: SqlState) -> None:
    tickets = SqlTickets(state)
    await tickets.put("p", "secret", b"x", NOW_S + 5)
    assert await tickets.take("q", "secret", NOW_S) is None  # of another purpose
    taken = await asyncio.gather(*(tickets.take("p", "secret", NOW_S) for _ in range(10)))
    assert [one for one in taken if one is not None] == [b"x"]


# --- hashing


async def test_a_flood_of_passwords_is_turned_away_before_it_takes_all_memory() -> None:
    passwords = Argon2Passwords(time_cost=1, memory_kib=8)
    flood = [passwords.verify(None, "x") for _ in range(AT_ONCE + WAITING_MAX + 5)]
    answers = await asyncio.gather(*flood, return_exceptions=True)
    refused = [one for one in answers if isinstance(one, CountersignError)]
    assert {one.code for one in refused} == {"sign_in_busy"}
    assert len(refused) >= 3


async def test_without_a_hash_every_password_is_wrong() -> None:
    passwords = Argon2Passwords(time_cost=1, memory_kib=8)
    assert not (await passwords.verify(None, "no such person")).right
    assert not (await passwords.verify("nonsense", "x")).right


# --- the log


class BrokenLog(MemoryAuditLog):
    """A log on a full disk."""

    async def record(self, entry: Entry) -> Receipt:
        raise AuditError(f"no `{entry.type}` can be written")


@pytest.mark.req("TOK-08")
async def test_without_a_record_nobody_is_signed_in(world: World) -> None:
    await world.sessions._store.forget_over(0)  # noqa: SLF001 - the store is there
    log = SignInLog(record=BrokenLog().record, clock=world.clock, ids=world.ids)
    object.__setattr__(world.deps, "log", log)
    browser = world.browser()
    assert (await browser.sign_in()).status_code == 503
    assert (await browser.sign_in(password="not the password")).status_code == 503
    assert browser.session is None
    assert await world.sessions.find("ann") == []


async def test_a_summary_that_cannot_be_written_is_kept_for_later() -> None:
    good, broken, clock = MemoryAuditLog(), BrokenLog(), FixedClock()
    writer = [good]

    async def record(entry: Entry) -> Receipt:
        return await writer[0].record(entry)

    log = SignInLog(record=record, clock=clock, ids=CountingIds())
    for _ in range(22):
        await log.refused("password", "credentials_wrong")
    writer[0] = broken
    with pytest.raises(AuditError):
        await log.flush()
    writer[0] = good
    clock.now_s += 10
    await log.refused("password", "credentials_wrong")
    counts = [one["count"] for one in good.records if one["type"] == "human.refused"]
    assert counts == [1] * 20 + [2, 1]


# --- pages


async def test_the_pages_files_are_served(world: World) -> None:
    browser = world.browser()
    style, script = await browser.get("/signin/style.css"), await browser.get("/signin/passkey.js")
    assert style.headers["content-type"].startswith("text/css")
    assert "navigator.credentials" in script.text
    assert script.headers["x-content-type-options"] == "nosniff"


async def test_nobody_collects_passkeys_without_end(world: World) -> None:
    browser = world.browser()
    await browser.sign_in()
    for _ in range(20):
        assert (await register(browser, Authenticator())).status_code == 200
    assert (await register(browser, Authenticator())).status_code == 403


async def test_a_passkey_used_twice_at_once_signs_in_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser, key = world.browser(), Authenticator()
    await browser.sign_in()
    await register(browser, key)

    async def lost(_id: str, *, before: int, after: int) -> bool:
        return before > after  # another request has moved it on meanwhile

    monkeypatch.setattr(world.accounts, "count_up", lost)
    assert (await use(world.browser(), key)).status_code == 403
    assert world.records("human.refused")[-1]["reason"] == "passkey_copied"


@pytest.mark.req("TOK-08")
async def test_a_command_line_is_as_strong_as_the_session_that_allowed_it(world: World) -> None:
    async def told(_found: SignedIn) -> None:
        """Nothing is recorded here."""

    proof = Proof(person="ann", auth_time=NOW_S, acr="strong", amr=("pop",))
    secret, _ = await world.sessions.begin_cli(proof, told)
    human = await world.admit(f"Bearer {secret}")
    assert (human.acr, human.auth_time) == ("strong", NOW_S)
    require_step_up(human, max_age_s=900, now_s=NOW_S + 900)
    for now_s, who in ((NOW_S + 901, human), (NOW_S, replace(human, acr="session"))):
        with pytest.raises(CredentialError) as weak:
            require_step_up(who, max_age_s=900, now_s=now_s)
        assert weak.value.code == "step_up_required"
    assert (await world.admit("Bearer secret-ann")).acr == "session"
    for header in (None, "Basic csh_x", "Bearer csh_x", f"Bearer {'csh_' + 'x' * 200}"):
        with pytest.raises(CredentialError):
            await world.admit(header)
    assert await world.sessions.by_credential("secret-ann") is None
    assert await world.sessions.end_person("ann") == 1
    assert await world.sessions.end_credential(secret) is None


@pytest.mark.req("TOK-08")
@pytest.mark.parametrize("before", [b"\xa0", b"\x85", b"\x0b"])
async def test_a_cookie_that_another_host_could_plant_is_not_the_one_that_only_this_host_sets(
    world: World, browser: Browser, before: bytes
) -> None:
    await browser.sign_in()
    await world.give_password("otto")
    other = world.browser()
    await other.sign_in("otto")
    own, planted = (b"__Host-countersign=" + str(one.session).encode() for one in (browser, other))
    for sent, seen in (
        (own + b"; " + before + planted, "ann"),
        (before + planted, None),
        (own + b"; " + planted, None),  # which of two is not known
    ):
        page = await world.browser().http.get("/account", headers={b"cookie": sent})
        assert page.status_code == (303 if seen is None else 200)
        assert "otto" not in page.text
