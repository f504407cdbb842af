"""What a token family has spent: calls, counts, sums, labels (DESIGN §4).

The family is the unit because a run may hold many tokens: ten tokens are not ten budgets. A
decision reads the ledger and a reservation writes it, with nothing in between that could let
another call in (see `Judge.judge`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from gateway.core.calls.family import (
    LABELS_MAX,
    SAFE,
    Charge,
    Day,
    Exact,
    Family,
    add,
    as_number,
    read_exact,
    subtract,
)
from gateway.core.calls.provenance import UNTRUSTED, Class, Output
from gateway.core.catalog import Tool
from gateway.core.pointer import MISSING, resolve
from gateway.core.policy.obligations import Limit
from gateway.core.refusal import Refusal
from gateway.core.tokens.spending import Spender
from gateway.core.tokens.token import Budget, Grant

_ROOM: Final = 1_000_000
"""So many values are remembered of all families together, some 70 bytes each."""

_DAY: Final = "day:"
"""Begins the name of a payer's row in a snapshot. No family is called so."""

Changes = dict[str, dict[str, Any] | None]
"""Rows of a snapshot that are new or other than before, by name; None for one that is gone."""


def view_budget(budget: Budget, family: Family) -> dict[str, Any]:
    """What a budget leaves, as policies see it: `calls` and `sums`, as far as it bounds them."""
    left: dict[str, Any] = {}
    if budget.calls is not None:
        left["calls"] = {"max": budget.calls, "left": max(0, budget.calls - family.calls)}
    if budget.sums:
        left["sums"] = {key: _left(most, family.sums.get(key)) for key, most in budget.sums.items()}
    return left


