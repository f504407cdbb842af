"""Whose votes fill which seats of an approval: a matching, since a person counts once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Final

from msgspec import Struct

from gateway.core.approvals.sessions import LEVELS, is_assured
from gateway.core.policy.decision import Stage

APPROVER: Final = "approver"
"""The group of a stage that names no group."""

STRONGEST: Final = LEVELS[-1]
"""What anybody can reach by signing in again; a stage that asks for another is met by nobody."""


class Voter(Struct, frozen=True):
    """Who could fill a seat: their groups, and how surely it is they (`core.sessions.LEVELS`)."""

    groups: Sequence[str]
    assurance: str


def is_member(stage: Stage, groups: Sequence[str]) -> bool:
    """Whether somebody of these groups has a say in a stage."""
    return not set(stage.groups or (APPROVER,)).isdisjoint(groups)


def is_met(stages: Sequence[Sequence[Stage]], voters: Mapping[str, Voter]) -> bool:
    """Whether voters can fill every stage by one of its alternatives. Without stages: never."""
    if not stages:
        return False
    return any(_can_fill(choice, voters) for choice in product(*stages))


def may_fill(stages: Sequence[Sequence[Stage]], voter: Voter) -> bool:
    """Whether there is any seat that this voter could have."""
    return any(_may_sit(one, voter) for stage in stages for one in stage)


def _can_fill(choice: Sequence[Stage], voters: Mapping[str, Voter]) -> bool:
    """Whether distinct voters can fill every seat of every chosen alternative (matching)."""
    if sum(max(1, stage.approve) for stage in choice) > len(voters):
        return False
    seats = [stage for stage in choice for _ in range(max(1, stage.approve))]
    taken: dict[str, int] = {}
    return all(_seat(number, seats, voters, taken, set()) for number in range(len(seats)))


def _may_sit(stage: Stage, voter: Voter) -> bool:
    """Whether a vote may fill a seat: of a group that is named, and by somebody sure enough."""
    return is_member(stage, voter.groups) and is_assured(voter.assurance, stage.min_assurance)


def _seat(
    number: int,
    seats: Sequence[Stage],
    voters: Mapping[str, Voter],
    taken: dict[str, int],
    tried: set[str],
) -> bool:
    """Give seat `number` a voter, moving others to another seat where they have one (Kuhn)."""
    for voter, known in voters.items():
        if voter in tried or not _may_sit(seats[number], known):
            continue
        tried.add(voter)
        if voter not in taken or _seat(taken[voter], seats, voters, taken, tried):
            taken[voter] = number
            return True
    return False
