"""Whose address a request of a browser came from, where proxies stand in between."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

_OWN_BITS: Final = 64
"""The prefix of IPv6 that is one client's: inside of it, they may take any address they like."""

Networks = tuple[IPv4Network | IPv6Network, ...]


def find_address(peer: str, forwarded: Iterable[str], trusted: Networks) -> str:
    """Return the client's address: that of the peer, unless the peer is a trusted proxy.

    Of a trusted one, it is the last hop of `X-Forwarded-For` (`forwarded`: its lines in order) that
    is no trusted proxy itself; what stands before it, the client may have written. A hop that is no
    plain IP address tells nothing: the peer's address it is then.
    """
    if not _is_trusted(_parse(peer), trusted):
        return peer
    found = peer
    hops = [hop for line in forwarded for hop in line.split(",")]
    for hop in reversed(hops):
        address = _parse(hop.strip(" \t"))
        if address is None:
            return peer
        found = str(address)
        if not _is_trusted(address, trusted):
            break
    return found


def share_of(address: str) -> str:
    """Return what stands for all addresses of one client: of IPv6, their network."""
    found = _parse(address)
    if isinstance(found, IPv6Address):
        return str(ip_network((found, _OWN_BITS), strict=False))
    return address if found is None else str(found)


def _parse(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv4Address):
        return address
    if address.scope_id is not None:  # any text may stand there: it would be a fresh key each time
        return None
    return address.ipv4_mapped or address


def _is_trusted(address: IPv4Address | IPv6Address | None, trusted: Networks) -> bool:
    return address is not None and any(address in network for network in trusted)
