"""Runs outlive what they were made from, and what was taken from that is taken from them."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from gateway.core.tokens.clients import Agent, Launcher
from gateway.core.tokens.grants import knows_nothing
from gateway.core.tokens.launching import find_cut
from gateway.core.tokens.token import Grant, Run

pytestmark = pytest.mark.req("TOK-11")

WIDE, NARROW = (Grant(server="shop"),), (Grant(server="shop", effects=("read",)),)
BOT = Agent(id="bot", grants=WIDE)
FLOW = Launcher(id="flow", secret_hash="", may_launch=("bot",), grants=WIDE, humans=("olga",))
RUN = Run(
    id="r1",
    agent="bot",
    launcher="flow",
    grants=WIDE,
    allowed_values={},
    created_at=0,
    deadline=600,
    credential_hash="",
    on_behalf_of="olga",
)
OWN = replace(RUN, launcher="bot", origin="agent", on_behalf_of=None)


def cut(run: Run, *, agent: Agent | None = BOT, giver: Launcher | None = FLOW) -> str | None:

    def stands_by(person: str, at_s: int) -> bool:
        return person == "olga" and at_s >= 0

    return find_cut(run, agent=agent, giver=giver, effect_of=knows_nothing, stands_by=stands_by)


def test_a_run_that_could_be_launched_today_goes_on() -> None:
    assert cut(RUN) is None
    assert cut(RUN, giver=replace(FLOW, humans=("*",))) is None
    assert cut(replace(RUN, on_behalf_of=None), giver=replace(FLOW, humans=())) is None
    assert cut(OWN, giver=None) is None


@pytest.mark.parametrize(
    "giver",
    [
        None,
        replace(FLOW, may_launch=()),
        replace(FLOW, grants=NARROW),
        replace(FLOW, grants=()),
        replace(FLOW, humans=("hanna",)),
    ],
)
def test_a_run_is_cut_with_what_its_launcher_may_give(giver: Launcher | None) -> None:
    assert cut(RUN, giver=giver) is not None


@pytest.mark.parametrize("agent", [None, replace(BOT, grants=NARROW)])
def test_an_agents_own_run_is_cut_with_its_baseline(agent: Agent | None) -> None:
    assert cut(OWN, agent=agent) is not None


def test_a_consent_is_cut_with_who_gave_it() -> None:
    consented, anybody = replace(RUN, origin="consent"), replace(FLOW, humans=("*",))
    assert cut(consented) is None
    for nobody in ("hanna", None):
        assert cut(replace(consented, on_behalf_of=nobody), giver=anybody) is not None
    assert cut(replace(consented, created_at=-1)) is not None  # she was stopped since
    # Others act for people whom only their launcher, or an identity provider, knows.
    assert cut(replace(RUN, on_behalf_of="hanna"), giver=anybody) is None
