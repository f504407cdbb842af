"""What a kill bars: its target, everything handed on from it, and nothing else."""

from __future__ import annotations

import hashlib
import timeit
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.catalog import Review, SchemaCheck, Tool
from gateway.core.kills.kill import (
    EVERYTHING,
    KILLED,
    REVOKED,
    TOOL_KILLED,
    Kill,
    KillSet,
    Kind,
    actor_target,
    aim,
    build_kill_lift,
    build_kill_set,
    read_kill,
)
from gateway.core.tokens.token import Ancestor, Claims
from tests.fixed import NOW_S
from tests.unit.kill.conftest import build_claims

pytestmark = pytest.mark.req("TOK-06")


def build_tool(server: str = "billing", name: str = "refund", effect: str = "money") -> Tool:
    return Tool(
        id=f"{server}.{name}",
        server=server,
        name=name,
        wire_name=f"{server}__{name}",
        review=Review(name=name, effect=effect),  # type: ignore[arg-type]
        definition=b"{}",
        definition_digest="sha256:0",
        schema=cast("SchemaCheck", None),
        resource={},
    )


def kill(kind: Kind, target: str, number: int = 1, until: int | None = None) -> Kill:
    return Kill(id=f"{number:032x}", kind=kind, target=target, at=NOW_S, until=until)


def key_id(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:32]


def find(one: Kill, claims: Claims, tool: Tool | None = None) -> str | None:
    kills = KillSet(credentials=lambda server: (f"env:{server.upper()}",), key_id=key_id)
    kills.add(one)
    return kills.find(claims, tool)


CHILD = build_claims(
    subject="sub-agent",
    jti="jti-3",
    parent_jti="jti-2",
    actors=("worker",),
    ancestors=(Ancestor("run-1"), Ancestor("jti-1"), Ancestor("jti-2")),
    depth=2,
)


@pytest.mark.parametrize(
    ("one", "code"),
    [
        (kill("all", EVERYTHING), KILLED),
        (kill("agent", "sub-agent"), KILLED),
        (kill("agent", "worker"), KILLED),
        (kill("client", "lars"), KILLED),
        (kill("run", "run-1"), KILLED),
        (kill("human", "olga"), KILLED),
        (kill("family", "run-1"), REVOKED),
        (kill("token", "jti-3"), REVOKED),
        (kill("token", "jti-2"), REVOKED),
        (kill("token", "jti-1"), REVOKED),
        (kill("actor", actor_target("run-1", "sub-agent")), REVOKED),
        (kill("tool", "billing.refund"), TOOL_KILLED),
        (kill("server", "billing"), TOOL_KILLED),
        (kill("credential", "env:BILLING"), TOOL_KILLED),
        # what it does not reach
        (kill("agent", "lars"), None),
        (kill("client", "worker"), None),
        (kill("run", "run-2"), None),
        (kill("human", "worker"), None),
        (kill("token", "run-2"), None),
        (kill("actor", actor_target("run-1", "worker")), None),
        (kill("actor", actor_target("run-2", "sub-agent")), None),
        (kill("tool", "billing.lookup"), None),
        (kill("server", "mail"), None),
        (kill("credential", "env:MAIL"), None),
    ],
)
def test_a_kill_bars_its_target_and_what_was_handed_on_from_it(one: Kill, code: str | None) -> None:
    assert find(one, CHILD, build_tool()) == code
    expected = None if code == TOOL_KILLED else code
    assert find(one, CHILD) == expected


def test_a_person_is_stopped_under_every_name() -> None:
    kills = KillSet(key_id=key_id)
    kills.add(kill("human", aim("human", "human:Olga")))
    assert kills.find(build_claims(on_behalf_of="OLGA")) == KILLED
    assert kills.has_person(" olga ")
    assert not kills.has_person("oleg")
    assert kills.find(build_claims(on_behalf_of=None)) is None


def test_a_person_who_was_asked_after_before_is_stopped_all_the_same_and_let_go_on() -> None:
    kills = KillSet()
    kills.add(kill("human", "hans", 1))
    assert not kills.has_person("olga")
    kills.add(kill("human", "olga", 2))
    assert kills.has_person("olga")
    kills.remove(kill("human", "olga", 2).id)
    assert not kills.has_person("olga")


def test_what_is_over_is_told_until_it_is_gone() -> None:
    kills = KillSet()
    soon, later, last = (kill("agent", "worker", n, until=NOW_S + 60 * n) for n in (1, 2, 3))
    for one in (later, soon, last, kill("tool", "billing.refund", 4)):
        kills.add(one)
    told = [kills.spent(NOW_S + after) for after in (0, 59, 60, 61)]
    assert told == [[], [], [soon], [soon]]
    kills.remove(soon.id)
    assert [kills.spent(NOW_S + after) for after in (61, 119, 120)] == [[], [], [later]]


