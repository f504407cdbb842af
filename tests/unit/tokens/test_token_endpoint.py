from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus

import orjson
import pytest
from msgspec.structs import replace

from gateway.adapters.state.memory_runs import MemoryRuns
from gateway.core.errors import CountersignError, PolicyError
from gateway.core.policy.decision import ApprovalSpec, Deny, Hold, Obligation, Permit, Reason
from gateway.core.tokens.clients import Agent, Launcher, hash_secret
from gateway.core.tokens.token import Grant, Run

if TYPE_CHECKING:
    from tests.unit.tokens.conftest import World

pytestmark = pytest.mark.req("GW-10")

URL = "https://gateway.test"
DAY_S = 86_400
REVISION = "sha256:" + "0" * 64
BasicOf = Callable[[str, str], dict[str, str]]


FIND: dict[str, Any] = {
    "type": "countersign_tool",
    "locations": [URL],
    "server": "shop",
    "tool": "find",
    "effects": ["read"],
    "max_calls": 1,
}


def details(*asked: dict[str, Any]) -> str:
    return orjson.dumps(asked).decode()


async def launched(world: World, **changes: Any) -> tuple[str, str]:  # noqa: ANN401 - JSON
    body = (await world.launch(**changes)).json()
    return body["run_id"], body["run_credential"]


async def test_a_run_credential_becomes_a_token_of_that_run(world: World) -> None:
    run_id, credential = await launched(
        world,
        grants=[
            {
                "server": "shop",
                "tool": "refund",
                "constraints": {"/amount": {"max": 100}},
                "max_calls": 1,
            }
        ],
        allowed_values={"/to": ["ann@acme.test"]},
        workflow="returns",
        on_behalf_of="olga",
    )
    reply = await world.token(run_id, credential)
    assert reply.status_code == 200
    assert reply.headers["cache-control"] == "no-store"
    assert reply.headers["pragma"] == "no-cache"
    body = reply.json()
    assert (body["token_type"], body["expires_in"]) == ("Bearer", 300)
    assert body["scope"] == "tools:call tools:list"
    claims = world.verifier.verify(body["access_token"].encode(), world.clock.now_s)
    assert (claims.subject, claims.client_id, claims.owner) == ("bot", "workflow", "ann")
    assert claims.run_id == claims.sid == claims.root_jti == run_id
    assert claims.grants[0].constraints["/amount"].max == 100
    assert claims.allowed_values == {"/to": ("ann@acme.test",)}
    assert (claims.workflow, claims.on_behalf_of) == ("returns", "olga")
    assert (claims.roles, claims.origin) == (("support",), "launcher")


@pytest.mark.req("TOK-02", "TOK-04")
async def test_a_token_that_is_asked_for_narrower_than_its_run_is_narrower(world: World) -> None:
    reply = await world.token(*await launched(world), authorization_details=details(FIND))
    claims = world.verifier.verify(reply.json()["access_token"].encode(), world.clock.now_s)
    assert claims.grants == (Grant("shop", "find", ("read",), max_calls=1),)
    (told,) = reply.json()["authorization_details"]
    assert (told["tool"], told["effects"], told["max_calls"]) == ("find", ["read"], 1)
    assert world.policy.asked[-1][2]["context"]["token"]["constraints"][0]["tool"] == "find"


@pytest.mark.req("TOK-02", "TOK-04")
@pytest.mark.parametrize(
    "asked",
    [
        [{**FIND, "effects": ["money"]}],
        [{**FIND, "server": "bank"}],
        [{**FIND, "locations": ["https://evil.test"]}],
        [{**FIND, "locations": [URL, "https://evil.test"]}],
        [FIND, {**FIND, "tool": "look", "locations": ["https://evil.test"]}],
        [{**FIND, "effects": ["raed"]}],
        [FIND, FIND],
        [{**FIND, "tool": f"find{number}"} for number in range(65)],
    ],
)
async def test_details_that_are_wider_or_unclear_get_no_token(
    world: World, asked: list[dict[str, Any]]
) -> None:
    reply = await world.token(*await launched(world), authorization_details=details(*asked))
    assert (reply.status_code, reply.json()["error"]) == (400, "invalid_authorization_details")
    assert world.records[-1]["type"] == "token.refused"


