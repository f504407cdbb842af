"""A process that is killed has lost nothing that it had promised."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from gateway.adapters.audit.memory_audit import MemoryAuditLog
from gateway.adapters.state.outbox_relay import OutboxRelay
from gateway.adapters.state.sql_approvals import SqlApprovals
from gateway.adapters.state.sql_store import SqlState
from gateway.adapters.system import SystemClock
from gateway.core.approvals.approval import ApprovalRequest

# Approves and claims one request, says so, and waits to be killed in the middle of a transaction.
CHILD = """
import asyncio, sys
import msgspec
from gateway.adapters.state.sql_approvals import SqlApprovals
from gateway.adapters.state.sql_store import SqlState
from gateway.adapters.system import SystemClock
from gateway.core.approvals.approval import ApprovalRequest, Vote
from gateway.core.records.approval_entries import state_event, vote_events

async def main(url, body):
    request = msgspec.json.decode(body, type=ApprovalRequest)
    now_s = request.created_at
    state = SqlState(url)
    await state.open(environment="test", log_origin="o")
    store = SqlApprovals(state, clock=SystemClock())
    await store.create(request, state_event(request, "request", "PENDING"))
    for voter in ("ann", "bob"):
        vote = Vote(request_id=request.id, voter=voter, decision="approve", reason="",
                    binding=request.binding, groups=("approver", "finance"), voted_at=now_s)
        await store.vote(vote, now_s, vote_events(request, vote, event_id="vote-" + voter))
    await store.move(request.id, source="APPROVED", target="CLAIMED", now_s=now_s, event=None,
                     claim_token="t")

    def half(connection):
        connection.exec_driver_sql("UPDATE approvals SET state = 'EXECUTED'").close()
        connection.exec_driver_sql("DELETE FROM outbox").close()
        print("promised", flush=True)
        sys.stdin.read()

    await state.run(half)

asyncio.run(main(sys.argv[1], sys.argv[2]))
"""


@pytest.mark.req("GW-12")
@pytest.mark.network
async def test_votes_claims_and_their_events_survive_a_kill(
    tmp_path: Path, make_request: Callable[..., ApprovalRequest]
) -> None:
    request = make_request()
    url = f"sqlite:///{tmp_path / 'state.db'}"
    body = msgspec.json.encode(request).decode()
    child = subprocess.Popen(  # noqa: ASYNC220 - the test waits for nothing else
        [sys.executable, "-c", CHILD, url, body],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == "promised\n"
        child.kill()
    state = SqlState(url)
    await state.open(environment="test", log_origin="o")
    store = SqlApprovals(state, clock=SystemClock())
    found = await store.get(request.id)
    assert found is not None
    assert (found.state, found.claim_token, found.arguments) == ("CLAIMED", "t", request.arguments)
    assert [vote.voter for vote in await store.votes(request.id)] == ["ann", "bob"]
    audit = MemoryAuditLog()
    await OutboxRelay(store, audit).drain()
    assert [one["type"] for one in audit.records if one["type"].startswith("approval.")] == [
        "approval.request",
        "approval.vote",
        "approval.vote",
        "approval.grant",
    ]
    await state.close()
