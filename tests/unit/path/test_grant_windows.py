"""Constraints on the whole path: before policy, with the time of the call, and told to policy."""

from __future__ import annotations

from typing import Any, Final

import orjson
import pytest
from msgspec.structs import replace

from gateway.core.policy.decision import Deny, Hold, Permit
from gateway.core.tokens.token import Constraint, Grant, Window
from tests.fixed import NOW_S
from tests.unit.path.world import HOLD, PERMIT, World, build_claims

pytestmark = pytest.mark.req("TOK-03")

MAIL: Final[dict[str | tuple[str, str], Permit | Hold | Deny]] = {"mail.send": PERMIT}
OURS: Final = Constraint(domain=("acme.example",))


def mailing(window: Window | None = None, limit: Constraint = OURS) -> Any:  # noqa: ANN401
    return build_claims(grants=(Grant("mail", "send", constraints={"/to": limit}, window=window),))


async def send(world: World, to: str, claims: Any) -> Any:  # noqa: ANN401 - a reply
    body = orjson.dumps({"arguments": {"to": to}})
    return await world.call_rest("mail__send", body, claims=claims)


async def test_a_call_outside_the_window_is_refused_before_policy_and_not_sent() -> None:
    world = World(MAIL)
    claims = mailing(Window(not_after=NOW_S))
    assert (await send(world, "ann@acme.example", claims)).status == 200
    world.clock.pass_s(1)
    reply = await send(world, "ann@acme.example", claims)
    assert (reply.status, reply.code) == (403, "constraint_broken")
    assert len(world.sent) == 1
    assert world.records()[-1]["reason"] == "constraint_broken"
    assert [phase for tool, phase, _ in world.policy.asked].count("call") == 1


async def test_a_text_with_two_hosts_reaches_no_policy_and_no_server() -> None:
    world = World(MAIL)
    for to in ("ann@evil.example", "ann@acme.example@evil.example", "https://acme.example@evil.x"):
        reply = await send(world, to, mailing())
        assert reply.code == "constraint_broken"
        assert "evil" not in reply.body.decode()
    assert world.sent == []
    assert [phase for _, phase, _ in world.policy.asked if phase == "call"] == []
    assert "evil" not in str(world.records())


async def test_policy_is_told_the_constraints_of_the_call() -> None:
    world = World(MAIL)
    window = Window(("fri",), "08:00", "09:00")
    assert (await send(world, "ann@acme.example", mailing(window))).status == 200
    (document,) = (document for _, phase, document in world.policy.asked if phase == "call")
    assert document["context"]["token"]["constraints"] == [
        {
            "server": "mail",
            "tool": "send",
            "constraints": {"/to": {"domain": ["acme.example"]}},
            "window": {"days": ["fri"], "start": "08:00", "end": "09:00"},
        }
    ]


async def test_a_held_call_is_not_sent_after_its_window() -> None:
    world = World({("mail.send", "call"): HOLD, ("mail.send", "resume"): PERMIT})
    await world.launch()
    run = world.durable.runs._runs["run-1"]  # noqa: SLF001 - a run as it would be launched
    claims = mailing(Window(not_after=NOW_S + 60))
    world.durable.runs._runs["run-1"] = replace(run, grants=claims.grants)  # noqa: SLF001
    assert (await send(world, "ann@acme.example", claims)).status == 202
    request = await world.vote(await world.held())
    world.clock.pass_s(61)
    await world.dispatcher.dispatch(request.id)
    after = await world.held()
    assert (after.state, after.outcome, world.sent) == ("STALE", "constraint_broken", [])
