"""`policy.*` records of releases (docs/spec/audit-log-v1.md §9.1).

INVARIANT: no person stands in a field: publishers are named by the thumbprints of their keys, and
by tags or openings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import orjson

from gateway.core.approvals.approval import person
from gateway.core.entry import Entry, Opening
from gateway.core.releases.halting import Rates
from gateway.core.releases.history import Publication
from gateway.core.releases.publishing import Enough, Mode, Publisher, Withdrawn
from gateway.core.releases.statement import Signed, Statement

PATHS_TOLD: Final = 32
_NAMES_MAX_BYTES: Final = 8_192
"""So much of a record may be names, of files and packages: who gives them does not say what is on
record, nor whether anything is."""

_NAME_MAX_CHARS: Final = 200
_PER_MILLE: Final = 1_000
HaltReason = Literal["denials", "errors", "not_activated"]


def build_trust(
    op: str,
    *,
    mode: Mode,
    environment: str,
    rollback: str,
    publishers: Sequence[Publisher],
    key_ids: Sequence[str],
) -> Entry:
    """Build what stands before the first activation of a start: whose signatures count here."""
    named = [
        {"kid": one.key.kid, "alg": one.key.alg, "key": one.key.text, "person": key_id}
        for one, key_id in zip(publishers, key_ids, strict=True)
    ]
    fields = {
        "mode": mode,
        "environment": environment,
        "rollback": rollback,
        "publishers": named,
    }
    return Entry(type="policy.trust", op=op, fields=fields)


def build_propose(
    op: str, signed: Signed, by: str, impact: Mapping[str, Any] | None = None
) -> Entry:
    """Build the record of one publisher's word; it changes nothing.

    `impact`: what is known of what it would change (`core.records.impact_told`).
    """
    fields = _stated(signed.statement, (signed,))
    if impact is not None:
        fields["impact"] = dict(impact)
    return Entry(type="policy.propose", op=op, fields=fields, openings=(_name("by", by),))


def build_withdraw(op: str, withdrawn: Withdrawn, by: str) -> Entry:
    """Build the record after which what was proposed can decide no more."""
    fields = _stated(withdrawn.signed.statement, (withdrawn.signed,))
    fields["proposals"] = list(withdrawn.proposals)
    return Entry(type="policy.withdraw", op=op, fields=fields, openings=(_name("by", by),))


def build_published(
    op: str, enough: Enough, people: Sequence[str], impact: Mapping[str, Any] | None = None
) -> Entry:
    """Build the record after which a release may decide. `people` in the order of the words.

    `impact`: what its proposal told.
    """
    said = enough.statement
    fields = _stated(said, enough.signed) | {"replaces": said.prev}
    if impact is not None:
        fields["impact"] = dict(impact)
    paths = ("by.asked", "by.confirmed") if len(people) > 1 else ("by",)
    openings = tuple(_name(path, who) for path, who in zip(paths, people, strict=True))
    kind = f"policy.{said.act}"
    # A publication is made once, whatever crashes between its record and the answer.
    return Entry(type=kind, op=op, fields=fields, openings=openings)


def activation(publication: Publication) -> dict[str, Any]:
    """Return what `policy.activate` says of the release that it is of."""
    return {
        "release": publication.revision,
        "number": publication.number,
        "kids": list(publication.kids),
        "statements": list(publication.tokens),
    }


def build_halt(
    op: str,
    *,
    halted: Publication,
    back: Publication | None,
    why: HaltReason,
    before: Rates,
    after: Rates,
) -> Entry:
    """Build the record after which the release before decides again."""
    fields: dict[str, Any] = {
        "release": halted.revision,
        "number": halted.number,
        "back_to": None if back is None else {"release": back.revision, "number": back.number},
        "why": why,
        "before": _rates(before),
        "after": _rates(after),
    }
    return Entry(type="policy.halt", op=op, fields=fields)


def build_drift(op: str, publication: Publication, differs: Sequence[str]) -> Entry:
    """Build the record of files on disk that are not those of the release that decides."""
    fields = {
        "release": publication.revision,
        "number": publication.number,
        "files": tell_names(differs[:PATHS_TOLD]),
        "count": len(differs),
    }
    return Entry(type="policy.drift", op=op, fields=fields)


def build_gate(op: str, publication: Publication, places: Sequence[str]) -> Entry:
    """Build the record of a release that decides and that the gate of this version refuses."""
    fields = {
        "release": publication.revision,
        "number": publication.number,
        "places": tell_names(places[:PATHS_TOLD]),
        "count": len(places),
    }
    return Entry(type="policy.gate", op=op, fields=fields)


def tell_names(names: Sequence[str]) -> list[str]:
    """Return the first of them, as many as a record has room for, each cut where it is too long."""
    told: list[str] = []
    room = _NAMES_MAX_BYTES
    for name in names:
        short = name[:_NAME_MAX_CHARS]
        room -= len(orjson.dumps(short))
        if room < 0:
            break
        told.append(short)
    return told


def _stated(said: Statement, signed: Sequence[Signed]) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "release": said.rev,
        "number": said.number,
        "kids": [one.key.kid for one in signed],
        "statements": [one.token for one in signed],
        "action": said.act,
        "shadow_s": said.shadow_s,
    }
    return fields | {"again": said.again} if said.again else fields


def _rates(rates: Rates) -> dict[str, int]:
    return {
        "calls": rates.calls,
        "denied_per_mille": round(rates.share(rates.denials) * _PER_MILLE),
        "failed_per_mille": round(rates.share(rates.errors) * _PER_MILLE),
    }


def _name(path: str, who: str) -> Opening:
    return Opening(path, person(who).encode(), person(who))
