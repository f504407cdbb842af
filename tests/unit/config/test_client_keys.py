"""How clients prove themselves, in `countersign.yaml`: a secret, or keys."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.config.conftest import Load, Mistakes
from tests.unit.tokens.proofs import Holder

pytestmark = pytest.mark.req("TOK-02")

HOLDER = Holder()
KEYS = {"keys": [HOLDER.public()]}
PRIVATE = {"keys": [HOLDER.jwk.as_dict(private=True)]}
HASH = "sha256:" + "0" * 64


def client(kind: str = "agent", **keys: object) -> str:
    return json.dumps({"clients": [{"kind": kind, "id": "a", **keys}]})


def test_a_client_may_have_keys_in_place_of_a_secret(load: Load, tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_text(json.dumps(KEYS))
    inline = load(client("launcher", jwks=KEYS)).client_registry().launcher("a")
    filed = load(client(jwks_file="keys.json", dpop="required")).client_registry().agent("a")
    assert inline is not None
    assert filed is not None
    assert (inline.jwks, inline.secret_hash) == ((HOLDER.public(),), "")
    assert (filed.jwks, filed.dpop) == ((HOLDER.public(),), True)


def test_an_agent_without_either_acts_in_runs_only(load: Load) -> None:
    found = load(client()).client_registry().agent("a")
    assert found is not None
    assert (found.jwks, found.secret_hash, found.dpop) == ((), "", False)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (client(jwks=KEYS, secret_hash=HASH), "jwks: `secret_hash` and `jwks` both prove"),
        (client(jwks=KEYS, jwks_file="x"), "jwks_file: `jwks` and `jwks_file` both prove"),
        (client(jwks=PRIVATE), "jwks: key 0 is no public key"),
        (client(jwks={}), "jwks: a JWK set is an object with `keys`"),
        (client(jwks_file="none.json"), "jwks_file: `none.json` cannot be read"),
        (client(jwks_file="shop.yaml"), "jwks_file: `shop.yaml` is no JSON"),
        (client("launcher"), "secret_hash: `secret_hash` is missing; give it one, or public keys"),
    ],
)
def test_keys_that_do_not_do_are_told(mistakes: Mistakes, text: str, expected: str) -> None:
    found = mistakes(text)
    assert any(expected in line for line in found), found


def test_a_file_of_bad_keys_is_told(mistakes: Mistakes, tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_text(json.dumps(PRIVATE))
    (line,) = mistakes(client(jwks_file="keys.json"))
    assert "jwks_file: key 0 is no public key" in line
    assert str(PRIVATE["keys"][0]["d"]) not in line


@pytest.mark.req("TOK-05")
def test_proofs_need_a_nonce_unless_the_configuration_says_else(load: Load) -> None:
    assert load("").tokens.dpop_nonces
    assert not load("tokens: {dpop_nonces: false}").tokens.dpop_nonces
