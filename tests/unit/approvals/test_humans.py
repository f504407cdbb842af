from __future__ import annotations

import hashlib

import pytest

from gateway.core.errors import ConfigurationError, CredentialError
from gateway.http.humans import Human, HumanEntry, Humans


def entry(name: str, secret: str, *roles: str) -> HumanEntry:
    return HumanEntry(name, roles, "sha256:" + hashlib.sha256(secret.encode()).hexdigest())


PEOPLE = Humans([entry("ann", "s1", "approver"), entry("bob", "s2", "approver", "finance")])


@pytest.mark.req("GW-12")
def test_a_person_is_known_by_the_secret_alone() -> None:
    assert PEOPLE.authenticate("Bearer s1") == Human("ann", ("approver",))
    assert PEOPLE.authenticate("bearer  s2") == Human("bob", ("approver", "finance"))


@pytest.mark.req("GW-12")
@pytest.mark.parametrize(
    "header", ["Bearer s3", "Bearer S1", "Bearer s1 s2", "Bearer ann", "Bearer é"]
)
def test_another_secret_is_nobody_s(header: str) -> None:
    with pytest.raises(CredentialError) as raised:
        PEOPLE.authenticate(header)
    assert raised.value.code == "token_invalid"
    assert header.removeprefix("Bearer ") not in str(raised.value).split()


def test_nobody_is_known_where_nobody_is_configured() -> None:
    with pytest.raises(CredentialError):
        Humans([]).authenticate("Bearer s1")


def test_everyone_is_listed_with_their_roles() -> None:
    assert PEOPLE.everyone() == {"ann": ("approver",), "bob": ("approver", "finance")}


@pytest.mark.parametrize(
    "stored", ["", "s1", "sha256:", "sha256:zz", "sha256:00", "sha512:" + "0" * 64]
)
def test_a_hash_that_is_none_is_a_configuration_error(stored: str) -> None:
    with pytest.raises(ConfigurationError, match="secret_hash of `ann`"):
        Humans([HumanEntry("ann", (), stored)])
