"""Whose tries are counted behind a proxy, and that nobody chooses whose (TOK-08)."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from gateway.http.signin_address import find_address
from tests.unit.people.conftest import World

pytestmark = pytest.mark.req("TOK-08")
TRUSTED = (ip_network("203.0.113.0/24"), ip_network("2001:db8:1::/64"))
PROXY = "203.0.113.7"
OPTIONS = "/signin/passkey/options"


@pytest.mark.parametrize(
    ("peer", "lines", "address"),
    [
        # nobody else is believed
        ("192.0.2.1", ["198.51.100.1"], "192.0.2.1"),
        ("", ["198.51.100.1"], ""),
        ("testclient", ["198.51.100.1"], "testclient"),
        # a proxy, or several
        (PROXY, [], PROXY),
        (PROXY, ["198.51.100.1"], "198.51.100.1"),
        (PROXY, ["198.51.100.1, 203.0.113.8"], "198.51.100.1"),
        (PROXY, ["198.51.100.1", "203.0.113.8"], "198.51.100.1"),
        (PROXY, ["203.0.113.8"], "203.0.113.8"),
        ("::ffff:203.0.113.7", ["::ffff:198.51.100.1"], "198.51.100.1"),
        ("2001:db8:1::1", ["2001:DB8:0:2::0001"], "2001:db8:0:2::1"),
        # what the client wrote itself stands before
        (PROXY, ["203.0.113.9, 192.0.2.66, 198.51.100.1"], "198.51.100.1"),
        (PROXY, ["not an address,,, 198.51.100.1"], "198.51.100.1"),
        # what cannot be read
        (PROXY, [""], PROXY),
        (PROXY, ["198.51.100.1,"], PROXY),
        (PROXY, ["198.51.100.1:443"], PROXY),
        (PROXY, ["[2001:db8::1]"], PROXY),
        (PROXY, ["fe80::1%made-up"], PROXY),
        (PROXY, ["198.51.100.01"], PROXY),
        (PROXY, ["unknown"], PROXY),
        (PROXY, ["198.51.100.1, x, 203.0.113.8"], PROXY),
    ],
)
def test_the_client_is_the_last_hop_that_is_no_trusted_proxy(
    peer: str, lines: list[str], address: str
) -> None:
    assert find_address(peer, lines, TRUSTED) == address


async def test_a_client_behind_a_trusted_proxy_uses_up_only_its_own_tries(world: World) -> None:
    proxy = world.browser(PROXY)
    answers = [await proxy.told(OPTIONS, "198.51.100.1") for _ in range(61)]
    assert [one.status_code for one in answers] == [200] * 60 + [429]
    assert (await proxy.told(OPTIONS, "192.0.2.66, 198.51.100.1")).status_code == 429
    assert (await proxy.told(OPTIONS, "198.51.100.2")).status_code == 200


async def test_a_client_that_comes_itself_cannot_choose_its_address(world: World) -> None:
    stranger = world.browser("192.0.2.1")
    answers = [await stranger.told(OPTIONS, f"198.51.100.{n}") for n in range(61)]
    assert [one.status_code for one in answers] == [200] * 60 + [429]
    assert (await world.browser("198.51.100.1").script(OPTIONS)).status_code == 200
