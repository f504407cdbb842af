"""Clients that prove themselves by a key: `private_key_jwt` (RFC 7523)."""

from __future__ import annotations

import dataclasses
import hmac
import itertools
import json
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

from gateway.adapters.keys.jose_assertions import (
    CACHE_MAX,
    KEYS_MAX,
    JoseAssertions,
    find_key_set_fault,
    load_key_set,
)
from gateway.adapters.state.memory_spent import MemorySpent
from gateway.adapters.state.sql_spent import SqlSpent
from gateway.adapters.state.sql_store import SqlState
from gateway.core.errors import ConfigurationError, CountersignError
from gateway.core.oauth.client_assertion import ASSERTION_MAX_BYTES, ASSERTION_TYPE, AssertionClaims
from gateway.core.ports import SpentNames
from gateway.core.tokens.clients import Agent, Launcher, hash_secret
from gateway.core.tokens.token import Grant
from gateway.http.client_auth import Presented
from gateway.http.issue_desk import IssueDesk
from tests.unit.tokens.proofs import Holder, encode

if TYPE_CHECKING:
    from pathlib import Path

    import httpx

    from tests.unit.tokens.conftest import World

pytestmark = pytest.mark.req("TOK-02")

URL = "https://gateway.test"
HOLDER, STRANGER = Holder(), Holder()
RSA = Holder(generate_private_key(65_537, 2_048), "RS256")
EDWARDS = Holder(Ed25519PrivateKey.generate(), "EdDSA")
READS = (Grant("shop", "*", ("read",)),)
FORM = {"grant_type": "client_credentials", "client_assertion_type": ASSERTION_TYPE}
_numbers = itertools.count()


def keyed(*holders: Holder, **changes: Any) -> Agent:  # noqa: ANN401 - any field
    jwks = tuple(holder.public() for holder in holders)
    return Agent(**{"id": "keyed", "grants": READS, "jwks": jwks, **changes})


@pytest.fixture
def served(world: World) -> World:
    """A gateway whose agent `keyed` has three keys and no secret."""
    world.connect(keyed(HOLDER, RSA, EDWARDS), Agent(id="bot", secret_hash=hash_secret("s")))
    return world


def build(
    world: World,
    holder: Holder = HOLDER,
    *,
    header: dict[str, Any] | None = None,
    **changes: Any,  # noqa: ANN401 - JSON
) -> str:
    claims = {
        "iss": "keyed",
        "sub": "keyed",
        "aud": URL,
        "exp": world.clock.now_s + 60,
        "jti": f"a{next(_numbers)}",
        **changes,
    }
    said = {name: value for name, value in claims.items() if value is not None}
    signed = holder.sign(header or {"alg": holder.algorithm}, json.dumps(said).encode())
    return signed.decode()


async def ask(world: World, assertion: str, **form: str) -> httpx.Response:
    data = {**FORM, "client_assertion": assertion, **form}
    return await world.client.post("/oauth/token", data=data)


async def error_of(world: World, assertion: str, **form: str) -> str:
    reply = await ask(world, assertion, **form)
    return "none" if reply.status_code == 200 else str(reply.json()["error"])


@pytest.mark.parametrize("holder", [HOLDER, RSA, EDWARDS], ids=["ES256", "RS256", "EdDSA"])
async def test_an_assertion_by_a_key_of_the_client_gets_a_token(
    served: World, holder: Holder
) -> None:
    reply = await ask(served, build(served, holder))
    assert reply.status_code == 200, reply.text
    claims = served.verifier.verify(reply.json()["access_token"].encode(), served.clock.now_s)
    assert claims.subject == "keyed"


@pytest.mark.parametrize("audience", [URL, URL + "/oauth/token", [URL], [URL + "/oauth/token"]])
async def test_the_issuer_and_the_token_endpoint_are_audiences(
    served: World, audience: object
) -> None:
    assert await error_of(served, build(served, aud=audience)) == "none"


@pytest.mark.parametrize("typ", ["JWT", "client-authentication+jwt"])
async def test_the_types_of_assertions_are_taken(served: World, typ: str) -> None:
    assert await error_of(served, build(served, header={"alg": "ES256", "typ": typ})) == "none"


async def test_naming_the_client_besides_is_fine_if_it_is_the_same(served: World) -> None:
    assert await error_of(served, build(served), client_id="keyed") == "none"
    assert await error_of(served, build(served), client_id="bot") == "invalid_client"


async def test_an_assertion_counts_once(served: World) -> None:
    assertion = build(served)
    assert await error_of(served, assertion) == "none"
    assert await error_of(served, assertion) == "invalid_client"
    assert served.refused[-1] == ("authenticate", "client_invalid")


async def test_what_an_assertion_has_to_be_is_told_without_saying_what_this_one_lacks(
    served: World,
) -> None:
    strange = build(served, sub="nobody", iss="nobody")
    long = build(served, exp=served.clock.now_s + 3_600)
    said = {(await ask(served, one)).json()["error_description"] for one in (strange, long)}
    assert len(said) == 1
    assert "lives for 300 s at most" in said.pop()


