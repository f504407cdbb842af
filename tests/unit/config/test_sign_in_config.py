"""`sign_in` in `countersign.yaml`."""

from __future__ import annotations

import pytest

from tests.unit.config.conftest import Load, Mistakes


def provider(**change: str) -> str:
    fields = {"id": "corp", "issuer": "https://idp.example", "client_id": "c"} | change
    inner = ", ".join(f"{name}: {value}" for name, value in fields.items())
    return f"{{{inner}}}"


@pytest.mark.req("TOK-08")
def test_people_sign_in_locally_unless_told_otherwise(load: Load) -> None:
    found = load("").sign_in
    assert (found.local_accounts, found.oidc) == (True, ())
    assert (found.session_max_s, found.session_idle_s, found.cli_max_s) == (43_200, 3_600, 28_800)


@pytest.mark.req("TOK-08")
def test_a_provider_is_read(load: Load) -> None:
    text = provider(client_secret_from="env:S", strong_acr="[mfa]", unknown_people="provision")
    [found] = load(f"sign_in: {{local_accounts: false, oidc: [{text}]}}").sign_in.oidc
    assert (found.scopes, found.person_claim, found.strong_acr) == (("openid",), "sub", ("mfa",))
    assert found.unknown_people == "provision"


@pytest.mark.parametrize(
    ("text", "where"),
    [
        (f"oidc: [{provider(issuer='http://idp.example')}]", "sign_in.oidc[0].issuer"),
        (f"oidc: [{provider(scopes='[email]')}]", "sign_in.oidc[0].scopes"),
        (f"oidc: [{provider()}, {provider()}]", "sign_in.oidc[1].id"),
        (f"oidc: [{provider(unknown_people='admit')}]", "sign_in.oidc[0].unknown_people"),
        ("session_max_s: 300, session_idle_s: 301", "sign_in.session_idle_s"),
        ("session_max_s: 1", "sign_in.session_max_s"),
        ("local_account: true", "sign_in.local_account"),
        ("trusted_proxies: [10.0.0.1/8]", "sign_in.trusted_proxies[0]"),
        ("trusted_proxies: [10.0.0.0/8, proxy]", "sign_in.trusted_proxies[1]"),
        ("trusted_proxies: ['::/0']", "sign_in.trusted_proxies[0]"),
    ],
)
def test_a_mistake_is_told_at_its_place(mistakes: Mistakes, text: str, where: str) -> None:
    told = mistakes(f"sign_in: {{{text}}}")
    assert any(where in line for line in told), told