async def test_all_tokens_of_a_run_are_one_family(world: World) -> None:
    run_id, credential = await launched(world)
    tokens = [(await world.token(run_id, credential)).json()["access_token"] for _ in range(2)]
    first, second = (world.verifier.verify(t.encode(), world.clock.now_s) for t in tokens)
    assert first.root_jti == second.root_jti
    assert first.jti != second.jti


async def test_a_token_never_outlives_its_run(world: World) -> None:
    run_id, credential = await launched(world, deadline_s=100)
    assert (await world.token(run_id, credential)).json()["expires_in"] == 100
    world.clock.now_s += 100
    reply = await world.token(run_id, credential)
    assert (reply.status_code, reply.json()["error"]) == (400, "invalid_grant")


async def test_an_agents_own_secret_gives_its_baseline_in_a_run_of_its_own(world: World) -> None:
    reply = await world.token("bot", "bot-secret")
    claims = world.verifier.verify(reply.json()["access_token"].encode(), world.clock.now_s)
    assert [(g.server, g.tool, g.effects) for g in claims.grants] == [("shop", "*", ("read",))]
    assert (claims.subject, claims.client_id, claims.origin) == ("bot", "bot", "agent")
    run = await world.runs.get_run(claims.run_id)
    assert run is not None
    assert (run.launcher, run.credential_hash) == ("bot", "")


async def test_asking_again_gives_the_same_run_until_the_next_day(world: World) -> None:
    async def run_of() -> str:
        token = (await world.token("bot", "bot-secret")).json()["access_token"]
        return world.verifier.verify(token.encode(), world.clock.now_s).run_id

    first = await run_of()
    assert await run_of() == first
    world.clock.now_s += DAY_S
    second = await run_of()
    assert second != first
    assert [r["run"] for r in world.records if r["type"] == "run.create"] == [first, second]


async def test_two_first_requests_at_once_share_a_run(world: World) -> None:
    class Crowded(MemoryRuns):
        """A run store in which the same run appears just before one stores it."""

        async def create_run(self, run: Run) -> None:
            await super().create_run(run)
            await super().create_run(run)

    world.keep_runs_in(Crowded())
    assert (await world.token("bot", "bot-secret")).status_code == 200


async def test_the_issue_is_recorded_before_the_token_leaves(world: World) -> None:
    run_id, credential = await launched(world)
    token = (await world.token(run_id, credential)).json()["access_token"]
    claims = world.verifier.verify(token.encode(), world.clock.now_s)
    record = world.records[-1]
    assert record["type"] == "token.issue"
    assert (record["jti"], record["agent"], record["client"]) == (claims.jti, "bot", "workflow")
    assert (record["run"], record["root"]) == (run_id, run_id)
    assert record["scopes"] == ["tools:call", "tools:list"]
    assert (record["exp"], record["policy"]["rev"]) == (claims.expires_at, REVISION)
    assert record["grants"].startswith("sha256:")
    log = b"\n".join(world.audit.lines)
    assert token.encode() not in log
    assert credential.encode() not in log
    assert token.rsplit(".", 1)[1].encode() not in log


async def test_no_record_no_token(world: World) -> None:
    run_id, credential = await launched(world)
    world.audit.poison()
    reply = await world.token(run_id, credential)
    assert (reply.status_code, reply.json()["error"]) == (503, "temporarily_unavailable")
    assert "access_token" not in reply.json()


