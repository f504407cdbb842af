from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from gateway.cli import build
from gateway.cli.exits import Exit

app = build()

pytestmark = [pytest.mark.req("GW-08"), pytest.mark.network]

SERVER = Path(__file__).with_name("plain_server.py")
MANIFEST = """id: plain
transport: stdio
tools:
  - name: echo          # says what was said
    effect: read
  - name: gone
    effect: read
"""

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    (tmp_path / "policies").mkdir()
    (tmp_path / "plain.yaml").write_text(MANIFEST, encoding="utf-8")
    server = {
        "manifest": "plain.yaml",
        "transport": "stdio",
        "command": [sys.executable, "-S", str(SERVER)],
    }
    config = tmp_path / "countersign.yaml"
    config.write_text(
        json.dumps(
            {
                "dev": True,
                "policy": {"path": str(tmp_path / "policies")},
                "servers": {"plain": server},
            }
        ),
        encoding="utf-8",
    )

    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["tools", *arguments, "--config", str(config)])

    return invoke


def add_server(folder: Path, name: str, server: Mapping[str, object]) -> None:
    config = folder / "countersign.yaml"
    content = json.loads(config.read_text(encoding="utf-8"))
    content["servers"][name] = server
    config.write_text(json.dumps(content), encoding="utf-8")


def states(result: Result) -> dict[str, str]:
    return {one["name"]: one["state"] for one in json.loads(result.stdout)}


def test_every_tool_is_shown_with_its_state(run: Run) -> None:
    result = run("list", "-o", "json")
    assert result.exit_code == Exit.OK
    found = states(result)
    assert (found["echo"], found["gone"], found["die"]) == ("unpinned", "missing", "unreviewed")
    table = run("list")
    assert "plain.die" in table.stdout
    assert "no manifest names it" in table.stdout


def test_an_approved_tool_is_callable_and_a_changed_one_shows_in_the_diff(
    run: Run, tmp_path: Path
) -> None:
    shown = run("diff")
    assert "plain.echo: unpinned" in shown.stdout
    assert '"inputSchema"' in shown.stdout
    approved = run("approve", "plain", "echo", "--reviewed-by", "Ann")
    assert approved.exit_code == Exit.OK
    assert "plain.echo" in approved.stdout
    assert states(run("list", "-o", "json"))["echo"] == "callable"
    assert run("diff", "-o", "json").stdout.strip() == "[]"
    manifest = tmp_path / "plain.yaml"
    text = manifest.read_text(encoding="utf-8")
    assert "# says what was said" in text
    digest = text.split("sha256:")[1][:64]
    manifest.write_text(text.replace(digest, "0" * 64), encoding="utf-8")
    (line,) = run("diff", "-o", "jsonl").stdout.strip().splitlines()
    one = json.loads(line)
    assert (one["state"], one["approved_digest"]) == ("quarantined", "sha256:" + "0" * 64)
    assert one["live_digest"] == f"sha256:{digest}"
    assert one["definition"]["name"] == "echo"


def test_the_command_that_diff_prints_approves_what_it_showed_and_nothing_else(run: Run) -> None:
    printed = run("diff").stdout.strip().splitlines()[-1]
    words = shlex.split(printed.replace("NAME", "Ann"))[5:]
    assert words[:3] == ["approve", "plain", "echo"]
    other = [word[:-4] + "0000" if word.startswith("sha256:") else word for word in words]
    refused = run(*other)
    assert refused.exit_code == Exit.ERROR
    assert "read it with `countersign tools diff`" in refused.stderr
    assert states(run("list", "-o", "json"))["echo"] == "unpinned"
    assert run(*words).exit_code == Exit.OK
    assert states(run("list", "-o", "json"))["echo"] == "callable"


def test_all_of_a_manifest_can_be_approved_at_once(run: Run) -> None:
    result = run("approve", "plain", "--all", "--reviewed-by", "Ann", "-o", "json")
    assert [one["name"] for one in json.loads(result.stdout)] == ["echo"]
    assert "gone" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["approve", "other", "--all", "--reviewed-by", "Ann"], Exit.NOT_FOUND),
        (["approve", "plain", "--reviewed-by", "Ann"], Exit.USAGE),
        (["approve", "plain", "echo", "--all", "--reviewed-by", "Ann"], Exit.USAGE),
        (["approve", "plain", "die", "--reviewed-by", "Ann"], Exit.ERROR),
        (["approve", "plain", "echo"], Exit.USAGE),
    ],
)
def test_an_approval_that_cannot_be_given_says_so(
    run: Run, arguments: list[str], code: Exit
) -> None:
    assert run(*arguments).exit_code == code


def test_an_upstream_that_is_away_is_told_and_the_others_are_shown(
    run: Run, tmp_path: Path
) -> None:
    (tmp_path / "away.yaml").write_text(
        "id: away\ntransport: http\negress: [127.0.0.1]\ntools: [{name: x, effect: read}]",
        encoding="utf-8",
    )
    away = {"manifest": "away.yaml", "transport": "http", "url": "http://127.0.0.1:1/mcp"}
    add_server(tmp_path, "away", away)
    result = run("list", "-o", "json")
    assert result.exit_code == Exit.ERROR
    assert "server `away` cannot be listed" in result.stderr
    assert states(result)["echo"] == "unpinned"
    assert states(result)["x"] == "missing"


def test_a_manifest_of_another_server_is_refused(run: Run, tmp_path: Path) -> None:
    add_server(tmp_path, "twin", {"manifest": "plain.yaml", "transport": "stdio", "command": ["x"]})
    result = run("list")
    assert result.exit_code == Exit.ERROR
    assert "the manifest is of `plain`" in result.stderr