class Ledger:
    """All families that have spent anything, and their payers' last 24 hours."""

    def __init__(self) -> None:
        self._families: dict[str, Family] = {}
        self._days: dict[str, Day] = {}
        self._changed: set[str] = set()
        self._open: dict[str, Charge] = {}
        self._now_s = 0
        self._room = _ROOM

    def family(self, family_id: str) -> Family:
        """Return a family, empty if it has not spent anything yet."""
        family = self._families.get(family_id)
        if family is None:
            family = self._families[family_id] = Family(family_id)
            self._changed.add(family_id)
        return family

    def find(self, family_id: str) -> Family | None:
        """Return a family that has spent something, or may yet; None for one that was forgotten."""
        return self._families.get(family_id)

    def day(self, payer: str, now_s: int) -> Day:
        """Return what a payer spent in the last 24 hours."""
        day = self._days.get(payer)
        if day is None:
            day = self._days[payer] = Day()
        day.pass_on(now_s)
        return day

    def forget(self, family_ids: Iterable[str]) -> None:
        """Let go of families whose runs are over: no token of theirs can be spent any more."""
        for family_id in family_ids:
            family = self._families.pop(family_id, None)
            if family is not None:
                self._room += family.sightings.size
                for member in family.members:
                    self._families.pop(member, None)
                self._changed.update((family_id, *family.members))

    def find_silent(self, since_s: int) -> list[str]:
        """Return the families that were charged nothing since then."""
        times = ((name, family.times.get("")) for name, family in self._families.items())
        return [name for name, charged in times if not charged or charged[-1] < since_s]

    def reserve(
        self,
        spender: Spender,
        tool: Tool,
        grant: Grant,
        arguments: Mapping[str, Any],
        *,
        now_s: int = 0,
        labels: Iterable[str] = (),
        limits: Sequence[Limit] = (),
        egress: Class | None = None,
    ) -> Charge | Refusal:
        """Charge one call, or refuse it because what it would spend is spent.

        `labels` join those of the manifest; `limits` are policy's own. INVARIANT: between the
        caller's decision and this line there is no await.
        """
        charge = self.quote(
            spender,
            tool,
            grant,
            arguments,
            now_s=now_s,
            labels=labels,
            limits=limits,
            egress=egress,
        )
        if isinstance(charge, Charge):
            self._apply(charge)
        return charge

    def quote(
        self,
        spender: Spender,
        tool: Tool,
        grant: Grant,
        arguments: Mapping[str, Any],
        *,
        now_s: int = 0,
        labels: Iterable[str] = (),
        limits: Sequence[Limit] = (),
        egress: Class | None = None,
    ) -> Charge | Refusal:
        """Return what `reserve` would charge, or why it would refuse. Charges nothing."""
        # 1. Its own calls, then those of everybody above: siblings share what their parent has.
        if self._is_exhausted(spender.node, tool, grant.max_calls):
            return Refusal("decide", "calls_exhausted")
        for node, given in spender.above:
            if self._is_exhausted(node, tool, given.max_calls(tool)):
                return Refusal("decide", "calls_exhausted")
        # 2. Amounts that cannot be added up, or would refill what was spent.
        sums = _read_sums(tool, arguments)
        if isinstance(sums, Refusal):
            return sums
        # 3. The budget of the whole family.
        if self._exceeds(spender, tool, sums):
            return Refusal("decide", "budget_exhausted")
        # 4. What policy allows of this tool, and labels without end.
        family = self.family(spender.root)
        if limits and any(_is_reached(limit, family, tool.id, now_s) for limit in limits):
            return Refusal("decide", "limit_exhausted")
        own = tool.review.labels
        joined = tuple(dict.fromkeys((*own, *labels))) if own or labels else ()
        if (
            len(family.labels) + len(joined) > LABELS_MAX
            and len(family.labels.union(joined)) > LABELS_MAX
        ):
            return Refusal("decide", "obligation_unmet")
        also = spender.also
        return Charge(spender.root, tool.id, sums, joined, also, now_s, spender.payer, egress)

    def give_back(self, charge: Charge) -> None:
        """Undo a charge whose call was certainly not sent; nothing of what was forgotten since."""
        for name in (charge.family, *charge.also):
            if name in self._families:
                self._changing(name).give_back(charge)
        if charge.payer in self._days:
            self._days[charge.payer].give_back(charge)
            self._changed.add(_DAY + charge.payer)

    def begin(self, family_id: str, labels: Iterable[str]) -> None:
        """Give a family the labels that its data carries from the start."""
        family = self._changing(family_id)
        family.labels.update(labels)
        if UNTRUSTED in family.labels:  # it holds what the gateway has not seen
            family.sightings.doubt = True

    def say(self, family_id: str, arguments: Mapping[str, Any]) -> None:
        """Let a family remember what it sends, while there is room for what families remember."""
        seen = self.family(family_id).sightings
        before = seen.size
        if self._room <= 0:
            seen.settled = True
        seen.say(arguments)
        self._room -= seen.size - before

    def learn(self, family_id: str, output: Output) -> None:
        """Let a family remember an output, while there is room for what families remember."""
        seen = self.family(family_id).sightings
        before = seen.size
        if self._room <= 0:
            output = Output({}, frozenset(), whole=False)
        seen.learn(output)
        self._room -= seen.size - before

    def keeps(self, family_id: str, tool_id: str, limits: Iterable[Limit], now_s: int) -> bool:
        """Whether a family, with the calls already charged, is within these limits of a tool."""
        family = self.family(family_id)
        return not any(_is_reached(limit, family, tool_id, now_s, more=0) for limit in limits)

    def join(self, family_id: str, labels: Iterable[str]) -> bool:
        """Add labels to those of a family; False, and none is added, where it has too many."""
        family = self._changing(family_id)
        joined = family.labels.union(labels)
        if len(joined) > LABELS_MAX:
            return False
        family.labels = joined
        return True

    def _changing(self, family_id: str) -> Family:
        """Return a family that is about to change in what outlives a restart."""
        self._changed.add(family_id)
        return self.family(family_id)

    def _apply(self, charge: Charge) -> None:
        root = self._changing(charge.family)
        root.apply(charge)
        for name in charge.also:
            root.members.add(name)
            self._changing(name).apply(charge)
        if charge.payer:
            self._now_s = charge.at  # not the latest: a clock that was ahead is not believed on
            self.day(charge.payer, charge.at).apply(charge)
            self._changed.add(_DAY + charge.payer)

    def _is_exhausted(self, node: str, tool: Tool, limit: int | None) -> bool:
        if limit is None:
            return False
        family = self._families.get(node)
        return (0 if family is None else family.counts.get(tool.id, 0)) >= limit

    def _exceeds(self, spender: Spender, tool: Tool, sums: Mapping[str, str]) -> bool:
        budget = spender.budget
        if budget.calls is None and not budget.sums:
            return False
        family = self.family(spender.root)
        if budget.calls is not None and family.calls >= budget.calls:
            return True
        for key, most in budget.sums.items():
            if not key.startswith(f"{tool.id}#"):
                continue
            if key not in sums:  # nothing adds it up any more: it cannot be kept
                return True
            spent = add(family.sums.get(key, 0), read_exact(sums[key]))
            if spent > Decimal(str(most)):
                return True
        return False

    def restore(self, rows: Mapping[str, Mapping[str, Any]]) -> None:
        """Start from a snapshot."""
        days = {key: data for key, data in rows.items() if key.startswith(_DAY)}
        self._days = {key.removeprefix(_DAY): Day.load(data) for key, data in days.items()}
        self._families = {
            key: Family.load(key, data) for key, data in rows.items() if key not in days
        }

    def snapshot(self) -> dict[str, dict[str, Any]]:
        """Everything that outlives a restart. Payers who spent nothing for a day are let go."""
        self._pass_on()
        rows = {key: family.dump() for key, family in self._families.items()}
        return rows | {f"{_DAY}{payer}": day.dump() for payer, day in self._days.items()}

    def take_changes(self) -> Changes:
        """Return what of a snapshot is new since this was asked last.

        Whoever cannot keep it gives it back (`untake`). INVARIANT: all changes that were taken and
        not given back make the snapshot; only so may a store that has them forget the log's past.
        """
        self._pass_on()
        names, self._changed = self._changed, set()
        changes: Changes = {}
        for name in names:
            if name.startswith(_DAY):
                found: Family | Day | None = self._days.get(name.removeprefix(_DAY))
            else:
                found = self._families.get(name)
            changes[name] = None if found is None else found.dump()
        return changes

    def untake(self, changes: Changes) -> None:
        """Say again, next time, what was not kept."""
        self._changed.update(changes)

    def _pass_on(self) -> None:
        for payer, day in list(self._days.items()):
            day.pass_on(self._now_s)
            if not day.hours:
                del self._days[payer]
                self._changed.add(_DAY + payer)

    def replay(self, record: Mapping[str, Any]) -> None:
        """Roll forward by one audit record: intents charge, outcomes `not_sent` give back."""
        op = record["op"]
        if record["type"] == "call.intent":
            charge = _read_charge(record)
            self._apply(charge)
            self._doubt(charge.family)
            self._open[op] = charge
        elif record["type"] == "run.create":
            self.begin(record["root"], record.get("labels", ()))
        elif record["type"] == "call.outcome":
            spent = self._open.pop(op, None)
            if spent is not None and record["delivery"] == "not_sent":
                self.give_back(spent)
            if "family" in record:
                self._changing(record["family"]).labels.update(record.get("labels", ()))

    def _doubt(self, family_id: str) -> None:
        """Take note that a family has a past of which only the totals are known."""
        family = self.family(family_id)
        family.doubt = True
        family.sightings.doubt = family.sightings.settled = True