async def test_a_jti_may_not_come_back_in_a_new_assertion(served: World) -> None:
    assert await error_of(served, build(served, jti="same")) == "none"
    again = build(served, jti="same", exp=served.clock.now_s + 61)
    assert await error_of(served, again) == "invalid_client"


async def test_no_client_uses_up_the_names_of_another_s_assertions(world: World) -> None:
    world.connect(keyed(HOLDER), keyed(STRANGER, id="keyed.eu"))
    assert await error_of(world, build(world, jti="eu.7")) == "none"
    theirs = build(world, STRANGER, iss="keyed.eu", sub="keyed.eu", jti="7")
    assert await error_of(world, theirs) == "none"


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "bot"},
        {"sub": "bot"},
        {"sub": "nobody", "iss": "nobody"},
        {"iss": None},
        {"sub": None},
        {"aud": None},
        {"aud": "https://other.test"},
        {"aud": [URL, "https://other.test"]},
        {"aud": [URL, URL + "/oauth/token"]},
        {"aud": []},
        {"aud": URL + "/mcp"},
        {"jti": None},
        {"jti": ""},
        {"jti": "j" * 257},
        {"exp": None},
        {"exp": "soon"},
        {"exp": 1_800_000_000 - 60},
        {"exp": 1_800_000_000 + 361},
        {"nbf": 1_800_000_000 + 61},
        {"iat": 1_800_000_000 + 61},
    ],
)
async def test_an_assertion_that_says_something_else_proves_nobody(
    served: World, changes: dict[str, Any]
) -> None:
    assert await error_of(served, build(served, **changes)) == "invalid_client"


@pytest.mark.parametrize("exp", [-59, 60, 360])
async def test_a_clock_may_be_a_minute_off(served: World, exp: int) -> None:
    assert await error_of(served, build(served, exp=served.clock.now_s + exp)) == "none"


def confused(served: World) -> str:
    head = encode(json.dumps({"alg": "HS256"}).encode())
    body = build(served).split(".")[1].encode()
    key = json.dumps(HOLDER.public()).encode()
    tag = hmac.digest(key, head + b"." + body, "sha256")
    return b".".join((head, body, encode(tag))).decode()


BAD: dict[str, Callable[[World], str]] = {
    "by another key": lambda w: build(w, STRANGER),
    "by its own jwk": lambda w: build(
        w, STRANGER, header={"alg": "ES256", "jwk": STRANGER.public()}
    ),
    "alg none": lambda w: build(w, header={"alg": "none"}),
    "HS256 with the public key": confused,
    "another algorithm's name": lambda w: build(w, header={"alg": "RS256"}),
    "PS256": lambda w: build(w, RSA, header={"alg": "PS256"}),
    "crit": lambda w: build(w, header={"alg": "ES256", "crit": ["b64"]}),
    "an access token": lambda w: build(w, header={"alg": "ES256", "typ": "at+jwt"}),
    "a proof": lambda w: build(w, header=HOLDER.header()),
    "altered": lambda w: build(w)[:-8] + "AAAAAAAA",
    "unsigned": lambda w: build(w).rsplit(".", 1)[0] + ".",
    "two parts": lambda w: build(w).rsplit(".", 1)[0],
    "no header": lambda w: "." + build(w).split(".", 1)[1],
    "no object": lambda _: HOLDER.sign({"alg": "ES256"}, b"7").decode(),
    "large": lambda w: build(w, extra="x" * ASSERTION_MAX_BYTES),
}


@pytest.mark.parametrize("kind", BAD)
async def test_what_no_key_of_the_client_signed_proves_nobody(served: World, kind: str) -> None:
    assert await error_of(served, BAD[kind](served)) == "invalid_client"


@pytest.mark.parametrize(
    "form",
    [
        {"client_secret": "s"},
        {"client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:saml2-bearer"},
        {"client_assertion_type": ""},
        {"client_assertion": ""},
    ],
)
async def test_proving_oneself_twice_or_by_halves_is_refused(
    served: World, form: dict[str, str]
) -> None:
    assert await error_of(served, build(served), **form) == "invalid_request"


async def test_basic_beside_an_assertion_is_refused(served: World) -> None:
    data = {**FORM, "client_assertion": build(served)}
    reply = await served.client.post("/oauth/token", data=data, auth=("bot", "s"))
    assert reply.json()["error"] == "invalid_request"


async def test_a_client_with_keys_has_no_secret(world: World) -> None:
    world.connect(keyed(HOLDER, secret_hash=hash_secret("left over")))
    assert (await world.token("keyed", "left over")).status_code == 401


async def test_a_client_without_keys_is_not_proved_by_any(served: World) -> None:
    assertion = build(served, STRANGER, iss="bot", sub="bot")
    assert await error_of(served, assertion) == "invalid_client"


async def test_a_kid_chooses_among_the_keys_of_the_client(world: World) -> None:
    named = ({**HOLDER.public(), "kid": "one"}, {**STRANGER.public(), "kid": "two"})
    world.connect(keyed(jwks=named))
    fits = build(world, header={"alg": "ES256", "kid": "one"})
    other = build(world, header={"alg": "ES256", "kid": "two"})
    assert [await error_of(world, fits), await error_of(world, other)] == ["none", "invalid_client"]


