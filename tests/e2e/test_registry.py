"""Who is suspended stops at once, in a real gateway and after its restart (TOK-01, TOK-08)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from gateway.cli import build
from gateway.core.tokens.clients import hash_secret
from tests.e2e.callers import Agent
from tests.e2e.conftest import Acme, Build, Start
from tests.e2e.processes import eventually
from tests.e2e.served import Served
from tests.e2e.site import PEOPLE, Site, secret_of
from tests.e2e.stub import Stub

pytestmark = pytest.mark.req("TOK-01")
ADMINS = {"ada": ["admin"], "abe": ["admin"]}


class Staff:
    """A gateway and the command line of everybody in it."""

    def __init__(self, served: Served) -> None:
        self.served = served

    def cli(self, who: str, *words: str) -> Result:
        env = {"COUNTERSIGN_URL": self.served.site.url, "COUNTERSIGN_TOKEN": secret_of(who)}
        return CliRunner().invoke(build(words[0]), list(words), env=env)

    def must(self, who: str, *words: str, code: int = 0) -> Any:  # noqa: ANN401 - JSON
        done = self.cli(who, *words, "-o", "json")
        assert done.exit_code == code, done.output
        return json.loads(done.stdout)

    def both(self, *words: str) -> None:
        """Let Ada ask and Abe confirm."""
        asked = self.must("ada", *words, code=7)["proposal"]["proposal"]
        self.must("abe", "users", "confirm", asked)


@pytest.fixture(scope="module")
def site(build_site: Build) -> Site:
    humans = [
        {"id": name, "roles": roles, "secret_hash": hash_secret(secret_of(name))}
        for name, roles in {**PEOPLE, **ADMINS}.items()
    ]
    return build_site(humans=humans, registry={"approver_delay_s": 3_600})


@pytest.fixture(scope="module")
def staff(site: Site, start_here: Start) -> Staff:
    return Staff(start_here(site, step="never").wait_ready())


@pytest.fixture
def agent(staff: Staff) -> Iterator[Agent]:
    yield staff.served.agent()
    staff.cli("ada", "agents", "resume", "helper")
    staff.cli("ada", "clients", "resume", "launcher")


def note(text: str) -> dict[str, str]:
    return {"customer_id": "cus_1003", "body": f"held: canary registry {text}"}


@pytest.mark.parametrize("words", [("agents", "helper"), ("clients", "launcher")])
def test_a_live_token_of_who_is_suspended_is_refused_at_once(
    staff: Staff, agent: Agent, words: tuple[str, str]
) -> None:
    assert agent.rest("acme__orders_get", {"order_id": "ord_1001"}).status_code != 403
    staff.must("opal", words[0], "suspend", words[1], "--reason", "case 7")
    with staff.served.adding() as added:
        refused = agent.rest("acme__orders_get", {"order_id": "ord_1001"})
        assert (refused.status_code, refused.json()["code"]) == (403, "identity_suspended")
    (record,) = added
    assert (record["type"], record["reason"]) == ("call.refused", "identity_suspended")
    created = {"client_id": agent.run["run_id"], "client_secret": agent.run["run_credential"]}
    form = {"grant_type": "client_credentials", **created}
    answer = staff.served.http.post("/oauth/token", data=form)
    assert answer.status_code in {400, 401, 403}, answer.text
    staff.must("opal", words[0], "resume", words[1])
    assert agent.rest("acme__orders_get", {"order_id": "ord_1001"}).status_code != 403


def test_a_held_call_of_a_suspended_agent_is_not_sent(
    staff: Staff, agent: Agent, acme: Acme
) -> None:
    before = acme.rows("notes")
    held = agent.hold("acme__notes_add", note("held"))
    staff.must("opal", "agents", "suspend", "helper")
    assert staff.served.person("dana").vote(held).status_code == 200
    shown = _wait_for(staff, held)
    assert (shown["state"], acme.rows("notes")) == ("STALE", before)


def test_a_held_call_that_its_client_could_not_launch_any_more_is_not_sent(
    staff: Staff, stub: Stub
) -> None:
    everything = '{"server": "stub"}'
    wide = ("--launch", "helper", "--human", "olga", "--grant", everything)
    secret = staff.must("ada", "clients", "create", "flow", "--owner", "lars", *wide)["secret"]
    asked = {"agent": "helper", "grants": [json.loads(everything)], "on_behalf_of": "olga"}
    http = staff.served.http
    run = http.post("/v1/runs", auth=("flow", secret), json=asked).json()
    agent = Agent(http, staff.served.token(run["run_id"], run["run_credential"]), run)
    before = stub.calls["transfer"]
    held = agent.hold("stub__transfer", {"to": "canary", "amount": 9})
    ada = {"Authorization": f"Bearer {secret_of('ada')}"}
    fewer = {"grants": [{"server": "stub", "effects": ["read"]}]}
    assert http.patch("/v1/clients/flow", headers=ada, json=fewer).status_code == 200
    for name in ("dana", "eli"):
        assert staff.served.person(name).vote(held).status_code == 200
    assert _wait_for(staff, held)["state"] == "STALE"
    assert stub.calls["transfer"] == before


@pytest.mark.req("TOK-08")
def test_no_admin_makes_a_claim_for_somebody_who_has_a_secret_of_their_own(staff: Staff) -> None:
    def claim(person: str) -> httpx.Response:
        ada = {"Authorization": f"Bearer {secret_of('ada')}"}
        return staff.served.http.post("/v1/sign-in/claims", headers=ada, json={"person": person})

    own = hash_secret("canary-secret-that-only-vera-knows-0123456789")
    staff.must("ada", "users", "create", "vera", "--secret-hash", own)
    staff.must("ada", "users", "create", "walt")
    assert claim("walt").status_code == 200
    refused = claim("vera")  # who would not miss a claim that was used in her place
    assert (refused.status_code, refused.json()["code"]) == (403, "registry_secret_shared")


@pytest.mark.req("TOK-08")
def test_an_admin_who_took_an_account_over_by_a_claim_gets_it_no_vote(staff: Staff) -> None:
    def post(who: str, path: str, body: dict[str, Any]) -> httpx.Response:
        headers = {"Authorization": f"Bearer {secret_of(who)}"}
        return staff.served.http.post(f"/v1/{path}", headers=headers, json=body)

    staff.must("ada", "users", "create", "xena")
    code = post("ada", "sign-in/claims", {"person": "xena"}).json()["code"]
    form = {"code": code, "password": "canary correct horse battery"}
    own_page = {"origin": staff.served.site.url}
    assert staff.served.http.post("/claim", data=form, headers=own_page).status_code == 303
    refused = post("ada", "users/xena/roles", {"grant": ["approver"]})
    assert (refused.status_code, refused.json()["code"]) == (403, "registry_same_person")
    asked = staff.must("abe", "users", "grant-role", "xena", "approver", code=7)
    proposal = asked["proposal"]["proposal"]
    shown = staff.cli("ada", "users", "proposals")
    assert "account opened by a claim or secret of ada, last at" in " ".join(shown.stdout.split())
    refused = post("ada", f"registry/proposals/{proposal}/confirm", {})
    assert (refused.status_code, refused.json()["code"]) == (403, "registry_same_person")
    staff.must("abe", "users", "withdraw", proposal)


@pytest.mark.req("TOK-08")
def test_the_vote_of_a_new_approver_does_not_count_yet(staff: Staff, agent: Agent) -> None:
    held = agent.hold("acme__notes_add", note("early"))
    secret = hash_secret(secret_of("nina"))
    staff.must("ada", "users", "create", "nina", "--secret-hash", secret)
    staff.both("users", "grant-role", "nina", "approver")
    early = staff.served.person("nina").vote(held)
    assert (early.status_code, early.json()["code"]) == (403, "vote_too_early")
    assert staff.served.person("dana").vote(held).json()["state"] == "APPROVED"
    assert _wait_for(staff, held)["state"] == "EXECUTED"


@pytest.mark.req("TOK-08")
@pytest.mark.parametrize("resumed", ["after", "before"])
def test_the_vote_of_somebody_suspended_before_the_call_was_sent_does_not_count(
    staff: Staff, agent: Agent, stub: Stub, resumed: str
) -> None:
    before = stub.calls["transfer"]
    held = agent.hold("stub__transfer", {"to": "canary", "amount": 7})
    assert staff.served.person("dana").vote(held).json()["state"] == "PENDING"
    staff.both("users", "suspend", "dana", "--reason", "gone")
    if resumed == "before":
        staff.both("users", "resume", "dana")
    assert staff.served.person("eli").vote(held).status_code == 200
    if resumed == "after":
        staff.both("users", "resume", "dana")
    assert _wait_for(staff, held)["state"] == "STALE"
    assert stub.calls["transfer"] == before


FINANCE_AND_ANOTHER = """
package policies.finance

