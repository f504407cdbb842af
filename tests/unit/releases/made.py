"""Publishers, releases and rows of them, made in memory."""

from __future__ import annotations

from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.core.releases.history import History
from gateway.core.releases.publisher_keys import PrivateKey, public_of
from gateway.core.releases.publishing import Publisher, Rules
from gateway.core.releases.release import Release, build_release
from gateway.core.releases.statement import Signed, Statement, read_statement, sign

LOG: Final = "log.example.com/audit"
NOW_S: Final = 1_700_000_000
MAIN: Final = b"package countersign\n\ndecision := {}\n"

PIA: Final[PrivateKey] = Ed25519PrivateKey.from_private_bytes(b"p" * 32)
PAUL: Final[PrivateKey] = ec.derive_private_key(12_345, ec.SECP256R1())
PIA_AGAIN: Final[PrivateKey] = Ed25519PrivateKey.from_private_bytes(b"q" * 32)
STRANGER: Final[PrivateKey] = Ed25519PrivateKey.from_private_bytes(b"s" * 32)
PEOPLE: Final = {"pia": PIA, "paul": PAUL, "Human:PIA": PIA_AGAIN}


def rules(**over: Any) -> Rules:  # noqa: ANN401 - the fields of `Rules`
    """Return what `prod` asks for; Pia has two keys, under two spellings of her name."""
    publishers = {
        public_of(key).kid: Publisher(name, public_of(key)) for name, key in PEOPLE.items()
    }
    given: dict[str, Any] = {"environment": "prod", "log": LOG, "publishers": publishers}
    return Rules(**given | over)


def release(policy: bytes = b"package policies.house\n", **parts: Any) -> Release:  # noqa: ANN401
    """Return a small release."""
    given: dict[str, Any] = {
        "manifests": {"shop": b"id: shop\n"},
        "endpoints": {"prod": {"shop": {"url": "https://shop.example/mcp"}}},
        "roles": {"prod": {"humans": {}, "clients": {}}},
    }
    files = {
        "countersign/main.rego": MAIN,
        "policies/house.rego": policy,
        "data.json": b'{"limits":{"refund":500}}',
    }
    return build_release(files, **given | parts)


def say(key: PrivateKey, revision: str, number: int = 1, **over: Any) -> Signed:  # noqa: ANN401
    """Return a publisher's word for `prod`."""
    given: dict[str, Any] = {"act": "publish", "env": "prod", "log": LOG, "prev": ""}
    token = sign(key, Statement(**given | {"rev": revision, "number": number} | over))
    return read_statement(token, {public_of(key).kid: public_of(key)})


def record(kind: str, number: int, revision: str, *signed: Signed, **over: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return a record of the log about a release."""
    return {
        "type": kind,
        "op": f"op-{kind}-{number}",
        "ts": NOW_S * 1_000_000,
        "number": number,
        "release": revision,
        "kids": [one.key.kid for one in signed],
        "statements": [one.token for one in signed],
    } | over


def publish(history: History, revision: str, *, active: bool = True, **over: Any) -> int:  # noqa: ANN401
    """Let the next release of a row be published by two, and decide."""
    target = history.target
    prev = "" if target is None else target.revision
    number = history.number + 1
    words = [say(key, revision, number, prev=prev, **over) for key in (PIA, PAUL)]
    kind = f"policy.{words[0].statement.act}"
    shadow_s = words[0].statement.shadow_s
    history.fold(record(kind, number, revision, *words, shadow_s=shadow_s))
    if active:
        history.fold(record("policy.activate", number, revision, *words))
    return number
