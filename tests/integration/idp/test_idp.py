"""The provider that other tests lean on does what they take for granted."""

from __future__ import annotations

from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from tests.integration.idp.provider import Idp

pytestmark = pytest.mark.network

BACK = "http://127.0.0.1:9/back"  # nobody listens there: the last redirect is never followed
GATEWAY = "https://gateway.example"


def read(token: str, idp: Idp) -> tuple[dict[str, Any], dict[str, Any]]:
    keys = KeySet.import_key_set(idp.jwks())  # type: ignore[arg-type]
    found = jwt.decode(token, keys, algorithms=["ES256"])
    return found.header, found.claims


def test_a_person_signs_in_and_gets_an_id_token(idp: Idp) -> None:
    client = idp.register(BACK)
    signed_in = idp.sign_in("ann", client, BACK, scope="openid email", acr="urn:test:passkey")
    tokens = idp.redeem(signed_in, client, BACK)
    _, claims = read(tokens["id_token"], idp)
    assert (claims["sub"], claims["email"]) == ("ann", "ann@idp.example")
    assert (claims["iss"], claims["aud"]) == (idp.issuer, client.id)
    assert (claims["nonce"], claims["acr"]) == (signed_in.nonce, "urn:test:passkey")
    assert signed_in.issuer == idp.issuer


def test_a_person_gets_an_access_token_for_a_resource(idp: Idp) -> None:
    client = idp.register(BACK, token_endpoint_auth_method="none")
    tokens = idp.user_tokens("ann", client, BACK, scope="openid agents:act", resource=GATEWAY)
    header, claims = read(tokens["access_token"], idp)
    assert (header["typ"], header["alg"]) == ("at+jwt", "ES256")
    assert (claims["sub"], claims["aud"], claims["scope"]) == ("ann", GATEWAY, "agents:act")
    assert claims["client_id"] == client.id


def test_a_client_gets_an_access_token_for_itself(idp: Idp) -> None:
    _, claims = read(idp.client_tokens(resource=GATEWAY)["access_token"], idp)
    assert (claims["sub"], claims["aud"]) == ("robot", GATEWAY)


def test_an_identity_assertion_is_signed_by_the_provider(idp: Idp) -> None:
    assertion = idp.id_jag("ann", audience=GATEWAY, client_id="desk", scope="tools:call")
    header, claims = read(assertion, idp)
    assert (header["typ"], claims["sub"], claims["aud"]) == ("oauth-id-jag+jwt", "ann", GATEWAY)
    assert (claims["client_id"], claims["iss"]) == ("desk", idp.issuer)