def _read_charge(record: Mapping[str, Any]) -> Charge:
    data = record["charge"]
    return Charge(
        data["family"],
        data["tool"],
        data["sums"],
        tuple(data.get("labels", ())),
        tuple(data.get("also", ())),
        at=data.get("at", record.get("ts", 0) // 1_000_000),
        payer=data.get("payer", ""),
        egress=data.get("sinks"),
    )


def _is_reached(limit: Limit, family: Family, tool_id: str, now_s: int, *, more: int = 1) -> bool:
    """Whether so many more calls of a tool would pass a limit."""
    window_s = limit.window_s
    if window_s is None:
        return family.counts.get(tool_id, 0) + more > limit.max_calls
    return family.calls_since(tool_id, now_s - window_s) + more > limit.max_calls


def _read_sums(tool: Tool, arguments: Mapping[str, Any]) -> dict[str, str] | Refusal:
    """Return the amounts that a call spends, or say which cannot be added up."""
    sums: dict[str, str] = {}
    for pointer in tool.review.sums:
        value = resolve(arguments, pointer)
        if pointer in tool.review.sums_optional and (value is MISSING or value is None):
            continue
        amount = _read_amount(value)
        if amount is None:
            return Refusal("decide", "arguments_invalid", f"`{pointer}` must be 0 to 2^53")
        sums[f"{tool.id}#{pointer}"] = amount
    return sums


def _read_amount(value: object) -> str | None:
    """Return an amount as charges have it; None for what cannot be added up."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    amount = value if isinstance(value, int) else Decimal(str(value))
    return str(amount) if 0 <= amount <= SAFE else None


def _left(most: float, spent: Exact | None) -> dict[str, int | float]:
    rest = subtract(Decimal(str(most)), spent or 0)
    return {"max": most, "left": as_number(max(rest, Decimal(0)))}