hold contains {"code": "finance_and_another", "approval": {
	"stages": [
		{"any_of": [{"who": {"groups": ["finance"]}}]},
		{"any_of": [{"who": {"groups": ["approver"]}}]},
	],
	"ttl": "1h",
	"execute": "on_approval",
}} if {
	input.phase in {"call", "resume"}
	input.resource.id == "stub.masked"
}
"""


@pytest.mark.req("TOK-08")
@pytest.mark.parametrize(("leaves", "state"), [("finance", "STALE"), ("travel", "EXECUTED")])
def test_a_vote_fills_no_stage_of_a_group_that_its_voter_has_left_since(
    build_site: Build, start: Start, stub: Stub, leaves: str, state: str
) -> None:
    humans = [
        {"id": name, "roles": roles, "secret_hash": hash_secret(secret_of(name))}
        for name, roles in {**PEOPLE, **ADMINS}.items()
    ]
    site = build_site(humans=humans, registry={"approver_delay_s": 0})
    (site.policies / "finance.rego").write_text(FINANCE_AND_ANOTHER, encoding="utf-8")
    staff = Staff(start(site, step="never").wait_ready())
    secret = hash_secret(secret_of("fay"))
    staff.must("ada", "users", "create", "fay", "--secret-hash", secret, "--group", "finance")
    staff.must("ada", "users", "grant-role", "fay", "travel", "--group")
    staff.both("users", "grant-role", "fay", "approver")
    before = stub.calls["masked"]
    held = staff.served.agent().hold("stub__masked", {"value": "canary"})
    assert staff.served.person("fay").vote(held).json()["state"] == "PENDING"
    assert staff.served.person("dana").show(held)["stages_met"] == 1
    staff.both("users", "revoke-role", "fay", leaves, "--group")
    assert staff.served.person("dana").show(held)["stages_met"] == (state == "EXECUTED")
    assert staff.served.person("eli").vote(held).status_code == 200
    assert _wait_for(staff, held)["state"] == state
    assert stub.calls["masked"] == before + (state == "EXECUTED")


@pytest.mark.req("TOK-08")
def test_a_suspended_person_is_let_in_nowhere(staff: Staff) -> None:
    assert staff.served.person("eli").get("/v1/approvals").status_code == 200
    staff.both("users", "suspend", "eli", "--reason", "gone")
    assert staff.served.person("eli").get("/v1/approvals").status_code == 401
    staff.both("users", "resume", "eli")
    assert staff.served.person("eli").get("/v1/approvals").status_code == 200


def test_what_is_registered_and_suspended_outlives_the_gateway(
    build_site: Build, start: Start
) -> None:
    humans = [
        {"id": "ada", "roles": ["admin"], "secret_hash": hash_secret(secret_of("ada"))},
        {"id": "dana", "roles": ["approver"], "secret_hash": hash_secret(secret_of("dana"))},
    ]
    site = build_site(humans=humans)
    first = Staff(start(site, step="never").wait_ready())
    token = first.served.agent()
    reads = '{"server": "acme", "effects": ["read"]}'
    made = first.must("ada", "agents", "create", "sub", "--grant", reads, "--secret")
    first.must("ada", "agents", "suspend", "helper")
    first.served.token("sub", made["secret"])
    first.served.process.kill()  # as a crash
    first.served.wait()
    second = Staff(start(site, step="never").wait_ready())
    second.served.token("sub", made["secret"])
    late = Agent(second.served.http, token.token, token.run).rest("acme__orders_get", {})
    assert late.json()["code"] == "identity_suspended"
    kinds = [r["change"] for r in second.served.records("registry.change")]
    assert kinds == ["create", "suspend"]
    second.must("ada", "agents", "retire", "sub")


def _wait_for(staff: Staff, held: str) -> dict[str, Any]:
    """Return a held call once nothing more happens to it."""
    person = staff.served.person("dana")
    under_way = {"APPROVED", "CLAIMED", "DISPATCHED"}
    eventually(lambda: person.show(held)["state"] not in under_way, "it has ended")
    return person.show(held)
