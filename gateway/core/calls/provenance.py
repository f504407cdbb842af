"""Where a value in the arguments was seen before: the run's allowed values, or what it has read.

An agent that was talked into something sends data to an address out of the text that talked it
into that. So each family remembers what its tools answered, as numbers that lead back to no text,
and a call's recipients, URLs and accounts (`sinks` of the manifest) are looked up there.

========== =====================================================================================
allowed    the launcher named it in the run's allowed values
trusted    a trusted output of the family held it
unseen     nothing that the gateway has seen held it
untrusted  only outputs labelled `untrusted` held it
========== =====================================================================================

INVARIANT: nothing is ever said to be better than it is, in this order. What is forgotten (the
memory is bounded, a restart empties it) makes values look worse: `trusted` becomes `unseen`, and
what is unknown becomes `untrusted` in a family that has read something untrusted. What the family
said itself, to whatever tool and in whatever form, does not become trusted by coming back.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal

from msgspec.structs import replace

from gateway.core.calls.echoes import Echoes
from gateway.core.calls.outputs import Output, Vouched, read_output
from gateway.core.calls.readings import decode_all, number_text
from gateway.core.calls.spellings import (
    TOKEN,
    VALUE_MAX_CHARS,
    WORD,
    addresses,
    canonical,
    host_of,
    is_joint,
    join_parts,
    loose,
    names_above,
    plain_host,
)
from gateway.core.pointer import reach, split

__all__ = [
    "INLINE_MAX_BYTES",
    "UNTRUSTED",
    "WORST_LAST",
    "Class",
    "Output",
    "Sightings",
    "build_allowed",
    "canonical",
    "read_output",
    "worst",
]

Class = Literal["allowed", "trusted", "unseen", "untrusted"]
WORST_LAST: Final[tuple[Class, ...]] = ("allowed", "trusted", "unseen", "untrusted")
UNTRUSTED: Final = "untrusted"
"""The label of outputs that hold what strangers wrote."""

INLINE_MAX_BYTES: Final = 4_096
"""An output up to this size is looked through at once, a larger one beside the loop."""

_SET_MAX: Final = 8_192
_VALUES_MAX: Final = 256
_DEPTH_MAX: Final = 64


class Sightings:
    """What one family has seen.

    `trusted` and `untrusted` are what outputs held, `sites` the domains that the trusted lead to,
    `said` is what it has sent. `doubt`: some of the untrusted is not remembered. `settled`: some of
    what it said is not, so nothing more is trusted.
    """

    __slots__ = ("doubt", "said", "settled", "sites", "trusted", "untrusted")

    def __init__(self, *, doubt: bool = False) -> None:
        """`doubt`: the family has a past that is not remembered."""
        self.trusted: set[int] = set()
        self.untrusted: set[int] = set()
        self.sites: set[int] = set()
        self.said = Echoes()
        self.doubt = doubt
        self.settled = doubt

    @property
    def size(self) -> int:
        """How many values are remembered."""
        return len(self.trusted) + len(self.untrusted) + len(self.sites) + self.said.size

    def say(self, arguments: Mapping[str, Any]) -> None:
        """Remember what the family sends: before it is sent, so that no answer comes first."""
        if not self.settled:
            self.said.add(arguments)
            self.settled = not self.said.whole

    def sift(self, output: Output) -> Output:
        """Return an output with what it alone has to say, and nothing that it may only echo.

        Reads and changes nothing, so it may run beside the loop: what is said meanwhile is said
        after the answer.
        """
        if not output.trusted or self.settled:
            return replace(output, trusted={}, fresh=frozenset())
        known: dict[str, bool] = {}
        fresh, sites = set[int](), set[str]()
        for value, vouched in output.trusted.items():
            if value not in self.trusted and not self._is_own(vouched, known):
                fresh.add(value)
                sites.add(vouched.site)
        found = frozenset(map(hash, sites - {""}))
        return replace(output, trusted={}, fresh=frozenset(fresh), sites=found)

    def _is_own(self, vouched: Vouched, known: dict[str, bool]) -> bool:
        """Whether a value may be what the family said, or lead where only the family has pointed.

        Whoever owns a domain gets whatever is sent to any address at it, so what a tool has put
        together from a domain that it was told is no better than that domain.
        """
        if self.said.holds(vouched.forms, known):
            return True
        site = vouched.site
        return bool(site) and hash(site) not in self.sites and self.said.has_site(site, known)

    def learn(self, output: Output) -> None:
        """Remember an output. The arguments of its call, and of all before, were said."""
        self.untrusted |= output.untrusted
        if not output.whole or len(self.untrusted) > _SET_MAX:
            self.doubt = True
        if len(self.untrusted) > _SET_MAX:
            self.untrusted = set(list(self.untrusted)[:_SET_MAX])
        # 1. An address that an output only echoes, or that the family itself put there.
        if output.fresh is None:
            output = self.sift(output)
        fresh = output.fresh
        if fresh and not self.settled and len(self.trusted) + len(fresh) <= _SET_MAX:
            self.trusted |= fresh
            self.sites |= output.sites

    def classify(
        self,
        arguments: Mapping[str, Any],
        sinks: Iterable[str],
        allowed: Collection[str],
        *,
        tainted: bool,
    ) -> dict[str, Class]:
        """Return the worst class of the values at each pointer of `sinks` that holds any.

        `allowed`: what the launcher named, as `canonical` has it. `tainted`: the family has read
        something untrusted, remembered or not.
        """
        doubt = self.doubt and tainted
        found: dict[str, Class] = {}
        for pointer in sinks:
            values = list(_values_at(arguments, pointer))
            if values:
                classes = {self._class_of(value, allowed, doubt) for value in values[:_VALUES_MAX]}
                if len(values) > _VALUES_MAX:
                    classes.add("untrusted" if tainted else "unseen")
                found[pointer] = max(classes, key=WORST_LAST.index)
        return found

    def _class_of(self, value: str, allowed: Collection[str], doubt: bool) -> Class:  # noqa: FBT001
        whole = self._class_of_one(value, allowed)
        if whole == "allowed":
            return whole
        # 2. Several addresses in one text: each counts, and so does what is between them. A text
        #    that is known as a whole vouches for no address in it: strangers write names beside
        #    theirs, and tools put words around what they were asked for.
        if whole == "trusted":
            inner = (self._class_of_one(each, allowed) for each in addresses(value))
            whole = max((whole, *inner), key=WORST_LAST.index)
            return "untrusted" if whole == "unseen" and doubt else whole
        parts = {
            self._class_of_one(match[0], allowed)
            for match in TOKEN.finditer(value[:VALUE_MAX_CHARS])
        }
        if parts and len(value) <= VALUE_MAX_CHARS and is_joint(value):
            whole = max(parts, key=WORST_LAST.index)
        elif whole == "untrusted" or "untrusted" in parts or self._is_out_of(value):
            whole = "untrusted"
        if whole == "unseen" and (doubt or self._is_coded_out_of(value, allowed)):
            return "untrusted"
        return whole

    def _class_of_one(self, value: str, allowed: Collection[str]) -> Class:
        exact = canonical(value)
        if exact in allowed:
            return "allowed"
        if len(exact) > VALUE_MAX_CHARS:
            return "unseen"
        if hash(exact) in self.trusted:
            return "trusted"
        if not self.untrusted:
            return "unseen"
        plain = plain_host(exact).casefold()
        spellings = {exact.casefold(), plain, loose(exact).casefold(), join_parts(exact)}
        if not self.untrusted.isdisjoint(map(hash, spellings)):
            return "untrusted"
        for name in names_above(host_of(exact)):
            if hash(name) in self.trusted or name in allowed:
                return "unseen"
            if hash(name.casefold()) in self.untrusted:
                return "untrusted"
        return "unseen"

    def _is_coded_out_of(self, value: str, allowed: Collection[str]) -> bool:
        """Whether a value, decoded, stood in something untrusted."""
        return any(
            self._class_of_one(reading, allowed) == "untrusted" or self._is_out_of(reading)
            for reading in decode_all(value[:VALUE_MAX_CHARS])[0]
        )

    def _is_out_of(self, value: str) -> bool:
        """Whether every word of a value stood in something untrusted."""
        words = WORD.findall(value[:VALUE_MAX_CHARS].casefold())
        return bool(words) and self.untrusted.issuperset(map(hash, words))


def build_allowed(values: Mapping[str, Sequence[str]], tool_id: str) -> frozenset[str]:
    """Return what the launcher named for this tool: the values of every key that concerns it."""
    return frozenset(
        canonical(value)
        for key, listed in values.items()
        if "#" not in key or key.startswith(("/", f"{tool_id}#"))
        for value in listed
    )


def worst(classes: Iterable[Class]) -> Class | None:
    """Return the worst of some classes; None for none."""
    return max(classes, key=WORST_LAST.index, default=None)


def _values_at(arguments: Mapping[str, Any], pointer: str) -> Iterator[str]:
    """Yield each value at a sink. Names of members count where they hold addresses themselves."""
    for part in reach(arguments, split(pointer)):
        waiting = [part]
        while waiting:
            value = waiting.pop()
            if isinstance(value, dict):
                waiting.extend(value.values())
                yield from (name for name in value if TOKEN.search(name))
            elif isinstance(value, list):
                waiting.extend(value)
            elif isinstance(value, str):
                yield value
            elif value is not None:
                yield number_text(value)
