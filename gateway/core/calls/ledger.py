"""What a token family has spent: calls, counts, sums, labels (DESIGN §4).

The family is the unit because a run may hold many tokens: ten tokens are not ten budgets. A
decision reads the ledger and a reservation writes it, with nothing in between that could let
another call in (see `Judge.judge`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from decimal import Context, Decimal
from typing import Any, Final

from msgspec import Struct

from gateway.core.catalog import Tool
from gateway.core.pointer import resolve
from gateway.core.refusal import Refusal
from gateway.core.tokens.spending import Spender
from gateway.core.tokens.token import Budget, Grant

_RECENT: Final = 50
_SAFE: Final = 2**53
_EXACT: Final = Context(prec=500)
"""Holds any sum of doubles up to `_SAFE` without rounding: a sum that rounds forgets amounts."""


class Charge(Struct, frozen=True):
    """What one call reserved of its family: given back only if it certainly was never sent."""

    family: str
    tool: str
    sums: dict[str, str]
    labels: tuple[str, ...]
    also: tuple[str, ...] = ()
    """Tokens of the family, handed on, whose own calls it counts among."""


class Family:
    """The running totals of one token family. Sums are exact decimals.

    Also those of a token that was handed on and counts calls; it is one of its family's `members`.
    """

    __slots__ = ("calls", "counts", "id", "labels", "members", "recent", "sums")

    def __init__(self, family_id: str) -> None:
        self.id: Final = family_id
        self.calls = 0
        self.counts: dict[str, int] = {}
        self.sums: dict[str, Decimal] = {}
        self.labels: set[str] = set()
        self.recent: deque[str] = deque(maxlen=_RECENT)
        self.members: set[str] = set()

    def apply(self, charge: Charge) -> None:
        """Add a charge: when reserved, and again when the log is replayed at start."""
        self.calls += 1
        self.counts[charge.tool] = self.counts.get(charge.tool, 0) + 1
        for key, amount in charge.sums.items():
            self.sums[key] = _EXACT.add(self.sums.get(key, Decimal(0)), Decimal(amount))
        self.labels.update(charge.labels)
        self.recent.append(charge.tool)

    def give_back(self, charge: Charge) -> None:
        """Undo a charge whose call was certainly not sent. Labels and history never shrink."""
        self.calls -= 1
        self.counts[charge.tool] -= 1
        for key, amount in charge.sums.items():
            self.sums[key] = _EXACT.subtract(self.sums[key], Decimal(amount))

    def view(self) -> dict[str, Any]:
        """The totals as policies see them; sums as numbers."""
        return {
            "calls": self.calls,
            "counts": self.counts,
            "sums": {key: _number(value) for key, value in self.sums.items()},
            "labels": sorted(self.labels),
        }

    def dump(self) -> dict[str, Any]:
        """Everything, for a snapshot. `load` reads it back."""
        return {
            "calls": self.calls,
            "counts": self.counts,
            "sums": {key: str(value) for key, value in self.sums.items()},
            "labels": sorted(self.labels),
            "recent": list(self.recent),
            "members": sorted(self.members),
        }

    @classmethod
    def load(cls, family_id: str, data: Mapping[str, Any]) -> Family:
        """Rebuild a family from `dump`."""
        family = cls(family_id)
        family.calls = data["calls"]
        family.counts = dict(data["counts"])
        family.sums = {key: Decimal(value) for key, value in data["sums"].items()}
        family.labels = set(data["labels"])
        family.recent.extend(data["recent"])
        family.members = set(data.get("members", ()))
        return family


def view_budget(budget: Budget, family: Family) -> dict[str, Any]:
    """What a budget leaves, as policies see it: `calls` and `sums`, as far as it bounds them."""
    left: dict[str, Any] = {}
    if budget.calls is not None:
        left["calls"] = {"max": budget.calls, "left": max(0, budget.calls - family.calls)}
    if budget.sums:
        left["sums"] = {key: _left(most, family.sums.get(key)) for key, most in budget.sums.items()}
    return left


class Ledger:
    """All families that have spent anything."""

    def __init__(self) -> None:
        self._families: dict[str, Family] = {}
        self._open: dict[str, Charge] = {}

    def family(self, family_id: str) -> Family:
        """Return a family, empty if it has not spent anything yet."""
        family = self._families.get(family_id)
        if family is None:
            family = self._families[family_id] = Family(family_id)
        return family

    def forget(self, family_ids: Iterable[str]) -> None:
        """Let go of families whose runs are over: no token of theirs can be spent any more."""
        for family_id in family_ids:
            family = self._families.pop(family_id, None)
            for member in () if family is None else family.members:
                self._families.pop(member, None)

    def reserve(
        self, spender: Spender, tool: Tool, grant: Grant, arguments: Mapping[str, Any]
    ) -> Charge | Refusal:
        """Charge one call, or refuse it because what it would spend is spent.

        INVARIANT: between the caller's decision and this line there is no await.
        """
        # 1. Its own calls, then those of everybody above: siblings share what their parent has.
        if _is_exhausted(self._count(spender.node, tool), grant.max_calls):
            return Refusal("decide", "calls_exhausted")
        for node, limits in spender.above:
            if _is_exhausted(self._count(node, tool), limits.max_calls(tool)):
                return Refusal("decide", "calls_exhausted")
        # 2. Amounts that cannot be added up, or would refill what was spent.
        sums: dict[str, str] = {}
        for pointer in tool.review.sums:
            amount = _decimal(resolve(arguments, pointer))
            if amount is None or not 0 <= amount <= _SAFE:
                return Refusal("decide", "arguments_invalid", f"`{pointer}` must be 0 to 2^53")
            sums[f"{tool.id}#{pointer}"] = str(amount)
        # 3. The budget of the whole family.
        if self._exceeds(spender, tool, sums):
            return Refusal("decide", "budget_exhausted")
        also = {spender.node, *(node for node, _ in spender.above)} - {spender.root}
        charge = Charge(spender.root, tool.id, sums, tool.review.labels, tuple(sorted(also)))
        self._apply(charge)
        return charge

    def give_back(self, charge: Charge) -> None:
        """Undo a charge whose call was certainly not sent."""
        for name in (charge.family, *charge.also):
            self.family(name).give_back(charge)

    def begin(self, family_id: str, labels: Iterable[str]) -> None:
        """Give a family the labels that its data carries from the start."""
        self.family(family_id).labels.update(labels)

    def _apply(self, charge: Charge) -> None:
        root = self.family(charge.family)
        root.apply(charge)
        for name in charge.also:
            root.members.add(name)
            self.family(name).apply(charge)

    def _count(self, node: str, tool: Tool) -> int:
        family = self._families.get(node)
        return 0 if family is None else family.counts.get(tool.id, 0)

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
            spent = _EXACT.add(family.sums.get(key, Decimal(0)), Decimal(sums[key]))
            if spent > Decimal(str(most)):
                return True
        return False

    def restore(self, families: Mapping[str, Mapping[str, Any]]) -> None:
        """Start from a snapshot."""
        self._families = {key: Family.load(key, data) for key, data in families.items()}

    def snapshot(self) -> dict[str, dict[str, Any]]:
        """Everything, for a snapshot."""
        return {key: family.dump() for key, family in self._families.items()}

    def replay(self, record: Mapping[str, Any]) -> None:
        """Roll forward by one audit record: intents charge, outcomes `not_sent` give back."""
        op = record["op"]
        if record["type"] == "call.intent":
            data = record["charge"]
            charge = Charge(
                data["family"],
                data["tool"],
                data["sums"],
                tuple(data.get("labels", ())),
                tuple(data.get("also", ())),
            )
            self._apply(charge)
            self._open[op] = charge
        elif record["type"] == "run.create":
            self.begin(record["root"], record.get("labels", ()))
        elif record["type"] == "call.outcome":
            spent = self._open.pop(op, None)
            if spent is not None and record["delivery"] == "not_sent":
                self.give_back(spent)


def _is_exhausted(spent: int, limit: int | None) -> bool:
    return limit is not None and spent >= limit


def _decimal(value: object) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return Decimal(str(value))


def _left(most: float, spent: Decimal | None) -> dict[str, int | float]:
    rest = _EXACT.subtract(Decimal(str(most)), spent or Decimal(0))
    return {"max": most, "left": _number(max(rest, Decimal(0)))}


def _number(value: Decimal) -> int | float:
    exact = value <= _SAFE and value == value.to_integral_value()
    return int(value) if exact else float(value)
