"""Whose tries are counted behind a proxy, and that nobody chooses whose (TOK-08)."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from gateway.http.signin_address import find_address, share_of
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


async def test_all_addresses_of_one_network_of_ipv6_have_the_tries_of_one(world: World) -> None:
    places = [world.browser(f"2001:db8:2:3::{n:x}") for n in range(61)]
    answers = [await one.script(OPTIONS) for one in places]
    assert [one.status_code for one in answers] == [200] * 60 + [429]
    guess = await places[0].sign_in(password="guess number one")
    assert guess.status_code == 429
    assert (await world.browser("2001:db8:2:4::1").script(OPTIONS)).status_code == 200


@pytest.mark.parametrize("address", ["192.0.2.1", "", "testclient", "fe80::1%eth0"])
def test_whatever_has_no_network_of_its_own_stands_for_itself(address: str) -> None:
    assert share_of(address) == address


def test_an_old_address_in_a_new_one_is_the_old_one() -> None:
    assert share_of("::ffff:192.0.2.1") == share_of("192.0.2.1")
