from __future__ import annotations

from collections.abc import Callable
from itertools import permutations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.core.approvals.approval import (
    ApprovalRequest,
    Vote,
    is_satisfiable,
    is_separated,
    stage_of,
    stages_met,
    tally,
)
from gateway.core.policy.decision import ApprovalSpec, Stage

MakeRequest = Callable[..., ApprovalRequest]
BINDING = "sha256:" + "1" * 64


def vote(voter: str, decision: str, *groups: str, binding: str = BINDING) -> Vote:
    return Vote(
        request_id="r",
        voter=voter,
        decision="approve" if decision == "approve" else "deny",
        binding=binding,
        groups=("approver", *groups),
        reason="",
        voted_at=0,
    )


def count(spec: ApprovalSpec, *votes: Vote, separation: tuple[str, ...] = ()) -> str:
    return tally(spec, votes, separation, binding=BINDING)


ONE = ApprovalSpec(stages=((Stage(groups=("finance",)),),))
TWO = ApprovalSpec(stages=((Stage(approve=2, deny=2, groups=("finance",)),),))
EITHER = ApprovalSpec(
    stages=((Stage(groups=("director",)), Stage(approve=2, groups=("finance",))),)
)
STAGES = ApprovalSpec(stages=((Stage(groups=("manager",)),), (Stage(groups=("finance",)),)))


def test_nothing_is_approved_without_votes() -> None:
    assert count(ONE) == "PENDING"


@pytest.mark.req("GW-12")
def test_one_vote_of_the_group_approves() -> None:
    assert count(ONE, vote("ann", "approve", "finance")) == "APPROVED"


@pytest.mark.req("GW-12")
def test_a_vote_from_outside_the_group_counts_for_nothing() -> None:
    assert count(ONE, vote("ann", "approve", "sales"), vote("bob", "deny", "sales")) == "PENDING"


@pytest.mark.req("GW-12")
def test_a_vote_on_another_binding_counts_for_nothing() -> None:
    assert count(ONE, vote("ann", "approve", "finance", binding="sha256:2")) == "PENDING"


@pytest.mark.req("GW-12")
@pytest.mark.parametrize("name", ["olga", "Olga", "human:olga", "HUMAN:OLGA", " \uff4flg\uff41 "])
def test_the_separation_set_does_not_vote_under_any_name(name: str) -> None:
    assert is_separated(name, ["human:Olga"])
    spoken = vote(name, "approve", "finance")
    assert count(ONE, spoken, separation=("bot", "human:Olga")) == "PENDING"


def test_two_votes_need_two_people() -> None:
    ann, again = vote("ann", "approve", "finance"), vote("human:Ann", "approve", "finance")
    assert count(TWO, ann, again) == "PENDING"
    assert count(TWO, ann, vote("bob", "approve", "finance")) == "APPROVED"


def test_any_alternative_meets_a_stage() -> None:
    assert count(EITHER, vote("dan", "approve", "director")) == "APPROVED"
    ann, bob = vote("ann", "approve", "finance"), vote("bob", "approve", "finance")
    assert count(EITHER, ann) == "PENDING"
    assert count(EITHER, ann, bob) == "APPROVED"


@pytest.mark.req("GW-12")
def test_whoever_may_sign_two_stages_signs_one() -> None:
    both = vote("ann", "approve", "manager", "finance")
    assert count(STAGES, both) == "PENDING"
    assert count(STAGES, both, vote("bob", "approve", "manager")) == "APPROVED"
    assert count(STAGES, both, vote("bob", "approve", "finance")) == "APPROVED"


@pytest.mark.req("GW-12")
def test_two_who_may_sign_the_same_stage_sign_one() -> None:
    ann, bob = vote("ann", "approve", "manager"), vote("bob", "approve", "manager")
    assert count(STAGES, ann, bob) == "PENDING"
    assert count(STAGES, ann, bob, vote("cid", "approve", "finance")) == "APPROVED"