async def test_policy_is_asked_in_phase_issue(world: World) -> None:
    run_id, credential = await launched(world, on_behalf_of="olga", workflow="returns")
    await world.token(run_id, credential)
    tool_id, phase, document = world.policy.asked[-1]
    assert (tool_id, phase) == ("", "issue")
    assert (document["version"], document["phase"], document["environment"]) == (1, "issue", "test")
    assert document["action"] == {"name": "tokens/issue"}
    assert document["resource"] == {"type": "run", "id": "bot", "server": ""}
    assert document["subject"]["id"] == "bot"
    assert document["subject"]["on_behalf_of"] == "olga"
    context = document["context"]
    assert context["args"] == {}
    assert context["now_ns"] == world.clock.now_ns()
    assert context["token"]["constraints"] == [{"server": "shop", "effects": ["read"]}]
    assert context["token"]["expires_in_s"] == 300
    assert context["run"] == {"id": run_id, "workflow": "returns"}
    assert context["client"] == {"id": "workflow"}
    record = world.audit.records[-1]
    kept = world.audit.read_opening(record["seq"], "policy.input")
    assert kept is not None
    assert orjson.loads(kept) == document


@pytest.mark.parametrize(
    ("decision", "code"),
    [
        (Deny((Reason("too_late"),), REVISION), "too_late"),
        (Deny((), REVISION), "no_policy_permits"),
        (Hold((Reason("ask"),), (), REVISION, ApprovalSpec(stages=())), "issue_held"),
        (Permit((), (Obligation("redact", {}),), REVISION), "issue_obliged"),
    ],
)
async def test_what_policy_does_not_plainly_permit_is_denied_and_recorded(
    world: World, decision: Deny | Hold | Permit, code: str
) -> None:
    run_id, credential = await launched(world)
    world.decision = decision
    reply = await world.token(run_id, credential)
    assert (reply.status_code, reply.json()["error"]) == (400, "access_denied")
    assert (world.records[-1]["type"], world.records[-1]["reason"]) == ("token.refused", code)


async def test_a_denied_own_run_gives_no_token(world: World) -> None:
    world.decision = Deny((Reason("not_today"),), REVISION)
    reply = await world.token("bot", "bot-secret")
    assert (reply.status_code, reply.json()["error"]) == (400, "access_denied")
    assert world.records[-1]["type"] == "run.refused"


async def test_no_decision_no_token(world: World) -> None:
    run_id, credential = await launched(world)
    world.decision = PolicyError("down")
    reply = await world.token(run_id, credential)
    assert reply.status_code == 503
    record = world.records[-1]
    assert (record["type"], record["reason"]) == ("token.refused", "policy_unavailable")


async def test_no_state_no_token(world: World) -> None:
    class Down(MemoryRuns):
        async def create_run(self, run: Run) -> None:
            raise CountersignError(f"disk of {run.id} gone", code="state_unavailable")

    world.keep_runs_in(Down())
    reply = await world.token("bot", "bot-secret")
    assert reply.status_code == 503
    assert "disk" not in reply.text


async def test_a_secret_in_the_body_is_as_good_as_in_a_header(world: World) -> None:
    run_id, credential = await launched(world)
    form = {"grant_type": "client_credentials", "client_id": run_id, "client_secret": credential}
    assert (await world.client.post("/oauth/token", data=form)).status_code == 200


@pytest.mark.parametrize(
    ("client_id", "secret"),
    [
        ("nobody", "secret"),
        ("bot", "wrong"),
        ("silent", ""),
        ("workflow", "wrong"),
        ("0" * 32, "secret"),
    ],
)
async def test_a_stranger_is_refused_and_counted(world: World, client_id: str, secret: str) -> None:
    reply = await world.token(client_id, secret)
    assert (reply.status_code, reply.json()["error"]) == (401, "invalid_client")
    assert reply.headers["www-authenticate"].startswith("Basic ")
    assert world.refused == [("authenticate", "client_invalid")]
    assert world.records == []


