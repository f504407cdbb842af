from __future__ import annotations

from pathlib import Path

import pytest

from connectors.auth_binding import UpstreamAuth, find_fault, is_token_url
from connectors.credential_http import CredentialProblem, CredentialReply
from connectors.credentials import build_credential
from connectors.manifest import load_manifest
from connectors.oauth_upstream import AccessToken
from connectors.secret_sources import Secret
from gateway.core.errors import ConfigurationError

pytestmark = pytest.mark.req("TOK-09")

HEAD = "id: a\ntransport: http\ntools: []\nauth: "
OAUTH = "token_url: https://idp.example/token, client_id: gw, client_secret_from: env:S"


def load(tmp_path: Path, auth: str) -> UpstreamAuth | None:
    path = tmp_path / "a.yaml"
    path.write_text(HEAD + auth, encoding="utf-8")
    return load_manifest(path).auth


@pytest.mark.parametrize(
    ("text", "auth"),
    [
        ("none", None),
        ("{value_from: env:S}", UpstreamAuth(value_from="env:S")),
        (
            "{header: X-Key, scheme: 'Token {secret}', value_from: 'file:/run/s'}",
            UpstreamAuth("X-Key", "file:/run/s", scheme="Token {secret}"),
        ),
        (
            "{kind: query, parameter: key, value_from: 'keyring:svc/me'}",
            UpstreamAuth(kind="query", parameter="key", value_from="keyring:svc/me"),
        ),
        (
            "{kind: basic, user: gw, value_from: 'vault:kv/a/b#pw'}",
            UpstreamAuth(kind="basic", user="gw", value_from="vault:kv/a/b#pw"),
        ),
        (
            "{kind: env, variable: KEY, value_from: env:S}",
            UpstreamAuth(kind="env", variable="KEY", value_from="env:S"),
        ),
        (
            "{kind: oauth_client_credentials, scope: a b, resource: 'https://crm.example', "
            + OAUTH
            + "}",
            UpstreamAuth(
                kind="oauth_client_credentials",
                scope="a b",
                resource="https://crm.example",
                token_url="https://idp.example/token",
                client_id="gw",
                client_secret_from="env:S",
            ),
        ),
    ],
)
def test_each_kind_of_binding_is_read(tmp_path: Path, text: str, auth: UpstreamAuth | None) -> None:
    assert load(tmp_path, text) == auth


def test_a_binding_for_each_person_is_read(tmp_path: Path) -> None:
    auth = load(
        tmp_path, "{kind: token_exchange, grant: jwt_bearer, subject: agent, " + OAUTH + "}"
    )
    assert auth is not None
    assert (auth.grant, auth.per, auth.fits) == ("jwt_bearer", "agent", "http")
    auth = load(tmp_path, "{kind: token_exchange, " + OAUTH + "}")
    assert auth is not None
    assert auth.per == "person"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{kind: query, value_from: env:S}", "`parameter` of `auth` is missing"),
        ("{kind: query, parameter: 'a b', value_from: env:S}", "no name of a query parameter"),
        ("{kind: basic, user: 'a:b', value_from: env:S}", "may have no `:`"),
        ("{kind: basic, user: a, header: X, value_from: env:S}", "means nothing for `basic`"),
        ("{kind: env, variable: 'A-B', value_from: env:S}", "no name of a variable"),
        ("{kind: token, value_from: env:S}", "is none of header"),
        ("{header: 'a b', value_from: env:S}", "no name of a header"),
        ("{header: Transfer-Encoding, value_from: env:S}", "frames the request"),
        ("{scheme: Bearer, value_from: env:S}", "`{secret}` in it, once"),
        ("{scheme: '{secret}{secret}', value_from: env:S}", "`{secret}` in it, once"),
        ("{value_from: s3cr3t-s3cr3t}", "does not belong here"),
        ("{value_from: 'vault:kv/no-field'}", "does not belong here"),
        ("{value_from: 'keyring:no-user'}", "does not belong here"),
        ("{kind: oauth_client_credentials, client_id: gw}", "is missing"),
        ("{kind: oauth_client_credentials, audience: x, " + OAUTH + "}", "means nothing"),
        ("{kind: token_exchange, scope: 'a\"b', " + OAUTH + "}", "is no scope"),
        ("{kind: token_exchange, resource: crm, " + OAUTH + "}", "no absolute URI"),
        ("{kind: token_exchange, grant: password, " + OAUTH + "}", "is none of"),
        (
            "{kind: token_exchange, " + OAUTH.replace("https://idp", "http://idp") + "}",
            "must be https",
        ),
    ],
)
def test_a_binding_with_a_mistake_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, text)
    assert problem in str(caught.value)
    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "good"),
    [
        ("https://idp.example/token", True),
        ("http://127.0.0.1:8/token", True),
        ("http://[::1]/token", True),
        ("http://localhost/token", True),
        ("http://idp.example/token", False),
        ("http://127.0.0.1.evil.example/token", False),
        ("https://user@idp.example/token", False),
        ("https://idp.example/token#x", False),
        ("https://idp.example:port/", False),
        ("ftp://idp.example/", False),
        ("https:///token", False),
    ],
)
def test_a_client_secret_goes_over_tls_or_stays_on_this_machine(*, url: str, good: bool) -> None:
    assert is_token_url(url) is good


def test_only_what_was_written_is_checked() -> None:
    assert find_fault(UpstreamAuth(value_from="env:S"), {"value_from"}) is None


def test_a_secret_goes_where_its_binding_says_and_nothing_shows_it() -> None:
    auth = UpstreamAuth(kind="env", variable="KEY", value_from="env:S")
    made = build_credential(auth, Secret("s3cr3t-s3cr3t"))
    assert (made.env, made.headers) == ((("KEY", "s3cr3t-s3cr3t"),), ())
    for value in (
        made,
        Secret("s3cr3t"),
        AccessToken("s3cr3t", 0, 0),
        CredentialReply(200, b"s3c"),
    ):
        assert "s3c" not in repr(value)


def test_a_secret_that_is_no_header_value_is_told() -> None:
    with pytest.raises(CredentialProblem, match="has to be ASCII"):
        build_credential(UpstreamAuth(value_from="env:S"), Secret("größer"))
