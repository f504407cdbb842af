from __future__ import annotations

import argon2
import pytest

from gateway.adapters.signin.passwords import Argon2Passwords
from gateway.http.humans import HumanEntry
from tests.fixed import NOW_S
from tests.unit.people.conftest import ORIGIN, PASSWORD, Browser, World


@pytest.mark.req("TOK-08")
async def test_a_password_signs_in_and_is_on_record(world: World, browser: Browser) -> None:
    answer = await browser.sign_in(next="/device?user_code=x")
    assert (answer.status_code, answer.headers["location"]) == (303, "/device?user_code=x")
    [record] = world.records("human.sign_in")
    assert (record["method"], record["acr"], record["kind"]) == ("password", "session", "browser")
    assert world.who(record["seq"]) == "ann"
    assert "ann" in (await browser.get("/account")).text


async def test_on_the_way_to_an_app_the_browser_goes_on_by_itself(browser: Browser) -> None:
    """A redirect out of a form would end at the page's `form-action`."""
    answer = await browser.sign_in(next="/oauth/authorize?client_id=x")
    assert answer.status_code == 200
    assert 'content="0; url=/oauth/authorize?client_id=x"' in answer.text
    assert browser.session


@pytest.mark.req("TOK-08")
async def test_no_record_holds_a_person_a_password_or_a_session(
    world: World, browser: Browser
) -> None:
    await browser.sign_in(password="wrong password")
    await browser.sign_in(person="password-in-the-wrong-field")
    await browser.sign_in()
    text = str(world.records())
    assert browser.session
    for secret in ("'ann'", PASSWORD, "wrong password", "wrong-field", browser.session):
        assert secret not in text


@pytest.mark.req("TOK-08")
async def test_the_cookie_is_for_this_host_scripts_and_other_sites_excluded(
    browser: Browser,
) -> None:
    answer = await browser.sign_in()
    cookies = answer.headers.get_list("set-cookie")
    assert len(cookies) == 2
    for cookie in cookies:
        assert cookie.startswith("__Host-countersign")
        parts = {part.strip().lower() for part in cookie.split(";")}
        assert {"secure", "httponly", "path=/", "samesite=strict"} <= parts
        assert not any(part.startswith("domain") for part in parts)


@pytest.mark.req("TOK-08")
async def test_a_session_that_the_browser_brought_is_not_the_one_it_gets(
    world: World, browser: Browser
) -> None:
    browser.http.cookies.set("__Host-countersign", "planted-by-somebody", domain="gw.example")
    await browser.sign_in()
    first = browser.session
    assert first not in (None, "planted-by-somebody")
    await browser.sign_in()
    assert browser.session not in (None, first)
    thief = world.browser()
    for old in ("planted-by-somebody", str(first)):
        thief.http.cookies.set("__Host-countersign", old, domain="gw.example")
        assert (await thief.get("/account")).status_code == 303


@pytest.mark.req("TOK-08")
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://gw.example"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": ORIGIN, "sec-fetch-site": "cross-site"},
    ],
)
async def test_another_page_cannot_sign_anybody_in(
    browser: Browser, headers: dict[str, str]
) -> None:
    answer = await browser.post("/signin/password", headers, person="ann", password=PASSWORD)
    assert answer.status_code == 403
    assert browser.session is None


@pytest.mark.req("TOK-08")
async def test_an_unknown_person_is_told_what_a_wrong_password_is_told(
    world: World, browser: Browser
) -> None:
    wrong = await browser.sign_in(password="not the password")
    unknown = await browser.sign_in(person="nobody")
    without = await browser.sign_in(person="otto")  # known, and has no password
    assert wrong.status_code == unknown.status_code == without.status_code == 403
    assert wrong.text == unknown.text == without.text
    assert [one["reason"] for one in world.records("human.refused")] == ["credentials_wrong"] * 3


