"""The bank as a process, the gateway's folder before it, and the command under test."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import typer
from msgspec import Struct
from typer.testing import CliRunner

from connectors.approve import ALL, approve_definitions
from gateway.cli.audit_reconcile import reconcile
from tests.e2e.processes import eventually
from tests.e2e.site import ACME, ROOT, Site, free_port

HERE = Path(__file__).parent

MAP = """\
tools:
  - name: bank.pay
    arguments:
      /to: recipient
      /amount_cents: {column: amount, type: decimal_minor}
      /urgent: {column: urgent, type: boolean, default: "false"}
operation_id: operation_id
row_id: id
time: {column: booked_at, format: iso}
ignore:
  - {column: source, is: [import], why: "the nightly import"}
query: SELECT * FROM payments ORDER BY id;
"""


class Bank:
    """The system of record's own server, always at one port; `lives` is how often it can start."""

    def __init__(self, folder: Path, database: str, lives: int) -> None:
        self._ready, port = folder / "ready", free_port()
        self.url = f"http://127.0.0.1:{port}/mcp"
        words = [database, str(port), str(self._ready)]
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.integration.reconcile.bank_server", *words],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            for _ in range(lives)
        ]
        self._next = 0

    def start(self) -> None:
        """Start it, again if it has died."""
        self._ready.unlink(missing_ok=True)
        stdin = self._processes[self._next].stdin
        assert stdin is not None
        stdin.write(b"\n")
        stdin.flush()
        self._next += 1
        eventually(self._ready.exists, "the bank opens")

    def wait_dead(self) -> None:
        """Return once it has died."""
        self._processes[self._next - 1].wait(10)

    def stop(self) -> None:
        """End it, and what waited to take its place."""
        for process in self._processes:
            process.terminate()
            process.communicate()


class BankSite(Site):
    """The folder of a gateway whose only server is the bank."""

    def _copy_policies(self) -> None:
        self.policies.mkdir(parents=True)
        shutil.copy(HERE / "bank.rego", self.policies)
        shutil.copy(ACME / "policies" / "acme_runs.rego", self.policies)
        authority = {"policies": {"bank": ["bank"], "acme_runs": ["*"]}}
        (self.policies / "authority.json").write_text(json.dumps(authority))

    def _pin(self, name: str, listings: Mapping[str, Sequence[bytes]]) -> str:
        path = self.folder / "manifests" / f"{name}.yaml"
        tools = [
            {"name": "pay", "effect": "money", "operation_id_at": "payments.operation_id"},
            {"name": "balance", "effect": "read", "operation_id_at": "payments.operation_id"},
        ]
        manifest = {"id": name, "transport": "http", "egress": ["127.0.0.1"], "tools": tools}
        path.write_text(json.dumps(manifest), encoding="utf-8")
        approve_definitions(path, listings[name], ALL, "dana")
        return f"manifests/{name}.yaml"


class Said(Struct):
    """What a run of the command said."""

    code: int
    out: str
    err: str

    @property
    def report(self) -> dict[str, Any]:
        """The answer, of a run with `-o json`."""
        found: dict[str, Any] = orjson.loads(self.out)
        return found


def run(*words: object, given: bytes | None = None) -> Said:
    """Run `countersign audit reconcile` with these words."""
    app = typer.Typer()
    app.command()(reconcile)
    ran = CliRunner().invoke(app, [str(word) for word in words], input=given)
    if ran.exception is not None and not isinstance(ran.exception, SystemExit):
        raise ran.exception
    return Said(ran.exit_code, ran.stdout, ran.stderr)
