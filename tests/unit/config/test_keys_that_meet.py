"""Keys that are well-formed, and together mean nothing or undo each other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.cli import build
from gateway.config.settings import Config

pytestmark = pytest.mark.req("GW-04")

Load = Callable[..., Config]
Mistakes = Callable[..., list[str]]
KEY = "MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
OTHER = "MCowBQYDK2VwAyEAPUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw="


def publishers(*found: tuple[str, str]) -> str:
    items = ", ".join(f"{{id: {name}, key: '{key}'}}" for name, key in found)
    return f"policy: {{publishers: [{items}]}}\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("audit: {kek: keys/audit.pem}", "audit.kek: shares its file with `audit.key`"),
        ("audit: {key: keys/../keys/tokens.pem}", "tokens.key: shares its file with `audit.key`"),
        ("tokens: {ring: keys/tokens.pem}", "tokens.ring: shares its file with `tokens.key`"),
        (
            "credentials: {assertion_key: keys/tokens.pem}",
            "credentials.assertion_key: shares its file with `tokens.key`",
        ),
        (
            "tokens: {keys: ['file:a', 'file:b', 'file:./a']}",
            "tokens.keys[2]: shares its file with `tokens.keys[0]`",
        ),
        ("tokens: {keys: ['file:keys/kek']}", "tokens.keys[0]: shares its file with `audit.kek`"),
        (f"policy: {{path: {'x' * 300}}}", "policy.path: `xxx"),
        ("state: {url: 'sqlite:///'}", "state.url: only SQLite is supported"),
        ("state: {url: 'sqlite://host/db'}", "state.url: only SQLite is supported"),
        ("decision_log: {file: policies}", "decision_log.file: `policies` is a folder"),
        ("decision_log: {file: no/x}", "file: `no` is no folder, so no decision would be logged"),
        ("decision_log: {token_from: 'env:A'}", "decision_log.token_from: is for a `url`"),
        ("notify: {token_from: 'env:A'}", "notify.token_from: is for a `url`, and there is none"),
        ("limits: {upstream_timeout_ms: 0}", "upstream_timeout_ms: nothing would be let through"),
        (
            "limits: {record_max_bytes: 16385}",
            "is beyond the log's format, so the log could not be verified; write at most 16384",
        ),
        ("public_url: 'https://a b.test'", "public_url: is no URL of a host"),
        (
            "servers: {s: {transport: http, url: 'https://s.test/a b', manifest: shop.yaml}}",
            "servers.s.url: is no URL without user and fragment",
        ),
        (publishers(("ann", "hello")), "policy.publishers[0].key: is no public key; copy the line"),
        (
            publishers(("ann", KEY), ("bob", OTHER), ("cy", KEY)),
            "policy.publishers[2].key: another publisher has this key; one each",
        ),
    ],
)
def test_what_keys_together_cannot_mean_is_told(
    mistakes: Mistakes, text: str, expected: str
) -> None:
    (found,) = mistakes(text)
    assert found.startswith("countersign.yaml:1: ")
    assert expected in found


def test_a_key_that_others_make_may_be_the_one_that_was_the_gateways_own(load: Load) -> None:
    assert load("tokens: {keys: ['file:keys/tokens.pem']}").tokens.keys


def test_secrets_lie_where_the_file_is(load: Load, tmp_path: Path) -> None:
    text = """\
notify: {url: "https://n.test", token_from: "file:a"}
policy: {opa: {token_from: "file:b/c"}}
credentials: {vault: {token_from: "file:/run/d"}}
"""
    config = load(text)
    assert config.notify.token_from == f"file:{tmp_path}/a"
    assert config.policy.opa.token_from == f"file:{tmp_path}/b/c"
    assert config.credentials.vault.token_from == "file:/run/d"


MANIFEST = """\
id: shop
transport: http
egress: [shop.test]
tools:
  - {name: get, effect: read}
"""


@pytest.mark.parametrize(
    ("server", "manifest", "expected"),
    [
        ("", MANIFEST, ""),
        ("", "id: shop\ntools: {}\n", "shop.yaml:1: `transport` is missing"),
        ("", MANIFEST.replace("id: shop", "id: other"), "manifest is of `other`; name the server"),
        ("", MANIFEST.replace("shop.test", "x.test"), "`shop.test` of server `shop` is not in its"),
        ("", MANIFEST.replace("http", "stdio"), "server `shop` is `stdio`; give its `command`"),
        (
            ", auth: {kind: env, variable: A, value_from: 'env:A'}",
            MANIFEST,
            "server `shop` is `http`, which cannot carry `auth` of kind `env`",
        ),
    ],
)
def test_check_reads_manifests_as_a_start_does(
    write: Callable[[str], Path], server: str, manifest: str, expected: str
) -> None:
    shop = f"{{transport: http, url: 'https://shop.test/mcp', manifest: shop.yaml{server}}}"
    path = write(f"dev: true\nservers: {{shop: {shop}}}")
    (path.parent / "shop.yaml").write_text(manifest)
    result = CliRunner().invoke(build(), ["config", "check", "-c", str(path)])
    assert (result.exit_code, result.stdout == "") == ((1, True) if expected else (0, False))
    assert expected in result.stderr
    assert all(line.startswith(f"{path.parent}/") for line in result.stderr.splitlines())


def test_check_asks_for_the_publishers_that_a_start_would_ask_for(
    write: Callable[[str], Path],
) -> None:
    def check(text: str) -> tuple[int, str, str]:
        result = CliRunner().invoke(build(), ["config", "check", "-c", str(write(text))])
        return result.exit_code, result.stdout, result.stderr

    for text in ("", publishers(("ann", KEY)), publishers(("ann", KEY), ("ann", OTHER))):
        code, out, err = check(text)
        assert (code, out) == (1, "")
        assert "countersign.yaml: policy.publishers: outside `dev`, policies come as a" in err
    for text in ("dev: true", "policy: {releases: 'off'}", publishers(("a", KEY), ("b", OTHER))):
        assert check(text)[0] == 0
