"""Whatever happens to the keys of a gateway, whoever holds a living token keeps it."""

from __future__ import annotations

import asyncio
import base64
import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.effort import share
from tests.unit.tokens.key_world import STEP_S, KeyWorld

pytestmark = pytest.mark.req("TOK-07")

LIFE_S = 300
MAX_AGE_S = 4 * STEP_S
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.sampled_from([1, 10, LIFE_S, STEP_S, MAX_AGE_S])),
        st.tuples(st.sampled_from(["rotate", "restart"]), st.just(0)),
    ),
    max_size=12,
)


@settings(max_examples=share(25))
@given(events=EVENTS, max_age_s=st.sampled_from([0, MAX_AGE_S]))
def test_every_living_token_is_believed_and_its_key_published_whatever_happens(
    events: list[tuple[str, int]], max_age_s: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(live_through(KeyWorld(Path(folder)), events, max_age_s))


async def live_through(world: KeyWorld, events: list[tuple[str, int]], max_age_s: int) -> None:
    await world.start(max_age_s=max_age_s)
    living: list[tuple[str, int]] = []
    for event, seconds in events:
        living.append((await world.issue(), world.now_s + LIFE_S))
        match event:
            case "wait":
                await world.wait(seconds)
            case "rotate":
                await world.keys.rotate("ann")
            case _:
                await world.keys.close()
                await world.start(max_age_s=max_age_s)
        living = [(token, until) for token, until in living if until > world.now_s]
        assert all(world.is_believed(token) for token, _ in living)
        signing, published = world.published[0], set(world.published)
        assert {kid_of(token) for token, _ in living} <= published
        assert kid_of(await world.issue()) == signing
        assert world.states.count("active") == 1
        live = [key for key in world.keys.ring.keys if key.state != "gone"]
        assert {key.kid for key in live} == published
        assert world.key_files() == {key.source.removeprefix("file:") for key in live}
    assert_recorded(world)


def assert_recorded(world: KeyWorld) -> None:
    """The log, read from its beginning, comes to the states that the ring has."""
    said = dict(world.changes)
    assert said == {key.kid: key.state for key in world.keys.ring.keys}


def kid_of(token: str) -> str:
    head = token.partition(".")[0]
    kid: str = json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))["kid"]
    return kid
