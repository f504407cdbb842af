"""The governed side: the real gateway as a company would run it, with everything durable.

`countersign serve` in a process of its own, on a configuration, a manifest with pinned digests and
policies made for this run, the audit log on the disk that the checkout is on. Its callers hold
tokens that a launcher's runs were turned into.
"""

from __future__ import annotations

import hashlib
import secrets
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import httpx
import orjson
from msgspec import Struct

from bench.policies import agent_name, write_policies
from bench.processes import ROOT, MeasurementError, Processes, build_environment, wait_until
from bench.upstream import TOOLS
from connectors.listing import definition_digest
from gateway.adapters.audit.audit_reader import read_records

AGENTS: Final = 1_000
LAUNCHED: Final = 64
"""Runs with a token of their own; the load takes turns among them."""

_TIMEOUT_S: Final = 10.0
_VERIFY_S: Final = 120.0
_COMMAND: Final = ["-c", "from gateway.cli import main; main()"]
SERVE: Final = [*_COMMAND, "serve", "--config"]
GRANT: Final = {
    "server": "bench",
    "tool": "refund",
    "constraints": {"/amount_cents": {"max": 20_000}, "/currency": {"one_of": ["EUR", "USD"]}},
}


class Governed(Struct, frozen=True):
    """A running gateway: its process, where it listens and logs, and tokens for it."""

    process: subprocess.Popen[bytes]
    port: int
    audit: Path
    tokens: list[str]


class Calls(Struct, frozen=True):
    """What the audit log says of calls: intents, outcomes of calls that went well, refusals."""

    intents: int
    outcomes: int
    refused: Counter[str]


def start_governed(
    processes: Processes,
    folder: Path,
    upstream_url: str,
    humans: Sequence[Mapping[str, Any]] = (),
) -> Governed:
    """Start a gateway in `folder`, for these `humans`, and wait until it can govern calls."""
    port, secret = find_port(), secrets.token_urlsafe(32)
    config = _write_files(folder, port, upstream_url, secret, humans)
    process = processes.start("gateway", [*SERVE, str(config)])
    base = f"http://127.0.0.1:{port}"
    try:
        wait_ready(base, process)
        with httpx.Client(base_url=base, timeout=_TIMEOUT_S, trust_env=False) as client:
            tokens = [_launch(client, secret, number) for number in range(LAUNCHED)]
    except (MeasurementError, httpx.HTTPError) as error:
        raise MeasurementError(f"{error}\n{processes.tail('gateway')}") from None
    return Governed(process, port, folder / "audit", tokens)


def find_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def wait_ready(base: str, process: subprocess.Popen[bytes]) -> None:
    """Return once a gateway serves. Raises `MeasurementError`."""
    wait_until(_ask_ready(base), "the gateway", process)


def _ask_ready(base: str) -> Iterator[bool]:
    with httpx.Client(base_url=base, timeout=_TIMEOUT_S, trust_env=False) as client:
        while True:
            try:
                yield client.get("/readyz").status_code == httpx.codes.OK
            except httpx.TransportError:
                yield False


def _write_files(
    folder: Path, port: int, upstream_url: str, secret: str, humans: Sequence[Mapping[str, Any]]
) -> Path:
    """Write everything that the gateway reads; return the configuration's path. JSON is YAML."""
    write_policies(folder / "policies", AGENTS)
    manifest = folder / "bench.yaml"
    manifest.write_bytes(orjson.dumps(build_manifest()))
    config = folder / "countersign.yaml"
    settings = build_config(folder, port, upstream_url, secret)
    config.write_bytes(orjson.dumps({**settings, "humans": list(humans)}))
    return config


def build_manifest() -> dict[str, Any]:
    """Return the reviewed manifest of the upstream, its definitions pinned."""
    reviews: dict[str, dict[str, Any]] = {
        "refund": {"effect": "money", "idempotency": "key", "sums": ["/amount_cents"]},
        "echo": {"effect": "read"},
    }
    return {
        "id": "bench",
        "transport": "http",
        "egress": ["127.0.0.1"],
        "tools": [
            {
                "name": tool["name"],
                "definition_digest": definition_digest(tool),
                "reviewed_by": "bench",
                **reviews[tool["name"]],
            }
            for tool in TOOLS
        ],
    }


def build_config(folder: Path, port: int, upstream_url: str, secret: str) -> dict[str, Any]:
    """Return the gateway's configuration."""
    base = f"http://127.0.0.1:{port}"
    agents: list[dict[str, Any]] = [
        {"id": agent_name(number), "kind": "agent", "owner": "bench"} for number in range(LAUNCHED)
    ]
    launcher = {
        "id": "bench-launcher",
        "kind": "launcher",
        "secret_hash": "sha256:" + hashlib.sha256(secret.encode()).hexdigest(),
        "may_launch": [agent["id"] for agent in agents],
        "grants": [GRANT],
    }
    return {
        "environment": "bench",
        "dev": False,
        "listen": f"127.0.0.1:{port}",
        "public_url": base,
        "state": {"url": f"sqlite:///{folder / 'state.db'}"},
        "audit": {"dir": str(folder / "audit")},
        "policy": {"path": str(folder / "policies"), "workers": 1, "releases": "off"},
        "clients": [launcher, *agents],
        "servers": {
            "bench": {
                "manifest": str(folder / "bench.yaml"),
                "transport": "http",
                "url": upstream_url,
            }
        },
    }


def _launch(client: httpx.Client, secret: str, number: int) -> str:
    """Create a run for an agent and turn its credential into a token."""
    run = client.post(
        "/v1/runs",
        auth=("bench-launcher", secret),
        json={"agent": agent_name(number), "grants": [GRANT]},
    )
    run.raise_for_status()
    made = run.json()
    token = client.post(
        "/oauth/token",
        auth=(made["run_id"], made["run_credential"]),
        data={"grant_type": "client_credentials"},
    )
    token.raise_for_status()
    return str(token.json()["access_token"])


def count_calls(audit: Path) -> Calls:
    """Count the intents, good outcomes and refusals, by reason, in a log."""
    intents = outcomes = 0
    refused: Counter[str] = Counter()
    for record in read_records(audit):
        intents += record["type"] == "call.intent"
        outcomes += record["type"] == "call.outcome" and record["status"] == "ok"
        if record["type"] == "call.refused":
            refused[record["reason"]] += record["count"]
    return Calls(intents, outcomes, refused)


def verify_log(audit: Path) -> None:
    """Have `countersign audit verify` check a log. Raises `MeasurementError` if it finds fault."""
    done = subprocess.run(
        [sys.executable, *_COMMAND, "audit", "verify", str(audit)],
        cwd=ROOT,
        env=build_environment(),
        capture_output=True,
        check=False,
        timeout=_VERIFY_S,
    )
    if done.returncode:
        raise MeasurementError(f"the audit log does not verify: {done.stdout.decode()[-500:]}")
