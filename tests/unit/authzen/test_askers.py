"""Who may ask what would become of calls, how often, and how errors are told."""

from __future__ import annotations

import orjson
import pytest
from msgspec.structs import replace

from gateway.core.errors import AuditError
from gateway.evaluating import Allowances
from tests.fixed import NOW_S
from tests.unit.authzen.asking import (
    EVALUATION,
    EVALUATIONS,
    LARS,
    REFUND,
    Desk,
    about,
    basic,
    bearer,
    own_token,
)
from tests.unit.authzen.spec_payloads import MALFORMED
from tests.unit.path.world import URL, build_claims, call_app
from tests.unit.tokens.proofs import Holder

pytestmark = pytest.mark.req("POL-10")
METADATA = "/.well-known/authzen-configuration"


@pytest.mark.parametrize(
    "who", [basic(), own_token(), bearer("opal"), bearer("aud"), bearer("pia")]
)
async def test_those_who_may_ask_get_an_answer(who: str) -> None:
    assert (await Desk().decide(who=who))["decision"] is True


@pytest.mark.parametrize(
    "who",
    [
        "",
        basic(secret="guessed"),
        basic("refund-bot", "bot-secret"),  # agents ask by their tokens
        "Basic !",
        "Bearer nobodys-secret",
        "Bearer e30.e30.e30",
        "Bearer !!.x",
        "Bearer WzFd.x",  # a header that is a list
        "Digest x",
        "Bearer",
    ],
)
async def test_strangers_are_told_401_with_a_challenge_and_recorded(who: str) -> None:
    desk = Desk()
    reply = await desk.ask(who=who)
    assert reply.status == 401
    assert reply.headers["www-authenticate"]
    assert reply.headers["content-type"].startswith("text/plain")
    assert desk.refused or desk.records("call.refused")
    assert desk.policy.asked == []


async def test_an_altered_token_is_no_token() -> None:
    assert (await Desk().ask(who=own_token() + "x")).status == 401


async def test_a_token_for_looking_is_none_for_asking() -> None:
    token = own_token(build_claims(scopes=frozenset({"tools:list"})))
    assert (await Desk().ask(who=token)).status == 403


async def test_an_agent_may_not_ask_about_another_and_that_is_on_record() -> None:
    desk = Desk()
    box = {**REFUND, "evaluations": [{}, {"subject": {"type": "agent", "id": "other-bot"}}]}
    reply = await desk.ask(box, who=own_token(), path=EVALUATIONS)
    assert reply.status == 403
    record = desk.only_record()
    assert (record["type"], record["reason"]) == ("policy.evaluate", "subject_forbidden")
    assert record["actor"]["agent"] == "refund-bot"
    assert desk.policy.asked == []


async def test_a_launcher_sees_no_run_of_another() -> None:
    answer = await Desk().decide(who=basic("other", "other-secret"))
    assert (answer["decision"], answer["context"]["code"]) == (False, "run_unknown")


async def test_people_without_a_role_for_it_are_refused_on_record() -> None:
    desk = Desk()
    assert (await desk.ask(who=bearer("dana"))).status == 403
    assert desk.only_record()["reason"] == "role_missing"


async def test_a_bound_token_without_its_proof_is_refused_in_its_scheme() -> None:
    token = own_token(build_claims(jkt="k" * 43)).removeprefix("Bearer ")
    reply = await Desk().ask(who=f"DPoP {token}")
    assert reply.status == 401
    assert reply.headers["www-authenticate"].startswith("DPoP ")


async def test_a_bound_token_with_its_proof_may_ask_once_for_each_proof() -> None:
    desk, holder = Desk(), Holder()
    token = own_token(build_claims(jkt=holder.jkt)).removeprefix("Bearer ")
    nonce = desk.nonces.current(NOW_S)
    proof = holder.prove("POST", URL + EVALUATION, NOW_S, token=token.encode(), nonce=nonce)
    headers = {"dpop": proof.decode()}
    first = await desk.ask(who=f"DPoP {token}", headers=headers)
    assert (first.status, first.json()["decision"]) == (200, True)
    again = await desk.ask(who=f"DPoP {token}", headers=headers)
    assert again.status == 401
    stolen = await desk.ask(who=f"Bearer {token}")
    assert stolen.status == 401


async def test_a_launcher_may_ask_by_an_assertion_of_its_key() -> None:
    desk, holder = Desk(), Holder()
    desk.registry.put(replace(LARS, secret_hash="", jwks=(holder.public(),)))
    said = {"iss": "lars", "sub": "lars", "aud": URL, "exp": NOW_S + 60, "jti": "a1"}
    signed = holder.sign({"alg": holder.algorithm}, orjson.dumps(said))
    who = f"Bearer {signed.decode()}"
    assert (await desk.decide(who=who))["decision"] is True
    assert (await desk.ask(who=who)).status == 401  # used up
    assert (await desk.ask(who=basic())).status == 401  # who has keys has no secret