class FullDisk(MemorySpent):
    async def spend(self, name: bytes, until_s: int, now_s: int) -> bool:
        assert name
        assert until_s > now_s
        raise CountersignError("the disk is full", code="state_unavailable")


async def test_where_it_cannot_be_spent_nobody_is_believed(world: World) -> None:
    world.spent = FullDisk()
    world.connect(keyed(HOLDER))
    reply = await ask(world, build(world))
    assert (reply.status_code, reply.json()["error"]) == (503, "temporarily_unavailable")


async def test_a_launcher_proves_itself_at_the_runs_too(world: World) -> None:
    launcher = Launcher(
        id="keyed", may_launch=("bot",), grants=READS, secret_hash="", jwks=(HOLDER.public(),)
    )
    world.connect(launcher, Agent(id="bot"))
    body = {"agent": "bot", "grants": [{"server": "shop", "effects": ["read"]}]}
    assertion = build(world)
    answers = [
        await world.client.post("/v1/runs", json=body, headers={"Authorization": text})
        for text in (f"Bearer {assertion}", f"Bearer {assertion}", "Bearer nonsense", "Bearer ")
    ]
    assert [answer.status_code for answer in answers] == [201, 401, 401, 401]


async def test_an_agents_assertion_creates_no_run(served: World) -> None:
    headers = {"Authorization": f"Bearer {build(served)}"}
    assert (await served.client.post("/v1/runs", json={}, headers=headers)).status_code == 401


@pytest.fixture(params=["memory", "sql"])
async def spent(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SpentNames]:
    if request.param == "memory":
        yield MemorySpent()
        return
    state = SqlState(f"sqlite:///{tmp_path}/state.db")
    await state.open(environment="test", log_origin="o")
    yield SqlSpent(state)
    await state.close()


async def test_a_name_is_spent_once_until_its_end(spent: SpentNames) -> None:
    assert await spent.spend(b"a", 100, 50)
    assert await spent.spend(b"b", 100, 50)
    assert not await spent.spend(b"a", 200, 100)
    assert await spent.spend(b"a", 200, 101)


async def test_a_spent_name_stays_spent_over_a_restart(tmp_path: Path) -> None:
    for first in (True, False):
        state = SqlState(f"sqlite:///{tmp_path}/state.db")
        await state.open(environment="test", log_origin="o")
        assert await SqlSpent(state).spend(b"a", 100, 50) is first
        await state.close()


def test_only_so_many_keys_are_kept_parsed() -> None:
    reader = JoseAssertions()
    reader._keys = dict.fromkeys((b"%d" % n for n in range(CACHE_MAX)), None)  # noqa: SLF001 - filled
    claims = {"iss": "a", "sub": "a", "aud": "b", "exp": 1, "jti": "c"}
    assertion = HOLDER.sign({"alg": "ES256"}, json.dumps(claims).encode())
    assert reader.read(assertion, (HOLDER.public(),)).jti == "c"
    assert len(reader._keys) == 1  # noqa: SLF001 - its bound


async def test_without_a_judge_of_assertions_nobody_is_proved_by_one(world: World) -> None:
    deps = dataclasses.replace(world.deps, assertions=None)
    assert await IssueDesk(deps).authenticate(Presented("keyed", "", "a.b.c")) is None


def test_keys_are_parsed_once_and_a_bad_one_is_passed_over() -> None:
    reader = JoseAssertions()
    jwks = ({"kty": "EC", "crv": "P-256", "x": "?", "y": "?"}, HOLDER.public())
    claims = {"iss": "a", "sub": "a", "aud": "b", "exp": 1, "jti": "c"}
    assertion = HOLDER.sign({"alg": "ES256"}, json.dumps(claims).encode())
    expected = AssertionClaims("a", "a", "b", 1, "c")
    assert [reader.read(assertion, jwks) for _ in range(2)] == [expected] * 2


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {},
        {"keys": []},
        {"keys": [7]},
        {"keys": [{"kty": "oct", "k": "AAAA"}]},
        {"keys": [HOLDER.jwk.as_dict(private=True)]},
        {"keys": [{**HOLDER.public(), "use": "enc"}]},
        {"keys": [{**HOLDER.public(), "alg": "ES384"}]},
        {"keys": [HOLDER.public()] * (KEYS_MAX + 1)},
    ],
)
def test_a_key_set_that_does_not_do_is_told(document: object) -> None:
    assert find_key_set_fault(document) is not None


def test_a_key_set_of_public_keys_does() -> None:
    keys = [HOLDER.public(), {**RSA.public(), "use": "sig", "alg": "RS256"}, EDWARDS.public()]
    assert find_key_set_fault({"keys": keys}) is None


@pytest.mark.parametrize("text", [None, "no json"])
def test_a_file_that_holds_no_key_set_is_told(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "jwks.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigurationError, match=r"jwks\.json"):
        load_key_set(path)
