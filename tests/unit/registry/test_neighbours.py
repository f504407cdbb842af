"""The registry's rules where other doors meet them: claims, votes, the configuration."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from msgspec.structs import replace

from gateway.adapters.audit.memory_audit import MemoryAuditLog
from gateway.adapters.state.memory_approvals import MemoryApprovals
from gateway.adapters.state.outbox_relay import OutboxRelay
from gateway.adapters.state.sql_store import SqlState
from gateway.core.approvals.declined import Declined
from gateway.core.approvals.sessions import SignedIn
from gateway.core.records.approval_entries import state_event
from gateway.core.tokens.clients import hash_secret
from gateway.http.approvals import ApprovalDeps, build_router
from gateway.http.humans import HumanEntry, Humans, build_admit
from gateway.http.signin_sessions import Proof
from tests.fixed import CountingIds, FixedClock
from tests.unit.approvals.conftest import build_request
from tests.unit.people.conftest import OTHER_PASSWORD, World
from tests.unit.people.test_claims import ask_claim
from tests.unit.registry.desk import Desk, told


@pytest.fixture
async def state(tmp_path: Path) -> AsyncIterator[SqlState]:
    state = SqlState(f"sqlite:///{tmp_path / 'state.db'}")
    await state.open(environment="test", log_origin="o")
    yield state
    await state.close()


@pytest.mark.req("TOK-08")
async def test_a_claim_of_an_admin_is_void_once_its_person_decides(state: SqlState) -> None:
    world = World(state)
    theirs = (await ask_claim(world, "ada", "otto")).json()["code"]
    world.humans.put(HumanEntry("otto", ("approver",), hash_secret("secret-otto")))
    refused = await world.browser().post("/claim", code=theirs, password=OTHER_PASSWORD)
    assert refused.status_code == 400
    own = (await ask_claim(world, "otto", "otto")).json()["code"]
    done = await world.browser().post("/claim", code=own, password=OTHER_PASSWORD)
    assert done.status_code == 303


async def sign_in(world: World, *amr: str) -> str:
    """Return the credential of a command line that zoe has just signed in."""

    async def told(_found: SignedIn) -> None:
        """Nothing is recorded here."""

    proof = Proof(person="zoe", auth_time=world.clock.now_s, acr="strong", amr=amr)
    return (await world.sessions.begin_cli(proof, told))[0]


@pytest.mark.req("TOK-08")
async def test_a_secret_outlives_a_session_so_none_but_a_fresh_one_of_ones_own_gets_it(
    state: SqlState,
) -> None:
    world = World(state)
    desk = Desk(clock=world.clock, credentials=world.sessions.by_credential)
    await desk.start()
    await desk.post("ada", "users", {"id": "zoe"})
    world.humans.put(HumanEntry("zoe", (), None))
    # Whom an identity provider lets in has no way in that outlives its word.
    provided = await sign_in(world, "fed", "pwd")
    refused = await desk.ask("zoe", "POST", "users/zoe/secret", {}, secret=provided)
    assert told(refused) == (403, "registry_own_change")
    own = await sign_in(world, "pwd")
    world.clock.now_s += 900
    given = await desk.ask("zoe", "POST", "users/zoe/secret", {}, secret=own)
    assert desk.humans.authenticate(f"Bearer {given.json()['secret']}").id == "zoe"
    # A session that somebody found becomes nobody for good.
    world.clock.now_s += 1
    stale = await desk.ask("zoe", "POST", "users/zoe/secret", {}, secret=own)
    assert told(stale) == (403, "registry_own_change")
    again = {"secret_hash": hash_secret("a")}
    stale = await desk.ask("zoe", "POST", "users/zoe/secret", again, secret=own)
    assert "countersign login" in stale.json()["detail"]
    kept = await desk.ask("zoe", "POST", "users/zoe/secret", {}, secret=given.json()["secret"])
    assert kept.status_code == 200


class Votes:
    """A held call that `finance` decides, and the door to vote at it."""

    def __init__(self, counting: tuple[str, ...]) -> None:
        self.counting = counting
        self.store = MemoryApprovals(clock=FixedClock())
        people = Humans([HumanEntry("ann", ("approver", "finance"), hash_secret("s"))])

        async def refuse(_stage: str, _reason: str) -> None:
            """Nobody is refused here."""

        deps = ApprovalDeps(
            store=self.store,
            humans=people,
            admit=build_admit(people, refuse),
            clock=FixedClock(),
            ids=CountingIds(),
            relay=OutboxRelay(self.store, MemoryAuditLog()).drain,
            on_approved=lambda _id: None,
            voting_roles=lambda _human: self.counting,
            standing=lambda vote: vote,
        )
        api = FastAPI()
        api.include_router(build_router(deps))
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app=api), base_url="http://gateway.test"
        )

    async def vote(self) -> httpx.Response:
        held = build_request()
        await self.store.create(held, state_event(held, "request", "PENDING"))
        body = {"decision": "approve", "binding": held.binding, "reason": "x"}
        headers = {"Authorization": "Bearer s"}
        async with self.client as client:
            return await client.post(f"/v1/approvals/{held.id}/votes", json=body, headers=headers)


@pytest.mark.req("TOK-08")
@pytest.mark.parametrize("counting", [(), ("approver",), ("finance",)])
async def test_a_vote_by_what_is_too_new_is_refused(counting: tuple[str, ...]) -> None:
    assert told(await Votes(counting).vote()) == (403, "vote_too_early")


@pytest.mark.req("TOK-08")
async def test_a_vote_by_what_has_lasted_counts_with_nothing_newer() -> None:
    votes = Votes(("approver", "finance"))
    assert (await votes.vote()).json()["state"] == "APPROVED"
    (vote,) = await votes.store.votes(build_request().id)
    assert vote.groups == ("approver", "finance")


@pytest.mark.req("TOK-01")
async def test_who_was_vouched_for_is_registered_without_a_role(desk: Desk) -> None:
    done = await desk.desk.provision("pat@corp.example")
    assert not isinstance(done, Declined)
    assert desk.humans.everyone()["pat@corp.example"] == ()
    for person in ("PAT@corp.example", "a b"):
        assert isinstance(await desk.desk.provision(person), Declined)
    assert [one["granted"] for one in desk.changes()] == [[]]


@pytest.mark.req("TOK-01")
async def test_a_member_whose_file_entry_is_gone_cannot_be_confirmed(desk: Desk) -> None:
    asked = (await desk.post("ada", "users/ann/suspend")).json()["proposal"]["proposal"]
    of_file = [one for one in desk.desk.registry.of_kind("human") if one.id != "ann"]
    later = await desk.again([replace(one, version=0) for one in of_file])
    answer = await later.post("alan", f"registry/proposals/{asked}/confirm")
    assert told(answer) == (409, "registry_conflict")