@pytest.mark.req("GW-12")
def test_who_fills_no_seat_does_not_let_another_fill_two() -> None:
    spec = ApprovalSpec(stages=(*EITHER.stages, *STAGES.stages[:1]))
    both, idle = vote("ann", "approve", "director", "manager"), vote("bob", "approve", "finance")
    assert count(spec, both, idle) == count(spec, idle, both) == "PENDING"
    assert count(spec, both, idle, vote("cid", "approve", "manager")) == "APPROVED"


def test_stages_are_counted_from_the_first() -> None:
    finance, manager = vote("bob", "approve", "finance"), vote("ann", "approve", "manager")
    met = [stages_met(STAGES, votes, (), binding=BINDING) for votes in ([], [finance], [manager])]
    assert met == [0, 0, 1]
    assert stages_met(STAGES, [finance, manager], (), binding=BINDING) == 2


@pytest.mark.req("GW-12")
def test_the_deny_number_of_any_alternative_denies_whatever_else_is_met() -> None:
    director, finance = vote("dan", "approve", "director"), vote("ann", "deny", "finance")
    assert count(EITHER, director, finance) == "DENIED"
    assert count(STAGES, finance) == "DENIED"


def test_one_denial_of_two_still_waits() -> None:
    against = vote("ann", "deny", "finance")
    assert count(TWO, against) == "PENDING"
    assert count(TWO, against, vote("bob", "deny", "finance")) == "DENIED"


def test_a_person_who_said_both_is_counted_against() -> None:
    both = [vote("ann", "approve", "finance"), vote("ann", "deny", "finance")]
    assert count(ONE, *both) == "DENIED"
    assert count(TWO, *both, vote("bob", "approve", "finance")) == "PENDING"


@pytest.mark.parametrize(
    "spec",
    [
        ApprovalSpec(stages=()),
        ApprovalSpec(stages=((),)),
        ApprovalSpec(stages=((Stage(groups=("finance",)),), ())),
    ],
)
def test_a_spec_that_names_nobody_is_never_met(spec: ApprovalSpec) -> None:
    votes = [vote(name, "approve", "finance") for name in ("ann", "bob", "cid")]
    assert count(spec, *votes) == "PENDING"
    assert not is_satisfiable(spec, {"ann": ("approver", "finance")}, ())


@pytest.mark.parametrize("number", [0, -1])
def test_a_threshold_below_one_is_one(number: int) -> None:
    spec = ApprovalSpec(stages=((Stage(approve=number, deny=number, groups=("finance",)),),))
    assert count(spec) == "PENDING"
    assert count(spec, vote("ann", "approve", "finance")) == "APPROVED"
    assert count(spec, vote("ann", "deny", "finance")) == "DENIED"


def test_a_stage_without_groups_is_for_approvers() -> None:
    spec = ApprovalSpec(stages=((Stage(),),))
    assert count(spec, vote("ann", "approve")) == "APPROVED"
    assert stage_of(spec, ("auditor",)) is None


@pytest.mark.req("GW-12")
@pytest.mark.parametrize("assurance", ["step_up", "passkey", "nonsense", ""])
def test_assurance_that_nobody_gives_can_be_denied_but_not_approved(assurance: str) -> None:
    spec = ApprovalSpec(stages=((Stage(groups=("finance",), min_assurance=assurance),),))
    strongly = replace(vote("ann", "approve", "finance"), assurance="strong")
    assert count(spec, strongly) == "PENDING"
    assert count(spec, replace(strongly, assurance=assurance)) == "PENDING"
    assert count(spec, vote("ann", "deny", "finance")) == "DENIED"
    assert not is_satisfiable(spec, {"ann": ("approver", "finance")}, ())


@pytest.mark.req("TOK-08")
def test_a_stage_that_asks_for_strong_assurance_is_met_by_strong_votes_only() -> None:
    spec = ApprovalSpec(stages=((Stage(groups=("finance",), min_assurance="strong"),),))
    assert count(spec, vote("ann", "approve", "finance")) == "PENDING"
    assert count(spec, replace(vote("ann", "approve", "finance"), assurance="strong")) == "APPROVED"
    assert count(spec, vote("ann", "deny", "finance")) == "DENIED"
    assert is_satisfiable(spec, {"ann": ("approver", "finance")}, ())