@pytest.mark.req("TOK-08")
async def test_an_unknown_person_costs_as_many_hashes_as_a_known_one(
    world: World, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[str] = []
    real = argon2.PasswordHasher.verify

    def verify(self: argon2.PasswordHasher, stored: str, password: str) -> bool:
        compared.append(stored[:26])
        return real(self, stored, password)

    monkeypatch.setattr(argon2.PasswordHasher, "verify", verify)
    await browser.sign_in(password="not the password")
    await browser.sign_in(person="nobody")
    assert len(compared) == 2
    assert compared[0] == compared[1]  # the same parameters, so the same time


@pytest.mark.req("TOK-08")
async def test_guessing_ends_soon_and_locks_out_nobody_who_was_here_before(world: World) -> None:
    own, stranger = world.browser("192.0.2.7"), world.browser("198.51.100.1")
    await own.sign_in()
    own.http.cookies.delete("__Host-countersign")
    answers = [await stranger.sign_in(password="guess number one") for _ in range(12)]
    assert [one.status_code for one in answers] == [403] * 10 + [429] * 2
    assert int(answers[-1].headers["retry-after"]) > 0
    assert (await stranger.sign_in()).status_code == 429  # the right one, too
    assert (await own.sign_in()).status_code == 303  # their own browser has tries of its own
    world.clock.now_s += 30
    assert (await stranger.sign_in()).status_code == 303


@pytest.mark.req("TOK-08")
async def test_one_address_cannot_try_everybody(world: World) -> None:
    stranger = world.browser("198.51.100.1")
    answers = [await stranger.sign_in(person=f"person{n}") for n in range(62)]
    assert [one.status_code for one in answers].count(429) == 2
    assert len(world.records("human.refused")) == 20  # the rest is counted
    await world.deps.log.flush()
    counts = {one["reason"]: one["count"] for one in world.records("human.refused")[20:]}
    assert counts == {"credentials_wrong": 40, "sign_in_often": 2}


@pytest.mark.req("TOK-08")
@pytest.mark.parametrize(
    "target",
    [
        "//evil.example",
        "/\\evil.example",
        "https://evil.example",
        "javascript:alert(1)",
        "/\t/evil.example",
        "evil.example",
        "",
        "/" + "a" * 9000,
    ],
)
async def test_nobody_is_sent_to_another_site(browser: Browser, target: str) -> None:
    answer = await browser.sign_in(next=target)
    assert answer.headers["location"] == "/account"


async def test_the_session_ends_by_time_and_by_idleness(world: World, browser: Browser) -> None:
    await browser.sign_in()
    for _ in range(4):
        world.clock.now_s += 3_500
        assert (await browser.get("/account")).status_code == 200
    world.clock.now_s += 3_600
    assert (await browser.get("/account")).status_code == 303
    await browser.sign_in()
    for _ in range(14):
        world.clock.now_s += 3_000
        await browser.get("/account")
    world.clock.now_s += 3_000  # used all the time, and over all the same
    assert (await browser.get("/account")).status_code == 303


@pytest.mark.req("TOK-08")
async def test_somebody_suspended_is_signed_out_at_once(world: World, browser: Browser) -> None:
    await browser.sign_in()
    world.humans.drop("ann")
    assert (await browser.get("/account")).status_code == 303
    assert (await browser.sign_in()).status_code == 403


@pytest.mark.req("TOK-08")
async def test_signing_out_needs_a_form_of_this_session(world: World, browser: Browser) -> None:
    await browser.sign_in()
    csrf = await browser.csrf()
    assert (await browser.post("/signout", csrf="0" * 64)).status_code == 403
    assert (
        await browser.post("/signout", {"origin": "https://evil.example"}, csrf=csrf)
    ).status_code == 403
    secret = browser.session
    assert (await browser.post("/signout", csrf=csrf)).status_code == 303
    assert len(world.records("human.sign_out")) == 1
    browser.http.cookies.set("__Host-countersign", str(secret), domain="gw.example")
    assert (await browser.get("/account")).status_code == 303
    assert (await browser.post("/signout", csrf=csrf)).status_code == 303  # nobody is: no error


@pytest.mark.req("TOK-08")
async def test_the_state_holds_no_session_that_could_be_used(
    world: World, browser: Browser
) -> None:
    await browser.sign_in()
    secret, csrf = str(browser.session), await browser.csrf()
    dumped = await world.state.run(lambda connection: str(list(connection.connection.iterdump())))
    assert "ann" in dumped
    assert secret not in dumped
    assert csrf not in dumped
    assert PASSWORD not in dumped


@pytest.mark.req("TOK-08")
async def test_a_hash_of_older_parameters_is_renewed_at_the_next_sign_in(
    world: World, browser: Browser
) -> None:
    await world.accounts.set_password(
        "ann", await Argon2Passwords(time_cost=2, memory_kib=16).hash(PASSWORD), NOW_S
    )
    await browser.sign_in()
    stored = await world.accounts.password_hash("ann")
    assert stored is not None
    assert "m=8,t=1" in stored
    assert (await browser.sign_in()).status_code == 303


def test_the_default_parameters_are_owasps() -> None:
    made = Argon2Passwords()._argon2  # noqa: SLF001 - what it would write
    assert (made.memory_cost, made.time_cost, made.parallelism) == (19_456, 2, 1)
    assert made.type.name == "ID"


@pytest.mark.req("TOK-08")
async def test_pages_allow_no_script_of_others_and_no_frame(browser: Browser) -> None:
    page = await browser.get("/signin?next=/x%22%3E%3Cscript%3Ealert(1)%3C/script%3E")
    policy = page.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "<script>alert" not in page.text
    assert "Corp &lt;ID&gt;" in page.text
    assert page.headers["cache-control"] == "no-store"


async def test_who_comes_from_another_site_is_asked_again_by_our_own_page(
    browser: Browser,
) -> None:
    page = await browser.get("/signin?next=/oauth/authorize", **{"sec-fetch-site": "cross-site"})
    assert 'http-equiv="refresh"' in page.text
    assert "password" not in page.text
    again = await browser.get("/signin?next=/oauth/authorize", **{"sec-fetch-site": "same-origin"})
    assert 'type="password"' in again.text


async def test_who_is_signed_in_goes_on_and_a_step_up_asks_again(
    world: World, browser: Browser
) -> None:
    await browser.sign_in()
    assert (await browser.get("/signin?next=/x")).headers["location"] == "/x"
    world.clock.now_s += 100
    again = await browser.get("/signin?next=/x&max_age=60")
    assert again.status_code == 200
    assert "once more" in again.text
    before = browser.session
    await browser.sign_in(next="/x")
    assert browser.session != before  # a new session at a step-up
    assert (await browser.get("/signin?next=/x&max_age=60")).status_code == 303
    strong = await browser.get("/signin?next=/x&acr=strong")
    assert 'type="password"' not in strong.text  # a password would not do


@pytest.mark.req("TOK-08")
async def test_an_account_s_password_is_changed_by_who_knows_it(
    world: World, browser: Browser
) -> None:
    other = world.browser()
    await other.sign_in()
    await browser.sign_in()
    csrf = await browser.csrf()
    new = "another long password"
    for fields in (
        {"old": "wrong", "password": new},
        {"old": PASSWORD, "password": "short"},
        {"old": PASSWORD, "password": "ann ann ann ann"},
        {"old": PASSWORD, "password": "a" * 20},
        {"old": PASSWORD, "password": "x" * 300},
    ):
        assert (await browser.post("/account/password", csrf=csrf, **fields)).status_code in (
            400,
            403,
        )
    done = await browser.post("/account/password", csrf=csrf, old=PASSWORD, password=new)
    assert done.headers["location"] == "/account?done=password"
    assert (await other.get("/account")).status_code == 303  # other sessions are over
    assert [one["change"] for one in world.records("human.change")] == ["password_set"]
    assert (await other.sign_in()).status_code == 403
    assert (await other.sign_in(password=new)).status_code == 303


@pytest.mark.req("TOK-08")
async def test_an_old_session_changes_no_password(world: World, browser: Browser) -> None:
    await browser.sign_in()
    csrf = await browser.csrf()
    world.clock.now_s += 1_000
    answer = await browser.post("/account/password", csrf=csrf, old=PASSWORD, password="x" * 20)
    assert answer.headers["location"] == "/signin?next=%2Faccount&max_age=900"
    await browser.post("/signin/password", person="ann", password=PASSWORD, next="/account")


async def test_signing_out_elsewhere_leaves_this_browser(world: World, browser: Browser) -> None:
    other = world.browser()
    await other.sign_in()
    await browser.sign_in()
    await browser.post("/account/sessions/end", csrf=await browser.csrf())
    assert (await other.get("/account")).status_code == 303
    assert (await browser.get("/account")).status_code == 200
    assert (await world.browser().post("/account/sessions/end", csrf="x")).status_code == 403


async def test_somebody_known_by_a_secret_only_has_no_password(world: World) -> None:
    world.humans.put(HumanEntry("new", (), None))
    assert (await world.browser().sign_in(person="new")).status_code == 403


async def test_a_form_that_cannot_be_read_is_told_so(browser: Browser) -> None:
    answer = await browser.http.post("/signin/password", content=b"{}", headers=browser.own)
    assert answer.status_code == 400
    assert "<h1>" in answer.text


@pytest.mark.req("TOK-08")
async def test_a_session_of_before_a_stop_is_void_and_one_of_after_it_is_not(
    world: World, browser: Browser
) -> None:
    await browser.sign_in()
    world.clock.now_s += 1
    world.humans.stopped_at["ann"] = world.clock.now_s
    assert (await browser.get("/account")).status_code == 303
    world.clock.now_s += 1
    after = world.browser()
    await after.sign_in()
    page = await after.get("/account")
    assert page.status_code == 200
    assert page.text.count("since") == 1  # the list of sessions knows no other either
    assert (await browser.get("/account")).status_code == 303
