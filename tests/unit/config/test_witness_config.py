"""Witnesses and anchors in `countersign.yaml`."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import structlog.testing
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.adapters.audit.memory_audit import MemoryAuditLog
from gateway.adapters.system import SystemClock, SystemIds
from gateway.config.models import FileAnchorSection, S3AnchorSection
from gateway.core.errors import ConfigurationError
from gateway.core.log import note
from gateway.core.log.cosignature import build_witness_key, build_witness_vkey
from gateway.wiring.witness import build_witnessing
from tests.unit.config.conftest import Load, Mistakes

pytestmark = pytest.mark.req("AUD-08")


def vkey(seed: int, name: str = "witness.example/a") -> str:
    private = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
    return build_witness_vkey(build_witness_key(name, private.public_key().public_bytes_raw()))


def witnesses(*entries: str, more: str = "") -> str:
    return f"audit: {{witness: {{witnesses: [{', '.join(entries)}]{more}}}}}"


ONE = f"{{url: 'https://one.example/w/', vkey: {vkey(1)}}}"
TWO = f"{{url: 'http://127.0.0.1:8000', vkey: {vkey(2, 'witness.example/b')}, name: two}}"


def test_witnesses_and_anchors_are_read(load: Load, tmp_path: Path) -> None:
    config = load(
        witnesses(ONE, TWO, more=", quorum: 2, interval_s: 10")[:-1]
        + ", anchors: [{type: file, path: drop}, {type: s3, bucket: log, lock_days: 30}]}"
    )
    found = config.audit.witness
    assert (found.quorum, found.interval_s, found.alert_after_s) == (2, 10, 300)
    assert found.key == tmp_path / "keys" / "witness.pem"
    assert [one.name for one in found.witnesses] == ["", "two"]
    drop, bucket = config.audit.anchors
    assert isinstance(drop, FileAnchorSection)
    assert drop.path == tmp_path / "drop"
    assert isinstance(bucket, S3AnchorSection)
    assert bucket.access_key_from == "env:AWS_ACCESS_KEY_ID"


def test_a_variable_may_say_how_many(load: Load) -> None:
    found = load(witnesses(ONE, TWO), AUDIT__WITNESS__QUORUM="2")
    assert found.audit.witness.quorum == 2


LOG_KEY = note.build_vkey(note.build_key("a", Ed25519PrivateKey.generate().public_key()))
WRONG = {
    "a quorum of nobody": ("audit: {witness: {quorum: 2}}", "quorum: 2 of 0 witnesses"),
    "a quorum past all": (witnesses(ONE, more=", quorum: 2"), "quorum: 2 of 1 witnesses"),
    "a witness named twice": (witnesses(ONE, ONE), "another witness has this name or key"),
    "one key under two names": (
        witnesses(ONE, f"{{url: 'https://x', vkey: {vkey(1, 'witness.example/c')}}}"),
        "witnesses[1]: another witness has this name or key",
    ),
    "a key of a log": (
        witnesses(f"{{url: 'https://x', vkey: {LOG_KEY}}}"),
        "cosignatures are of algorithm 0x04",
    ),
    "no url": (witnesses(f"{{url: 'one', vkey: {vkey(1)}}}"), "is no URL"),
    "a url in the clear": (
        witnesses(f"{{url: 'http://one.example', vkey: {vkey(1)}}}"),
        "checkpoints would cross the network in the clear",
    ),
    "told at every turn": (
        witnesses(ONE, more=", interval_s: 60, alert_after_s: 30"),
        "every interval would be told",
    ),
    "a shared key file": (
        witnesses(ONE, more=", key: keys/kek"),
        "shares its file with `audit.kek`",
    ),
    "an anchor of no kind": ("audit: {anchors: [{type: tape}]}", "audit.anchors[0]"),
    "an endpoint in the clear": (
        "audit: {anchors: [{type: s3, bucket: log, lock_days: 1, url: 'http://s3.example'}]}",
        "checkpoints would cross the network in the clear",
    ),
    "no lock": ("audit: {anchors: [{type: s3, bucket: log, lock_days: 0}]}", "lock_days"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_makes_no_sense_is_told(mistakes: Mistakes, name: str) -> None:
    text, expected = WRONG[name]
    (found,) = mistakes(text)
    assert expected in found


async def test_nobody_configured_is_nothing_built(load: Load) -> None:
    audit = MemoryAuditLog()
    found = build_witnessing(load("").audit, audit=audit, clock=SystemClock(), ids=SystemIds())
    assert found is None


async def test_the_key_for_the_witnesses_is_made_and_told(load: Load, tmp_path: Path) -> None:
    with structlog.testing.capture_logs() as logs:
        built = build_witnessing(
            load(witnesses(ONE)).audit,
            audit=MemoryAuditLog(),
            clock=SystemClock(),
            ids=SystemIds(),
        )
    assert built is not None
    _, http = built
    await http.aclose()
    (line,) = logs
    assert line["event"] == "witness_key"
    assert note.parse_vkey(line["vkey"]).name == "countersign/audit"
    assert (tmp_path / "keys" / "witness.pem").stat().st_mode & 0o777 == 0o600


async def test_credentials_of_an_anchor_come_from_where_the_configuration_says(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (
        "audit: {anchors: [{type: s3, bucket: log, lock_days: 1, access_key_from: 'env:S3_ID', "
        f"secret_key_from: 'file:{tmp_path}/secret', session_token_from: 'env:S3_TOKEN'}}]}}"
    )
    config = load(text).audit
    build = partial(build_witnessing, audit=MemoryAuditLog(), clock=SystemClock(), ids=SystemIds())
    with pytest.raises(ConfigurationError, match="S3_ID"):
        build(config)
    (tmp_path / "secret").write_text("geheim\n")
    monkeypatch.setenv("S3_ID", "AKIA")
    monkeypatch.setenv("S3_TOKEN", "session")
    built = build(config)
    assert built is not None
    await built[1].aclose()
