"""A served gateway masks what the reviewed manifests of today call sensitive (AUD-06)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from gateway.cli import build
from tests.e2e.conftest import Build, Start
from tests.e2e.served import Served
from tests.e2e.site import Site, secret_of
from tests.e2e.stub import Stub

pytestmark = pytest.mark.req("AUD-06")


def name_sensitive(site: Site, tool: str, **pointers: list[str]) -> None:
    """Let a reviewer say what is sensitive in a tool of the stub."""
    path = site.folder / "manifests" / "stub.yaml"
    yaml = YAML()
    manifest = yaml.load(path.read_text(encoding="utf-8"))
    next(each for each in manifest["tools"] if each["name"] == tool).update(pointers)
    with path.open("w", encoding="utf-8") as file:
        yaml.dump(manifest, file)


def show(served: Served, kind: str, path: str) -> Any:  # noqa: ANN401 - JSON
    """Return what an auditor is shown of the first record of a type that commits to `path`."""
    seq = next(record["seq"] for record in served.records(kind) if path in record)
    words = ["audit", "open", str(seq), path, "--purpose", "a case", "-o", "json"]
    env = {"COUNTERSIGN_URL": served.site.url, "COUNTERSIGN_TOKEN": secret_of("aud")}
    done = CliRunner().invoke(build("audit"), words, env=env)
    assert done.exit_code == 0, done.output
    shown = json.loads(done.stdout)
    assert shown["masked"] is True
    return json.loads(shown["value"])


def test_what_a_manifest_calls_sensitive_since_a_call_is_masked_in_it(
    build_site: Build, start: Start, stub: Stub
) -> None:
    """The recorded input of the call names nothing, so that only the manifest of today can."""
    site = build_site(urls={"stub": stub.url})
    served = start(site, step="never").wait_ready()
    assert "canary DE1" in served.agent().call("stub__echo", {"value": "canary DE1"}).text
    assert show(served, "call.intent", "args") == {"value": "canary DE1"}
    assert json.loads(_text(show(served, "call.outcome", "result"))) == {"value": "canary DE1"}
    assert served.stop() == 0

    name_sensitive(site, "echo", sensitive=["/value"], sensitive_out=["/value"])
    following = start(site, step="never").wait_ready()
    assert show(following, "call.intent", "args") == {"value": "[masked]"}
    assert json.loads(_text(show(following, "call.outcome", "result"))) == {"value": "[masked]"}


def _text(result: dict[str, Any]) -> str:
    """Return the one text of a result."""
    (block,) = result["content"]
    text: str = block["text"]
    return text
