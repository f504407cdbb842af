"""An injected agent with a valid token of a narrow run (threat model, GW-18)."""

from __future__ import annotations

import orjson
import pytest
from msgspec.structs import replace

from connectors import mcp_wire as wire
from tests.unit.connectors.calls import build_intent
from tests.unit.path.test_dispatch import approved
from tests.unit.path.world import HOLD, World

pytestmark = pytest.mark.req("GW-18")

WORDS = "canary the customer's name"


def test_no_words_of_an_agent_reach_a_tool_but_by_its_arguments() -> None:
    intent = build_intent(
        "echo",
        client_capabilities=orjson.dumps({WORDS: {}, "sampling": {WORDS: 1, "tools": WORDS}}),
        traceparent=WORDS,
        log_level=WORDS,
        progress_token=WORDS,
    )
    body = wire.build_call(1, intent, modern=True)
    assert b"canary" not in body
    said = orjson.loads(body)["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"]
    assert said == {"sampling": {"tools": {}}}


async def test_what_an_agent_claims_of_itself_cannot_stall_policy() -> None:
    world = World()
    await world.launch()
    body = orjson.dumps({"arguments": {"amount": 1}, "claimed": {"a": [{}] * 10_000}})
    reply = await world.call_rest("billing__refund", body)
    assert (reply.status, world.sent) == (413, [])


@pytest.mark.req("GW-12")
async def test_a_vote_does_not_send_what_its_agent_is_to_redeem() -> None:
    redeem = replace(HOLD, approval=replace(HOLD.approval, execute="on_redeem"))
    world = World(lambda *_: redeem)
    request = await approved(world)
    await world.dispatcher.dispatch(request.id)
    assert ((await world.held()).state, world.sent) == ("APPROVED", [])