@pytest.mark.parametrize("encode", [str, quote, quote_plus], ids=["curl", "quote", "form"])
async def test_a_secret_in_base64_is_known_whether_its_client_encodes_it_or_not(
    world: World, encode: Callable[[str], str]
) -> None:
    secret = "pp+8b/a0+w=="
    world.connect(Agent(id="bot", secret_hash=hash_secret(secret)))
    assert (await world.token("bot", encode(secret))).status_code == 200


async def test_the_run_credential_of_another_run_is_a_strangers(world: World) -> None:
    run_id, _ = await launched(world)
    _, credential = await launched(world)
    assert (await world.token(run_id, credential)).status_code == 401


async def test_an_own_run_has_no_credential(world: World) -> None:
    await world.token("bot", "bot-secret")
    own = world.records[0]["run"]
    for secret in ("", "bot-secret", hash_secret("")):
        assert (await world.token(own, secret)).status_code == 401


@pytest.mark.parametrize(
    "header", ["Basic", "Basic !!", "Basic bm9jb2xvbg==", "Basic /w==", "Bearer x", "Negotiate x"]
)
async def test_a_header_that_is_no_credential_is_a_strangers(world: World, header: str) -> None:
    form = {"grant_type": "client_credentials"}
    reply = await world.client.post("/oauth/token", data=form, headers={"Authorization": header})
    assert reply.status_code == 401


async def test_no_credential_at_all_is_a_strangers(world: World) -> None:
    reply = await world.client.post("/oauth/token", data={"grant_type": "client_credentials"})
    assert reply.status_code == 401


async def test_who_cannot_even_be_refused_is_told_to_come_later(world: World) -> None:
    world.audit.poison()
    assert (await world.token("nobody", "secret")).status_code == 503


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ({"grant_type": ""}, "invalid_request"),
        ({"grant_type": "password"}, "unsupported_grant_type"),
        ({"scope": "tools:call admin"}, "invalid_scope"),
        ({"scope": "tools:call  tools:list"}, "invalid_scope"),
        ({"resource": "https://evil.test"}, "invalid_target"),
        ({"resource": [URL, "https://evil.test"]}, "invalid_target"),
        ({"resource": URL + "/mcp/Not-A-Server"}, "invalid_target"),
        ({"authorization_details": "[]"}, "invalid_authorization_details"),
    ],
)
async def test_a_known_client_that_asks_for_what_nobody_gets_is_recorded(
    world: World, form: dict[str, str | list[str]], error: str
) -> None:
    reply = await world.token("bot", "bot-secret", **form)
    assert (reply.status_code, reply.json()["error"]) == (400, error)
    record = world.records[-1]
    assert (record["type"], record["reason"], record["client"]) == ("token.refused", error, "bot")


async def test_a_run_that_asks_for_what_nobody_gets_is_recorded(world: World) -> None:
    run_id, credential = await launched(world)
    await world.token(run_id, credential, scope="all")
    assert world.records[-1]["run"] == run_id


async def test_a_launcher_gets_no_token(world: World) -> None:
    reply = await world.token("workflow", "workflow-secret")
    assert (reply.status_code, reply.json()["error"]) == (400, "unauthorized_client")


@pytest.mark.parametrize(
    "resource", [URL, URL + "/", URL + "/mcp", URL + "/mcp/shop", [URL, URL + "/mcp"]]
)
async def test_a_token_may_be_asked_for_any_of_the_gateways_resources(
    world: World, resource: str | list[str]
) -> None:
    reply = await world.token("bot", "bot-secret", resource=resource)
    token = reply.json()["access_token"]
    assert world.verifier.verify(token.encode(), world.clock.now_s).audience == URL


async def test_a_narrower_scope_is_given_as_asked(world: World) -> None:
    reply = await world.token("bot", "bot-secret", scope="tools:list")
    assert reply.json()["scope"] == "tools:list"
    token = reply.json()["access_token"]
    scopes = world.verifier.verify(token.encode(), world.clock.now_s).scopes
    assert scopes == {"tools:list"}


