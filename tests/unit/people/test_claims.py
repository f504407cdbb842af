from __future__ import annotations

import asyncio

import httpx
import pytest

from gateway.adapters.state.sql_store import SqlState
from gateway.core.approvals.sessions import SignedIn
from gateway.core.tokens.clients import hash_secret
from gateway.http.humans import HumanEntry
from gateway.http.signin_claim import make_first_claim
from gateway.http.signin_sessions import Proof
from tests.unit.people.authenticator import Authenticator
from tests.unit.people.conftest import ORIGIN, OTHER_PASSWORD, PASSWORD, Browser, World
from tests.unit.people.test_passkey_sign_in import register, use


async def ask_claim(world: World, by: str, person: str) -> httpx.Response:
    """Ask for a claim over the admin API, with a secret of the configuration."""
    headers = {"authorization": f"Bearer secret-{by}"}
    return await world.browser().http.post(
        "/v1/sign-in/claims", json={"person": person}, headers=headers
    )


@pytest.mark.req("TOK-08")
async def test_the_first_claim_makes_the_first_admin_once(world: World, browser: Browser) -> None:
    code = await make_first_claim(world.deps, has_admin=False)
    assert code is not None
    fields = {"code": code, "person": "root", "password": PASSWORD}
    answer = await browser.post("/claim", **fields)
    assert (answer.status_code, answer.headers["location"]) == (303, "/account")
    assert world.humans.everyone()["root"] == ("admin",)
    assert "root" in (await browser.get("/account")).text
    assert [one["change"] for one in world.records("human.change")] == ["claim_used"]
    again = await world.browser().post("/claim", **fields | {"person": "root2"})
    assert again.status_code == 403
    assert "root2" not in world.humans.everyone()
    assert code not in str(world.records())


@pytest.mark.req("TOK-08")
async def test_of_all_who_bring_a_claim_at_once_one_is_let_in(world: World) -> None:
    code = await make_first_claim(world.deps, has_admin=False)
    answers = await asyncio.gather(
        *(
            world.browser().post("/claim", code=str(code), person=f"root{n}", password=PASSWORD)
            for n in range(8)
        )
    )
    assert sorted(one.status_code for one in answers) == [303] + [403] * 7
    late = next(one for one in answers if one.status_code == 403)
    assert "sign in if you have just used it" in late.text
    assert sum(name.startswith("root") for name in world.humans.everyone()) == 1


@pytest.mark.req("TOK-08")
async def test_a_claim_runs_out_and_a_new_start_voids_it(world: World, browser: Browser) -> None:
    first = await make_first_claim(world.deps, has_admin=False)
    second = await make_first_claim(world.deps, has_admin=False)
    fields = {"person": "root", "password": PASSWORD}
    assert (await browser.post("/claim", code=str(first), **fields)).status_code == 403
    world.clock.now_s += 86_400
    assert (await browser.post("/claim", code=str(second), **fields)).status_code == 403
    assert "root" not in world.humans.everyone()


async def test_there_is_no_claim_where_there_is_an_admin_or_no_local_account(
    world: World, state: SqlState
) -> None:
    await make_first_claim(world.deps, has_admin=False)
    assert await make_first_claim(world.deps, has_admin=True) is None
    assert await world.deps.tickets.count("first_claim", world.clock.now_s) == 0
    assert await make_first_claim(World(state, local=False).deps, has_admin=False) is None


@pytest.mark.req("TOK-08")
@pytest.mark.parametrize(
    "change",
    [
        {"person": "ann"},
        {"person": ""},
        {"person": "a b"},
        {"person": "<script>"},
        {"password": "short"},
    ],
)
async def test_a_mistake_does_not_use_a_claim_up(
    world: World, browser: Browser, change: dict[str, str]
) -> None:
    code = str(await make_first_claim(world.deps, has_admin=False))
    fields = {"code": code, "person": "root", "password": PASSWORD}
    answer = await browser.post("/claim", **fields | change)
    assert answer.status_code == 400
    assert "<script>" not in answer.text
    assert (await browser.post("/claim", **fields)).status_code == 303


async def test_an_id_that_cannot_be_registered_ends_the_claim(
    world: World, browser: Browser
) -> None:
    code = str(await make_first_claim(world.deps, has_admin=False))
    fields = {"code": code, "person": "gone", "password": PASSWORD}
    assert (await browser.post("/claim", **fields)).status_code == 403
    assert browser.session is None


