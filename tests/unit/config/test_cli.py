from __future__ import annotations

import json
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from gateway.adapters.audit.audit_keys import load_or_create, load_or_create_kek
from gateway.adapters.keys.token_keys import load_token_key
from gateway.cli import build
from gateway.config.settings import load_config
from gateway.core.tokens.clients import hash_secret

app = build()

pytestmark = pytest.mark.req("GW-04")


def run(*args: str | Path, env: dict[str, str] | None = None) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(arg) for arg in args], env=env)
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    code, _, _ = run("init", tmp_path / "gateway")
    assert code == 0
    return tmp_path / "gateway"


def test_what_init_writes_passes_the_check(folder: Path) -> None:
    code, out, err = run("config", "check", "-c", folder / "countersign.yaml")
    assert (code, err) == (0, "")
    assert out.startswith("ok: ")


@pytest.mark.parametrize(
    ("grant", "told"),
    [
        ("{server: billing, tool: refnd}", "`billing.refnd` is in no manifest; did you mean"),
        ("{server: billing, effects: [delete]}", "`billing.*` has no effect of delete"),
        ("{server: billing, tool: refund}", ""),
        ("{server: billing, effects: [read, money]}", ""),
    ],
)
def test_a_grant_that_gives_nothing_is_told_and_is_no_mistake(
    folder: Path, grant: str, told: str
) -> None:
    path = folder / "countersign.yaml"
    (folder / "manifests" / "billing.yaml").write_text(
        "id: billing\ntransport: http\negress: [127.0.0.1]\n"
        "tools: [{name: refund, effect: money}]\n"
    )
    yaml = YAML()
    content = yaml.load(path)
    content["servers"] = {
        "billing": {
            "manifest": "manifests/billing.yaml",
            "transport": "http",
            "url": "http://127.0.0.1:1/mcp",
        }
    }
    content["clients"][1]["grants"] = [yaml.load(grant)]
    yaml.dump(content, path)
    code, out, err = run("config", "check", "-c", path)
    assert (code, out[:4]) == (0, "ok: ")
    assert err.startswith("warning: " if told else "")
    assert told in err
    assert bool(told) == bool(err)


def test_what_init_writes_is_usable_and_its_own(folder: Path) -> None:
    config = load_config(folder / "countersign.yaml", {})
    assert {client.id: client.kind for client in config.clients} == {
        "launcher": "launcher",
        "agent": "agent",
    }
    assert [human.roles for human in config.humans] == [("approver",)]
    load_or_create(config.audit.key)
    load_or_create_kek(config.audit.kek)
    load_token_key(config.tokens.key)
    for key in ("keys/audit.pem", "keys/kek", "keys/tokens.pem", "countersign.yaml"):
        assert (folder / key).stat().st_mode & 0o777 == 0o600
    assert (folder / "policies" / "authority.json").is_file()
    assert list((folder / "policies").glob("*.rego"))


def test_the_commented_servers_are_valid_once_uncommented(folder: Path) -> None:
    text = (folder / "countersign.yaml").read_text().replace("servers: {}", "servers:")
    lines = [
        line.replace("#", " ", 1) if line.startswith("#  ") else line for line in text.splitlines()
    ]
    path = folder / "more.yaml"
    path.write_text("\n".join(lines))
    for name in ("billing", "files"):
        (folder / "manifests" / f"{name}.yaml").write_text("")
    assert set(load_config(path, {}).servers) == {"billing", "files"}


def test_secrets_are_printed_once_and_only_hashes_are_kept(tmp_path: Path) -> None:
    code, out, _ = run("init", tmp_path, "-o", "json")
    assert code == 0
    told = json.loads(out)
    text = Path(told["config"]).read_text()
    assert len(told["secrets"]) == 3
    for secret in told["secrets"]:
        assert len(secret["secret"]) == 43
        assert secret["secret"] not in text
        assert hash_secret(secret["secret"]) in text
    _, out, _ = run("init", tmp_path / "again")
    assert all(kind in out for kind in ("launcher", "agent", "approver"))


