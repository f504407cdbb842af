"""How often somebody may try: enough for people, too seldom for guessing, and nobody locked out.

Tries at an account are few for browsers that nobody signed in with before. A browser in which
somebody did has tries of its own (a device cookie), so that strangers cannot use up theirs; a
passkey and an identity provider are no guesses and have no such bound.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from msgspec import Struct

from gateway.http.signin_address import share_of

KEYS_MAX: Final = 20_000


class Rate(Struct, frozen=True):
    """`burst` tries at once, and one more each `every_s` seconds."""

    burst: int
    every_s: float


ACCOUNT: Final = Rate(10, 30)
ADDRESS: Final = Rate(60, 1)
DEVICE: Final = Rate(10, 10)


class Tries:
    """Token buckets by key, as many as fit; the one not used for longest is forgotten first."""

    def __init__(self, rate: Rate, *, keys_max: int = KEYS_MAX) -> None:
        self._rate: Final = rate
        self._keys_max: Final = keys_max
        self._full_at: Final[OrderedDict[str, float]] = OrderedDict()

    def wait_s(self, key: str, now_s: float) -> int:
        """Take a try. 0 if there was one; else the seconds until there is."""
        rate = self._rate
        full_at = max(self._full_at.get(key, 0.0), now_s)
        over = full_at + rate.every_s - now_s - rate.burst * rate.every_s
        if over > 0:
            return max(1, int(over + 0.999))
        self._full_at[key] = full_at + rate.every_s
        self._full_at.move_to_end(key)
        if len(self._full_at) > self._keys_max:
            self._full_at.popitem(last=False)
        return 0

    def forgive(self, key: str) -> None:
        """Give all tries back: it was the right person."""
        self._full_at.pop(key, None)


class SignInLimits:
    """The bounds of sign-in. Keys are only in memory: a restart gives everybody fresh tries."""

    def __init__(self) -> None:
        self._accounts: Final = Tries(ACCOUNT)
        self._addresses: Final = Tries(ADDRESS)
        self._devices: Final = Tries(DEVICE)

    def wait_password_s(self, person: str, address: str, device: str, now_s: float) -> int:
        """Take a try at somebody's password. `device`: of a browser known for this person."""
        if device:
            return self._devices.wait_s(device, now_s)
        return self.wait_other_s(address, now_s) or self._accounts.wait_s(person, now_s)

    def wait_other_s(self, address: str, now_s: float) -> int:
        """Take a try at anything else that costs us something."""
        return self._addresses.wait_s(share_of(address), now_s)

    def forgive(self, person: str, device: str) -> None:
        """Somebody came in."""
        self._accounts.forgive(person)
        self._devices.forgive(device)