@pytest.mark.req("TOK-08")
async def test_an_admin_makes_a_claim_for_somebody_who_decides_nothing(
    world: World, browser: Browser
) -> None:
    answer = await ask_claim(world, "ada", "otto")
    body = answer.json()
    assert body["url"] == f"{ORIGIN}/claim?code={body['code']}"
    assert body["expires_at"] == world.clock.now_s + 86_400
    [record] = world.records("human.change")
    assert record["change"] == "claim_made"
    assert (world.who(record["seq"]), world.who(record["seq"], "by")) == ("otto", "ada")
    page = await browser.get(f"/claim?code={body['code']}")
    assert body["code"] in page.text
    # the id on the form is of no account: a claim is its person's
    answer = await browser.post("/claim", code=body["code"], person="ada", password=OTHER_PASSWORD)
    assert answer.status_code == 303
    assert (await world.browser().sign_in("otto", OTHER_PASSWORD)).status_code == 303
    assert (await world.browser().sign_in("ada", OTHER_PASSWORD)).status_code == 403


@pytest.mark.req("TOK-08")
async def test_nobody_becomes_somebody_who_decides_by_a_claim(world: World) -> None:
    answer = await ask_claim(world, "ada", "ann")
    assert (answer.status_code, answer.json()["code"]) == (403, "registry_secret_shared")
    assert (await ask_claim(world, "otto", "ann")).json()["code"] == "role_missing"
    assert (await ask_claim(world, "ada", "nobody")).status_code == 404
    assert (await ask_claim(world, "nobody", "ann")).status_code == 401
    assert world.records("human.change") == []


@pytest.mark.req("TOK-08")
async def test_everybody_makes_a_claim_for_themselves_unless_their_secret_is_known(
    world: World, browser: Browser
) -> None:
    code = (await ask_claim(world, "ann", "ann")).json()["code"]
    assert (await browser.post("/claim", code=code, password=OTHER_PASSWORD)).status_code == 303
    world.shared.add("ann")
    assert (await ask_claim(world, "ann", "ann")).json()["code"] == "registry_secret_shared"


@pytest.mark.req("TOK-08")
async def test_a_claim_kept_until_there_is_something_to_decide_is_no_good(
    world: World, browser: Browser
) -> None:
    code = (await ask_claim(world, "ada", "otto")).json()["code"]
    world.humans.put(HumanEntry("otto", ("operator", "approver"), None))
    assert (await browser.post("/claim", code=code, password=OTHER_PASSWORD)).status_code == 400
    assert browser.session is None


@pytest.mark.req("TOK-08")
async def test_no_admin_makes_a_claim_for_somebody_of_an_identity_provider(world: World) -> None:
    world.provisioned.add("otto")
    answer = await ask_claim(world, "ada", "otto")
    assert (answer.status_code, answer.json()["code"]) == (403, "registry_secret_shared")
    assert "identity provider" in answer.json()["detail"]
    assert world.records("human.change") == []


@pytest.mark.req("TOK-08")
async def test_whose_claim_set_an_account_up_is_kept_before_the_account_is_anybodys(
    world: World, browser: Browser
) -> None:
    made_at = world.clock.now_s
    code = (await ask_claim(world, "ada", "otto")).json()["code"]
    world.clock.now_s += 60
    assert (await browser.post("/claim", code=code, password=OTHER_PASSWORD)).status_code == 303
    assert world.noted == [("otto", "ada", made_at)]
    used = world.records("human.change")[-1]
    assert (used["change"], world.who(used["seq"], "by")) == ("claim_used", "ada")
    own = (await ask_claim(world, "ann", "ann")).json()["code"]
    assert (await browser.post("/claim", code=own, password=OTHER_PASSWORD)).status_code == 303
    assert len(world.noted) == 1  # nobody else had that one


@pytest.mark.req("TOK-08")
async def test_a_claim_that_cannot_be_noted_sets_nothing_up(world: World, browser: Browser) -> None:
    code = (await ask_claim(world, "ada", "otto")).json()["code"]
    world.takes_claims = False  # they were given a role while the password was hashed
    answer = await browser.post("/claim", code=code, password=OTHER_PASSWORD)
    assert (answer.status_code, browser.session) == (403, None)
    assert world.records("human.refused")[-1]["reason"] == "claim_void"
    assert (await world.browser().sign_in("otto", OTHER_PASSWORD)).status_code == 403


@pytest.mark.req("TOK-08")
async def test_a_session_makes_no_claim_for_its_own_person(world: World) -> None:
    async def told(_found: SignedIn) -> None:
        """Nothing is recorded here."""

    proof = Proof(person="ann", auth_time=0, acr="strong", amr=("fed",))
    secret, _ = await world.sessions.begin_cli(proof, told)
    answer = await world.browser().http.post(
        "/v1/sign-in/claims",
        json={"person": "ann"},
        headers={"authorization": f"Bearer {secret}"},
    )
    assert (answer.status_code, answer.json()["code"]) == (403, "registry_own_change")


