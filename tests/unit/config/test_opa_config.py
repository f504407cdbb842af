"""An OPA as the engine in `countersign.yaml`."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.adapters.opa.opa_policy import OpaPolicy
from gateway.adapters.policy.policy_bundle import default_pack, load_bundle_dir
from gateway.adapters.regorus.regorus_policy import RegorusPolicy
from gateway.wiring.engine import build_engine, load_bundle_token
from tests.unit.config.conftest import Load, Mistakes

pytestmark = pytest.mark.req("POL-05")

PULL = "policy: {engine: 'opa://127.0.0.1:8181', opa: {bundles: pull"
WRONG = {
    "no url": ("policy: {engine: opa}", "policy.engine"),
    "another scheme": ("policy: {engine: 'http://127.0.0.1:8181'}", "policy.engine"),
    "a port that is none": ("policy: {engine: 'opa://host:none'}", "write `opa://host:port`"),
    "in the clear": (
        "policy: {engine: 'opa://opa.example:8181'}",
        "inputs and decisions would cross the network in the clear",
    ),
    "no token to pull with": (PULL + "}}", "without a token of its own"),
    "half a certificate": (
        "policy: {engine: 'opas://opa.example', opa: {certificate: a.pem}}",
        "a certificate and its key go together",
    ),
    "a token in the clear": (
        "policy: {engine: 'opas://opa.example', opa: {token_from: hunter2}}",
        "`env:NAME` or `file:PATH`",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_an_engine_that_cannot_be_is_told(mistakes: Mistakes, name: str) -> None:
    text, told = WRONG[name]
    found = "\n".join(mistakes(text))
    assert told in found
    assert "hunter2" not in found


def test_the_engine_is_the_one_that_is_named(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = load_bundle_dir(default_pack())
    assert isinstance(build_engine(load(""), bundle), RegorusPolicy)
    (tmp_path / "token").write_text("a-token-for-opa")
    monkeypatch.setenv("OPA_BUNDLE_TOKEN", "a-token-for-bundles")
    config = load(
        "policy: {engine: 'opas://opa.example', deadline_ms: 80, opa: {bundles: pull, "
        "bundle_token_from: 'env:OPA_BUNDLE_TOKEN', pull_s: 30, "
        f"token_from: 'file:{tmp_path}/token'}}}}"
    )
    engine = build_engine(config, bundle)
    assert isinstance(engine, OpaPolicy)
    assert engine.endpoint == "opas://opa.example:8181"
    assert engine.revision == bundle.revision
    assert not engine.healthy
    assert load_bundle_token(config) == "a-token-for-bundles"


def test_a_gateway_that_pushes_offers_nothing(load: Load) -> None:
    assert load_bundle_token(load("policy: {engine: 'opa://127.0.0.1:8181'}")) == ""
