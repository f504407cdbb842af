"""Who is not asked about for a while, because policy ran wild on their questions again and again.

A question on which policy never ends costs a worker its life, and a core for as long as its
deadline lasts. Once is nobody's fault. From the third time on, whoever brings such questions is
refused unasked for `SUSPENDED_S`, and then gets one more try at a time.

INVARIANT: being suspended is being refused, and only for questions to the same packages. Nobody
comes past a policy by it, and nobody else is refused for it.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from msgspec import Struct

STRIKES_MAX: Final = 3
SUSPENDED_S: Final = 10.0
FORGIVEN_S: Final = 60.0
_KNOWN_MAX: Final = 4096
Asker = tuple[int, str]
"""A set of packages, by the number of its engine, and the subject about whom they are asked."""


class _Strikes(Struct):
    count: int
    last_s: float


class Breaker:
    """The strikes of each asker. Times are seconds of one clock that never goes back."""

    def __init__(self) -> None:
        self._strikes: OrderedDict[Asker, _Strikes] = OrderedDict()

    def strike(self, asker: Asker, now_s: float) -> bool:
        """Note that policy ran wild on a question; return whether the asker is suspended now."""
        found = self._strikes.pop(asker, None)
        if found is None or now_s - found.last_s >= FORGIVEN_S:
            found = _Strikes(0, now_s)
        found.count, found.last_s = found.count + 1, now_s
        self._strikes[asker] = found
        if len(self._strikes) > _KNOWN_MAX:
            self._strikes.popitem(last=False)
        return found.count >= STRIKES_MAX

    def is_suspended(self, asker: Asker, now_s: float) -> bool:
        """Whether the asker is to be refused unasked."""
        found = self._strikes.get(asker)
        if found is None or found.count < STRIKES_MAX:
            return False
        return now_s - found.last_s < SUSPENDED_S

    def __bool__(self) -> bool:
        """Whether anybody has a strike."""
        return bool(self._strikes)
