"""What is asked of an OPA about one bundle, and what of its answers is believed."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Final

from msgspec import Raw, UnsetType

from gateway.adapters.opa.opa_link import OpaAnswer, OpaLink
from gateway.adapters.opa.opa_push import Place
from gateway.adapters.opa.opa_routes import Routes
from gateway.adapters.policy.policy_bundle import Bundle
from gateway.core.errors import PolicyError

FOREIGN: Final = "policy_revision_foreign"


class Active:
    """One bundle in use. `settled`: OPA holds it, and it has passed its tests there."""

    def __init__(self, bundle: Bundle, place: Place, tools: Mapping[str, tuple[str, str]]) -> None:
        self.bundle = bundle
        self.place = place
        self.routes = Routes(bundle.packages, tools)
        self.settled = False
        self._asked = 0
        self._idle = asyncio.Event()

    @property
    def revision(self) -> str:
        """The bundle's."""
        return self.bundle.revision

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """Count a question that is under way."""
        self._asked += 1
        try:
            yield
        finally:
            self._asked -= 1
            self._idle.set()

    async def drained(self) -> None:
        """Return when no question is under way."""
        while self._asked:
            self._idle.clear()
            await self._idle.wait()


class Pending:
    """A bundle that OPA is to pull. `seen`: it answered; `done`: it took over, or did not."""

    def __init__(self, active: Active) -> None:
        self.active = active
        self.seen = asyncio.Event()
        self.done = asyncio.Event()


Ask = Callable[[Place], Awaitable[OpaAnswer | None]]


_ODD_NUMBER: Final = re.compile(rb"[:,\[]\s*(?:-?[0-9]+[.eE]|-0)")
_PLAIN_NUMBER: Final = re.compile(rb"-?[1-9][0-9]*|0")
_TEXT_OR_NUMBER: Final = re.compile(
    rb'"(?:[^"\\]|\\.)*"|-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?', re.DOTALL
)
_SAFE: Final = 1 << 53


def plain_numbers(document: bytes) -> bytes:
    """Return an input whose numbers are written as the embedded engine reads them: 1.0 as 1.

    OPA keeps a number as it was sent, and writes it so: `json.marshal(1.0)` would differ.
    Numbers beyond 2^53 stay as they are.
    """
    # A text may look like it, which only costs the reading.
    if _ODD_NUMBER.search(document) is None:
        return document
    return _TEXT_OR_NUMBER.sub(_plain, document)


def _plain(found: re.Match[bytes]) -> bytes:
    written = found[0]
    if written[:1] == b'"' or _PLAIN_NUMBER.fullmatch(written):
        return written
    value = float(written)
    if abs(value) >= _SAFE:
        return written
    return repr(int(value) if value.is_integer() else value).encode()


def ask_one(link: OpaLink, document: bytes, timeout_s: float) -> Ask:
    """Return the question what a bundle decides on one input."""
    plain = plain_numbers(document)
    return lambda place: link.ask(place.one, plain, timeout_s)


def ask_many(link: OpaLink, documents: Sequence[bytes], deadline_s: float) -> Ask:
    """Return the question about many inputs, which may take as long as each of them."""
    body = b'{"many":[%b]}' % b",".join(map(plain_numbers, documents))
    return lambda place: link.ask(place.many, body, deadline_s * len(documents))


async def ask_counted(active: Active, ask: Ask) -> OpaAnswer | None:
    """Ask a bundle, and have it wait for the answer before it goes."""
    with active.counted():
        return await ask(active.place)


def check_revision(answer: OpaAnswer | None, revision: str) -> None:
    """Raise unless it is this bundle that answered. No answer at all is `undefined`."""
    if answer is None or answer == OpaAnswer():
        return
    if answer.revision != revision:
        raise PolicyError("another bundle than the active one answered", code=FOREIGN)


def read_raw(value: Raw | UnsetType | None) -> bytes | None:
    """Return a decision as it came; None where there is none."""
    if value is None:
        return None
    return None if isinstance(value, UnsetType) else bytes(value)
