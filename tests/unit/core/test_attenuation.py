"""Authority that is handed on only ever shrinks, and what it spends is charged to all above it."""

from __future__ import annotations

import itertools
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.core.calls.family import Charge
from gateway.core.calls.ledger import Ledger
from gateway.core.catalog import Tool
from gateway.core.refusal import Refusal
from gateway.core.tokens.attenuation import TooWide, build_child
from gateway.core.tokens.clients import Agent
from gateway.core.tokens.grants import CompiledGrants
from gateway.core.tokens.issuing import Site, Wish
from gateway.core.tokens.spending import CallLimits, build_spender
from gateway.core.tokens.token import Budget, Claims, Constraint, Grant
from tests.unit.connectors.calls import build_tool

NOW_S: Final = 1_800_000_000
SITE: Final = Site(issuer="https://gw", public_url="https://gw", environment="test")
TOOLS: Final = {
    "look": build_tool("look", effect="read"),
    "refund": build_tool("refund", effect="money", sums=("/amount",)),
    "send": build_tool("send", effect="external_send"),
}
SUM: Final = "srv.refund#/amount"

numbers = st.integers(0, 6)
texts = st.sampled_from(["", "a", "ab", "abc", "b"])
constraints = st.builds(
    Constraint,
    max=st.none() | numbers,
    min=st.none() | numbers,
    one_of=st.none() | st.lists(numbers | texts, max_size=3).map(tuple),
    prefix=st.none() | texts,
    suffix=st.none() | texts,
)
grants = st.builds(
    Grant,
    server=st.just("srv"),
    tool=st.sampled_from([*TOOLS, "*"]),
    effects=st.sampled_from([(), ("read",), ("money", "read"), ("external_send",)]),
    constraints=st.dictionaries(st.sampled_from(["/amount", "/to"]), constraints, max_size=2),
    max_calls=st.none() | st.integers(0, 4),
)
values = st.none() | numbers | texts | st.booleans() | st.lists(numbers, max_size=2)
arguments = st.dictionaries(st.sampled_from(["amount", "to"]), values, max_size=2)
budgets = st.builds(
    Budget,
    calls=st.none() | st.integers(0, 8),
    sums=st.just({}) | st.builds(lambda n: {SUM: n}, st.integers(0, 12)),
)


def unambiguous(found: list[Grant]) -> tuple[Grant, ...]:
    """One grant for each tool and each effect of `*`, as a checked list has."""
    named = {grant.tool: grant for grant in found if grant.tool != "*"}
    broad = [grant for grant in found if grant.tool == "*"][:1]
    return (*named.values(), *broad)


grant_lists = st.lists(grants, min_size=1, max_size=4).map(unambiguous)


@st.composite
def narrowings(draw: st.DrawFn, of: tuple[Grant, ...]) -> tuple[Grant, ...]:
    """Grants near those of a parent: some narrower, some wider, some the same."""
    kept = [grant for grant in of if draw(st.booleans())] or list(of[:1])
    changed = []
    for grant in kept:
        further = draw(
            st.dictionaries(st.sampled_from(["/amount", "/to"]), constraints, max_size=1)
        )
        calls = draw(st.sampled_from([grant.max_calls, 0, 1, 2, None]))
        changed.append(
            replace(grant, constraints={**grant.constraints, **further}, max_calls=calls)
        )
    return tuple(changed)


def build_root(given_grants: tuple[Grant, ...], budget: Budget = Budget()) -> Claims:  # noqa: B008 - frozen
    return Claims(
        issuer=SITE.issuer,
        audience=SITE.public_url,
        subject="agent-0",
        client_id="workflow",
        jti="root-token",
        issued_at=NOW_S,
        expires_at=NOW_S + 200,
        scopes=frozenset({"tools:call", "tools:list"}),
        grants=given_grants,
        environment="test",
        run_id="run",
        root_jti="run",
        sid="run",
        max_depth=8,
        budget=budget,
    )


def hand_on(parent: Claims, number: int, wanted: tuple[Grant, ...] | None) -> Claims | None:
    found = build_child(
        parent,
        Agent(id=f"agent-{number}"),
        site=SITE,
        jti=f"child-{number}",
        wish=Wish(grants=wanted),
        now_s=NOW_S + number,
    )
    return None if isinstance(found, TooWide) else found


def permits(claims: Claims, tool: Tool, sent: dict[str, Any]) -> bool:
    compiled = CompiledGrants(claims)
    grant = compiled.find(tool)
    return grant is not None and compiled.broken_constraint(grant, tool, sent, NOW_S) is None


@pytest.mark.req("TOK-04")
@given(
    data=st.data(),
    first=grant_lists,
    calls=st.lists(st.tuples(st.sampled_from([*TOOLS]), arguments), max_size=12),
)
def test_no_descendant_permits_a_call_that_one_above_it_denies(
    data: st.DataObject, first: tuple[Grant, ...], calls: list[tuple[str, dict[str, Any]]]
) -> None:
    chain = [build_root(first)]
    for number in range(1, 5):
        parent = chain[-1]
        wanted = data.draw(st.none() | narrowings(parent.grants) | grant_lists)
        child = hand_on(parent, number, wanted)
        if child is not None:
            chain.append(child)
    for name, sent in calls:
        allowed = [permits(claims, TOOLS[name], sent) for claims in chain]
        assert allowed == sorted(allowed, reverse=True)  # once denied, denied all the way down
    for parent, child in itertools.pairwise(chain):
        assert child.scopes <= parent.scopes
        assert child.expires_at <= parent.expires_at
        assert child.depth == parent.depth + 1 == len(child.actors)
        assert (child.budget, child.root_jti, child.run_id) == (parent.budget, "run", "run")
        assert child.allowed_values == parent.allowed_values


