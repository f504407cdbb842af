"""`policy.evaluate`: somebody asked what would become of calls (docs/spec/audit-log-v1.md §9.1).

INVARIANT: no argument and no name of a person stands in a field. What was asked goes in as
openings, under the key of whom the run is for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
from msgspec import Struct

from gateway.core.approvals.approval import person
from gateway.core.catalog import Tool
from gateway.core.entry import Entry, Opening
from gateway.core.policy.decision import Decision, Deny, Obligation, Outcome, duties_digest
from gateway.core.records.call_records import build_actor, data_subject
from gateway.core.tokens.token import Claims


class Asker(Struct, frozen=True, kw_only=True):
    """Who asks: an agent by its token, a launcher, or a person. Exactly one of them.

    `operator`: a person who may read policies' own words.
    """

    claims: Claims | None = None
    client: str = ""
    person: str = ""
    operator: bool = False

    @property
    def key(self) -> str:
        """Names the asker among all, for counting what they ask."""
        if self.claims is not None:
            return f"agent {self.claims.subject}"
        return f"client {self.client}" if self.client else f"person {self.person}"


class Evaluated(Struct, frozen=True, kw_only=True):
    """What one question was about and what came of it.

    `document` is what policy was asked, if it was, and `decision` what came of that; `asked` is the
    question as it came, if it was not.
    """

    outcome: Outcome
    code: str = ""
    claims: Claims | None = None
    tool: Tool | None = None
    decision: Decision | None = None
    document: bytes | None = None
    asked: dict[str, Any] = {}


def build_evaluated(op: str, asker: Asker, items: Sequence[Evaluated]) -> Entry:
    """Build the one record of a request; durable before anything is told."""
    fields, openings = _who(asker)
    revision = next((item.decision.revision for item in items if item.decision is not None), "")
    if revision:
        fields["policy"] = {"rev": revision}
    runs = {item.claims.run_id: item.claims for item in items if item.claims is not None}
    if asker.claims is None and len(runs) == 1:  # where those who look for a run find it
        fields |= _about(*runs.values())
    is_named = asker.claims is not None or len(runs) == 1
    fields["evaluations"] = [_item(item, revision, is_named=is_named) for item in items]
    for at, item in enumerate(items):
        subject = asker.client or person(asker.person)
        if item.claims is not None:
            subject = data_subject(item.claims)
        if item.document is not None:
            openings.append(Opening(f"inputs.q{at}", item.document, subject))
        elif item.asked:
            openings.append(Opening(f"asked.q{at}", orjson.dumps(item.asked), subject))
    return Entry(type="policy.evaluate", op=op, fields=fields, openings=tuple(openings))


def build_evaluation_refused(op: str, asker: Asker, reason: str) -> Entry:
    """Build the record of a question that somebody known may not ask, or that cannot be read."""
    fields, openings = _who(asker)
    return Entry(
        type="policy.evaluate", op=op, fields={**fields, "reason": reason}, openings=tuple(openings)
    )


def _who(asker: Asker) -> tuple[dict[str, Any], list[Opening]]:
    if asker.claims is not None:
        return {"actor": build_actor(asker.claims)}, []
    if asker.client:
        return {"client": asker.client}, []
    who = person(asker.person)
    return {}, [Opening("by", who.encode(), who)]


def _about(claims: Claims) -> dict[str, Any]:
    return {"agent": claims.subject, "run": claims.run_id}


def _item(item: Evaluated, revision: str, *, is_named: bool) -> dict[str, Any]:
    fields: dict[str, Any] = {"outcome": item.outcome}
    if item.code:
        fields["code"] = item.code
    if item.tool is not None:
        fields["tool"] = item.tool.id
    if item.decision is not None:
        if item.decision.revision != revision:
            fields["rev"] = item.decision.revision
        # By digest alone: with the types of each, 32 answers would not fit into a record.
        if (found := duties_digest(_duties(item.decision))) is not None:
            fields["obligations_digest"] = found
    return fields if is_named or item.claims is None else fields | _about(item.claims)


def _duties(decision: Decision) -> tuple[Obligation, ...]:
    """Return what must be done for a decision; of a denial by the gateway, what could not be."""
    return decision.unmet if isinstance(decision, Deny) else decision.obligations
