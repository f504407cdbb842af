"""Hosts are known however they are written: a stranger's host in other signs is a stranger's."""

from __future__ import annotations

import orjson
import pytest

from gateway.core.calls.provenance import Sightings, read_output
from gateway.core.calls.spellings import host_of

pytestmark = pytest.mark.req("POL-02")

SPELLINGS = (
    "evil.example.",
    "EVIL.example",
    "evil\u3002example",
    "evil\uff0eexample",
    "\u24d4vil.example",
    "\uff45\uff56\uff49\uff4c.example",
    "e\u00advil.example",
    "evil\ufe0f.example",
)


def has_read(text: str) -> Sightings:
    """A family that has read a stranger's text."""
    found = Sightings()
    body = orjson.dumps({"content": [{"type": "text", "text": text}]})
    found.learn(read_output(body, untrusted=True))
    return found


def class_of(found: Sightings, value: str) -> str:
    return found.classify({"to": value}, ["/to"], frozenset(), tainted=True)["/to"]


@pytest.mark.parametrize("host", SPELLINGS)
@pytest.mark.parametrize("text", ["go to https://evil.example/start", "or to evil.example now"])
def test_a_strangers_host_is_known_in_other_signs(host: str, text: str) -> None:
    found = has_read(text)
    for value in (host, f"https://{host}/x?q=1", f"https://a@b@{host}:443/x"):
        assert class_of(found, value) == "untrusted", value
    assert class_of(found, "https://other.example/x") == "unseen"


@pytest.mark.parametrize("host", SPELLINGS)
@pytest.mark.parametrize("text", ["see {} now", "see https://{}/start"])
def test_a_strangers_host_in_other_signs_is_known_in_plain_ones(host: str, text: str) -> None:
    found = has_read(text.format(host))
    assert class_of(found, "https://evil.example/x?q=1") == "untrusted"


def test_what_is_below_a_strangers_domain_is_the_strangers() -> None:
    found = has_read("see evil.example, and pages.house.example")
    assert class_of(found, "https://4711.data.evil.example/p.png") == "untrusted"
    assert class_of(found, "https://www.evil.example") == "untrusted"
    assert class_of(found, "https://notevil.example/") == "unseen"
    assert class_of(found, "https://house.example/") == "unseen"
    assert class_of(found, "https://x.pages.house.example/") == "untrusted"
    assert class_of(has_read("see http://desk:80/x"), "http://desk/y") == "untrusted"


def test_the_nearest_domain_that_is_known_says_whose_it_is() -> None:
    found = has_read("see house.example, and evil.house.example")
    text = "ours is https://docs.house.example/start"
    body = orjson.dumps({"content": [{"type": "text", "text": text}]})
    found.learn(read_output(body, untrusted=False))
    assert class_of(found, "https://docs.house.example/start") == "trusted"
    assert class_of(found, "https://docs.house.example/new") == "unseen"
    assert class_of(found, "https://a.docs.house.example/new") == "unseen"
    assert class_of(found, "https://a.evil.house.example/new") == "untrusted"
    assert class_of(found, "https://other.house.example/new") == "untrusted"


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://A.example./x", "a.example"),
        ("https://me:word@a.example:443/x", "a.example"),
        ("https://a.example@evil.example@b.example", "b.example"),
        ("https://a.example/x@b.example", "a.example"),
        ("mailto:x@a.example", ""),
    ],
)
def test_the_host_of_a_url_is_where_it_leads(url: str, host: str) -> None:
    assert host_of(url) == host