@pytest.mark.req("TOK-04", "TOK-11")
@given(data=st.data(), first=grant_lists, budget=budgets)
def test_no_siblings_spend_more_than_anyone_above_them_has(
    data: st.DataObject, first: tuple[Grant, ...], budget: Budget
) -> None:
    tokens = [build_root(first, budget)]
    for number in range(1, 6):
        parent = data.draw(st.sampled_from(tokens))
        child = hand_on(parent, number, data.draw(st.none() | narrowings(parent.grants)))
        tokens += [] if child is None else [child]
    ledger, spent = Ledger(), list[tuple[Claims, Charge]]()
    for _ in range(data.draw(st.integers(0, 14))):
        claims = data.draw(st.sampled_from(tokens))
        tool = TOOLS[data.draw(st.sampled_from([*TOOLS]))]
        grant = CompiledGrants(claims).find(tool)
        if grant is None:
            continue
        sent = {"amount": data.draw(numbers)}
        charge = ledger.reserve(build_spender(claims), tool, grant, sent)
        if isinstance(charge, Charge):
            spent.append((claims, charge))
    for above in tokens:
        below = [charge for claims, charge in spent if is_below(claims, above)]
        limits = CallLimits(above.grants)
        for tool in TOOLS.values():
            most = limits.max_calls(tool)
            made = sum(charge.tool == tool.id for charge in below)
            assert most is None or made <= most
    assert budget.calls is None or len(spent) <= budget.calls
    total = sum(float(charge.sums.get(SUM, 0)) for _, charge in spent)
    assert total <= budget.sums.get(SUM, total)


def is_below(claims: Claims, above: Claims) -> bool:
    return above.jti in {claims.jti, *(one.id for one in claims.ancestors)}


@pytest.mark.req("TOK-04")
def test_ten_children_are_not_ten_budgets() -> None:
    parent = build_root((Grant("srv", "refund", max_calls=3),), Budget(sums={SUM: 10}))
    children = [hand_on(parent, number, None) for number in range(1, 11)]
    ledger, made = Ledger(), 0
    for child in children:
        assert child is not None
        result = ledger.reserve(
            build_spender(child), TOOLS["refund"], child.grants[0], {"amount": 1}
        )
        made += isinstance(result, Charge)
    assert made == 3
    assert ledger.family("run").counts == {"srv.refund": 3}


@pytest.mark.req("TOK-04")
def test_what_was_not_sent_is_given_back_to_everybody() -> None:
    parent = build_root((Grant("srv", "refund", max_calls=1),))
    child = hand_on(parent, 1, None)
    assert child is not None
    ledger = Ledger()
    spender, grant = build_spender(child), child.grants[0]
    first = ledger.reserve(spender, TOOLS["refund"], grant, {"amount": 1})
    assert isinstance(first, Charge)
    assert isinstance(ledger.reserve(spender, TOOLS["refund"], grant, {"amount": 1}), Refusal)
    ledger.give_back(first)
    assert isinstance(ledger.reserve(spender, TOOLS["refund"], grant, {"amount": 1}), Charge)


@pytest.mark.req("TOK-04")
def test_what_a_child_spent_survives_a_restart_and_goes_with_its_run() -> None:
    parent = build_root((Grant("srv", "refund", max_calls=3),))
    child = hand_on(parent, 1, (Grant("srv", "refund", max_calls=1),))
    assert child is not None
    ledger = Ledger()
    spender, grant = build_spender(child), child.grants[0]
    assert isinstance(ledger.reserve(spender, TOOLS["refund"], grant, {"amount": 1}), Charge)
    again = Ledger()
    again.restore(ledger.snapshot())
    refused = again.reserve(spender, TOOLS["refund"], grant, {"amount": 1})
    assert refused == Refusal("decide", "calls_exhausted")
    again.forget(["run"])
    assert list(again.snapshot()) == ["day:workflow agent-0"]  # a day outlives its runs


@pytest.mark.req("TOK-11")
@pytest.mark.parametrize(
    ("budget", "amounts", "made"),
    [
        (Budget(calls=2), [1, 1, 1], 2),
        (Budget(sums={SUM: 10}), [6, 4, 1], 2),
        (Budget(sums={SUM: 0.3}), [0.1, 0.2, 0.1], 2),  # exact: 0.1 + 0.2 is 0.3
        (Budget(sums={SUM: 5}), [6, 5], 1),
        (Budget(sums={"srv.look#/amount": 0}), [6, 5], 2),  # another tool's
        (Budget(sums={"srv.refund#/fee": 100}), [1], 0),  # nothing adds that up
    ],
)
def test_a_budget_is_kept_to_the_last_cent(budget: Budget, amounts: list[float], made: int) -> None:
    root = build_root((Grant("srv", "refund"),), budget)
    ledger = Ledger()
    results = [
        ledger.reserve(build_spender(root), TOOLS["refund"], root.grants[0], {"amount": amount})
        for amount in amounts
    ]
    assert sum(isinstance(result, Charge) for result in results) == made
    refused = {result.code for result in results if isinstance(result, Refusal)}
    assert refused <= {"budget_exhausted"}


def test_a_bound_token_is_not_handed_on_as_one_that_is_bound_to_nothing() -> None:
    parent = replace(build_root((Grant("srv", "look"),)), jkt="key")
    made = {
        jkt: build_child(
            parent, Agent(id="agent-1"), site=SITE, jti="child", wish=Wish(jkt=jkt), now_s=NOW_S
        )
        for jkt in ("", "other")
    }
    refused, bound = made[""], made["other"]
    assert isinstance(refused, TooWide)
    assert refused.error == "invalid_dpop_proof"
    assert isinstance(bound, Claims)
    assert bound.jkt == "other"
