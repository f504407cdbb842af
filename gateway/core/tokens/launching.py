"""What a launcher asks for when it creates a run, and what about it has no clear meaning."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from gateway.core.tokens.clients import Agent, Launcher
from gateway.core.tokens.grants import (
    EffectOf,
    find_ambiguity,
    find_excess,
    find_fault,
    find_value_fault,
    is_pointer,
)
from gateway.core.tokens.issuing import AGENT_ORIGIN, Site
from gateway.core.tokens.token import Budget, Grant, Run

GRANTS_MAX: Final = 64
LABELS_MAX: Final = 32
ANYBODY: Final = "*"
CONSENT_ORIGIN: Final = "consent"
"""The `origin` of runs that people consented to; policies see it."""

RESERVED_ORIGINS: Final = (AGENT_ORIGIN, "user", CONSENT_ORIGIN)
"""What policies are told of runs that no launcher made: its word would be a person's."""
DEADLINE_DEFAULT_S: Final = 3600
SUM_MAX: Final = 2**53

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_LABEL: Final = re.compile(r"[A-Za-z0-9._:/@+-]{0,128}")


class RunBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a launcher asks for. `deadline_s`: seconds from now; `deadline`: epoch seconds."""

    agent: str
    grants: tuple[Grant, ...]
    allowed_values: dict[str, tuple[str, ...]] = {}
    deadline_s: int | None = None
    deadline: int | None = None
    workflow: str = ""
    on_behalf_of: str | None = None
    origin: str = "launcher"
    budget: Budget = Budget()
    labels: tuple[str, ...] = ()
    max_depth: int | None = None
    may_act: str = ""
    dpop: bool = False


def find_unclear(body: RunBody) -> str | None:
    """Say what of a body has no clear meaning, or return None."""
    if len(body.grants) > GRANTS_MAX:
        return f"more than {GRANTS_MAX} grants"
    if body.deadline is not None and body.deadline_s is not None:
        return "both `deadline` and `deadline_s` are given; keep one"
    for name in ("workflow", "origin", "on_behalf_of"):
        text = getattr(body, name)
        if text is not None and not _LABEL.fullmatch(text):
            return f"`{name}` has a character other than letters, digits and `._:/@+-`"
    if body.origin in RESERVED_ORIGINS or body.on_behalf_of == "":
        return f"`origin` is none of {', '.join(RESERVED_ORIGINS)}, nor `on_behalf_of` empty"
    faults = (find_fault(grant) for grant in body.grants)
    return (
        _find_budget_fault(body)
        or next((fault for fault in faults if fault), None)
        or find_ambiguity(body.grants)
        or find_value_fault(body.allowed_values)
    )


def _find_budget_fault(body: RunBody) -> str | None:
    """Say what of the budget, the labels or `may_act` has no clear meaning, or return None."""
    if (body.budget.calls or 0) < 0:
        return "`budget.calls` is negative"
    for key, most in body.budget.sums.items():
        tool, mark, pointer = key.partition("#")
        if not (tool and mark and is_pointer(pointer)):
            return f"`{key[:64]}` in `budget.sums` is not `server.tool#/pointer`"
        if not 0 <= most <= SUM_MAX:
            return f"`budget.sums` of `{key[:64]}` is not from 0 to 2^53"
    if len(body.labels) > LABELS_MAX or not all(_NAME.fullmatch(one) for one in body.labels):
        return f"`labels` are at most {LABELS_MAX} names of letters, digits, `_` and `-`"
    return None if _LABEL.fullmatch(body.may_act) else "`may_act` is no agent's id"


def find_unheard(body: RunBody, effect_of: EffectOf) -> str | None:
    """Say which limit is for a tool that there is not, so that nothing would heed it, or None."""
    for key in (*body.budget.sums, *body.allowed_values):
        name, mark, _ = key.partition("#")
        server, _, tool = name.partition(".")
        if mark and effect_of(server, tool) is None:
            return f"`{key[:64]}` is for a tool that there is not, and would limit nothing"
    return None


def find_deadline(body: RunBody, now_s: int) -> int:
    """Return when the run shall end, in seconds since the epoch."""
    if body.deadline is not None:
        return body.deadline
    return now_s + (DEADLINE_DEFAULT_S if body.deadline_s is None else body.deadline_s)


def build_run(body: RunBody, launcher: Launcher, *, site: Site, run_id: str, now_s: int) -> Run:
    """Return the run, still without the hash of its credential."""
    return Run(
        id=run_id,
        agent=body.agent,
        launcher=launcher.id,
        grants=body.grants,
        allowed_values=body.allowed_values,
        created_at=now_s,
        deadline=find_deadline(body, now_s),
        credential_hash="",  # the desk makes the credential
        workflow=body.workflow,
        origin=body.origin,
        on_behalf_of=body.on_behalf_of,
        budget=body.budget,
        labels=body.labels,
        max_depth=site.max_depth if body.max_depth is None else body.max_depth,
        may_act=body.may_act,
        dpop=body.dpop,
    )


def find_cut(
    run: Run,
    *,
    agent: Agent | None,
    giver: Launcher | None,
    effect_of: EffectOf,
    stands_by: Callable[[str, int], bool],
) -> str | None:
    """Say why a run could not be launched as it is today, or return None.

    Runs outlive what they were made from: `agent` and `giver` are its agent and its launcher as
    they are now, None for one that may not act. What was taken from them is taken from it.
    `stands_by`: whether a person's consent of a time (seconds) still counts.
    """
    if run.origin == CONSENT_ORIGIN and not stands_by(run.on_behalf_of or "", run.created_at):
        return "who consented is not known here any more, or was stopped since"
    if run.origin == AGENT_ORIGIN:
        kept = () if agent is None else agent.grants
        cut = find_excess(kept, run.grants, effect_of) is not None
        return "the agent may no longer do this by itself" if cut else None
    if giver is None or run.agent not in giver.may_launch:
        return "its launcher may no longer launch this agent"
    if run.on_behalf_of is not None and not {ANYBODY, run.on_behalf_of} & {*giver.humans}:
        return "its launcher may no longer act for this person"
    if find_excess(giver.grants, run.grants, effect_of) is not None:
        return "its launcher may no longer give these grants"
    return None