def test_a_person_whom_only_the_log_remembers_is_stopped_by_the_id_of_their_key() -> None:
    told = build_kill_set(kill("human", "olga"), "op", key_id)
    assert "olga" not in str(told.fields)
    restored = read_kill({"type": told.type, "ts": NOW_S * 1_000_000, **told.fields})
    assert restored is not None
    kills = KillSet(key_id=key_id)
    kills.add(restored)
    assert kills.has_person("Olga")
    assert not kills.has_person("oleg")
    again = build_kill_lift(restored, "op", key_id, why="command")
    assert again.fields["target"] == told.fields["target"]


def test_a_target_named_twice_stays_stopped_until_both_are_gone() -> None:
    kills = KillSet()
    first, second = kill("agent", "worker", 1), kill("agent", "worker", 2)
    kills.add(first)
    kills.add(second)
    assert [one.id for one in kills.of("agent", "worker")] == [first.id, second.id]
    kills.remove(first.id)
    kills.remove(first.id)
    assert kills.find(build_claims()) == KILLED
    kills.remove(second.id)
    assert kills.find(build_claims()) is None
    assert (kills.standing(), kills.get(first.id)) == ([], None)


NAMES = st.sampled_from(["a", "b", "c", "d", "e"])


@given(
    chain=st.lists(NAMES, min_size=1, max_size=6, unique=True),
    others=st.lists(st.tuples(st.sampled_from(["agent", "client", "run", "tool"]), NAMES)),
    data=st.data(),
)
def test_a_killed_ancestor_always_bars_its_descendants_and_a_lift_restores(
    chain: list[str], others: list[tuple[Kind, str]], data: st.DataObject
) -> None:
    claims = build_claims(
        subject=f"agent-{chain[-1]}",
        client_id="nobody",
        run_id="nowhere",
        root_jti="nowhere",
        jti=f"jti-{chain[-1]}",
        parent_jti=f"jti-{chain[-2]}" if len(chain) > 1 else "",
        actors=tuple(f"agent-{name}" for name in reversed(chain[:-1])),
        ancestors=tuple(Ancestor(f"jti-{name}") for name in chain[:-1]),
    )
    kills = KillSet()
    for number, (kind, target) in enumerate(others, start=10):
        kills.add(kill(kind, f"other-{target}", number))
    assert kills.find(claims) is None
    victim = data.draw(st.sampled_from(chain))
    below: Kind = data.draw(st.sampled_from(["agent", "token"]))
    prefix = "agent" if below == "agent" else "jti"
    kills.add(kill(below, f"{prefix}-{victim}"))
    assert kills.find(claims) == (KILLED if below == "agent" else REVOKED)
    kills.remove(kill(below, "").id)
    assert kills.find(claims) is None


@given(kind=st.sampled_from(["agent", "client", "run", "tool", "server", "credential", "all"]))
def test_what_a_record_says_is_the_kill_that_was_set(kind: Kind) -> None:
    one = kill(kind, "target", until=NOW_S + 60)
    told = build_kill_set(one, "op", key_id)
    assert (told.type, told.event_id) == ("kill.set", f"kill.set:{one.id}")
    assert read_kill({"type": told.type, "ts": NOW_S * 1_000_000, **told.fields}) == one


@pytest.mark.parametrize(("kind", "member"), [("token", "jti"), ("family", "root")])
def test_a_revocation_stands_as_such_in_the_log(kind: Kind, member: str) -> None:
    told = build_kill_set(kill(kind, "x"), "op", key_id)
    assert (told.type, told.fields[member]) == ("token.revoke", "x")
    assert read_kill({"type": told.type, "ts": NOW_S * 1_000_000, **told.fields}) == kill(kind, "x")
    assert read_kill({"type": "token.revoke", "ts": 0, "jti": "of another program"}) is None


def test_asking_costs_the_same_however_much_is_stopped() -> None:
    few, many = KillSet(), KillSet()
    kinds: tuple[Kind, ...] = ("agent", "client", "run", "tool", "server", "token", "human")
    for number in range(7_000):
        one = kill(kinds[number % 7], f"somebody-{number}", number)
        many.add(one)
        if number < len(kinds):
            few.add(one)
    tool = build_tool()

    def cost(kills: KillSet) -> float:
        return min(timeit.repeat(lambda: kills.find(CHILD, tool), number=2_000, repeat=9))

    assert few.find(CHILD, tool) is many.find(CHILD, tool) is None
    assert cost(many) < 3 * cost(few)


def test_people_are_asked_after_by_more_names_than_are_kept() -> None:
    kills = KillSet()
    kills.add(kill("human", "olga"))
    assert not any(kills.has_person(f"person-{number}") for number in range(5_000))
    assert kills.has_person("olga")