@pytest.mark.req("TOK-08")
async def test_a_claim_leaves_nothing_of_who_was_there_before(
    world: World, browser: Browser
) -> None:
    thief, key = world.browser(), Authenticator()
    await thief.sign_in()
    await register(thief, key)
    code = (await ask_claim(world, "ann", "ann")).json()["code"]
    assert (await browser.post("/claim", code=code, password=OTHER_PASSWORD)).status_code == 303
    assert (await thief.get("/account")).status_code == 303
    assert (await use(thief, key)).status_code == 403
    assert (await thief.sign_in()).status_code == 403


@pytest.mark.req("TOK-08")
async def test_a_claim_of_somebody_suspended_is_no_good(world: World, browser: Browser) -> None:
    code = (await ask_claim(world, "ada", "otto")).json()["code"]
    world.humans.drop("otto")
    assert (await browser.post("/claim", code=code, password=PASSWORD)).status_code == 400
    world.humans.put(HumanEntry("otto", (), hash_secret("secret-otto")))
    assert (await browser.post("/claim", code=code, password=PASSWORD)).status_code == 303


@pytest.mark.req("TOK-08")
async def test_guessing_claims_is_bounded_and_other_pages_send_none(world: World) -> None:
    stranger = world.browser("198.51.100.9")
    fields = {"code": "guess", "person": "root", "password": PASSWORD}
    assert (
        await stranger.post("/claim", {"origin": "https://evil.example"}, **fields)
    ).status_code == 403
    answers = [await stranger.post("/claim", **fields) for _ in range(61)]
    assert answers[0].status_code == 403
    assert answers[-1].status_code == 429


async def bring(world: World, code: str, password: str = OTHER_PASSWORD) -> int:
    """Bring a claim in a new browser."""
    return (await world.browser().post("/claim", code=code, password=password)).status_code


@pytest.mark.req("TOK-08")
async def test_using_a_claim_leaves_no_earlier_one_good(world: World) -> None:
    lost = (await ask_claim(world, "ada", "otto")).json()["code"]
    used = (await ask_claim(world, "ada", "otto")).json()["code"]
    assert await bring(world, used) == 303
    assert await bring(world, lost, PASSWORD) == 400  # whoever found it
    assert (await world.browser().sign_in("otto", OTHER_PASSWORD)).status_code == 303
    later = (await ask_claim(world, "ada", "otto")).json()["code"]
    assert await bring(world, later, PASSWORD) == 303


@pytest.mark.req("TOK-08")
async def test_a_claim_made_with_a_secret_ends_with_that_secret(world: World) -> None:
    stolen = (await ask_claim(world, "ann", "ann")).json()["code"]
    world.humans.put(HumanEntry("ann", ("approver",), hash_secret("another")))
    assert await bring(world, stolen) == 400
    assert (await world.browser().sign_in("ann", PASSWORD)).status_code == 303


@pytest.mark.req("TOK-08")
async def test_a_claim_of_somebody_who_is_no_admin_any_more_is_no_good(world: World) -> None:
    code = (await ask_claim(world, "ada", "otto")).json()["code"]
    world.humans.put(HumanEntry("ada", ("auditor",), hash_secret("secret-ada")))
    assert await bring(world, code) == 400
    world.humans.drop("ada")
    assert await bring(world, code) == 400
    world.humans.put(HumanEntry("ada", ("admin",), hash_secret("secret-ada")))
    world.humans.stopped_at["ada"] = world.clock.now_s
    assert await bring(world, code) == 400  # made before she was stopped, perhaps not by her


@pytest.mark.req("TOK-08")
async def test_the_first_claim_is_not_used_up_by_an_id_that_stands_for_somebody(
    world: World, browser: Browser
) -> None:
    code = str(await make_first_claim(world.deps, has_admin=False))
    world.humans.drop("ann")  # suspended, and to come back with what she signs in with
    for taken in ("ann", "ANN"):
        fields = {"code": code, "person": taken, "password": OTHER_PASSWORD}
        assert (await browser.post("/claim", **fields)).status_code == 400
    world.humans.put(HumanEntry("ann", ("approver",), None))
    assert (await world.browser().sign_in("ann", PASSWORD)).status_code == 303
    assert await bring(world, code) == 400
    fields = {"code": code, "person": "root", "password": PASSWORD}
    assert (await browser.post("/claim", **fields)).status_code == 303