# How often


def test_allowances_are_for_each_asker_and_come_back() -> None:
    allowances = Allowances(burst=10, per_s=5)
    assert allowances.take("a", 10, 0)
    assert not allowances.take("a", 1, 0)
    assert allowances.take("b", 1, 0)
    assert not allowances.take("a", 6, 1_000_000_000)
    assert allowances.take("a", 5, 1_000_000_000)


def test_allowances_forget_those_who_asked_longest_ago() -> None:
    allowances = Allowances(burst=1, per_s=1, askers_max=2)
    for asker in ("a", "b", "c"):
        assert allowances.take(asker, 1, 0)
    assert allowances.take("a", 1, 0)
    assert not allowances.take("c", 1, 0)


async def test_whoever_asks_too_often_is_told_429_and_counted() -> None:
    desk = Desk()
    box = {**REFUND, "evaluations": [{}] * 32}
    replies = [await desk.ask(box, path=EVALUATIONS) for _ in range(7)]
    assert [reply.status for reply in replies] == [200] * 6 + [429]
    assert desk.refused == [("read", "evaluations_too_many")]
    assert (await desk.ask(who=bearer("aud"))).status == 200
    desk.clock.pass_s(1)
    assert (await desk.ask(box, path=EVALUATIONS)).status == 200


async def test_malformed_questions_use_the_allowance_up_too() -> None:
    desk = Desk()
    statuses = [(await desk.ask(b"{")).status for _ in range(201)]
    assert statuses == [400] * 200 + [429]


# How it is told


@pytest.mark.parametrize("name", MALFORMED)
@pytest.mark.parametrize("path", [EVALUATION, EVALUATIONS])
async def test_malformed_questions_are_400_and_on_record(name: str, path: str) -> None:
    desk = Desk()
    reply = await desk.ask(MALFORMED[name], path=path)
    assert reply.status == 400
    assert desk.only_record()["reason"] == "request_invalid"


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_another_content_type_is_400(content_type: str) -> None:
    reply = await Desk().ask(headers={"content-type": content_type})
    assert reply.status == 400


@pytest.mark.parametrize(("body", "status"), [(b"", 400), (b"{", 400), (b" " * 400_000, 413)])
async def test_bodies_that_are_none_or_too_large(body: bytes, status: int) -> None:
    assert (await Desk().ask(body)).status == status


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"who": ""}, 401),
        ({"body": b"{"}, 400),
        ({}, 200),
        ({"body": about(subject={"type": "agent", "id": "x"}), "who": own_token()}, 403),
    ],
)
async def test_the_id_of_a_request_comes_back_once(change: dict[str, object], status: int) -> None:
    reply = await Desk().ask(headers={"x-request-id": "bfe9eb29 ab87"}, **change)  # type: ignore[arg-type]
    assert (reply.status, reply.headers["x-request-id"]) == (status, "bfe9eb29 ab87")


async def test_without_a_log_strangers_are_told_to_come_back() -> None:
    desk = Desk()

    async def unrecorded(_stage: str, _code: str) -> None:
        raise AuditError("as asked")

    desk.endpoint._refuse = unrecorded  # noqa: SLF001 - what counts strangers
    for headers in ({"x-request-id": ""}, {}):
        assert (await desk.ask(who="Digest x", headers=headers)).status == 503


async def test_a_request_without_an_id_gets_one() -> None:
    reply = await Desk().ask()
    assert reply.headers["x-request-id"] == reply.json()["context"]["op"]


@pytest.mark.parametrize("value", ["", "x" * 257, "a\tb", "é"])
async def test_an_id_that_could_not_come_back_is_400(value: str) -> None:
    assert (await Desk().ask(headers={"x-request-id": value})).status == 400


@pytest.mark.parametrize("name", ["authorization", "content-type", "x-request-id"])
async def test_a_header_that_comes_twice_is_400_and_counted(name: str) -> None:
    desk = Desk()
    pairs = [("host", "gw.example"), (name, "x"), (name, "x")]
    reply = await call_app(desk.asked_app, "POST", EVALUATION, pairs, b"{}")
    assert reply.status == 400
    assert desk.refused == [("read", "header_mismatch")]


async def test_the_metadata_are_for_everybody() -> None:
    reply = await Desk().ask(path=METADATA, method="GET", who="")
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    assert reply.json()["access_evaluation_endpoint"].endswith(EVALUATION)


@pytest.mark.parametrize(
    ("path", "method", "allow"),
    [(EVALUATION, "GET", "POST"), (EVALUATIONS, "PUT", "POST"), (METADATA, "POST", "GET")],
)
async def test_other_methods_are_405(path: str, method: str, allow: str) -> None:
    reply = await Desk().ask(path=path, method=method)
    assert (reply.status, reply.headers["allow"]) == (405, allow)


async def test_the_same_question_has_the_same_answer() -> None:
    desk = Desk()
    assert {(await desk.decide())["decision"] for _ in range(5)} == {True}