@pytest.mark.parametrize("name", ["countersign.yaml", "keys/kek", "policies/authority.json"])
def test_init_overwrites_nothing(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    code, out, err = run("init", tmp_path)
    assert (code, out) == (6, "")
    assert name in err
    assert (tmp_path / name).read_text() == "mine"
    assert sorted(tmp_path.rglob("*")) == before


def test_no_two_logs_have_one_name(tmp_path: Path) -> None:
    """A verifier remembers a log by its name, and would take the second for a forgery."""
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        run("init", folder)
    configs = [load_config(folder / "countersign.yaml", {}) for folder in folders]
    origins = {config.audit.origin for config in configs}
    assert len(origins) == 2


def test_init_into_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, out, err = run("init", tmp_path / "file")
    assert (code, out) == (1, "")
    assert "cannot be written" in err


def test_check_tells_every_mistake_on_stderr(folder: Path) -> None:
    path = folder / "countersign.yaml"
    path.write_text(path.read_text().replace("dev:", "dve:") + "colour: red\n")
    code, out, err = run("config", "check", "-c", path)
    assert (code, out) == (1, "")
    assert "did you mean `dev`?" in err
    assert "colour" in err


@pytest.mark.parametrize("output", ["yaml", "json"])
def test_show_prints_what_holds_without_secrets(folder: Path, output: str) -> None:
    path = folder / "countersign.yaml"
    server = (
        "servers:\n  s: {transport: stdio, command: [x], manifest: countersign.yaml,"
        " env: {TOKEN: t0p-secret}}"
    )
    path.write_text(path.read_text().replace("servers: {}", server))
    env = {"COUNTERSIGN__LOG__LEVEL": "debug"}
    code, out, _ = run("config", "show", "-c", path, "-o", output, env=env)
    assert code == 0
    shown = YAML(typ="safe").load(out) if output == "yaml" else json.loads(out)
    assert shown["log"]["level"] == "debug"
    assert shown["tokens"]["ttl_s"] == 300
    assert "sha256:" not in out
    assert "t0p-secret" not in out
    assert shown["clients"][0]["secret_hash"] == "(redacted)"
    assert shown["servers"]["s"]["env"] == {"TOKEN": "(redacted)"}


def test_show_tells_no_secret_that_is_part_of_an_address(folder: Path) -> None:
    path = folder / "countersign.yaml"
    addresses = """
notify: {url: "https://hooks.test/T0/s3cret-1?s3cret-2", token_from: "env:HOOK"}
decision_log: {url: "https://logs.test/in?key=s3cret-3"}
servers:
  s: {transport: http, url: "https://s.test/mcp?key=s3cret-4", manifest: countersign.yaml}
"""
    path.write_text(path.read_text().replace("servers: {}", addresses))
    code, out, _ = run("config", "show", "-c", path, "-o", "json")
    shown = json.loads(out)
    assert code == 0
    assert "s3cret" not in out
    assert shown["notify"] == {"url": "https://hooks.test/(redacted)", "token_from": "env:HOOK"}
    assert shown["decision_log"]["url"] == "https://logs.test/in?(redacted)"
    assert shown["servers"]["s"]["url"] == "https://s.test/mcp?(redacted)"
    assert shown["public_url"] == "http://127.0.0.1:8080"


def test_schema_prints_a_json_schema() -> None:
    code, out, _ = run("config", "schema")
    assert code == 0
    assert json.loads(out)["properties"]["servers"]


def test_serve_with_mistakes_does_not_start(tmp_path: Path) -> None:
    path = tmp_path / "countersign.yaml"
    path.write_text("lissten: x")
    code, out, err = run("serve", "--config", path)
    assert (code, out) == (1, "")
    assert "did you mean `listen`?" in err