def test_a_spec_is_satisfiable_only_by_approvers_who_are_not_separated() -> None:
    people = {"ann": ("approver", "finance"), "bob": ("finance",), "olga": ("approver", "finance")}
    assert is_satisfiable(ONE, people, ["olga"])
    assert not is_satisfiable(TWO, people, ["olga"])
    assert is_satisfiable(TWO, people, [])
    assert not is_satisfiable(ONE, {"bob": ("finance",)}, [])


def test_the_stage_of_a_vote_is_the_first_its_groups_have_a_say_in() -> None:
    assert stage_of(STAGES, ("finance",)) == 2
    assert stage_of(STAGES, ("finance", "manager")) == 1
    assert stage_of(STAGES, ("sales",)) is None


GROUPS = st.sets(st.sampled_from(["finance", "manager", "director"]), max_size=3)
VOTERS = ["ann", "bob", "cid", "dan", "eve"]
STAGE = st.builds(
    Stage,
    approve=st.integers(1, 3),
    deny=st.integers(1, 3),
    groups=GROUPS.map(lambda names: tuple(sorted(names))),
)
SPECS = st.builds(
    ApprovalSpec,
    stages=st.lists(st.lists(STAGE, min_size=1, max_size=2).map(tuple), min_size=1, max_size=3).map(
        tuple
    ),
)
BALLOTS = st.lists(
    st.builds(
        lambda voter, decision, groups: vote(voter, decision, *sorted(groups)),
        st.sampled_from(VOTERS),
        st.sampled_from(["approve", "approve", "deny"]),
        GROUPS,
    ),
    max_size=5,
    unique_by=lambda ballot: ballot.voter,
)


@pytest.mark.req("GW-12")
@given(spec=SPECS, ballots=BALLOTS)
def test_the_order_of_votes_does_not_matter(spec: ApprovalSpec, ballots: list[Vote]) -> None:
    outcomes = {count(spec, *order) for order in permutations(ballots)}
    assert len(outcomes) == 1


def can_sit(seats: list[Stage], people: tuple[Vote, ...]) -> bool:
    """Whether each has a say in the seat that is theirs."""
    return all(
        set(seat.groups or ("approver",)) & set(one.groups)
        for seat, one in zip(seats, people, strict=True)
    )


@pytest.mark.req("GW-12")
@given(spec=SPECS, ballots=BALLOTS)
def test_what_is_approved_has_a_person_of_its_own_for_every_seat_and_nothing_else_waits(
    spec: ApprovalSpec, ballots: list[Vote]
) -> None:
    approvals = [ballot for ballot in ballots if ballot.decision == "approve"]
    seated = any(
        can_sit(seats, people)
        for choice in product(*spec.stages)
        for seats in [[stage for stage in choice for _ in range(stage.approve)]]
        for people in permutations(approvals, len(seats))
    )
    outcome = count(spec, *ballots)
    assert (outcome == "APPROVED") == (seated and outcome != "DENIED")


@given(spec=SPECS, ballots=BALLOTS, against=st.sampled_from(VOTERS))
def test_one_more_denial_never_turns_into_an_approval(
    spec: ApprovalSpec, ballots: list[Vote], against: str
) -> None:
    others = [ballot for ballot in ballots if ballot.voter != against]
    if count(spec, *others) != "APPROVED":
        denial = vote(against, "deny", "finance", "manager", "director")
        assert count(spec, *others, denial) != "APPROVED"


@given(spec=SPECS, ballots=BALLOTS)
def test_nobody_of_the_separation_set_changes_an_outcome(
    spec: ApprovalSpec, ballots: list[Vote]
) -> None:
    side = ("ann", "human:Bob")
    heard = [ballot for ballot in ballots if ballot.voter not in {"ann", "bob"}]
    assert count(spec, *ballots, separation=side) == count(spec, *heard, separation=side)
