"""What both stores of the registry promise."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from gateway.adapters.state.memory_registry import MemoryRegistry
from gateway.adapters.state.sql_registry import SqlRegistry
from gateway.adapters.state.sql_store import SqlState
from gateway.core.entry import Entry, Opening
from gateway.core.people.registry import Person, Proposal, RegistryStore, Row, Stored
from gateway.core.ports import OutboxEvent
from gateway.core.tokens.clients import Agent, Launcher
from gateway.core.tokens.token import Constraint, Grant

pytestmark = pytest.mark.req("TOK-01")
GRANTS = (Grant("shop", "refund", ("read",), {"/amount": Constraint(max=500)}, 3),)
AGENT = Row(
    id="bot",
    kind="agent",
    state="active",
    version=1,
    changed_at=1_800_000_000,
    body=Agent(id="bot", owner="ann", roles=("support",), grants=GRANTS, may_delegate_to=("sub",)),
)
CLIENT = Row(
    id="flow",
    kind="client",
    state="suspended",
    version=2,
    changed_at=1_800_000_001,
    body=Launcher(id="flow", secret_hash="sha256:0", may_launch=("bot",), grants=GRANTS),
)
PERSON = Row(
    id="olga",
    kind="human",
    state="active",
    version=1,
    changed_at=1_800_000_002,
    body=Person(id="olga", roles=("approver",), groups=("finance",), since={"approver": 7}),
)
OF_FILE = replace(AGENT, id="filed", state="retired", body=None)
PROPOSAL = Proposal(
    id="p1",
    action="roles",
    after=replace(PERSON, version=2, changed_at=1_800_000_003),
    version=1,
    asked_by="ada",
    asked_at=1_800_000_003,
    expires_at=1_800_086_403,
    nonce="n",
    reason="she starts on Monday",
)


def event(number: int) -> OutboxEvent:
    entry = Entry(
        type="registry.change",
        op=f"op-{number}",
        fields={"kind": "agent", "version": number},
        openings=(Opening("by", b"ada", "ada"),),
        event_id=f"registry:op-{number}",
    )
    return OutboxEvent(event_id=f"registry:op-{number}", entry=entry)


@pytest.fixture(params=["sql", "memory"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[RegistryStore]:
    if request.param == "memory":
        yield MemoryRegistry()
        return
    state = SqlState(f"sqlite:///{tmp_path / 'state.db'}")
    await state.open(environment="test", log_origin="o")
    yield SqlRegistry(state)
    await state.close()


async def test_members_are_found_as_they_were_kept(store: RegistryStore) -> None:
    assert await store.load() == Stored([], [])
    for number, row in enumerate((PERSON, CLIENT, OF_FILE, AGENT)):
        await store.commit(event(number), row=row)
    assert (await store.load()).rows == [AGENT, OF_FILE, CLIENT, PERSON]


async def test_a_later_state_takes_the_place_of_an_earlier_one(store: RegistryStore) -> None:
    later = replace(AGENT, state="retired", version=2)
    await store.commit(event(1), row=AGENT)
    await store.commit(event(2), row=later)
    assert (await store.load()).rows == [later]


async def test_a_proposal_is_kept_until_it_is_done(store: RegistryStore) -> None:
    other = replace(PROPOSAL, id="p2", after=replace(OF_FILE, version=2, changed_at=1_800_000_003))
    await store.commit(event(1), proposal=PROPOSAL)
    await store.commit(event(2), proposal=other)
    assert (await store.load()).proposals == [PROPOSAL, other]
    await store.commit(event(3), row=PROPOSAL.after, done=["p1"])
    stored = await store.load()
    assert (stored.proposals, stored.rows) == ([other], [PROPOSAL.after])


async def test_every_change_leaves_its_event_until_it_is_relayed(store: RegistryStore) -> None:
    for number in range(3):
        await store.commit(event(number), row=AGENT)
    assert await store.outbox() == [event(0), event(1), event(2)]
    assert await store.outbox(limit=1) == [event(0)]
    await store.relayed([event(0).event_id, event(2).event_id])
    assert await store.outbox() == [event(1)]


async def test_members_proposals_and_events_outlive_the_process(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'state.db'}"
    await (state := SqlState(url)).open(environment="test", log_origin="o")
    await SqlRegistry(state).commit(event(1), row=AGENT, proposal=PROPOSAL)
    await state.close()
    await (again := SqlState(url)).open(environment="test", log_origin="o")
    assert await SqlRegistry(again).load() == Stored([AGENT], [PROPOSAL])
    assert await SqlRegistry(again).outbox() == [event(1)]
    await again.close()


async def test_a_change_whose_event_is_there_already_keeps_nothing(tmp_path: Path) -> None:
    await (state := SqlState(f"sqlite:///{tmp_path / 'state.db'}")).open(
        environment="test", log_origin="o"
    )
    store = SqlRegistry(state)
    await store.commit(event(1), row=AGENT)
    with pytest.raises(Exception, match="state database failed"):
        await store.commit(event(1), row=replace(AGENT, version=2))
    assert (await store.load()).rows == [AGENT]
    await state.close()
