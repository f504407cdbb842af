"""`net.cidr_*` as OPA 1.22 answers them: addresses as Go reads them (net.ParseCIDR, net.ParseIP).

To Go `::ffff:10.1.2.3` is the address 10.1.2.3, so a network of the one kind holds it too.
INVARIANT: what these return, OPA returns for the same arguments.
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from typing import Any, Final

from msgspec import Struct

from gateway.adapters.regorus.shim_natives import RefusedError, ask_native

_PREFIX: Final = re.compile(r"[0-9]{1,4}", re.ASCII)
_EXPANDED: Final = re.compile(r"[0-9.]+/[0-9]{1,2}", re.ASCII)
_MAPPED: Final = 0xFFFF << 32
_MASK4: Final = (1 << 32) - 1
_BITS4: Final = 32
_BITS6: Final = 128


class Network(Struct, frozen=True):
    """Addresses of `bits` bits from `first` to `last`."""

    bits: int
    first: int
    last: int


@lru_cache(maxsize=1024)
def _read_address(text: str) -> tuple[int, int] | None:
    """Return (bits, address); None for what is none."""
    if "%" in text or not text.isascii():
        return None
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    bits = _BITS4 if found.version == 4 else _BITS6  # noqa: PLR2004
    return bits, int(found)


@lru_cache(maxsize=1024)
def _read_network(text: str) -> Network | None:
    host, slash, prefix = text.partition("/")
    found = _read_address(host)
    if found is None or not slash or _PREFIX.fullmatch(prefix) is None:
        return None
    bits, address = found
    if int(prefix) > bits:
        return None
    others = (1 << (bits - int(prefix))) - 1
    first = address & ~others
    if bits == _BITS6 and first & ~_MASK4 == _MAPPED:
        first, bits = first & _MASK4, _BITS4
        others &= _MASK4
    return Network(bits, first, first | others)


def _plain(bits: int, address: int) -> tuple[int, int]:
    """Return a mapped address as one of 32 bits."""
    if bits == _BITS6 and address & ~_MASK4 == _MAPPED:
        return _BITS4, address & _MASK4
    return bits, address


def cidr_contains(network: object, inner: object) -> bool:
    """Whether a network holds an address, or another network."""
    outer = _read_network(network) if isinstance(network, str) else None
    if outer is None or not isinstance(inner, str):
        raise RefusedError("a text is no network, or no address")
    address = _read_address(inner)
    if address is not None:
        bits, number = _plain(*address)
        return bits == outer.bits and outer.first <= number <= outer.last
    held = _read_network(inner)
    if held is None:
        raise RefusedError("a text is no network, or no address")
    return held.bits == outer.bits and outer.first <= held.first and held.last <= outer.last


def cidr_is_valid(network: object) -> bool:
    """Whether a text is a network."""
    return isinstance(network, str) and _read_network(network) is not None


def cidr_expand(network: object) -> Any:  # noqa: ANN401 - a set of texts
    """Return every address of an IPv4 network."""
    if not isinstance(network, str) or _EXPANDED.fullmatch(network) is None:
        raise RefusedError("only IPv4 networks are expanded")
    if _read_network(network) is None:
        raise RefusedError("a text is no network")
    return ask_native("net.cidr_expand", network)


SHIMS: Final[dict[str, tuple[int, Any]]] = {
    "net.cidr_contains": (2, cidr_contains),
    "net.cidr_expand": (1, cidr_expand),
    "net.cidr_is_valid": (1, cidr_is_valid),
}
