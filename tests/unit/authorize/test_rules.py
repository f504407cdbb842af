"""Narrowing never widens, redirects are compared exactly, and what apps can be."""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.oauth.apps import App, Apps, Strangers
from gateway.core.oauth.authorization import (
    answer_url,
    choices,
    find_redirect_fault,
    is_same_redirect,
    is_verifier,
    narrow,
    speaker,
)
from gateway.core.tokens.grants import EFFECTS, find_ambiguity, find_excess
from gateway.core.tokens.token import Constraint, Grant

pytestmark = pytest.mark.req("TOK-02")

SERVERS = ("shop", "mail")
TOOLS = ("*", "refund", "send")
KNOWN = {("shop", "refund"): "money", ("mail", "send"): "external_send"}

grants = st.lists(
    st.builds(
        Grant,
        server=st.sampled_from(SERVERS),
        tool=st.sampled_from(TOOLS),
        effects=st.lists(st.sampled_from(EFFECTS), unique=True, max_size=3).map(tuple),
        constraints=st.sampled_from(({}, {"/amount": Constraint(max=5)})),
        max_calls=st.sampled_from((None, 0, 3)),
    ),
    max_size=6,
).filter(lambda found: find_ambiguity(found) is None)
kept = st.frozensets(st.tuples(st.sampled_from(SERVERS), st.sampled_from(EFFECTS)), max_size=8)


def effect_of(server: str, tool: str) -> str | None:
    return KNOWN.get((server, tool))


@given(grants, kept)
def test_what_is_left_is_never_more_than_what_there_was(
    given_: list[Grant], left: frozenset[tuple[str, str]]
) -> None:
    found = narrow(given_, left, effect_of)
    assert find_excess(given_, found) is None
    assert find_excess(given_, found, effect_of) is None


@given(grants, kept)
def test_nothing_that_was_unticked_can_be_called(
    given_: list[Grant], left: frozenset[tuple[str, str]]
) -> None:
    found = narrow(given_, left, effect_of)
    for server in SERVERS:
        for tool in (*TOOLS, "other"):
            for effect in EFFECTS:
                known = effect_of(server, tool)
                possible = known is None or known == effect
                if possible and speaker(found, server, tool, effect) is not None:
                    assert (server, effect) in left


@given(grants)
def test_everything_ticked_leaves_what_can_be_called(given_: list[Grant]) -> None:
    offered = frozenset(choices(given_, effect_of))
    found = narrow(given_, offered, effect_of)
    for server in SERVERS:
        for tool in (*TOOLS, "other"):
            for effect in EFFECTS:
                if effect_of(server, tool) not in (None, effect):
                    continue
                before = speaker(given_, server, tool, effect)
                after = speaker(found, server, tool, effect)
                assert (before is None) == (after is None)


def test_an_unticked_named_tool_does_not_fall_to_the_wide_grant() -> None:
    wide = (Grant("shop", "refund", ("read",)), Grant("shop", "*", ("money",)))
    found = narrow(wide, {("shop", "money")}, lambda _server, _tool: None)
    assert speaker(found, "shop", "refund", "money") is None


@pytest.mark.parametrize(
    "uri",
    [
        "https://app.example/cb",
        "https://app.example:8443/cb?x=1",
        "http://127.0.0.1/cb",
        "http://[::1]:3000/cb",
        "http://localhost:3000",
        "cursor://anysphere.cursor-retrieval/oauth/cb",
        "com.example.app:/cb",
    ],
)
def test_what_may_be_a_redirect_uri(uri: str) -> None:
    assert find_redirect_fault(uri) is None


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "cb",
        "/cb",
        "//app.example/cb",
        "http://app.example/cb",
        "https:///cb",
        "https://a;script-src/cb",
        "https://a,default-src/cb",
        "https://a'unsafe-inline'/cb",
        "https://[::1/cb",
        "http://127.0.0.1;x/cb",
        "https://app.example/cb#",
        "https://user@app.example/cb",
        "com.example.app://user@app/cb",
        "com.example.app://:secret@app/cb",
        "com.example.app://äpp/cb",
        "com.example.app:/cb#x",
        "com_example.app:/cb",
        "https://app.example/c b",
        "https://app.example/\\evil",
        "https://äpp.example/cb",
        "http://127.0.0.1:99999/cb",
        "http://127.0.0.1:/cb",
        "javascript:alert(1)",
        "data:text/html,x",
        "file:///etc/passwd",
        "blob:https://app.example/x",
        "https://app.example/" + "x" * 2_000,
    ],
)
def test_what_may_not(uri: str) -> None:
    assert find_redirect_fault(uri) is not None


@given(st.text(max_size=60))
def test_only_the_same_text_is_the_same_redirect(text: str) -> None:
    known = "https://app.example/cb"
    assert is_same_redirect(known, text) is (text == known)


@given(st.integers(min_value=1, max_value=65_535))
def test_a_port_of_loopback_is_not_compared(port: int) -> None:
    assert is_same_redirect("http://127.0.0.1/cb", f"http://127.0.0.1:{port}/cb")
    assert not is_same_redirect("http://127.0.0.1/cb", f"http://localhost:{port}/cb")
    assert not is_same_redirect("https://a.example/cb", f"https://a.example:{port}/cb")


def test_an_overlong_redirect_is_none() -> None:
    assert not is_same_redirect("http://127.0.0.1/cb", "http://127.0.0.1:1/" + "x" * 2_000)


@given(st.text(alphabet="abcXYZ019-._~", min_size=43, max_size=128), st.text(max_size=130))
def test_only_the_verifier_fits_its_challenge(verifier: str, other: str) -> None:
    digest = hashlib.sha256(verifier.encode()).digest()
    challenge = urlsafe_b64encode(digest).decode().rstrip("=")
    assert is_verifier(verifier, challenge)
    assert is_verifier(other, challenge) is (other == verifier)


def test_an_answer_joins_the_apps_own_query() -> None:
    url = answer_url("https://app.example/cb?x=1", "https://g.example", "a b&c", code="k")
    assert url == ("https://app.example/cb?x=1&code=k&state=a+b%26c&iss=https%3A%2F%2Fg.example")
    assert "state" not in answer_url("https://app.example/cb", "https://g.example", None, code="k")


def test_an_app_gives_no_more_than_it_has_and_to_its_one_agent() -> None:
    app = App(id="a", name="A", agent="bot", redirect_uris=(), grants=(Grant("shop"),), owner="o")
    apps = Apps([app])
    launcher = apps.launcher("a")
    assert launcher is not None
    assert (launcher.may_launch, launcher.grants) == (("bot",), app.grants)
    assert launcher.humans == app.humans
    assert launcher.secret_hash == ""
    assert (apps.owners("a"), apps.owners("b")) == (("o",), ())
    assert apps.launcher("b") is None


def test_an_app_of_a_host_that_is_no_longer_allowed_gives_nothing() -> None:
    url = "https://apps.example/c"
    allowed = Strangers(agent="bot", documents=True, hosts=("apps.example",))
    assert Apps(strangers=allowed).launcher(url) is not None
    for strangers in (
        Strangers(agent="bot", documents=True, hosts=("other.example",)),
        Strangers(agent="bot", documents=False, hosts=("apps.example",)),
    ):
        assert Apps(strangers=strangers).launcher(url) is None
    assert Apps(strangers=allowed).launcher("https://[bad/c") is None
