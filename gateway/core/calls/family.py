"""The running totals of one token family, and of one payer's last 24 hours (DESIGN §4)."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import deque
from collections.abc import Mapping
from decimal import Context, Decimal
from typing import Any, Final, TypeAlias

from msgspec import Struct

from gateway.core.calls.provenance import Class, Sightings

SAFE: Final = 2**53
EXACT: Final = Context(prec=500)
"""Holds any sum of doubles up to `SAFE` without rounding: a sum that rounds forgets amounts."""

Exact: TypeAlias = int | Decimal
"""A number without rounding: an `int` as long as only whole ones are added, which is cheaper."""

WINDOW_MAX_CALLS: Final = 256
"""So many times are remembered: of each tool, and of all together."""

REPEATS_MAX: Final = 256
"""Of so many different calls it is remembered how often each was made."""

LABELS_MAX: Final = 256
_RECENT: Final = 50
_MINUTE_S: Final = 60
_HOUR_S: Final = 3600
_DAY_HOURS: Final = 24
_NO_HOUR: Final = 2**63
"""Later than any."""


class Charge(Struct, frozen=True):
    """What one call reserved of its family: given back only if it certainly was never sent."""

    family: str
    tool: str
    sums: dict[str, str]
    labels: tuple[str, ...]
    also: tuple[str, ...] = ()
    """Tokens of the family, handed on, whose own calls it counts among."""
    at: int = 0
    """Seconds since the epoch."""
    payer: str = ""
    """The agent whose run it is, and its launcher: whose last 24 hours it counts in."""
    egress: Class | None = None
    """Of a tool with sinks: the worst class of where data goes."""


class Family:
    """The running totals of one token family. Sums are exact.

    Also those of a token that was handed on and counts calls; it is one of its family's `members`.
    `step` counts every call that was ever charged; `times` of each tool are in seconds.
    """

    __slots__ = (
        "_sightings",
        "calls",
        "counts",
        "doubt",
        "egress",
        "id",
        "labels",
        "members",
        "recent",
        "repeats",
        "settled",
        "step",
        "sums",
        "times",
    )

    def __init__(self, family_id: str, *, doubt: bool = False) -> None:
        """`doubt`: it has a past of which only the totals are known."""
        self.id: Final = family_id
        self.calls = 0
        self.step = 0
        self.counts: dict[str, int] = {}
        self.sums: dict[str, Exact] = {}
        self.labels: set[str] = set()
        self.recent: deque[str] = deque(maxlen=_RECENT)
        self.times: dict[str, list[int]] = {}
        self.egress: dict[str, dict[str, int]] = {"servers": {}, "classes": {}}
        self.members: set[str] = set()
        self.repeats: dict[int, int] = {}
        self.doubt = doubt
        self.settled = doubt
        self._sightings: Sightings | None = None

    @property
    def sightings(self) -> Sightings:
        """What its tools answered, as far as it is remembered."""
        if self._sightings is None:
            self._sightings = Sightings(doubt=self.doubt)
            self._sightings.settled = self.settled
        return self._sightings

    def settle(self) -> None:
        """Take note that not all of what it says is remembered: nothing more becomes trusted."""
        self.settled = True
        if self._sightings is not None:
            self._sightings.settled = True

    def apply(self, charge: Charge) -> None:
        """Add a charge: when reserved, and again when the log is replayed at start."""
        self.calls += 1
        self.step += 1
        _add(self.counts, self.sums, charge)
        if charge.labels:
            self.labels.update(charge.labels)
        self.recent.append(charge.tool)
        self._note_time("", charge.at)
        self._note_time(charge.tool, charge.at)
        if charge.egress is not None:
            self._count_egress(charge, charge.egress, 1)

    def give_back(self, charge: Charge) -> None:
        """Undo a charge whose call was certainly not sent. Labels and history never shrink."""
        if charge.tool not in self.counts:  # forgotten with its run, and begun anew
            return
        self.calls -= 1
        _take_away(self.counts, self.sums, charge)
        for name in ("", charge.tool):
            times = self.times.get(name, [])
            if charge.at in times:
                times.remove(charge.at)
        if charge.egress is not None:
            self._count_egress(charge, charge.egress, -1)

    def _note_time(self, tool: str, at: int) -> None:
        times = self.times.get(tool)
        if times is None:
            self.times[tool] = [at]
            return
        insort(times, at)
        if len(times) >= 2 * WINDOW_MAX_CALLS:
            del times[:WINDOW_MAX_CALLS]

    def _count_egress(self, charge: Charge, egress: Class, by: int) -> None:
        servers, classes = self.egress["servers"], self.egress["classes"]
        server = charge.tool.partition(".")[0]
        servers[server] = servers.get(server, 0) + by
        classes[egress] = classes.get(egress, 0) + by

    def calls_since(self, tool: str, since_s: int) -> int:
        """How many calls of a tool there were after `since_s`; at most `WINDOW_MAX_CALLS`."""
        times = self.times.get(tool, ())
        return min(WINDOW_MAX_CALLS, len(times) - bisect_right(times, since_s))

    def repeat(self, call: int) -> int:
        """Return how often this very call was made before, if it is among those remembered."""
        return self.repeats.get(call, 0)

    def note_repeat(self, call: int) -> None:
        """Remember this very call; of too many, the one whose last time is longest ago goes."""
        before = self.repeats.pop(call, 0)
        if len(self.repeats) >= REPEATS_MAX:
            del self.repeats[next(iter(self.repeats))]
        self.repeats[call] = before + 1

    def view(self) -> dict[str, Any]:
        """What has been spent; sums as numbers."""
        return {
            "calls": self.calls,
            "counts": self.counts,
            "sums": view_sums(self.sums),
            "labels": sorted(self.labels),
        }

    def view_run(self) -> dict[str, Any]:
        """What policies see under `context.run`, of a call that is not charged yet."""
        view = self.view()
        view["step"], view["egress"] = self.step + 1, self.egress
        return view

    def dump(self) -> dict[str, Any]:
        """Everything that outlives a restart, for a snapshot. `load` reads it back."""
        return {
            "calls": self.calls,
            "step": self.step,
            "counts": self.counts,
            "sums": {key: str(value) for key, value in self.sums.items()},
            "labels": sorted(self.labels),
            "recent": list(self.recent),
            "times": {name: times[-WINDOW_MAX_CALLS:] for name, times in self.times.items()},
            "egress": self.egress,
            "members": sorted(self.members),
        }

    @classmethod
    def load(cls, family_id: str, data: Mapping[str, Any]) -> Family:
        """Rebuild a family from `dump`, of this version or an earlier one."""
        family = cls(family_id, doubt=True)
        family.calls = data["calls"]
        family.step = data.get("step", data["calls"])
        family.counts = dict(data["counts"])
        family.sums = {key: read_exact(value) for key, value in data["sums"].items()}
        family.labels = set(data["labels"])
        family.recent.extend(data["recent"])
        for name, times in data.get("times", {}).items():
            family.times[name] = list(times)
        for kind, counts in data.get("egress", {}).items():
            family.egress[kind] = dict(counts)
        family.members = set(data.get("members", ()))
        return family


class Day:
    """What one payer spent in the last 24 hours, over all of its runs.

    Kept by the hour: it reaches back 24 hours at least, and less than 25.
    """

    __slots__ = ("_oldest", "counts", "hours", "sums")

    def __init__(self) -> None:
        self._oldest = _NO_HOUR
        self.hours: dict[int, tuple[dict[str, int], dict[str, Exact]]] = {}
        self.counts: dict[str, int] = {}
        self.sums: dict[str, Exact] = {}

    def apply(self, charge: Charge) -> None:
        """Add a charge to its hour."""
        hour = charge.at // _HOUR_S
        spent = self.hours.get(hour)
        if spent is None:
            spent = self.hours[hour] = ({}, {})
            self._oldest = min(self._oldest, hour)
        _add(*spent, charge)
        _add(self.counts, self.sums, charge)

    def give_back(self, charge: Charge) -> None:
        """Undo a charge, unless its hour is over and gone."""
        found = self.hours.get(charge.at // _HOUR_S)
        if found is not None and charge.tool in found[0]:
            for counts, sums in (found, (self.counts, self.sums)):
                _take_away(counts, sums, charge)

    def pass_on(self, now_s: int) -> None:
        """Let go of the hours that are more than a day behind."""
        oldest = now_s // _HOUR_S - _DAY_HOURS
        if self._oldest < oldest:
            self.hours = {hour: spent for hour, spent in self.hours.items() if hour >= oldest}
            self._recount()

    def view(self) -> dict[str, Any]:
        """The totals as policies see them."""
        return {"counts": self.counts, "sums": view_sums(self.sums)}

    def dump(self) -> dict[str, Any]:
        """Everything, for a snapshot. `load` reads it back."""
        return {
            "hours": {
                str(hour): [counts, {key: str(value) for key, value in sums.items()}]
                for hour, (counts, sums) in self.hours.items()
            }
        }

    @classmethod
    def load(cls, data: Mapping[str, Any]) -> Day:
        """Rebuild a day from `dump`."""
        day = cls()
        for hour, (counts, sums) in data["hours"].items():
            exact = {key: read_exact(value) for key, value in sums.items()}
            day.hours[int(hour)] = (dict(counts), exact)
        day._recount()
        return day

    def _recount(self) -> None:
        self._oldest = min(self.hours, default=_NO_HOUR)
        self.counts, self.sums = {}, {}
        for counts, sums in self.hours.values():
            for tool, count in counts.items():
                self.counts[tool] = self.counts.get(tool, 0) + count
            for key, amount in sums.items():
                self.sums[key] = add(self.sums.get(key, 0), amount)


def view_sums(sums: Mapping[str, Exact]) -> dict[str, int | float]:
    """Return sums as the numbers that policies see."""
    return {key: as_number(value) for key, value in sums.items()}


def as_number(value: Exact) -> int | float:
    """Return a whole number as one, as far as JSON holds it."""
    if isinstance(value, int):
        return value if value <= SAFE else float(value)
    exact = value <= SAFE and value == value.to_integral_value()
    return int(value) if exact else float(value)


def read_exact(text: str) -> Exact:
    """Return a number out of a charge or a snapshot."""
    return int(text) if text.isdecimal() else Decimal(text)


def add(one: Exact, other: Exact) -> Exact:
    """Return a sum without rounding."""
    if isinstance(one, int) and isinstance(other, int):
        return one + other
    return EXACT.add(one, other)


def subtract(one: Exact, other: Exact) -> Exact:
    """Return a difference without rounding."""
    if isinstance(one, int) and isinstance(other, int):
        return one - other
    return EXACT.subtract(one, other)


def _add(counts: dict[str, int], sums: dict[str, Exact], charge: Charge) -> None:
    counts[charge.tool] = counts.get(charge.tool, 0) + 1
    for key, amount in charge.sums.items():
        sums[key] = add(sums.get(key, 0), read_exact(amount))


def _take_away(counts: dict[str, int], sums: dict[str, Exact], charge: Charge) -> None:
    counts[charge.tool] -= 1
    for key, amount in charge.sums.items():
        sums[key] = subtract(sums[key], read_exact(amount))