FORM = "application/x-www-form-urlencoded"


@pytest.mark.parametrize(
    ("content", "media_type"),
    [
        (b"{}", "application/json"),
        (b"grant_type=client_credentials", ""),
        (b"grant_type=client_credentials&grant_type=client_credentials", FORM),
        (b"grant_type", FORM),
        (b"grant_type=%ff", FORM),
        (b"grant_type=\xff", FORM),
        (b"a=b&" * 40 + b"a=b", FORM),
        (b"grant_type=client_credentials&x=" + b"x" * 70_000, FORM),
    ],
)
async def test_a_form_that_cannot_be_read_is_refused_and_counted(
    world: World, basic_of: BasicOf, content: bytes, media_type: str
) -> None:
    headers = {**basic_of("bot", "bot-secret"), "Content-Type": media_type}
    reply = await world.client.post("/oauth/token", content=content, headers=headers)
    assert (reply.status_code, reply.json()["error"]) == (400, "invalid_request")
    assert [stage for stage, _ in world.refused] == ["read"]


@pytest.mark.parametrize("proof", [{"client_secret": "bot-secret"}, {"client_id": "workflow"}])
async def test_proving_oneself_twice_is_refused(world: World, proof: dict[str, str]) -> None:
    reply = await world.token("bot", "bot-secret", **proof)
    assert (reply.status_code, reply.json()["error"]) == (400, "invalid_request")


async def test_naming_oneself_twice_alike_is_fine(world: World) -> None:
    assert (await world.token("bot", "bot-secret", client_id="bot")).status_code == 200


async def test_an_ended_run_gives_no_token(world: World) -> None:
    run_id, credential = await launched(world)
    await world.runs.end_run(run_id)
    reply = await world.token(run_id, credential)
    assert (reply.status_code, reply.json()["error"]) == (400, "invalid_grant")
    assert (world.records[-1]["type"], world.records[-1]["reason"]) == ("token.refused", "run_over")


async def test_a_killed_agent_gets_no_token(world: World) -> None:
    run_id, credential = await launched(world)
    world.killed.add("bot")
    reply = await world.token(run_id, credential)
    assert (reply.status_code, reply.json()["error"]) == (400, "invalid_grant")
    assert world.records[-1]["reason"] == "revoked"


BOT = Agent(id="bot", secret_hash=hash_secret("bot-secret"))
WORKFLOW = Launcher(id="workflow", secret_hash=hash_secret("workflow-secret"), may_launch=("bot",))


@pytest.mark.parametrize(
    "clients",
    [
        (WORKFLOW,),
        (BOT,),
        (BOT, replace(WORKFLOW, may_launch=())),
        (BOT, WORKFLOW),
    ],
    ids=["agent gone", "launcher gone", "no longer its launcher", "launcher gives less"],
)
async def test_authority_that_the_configuration_took_back_gives_no_token(
    world: World, clients: tuple[Agent | Launcher, ...]
) -> None:
    run_id, credential = await launched(world)
    await world.client.aclose()
    world.connect(*clients)
    reply = await world.token(run_id, credential)
    assert (reply.status_code, reply.json()["error"]) == (400, "invalid_grant")


async def test_error_texts_keep_to_the_characters_of_rfc_6749(world: World) -> None:
    reply = await world.token("bot", "bot-secret", **{'q"\\ü': ["1", "2"]})
    description = reply.json()["error_description"]
    assert all(" " <= c <= "~" and c not in '"\\' for c in description)


async def test_the_authorization_endpoint_refuses_everything(world: World) -> None:
    reply = await world.client.get("/oauth/authorize?response_type=code")
    assert (reply.status_code, reply.json()["error"]) == (400, "unsupported_response_type")
