"""The ground that the demo plays on: one folder with configuration, keys, policies and data."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import sqlite3
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from examples.acme.demo_processes import StartError, command, run
from gateway.adapters.audit.audit_keys import load_or_create
from gateway.core.tokens.clients import hash_secret

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

AGENT, LAUNCHER, ORIGIN = "support-agent", "ticket-system", "acme.example/demo"
PEOPLE = {"dana": "approver", "rita": "approver", "otto": "operator"}
GIT_SERVER = "mcp-server-git==2026.10.19"
KEPT = "tools"
"""What a new run takes over from the last: the git server, which is the same every time."""

CONFIG = """\
# The demo's gateway. Written anew by each run; `countersign config schema` explains every key.
environment: acme-demo
dev: true                        # plain http on loopback; policies reload when they change
listen: 127.0.0.1:{port}

state:
  url: sqlite:///state.db
audit:
  dir: audit
  key: keys/audit.pem
  kek: keys/kek
  origin: {origin}
policy:
  path: policies
  deadline_ms: 2000              # a laptop has other things to do
tokens:
  key: keys/tokens.pem

servers:
  acme:
    transport: http
    url: {acme_url}
    manifest: manifests/acme.yaml
  git:
    transport: stdio
    command: [{git_program}, --repository, {repository}]
    manifest: manifests/git.yaml

clients:
  # Starts a run per ticket. An agent in it gets at most this.
  - kind: launcher
    id: {launcher}
    secret_hash: {launcher_hash}
    may_launch: [{agent}]
    grants:
      - {{server: acme}}
      - {{server: git}}
  # By itself the agent may only look things up.
  - kind: agent
    id: {agent}
    secret_hash: {agent_hash}
    grants:
      - {{server: acme, effects: [read]}}

humans:
{people}

log:
  format: console
"""


class FolderError(Exception):
    """The folder cannot be used. The text says why and what to do."""


@dataclass(frozen=True)
class Ground:
    """The demo's folder, and where everything is in it."""

    folder: Path
    port: int

    @property
    def url(self) -> str:
        """The gateway."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def config(self) -> Path:
        """The gateway's configuration."""
        return self.folder / "countersign.yaml"

    @property
    def audit(self) -> Path:
        """The audit log."""
        return self.folder / "audit"

    @property
    def vkey(self) -> Path:
        """The log's public key, kept where the gateway does not write."""
        return self.folder / "auditor" / "log.vkey"

    @property
    def database(self) -> Path:
        """Acme's rows."""
        return self.folder / "acme.db"

    @property
    def repository(self) -> Path:
        """The repository that the git server serves."""
        return self.folder / "repository"

    @property
    def git_program(self) -> Path:
        """The git server, installed in an environment of its own."""
        return self.folder / KEPT / "bin" / "mcp-server-git"

    def secret_file(self, name: str) -> Path:
        """Where a secret of this run is kept, mode 0600."""
        return self.folder / "secrets" / name

    def secret(self, name: str) -> str:
        """Return a secret."""
        return self.secret_file(name).read_text(encoding="utf-8")

    def keep_secret(self, name: str, value: str) -> None:
        """Keep a secret for this run."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        with os.fdopen(os.open(self.secret_file(name), flags, 0o600), "w") as file:
            file.write(value)

    def login(self, person: str) -> dict[str, str]:
        """Return the environment in which `countersign` speaks for a person."""
        return {"COUNTERSIGN_URL": self.url, "COUNTERSIGN_TOKEN": self.secret(person)}

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Read Acme's database beside its server, as its bookkeeper would."""
        with closing(sqlite3.connect(f"{self.database.as_uri()}?mode=ro", uri=True)) as found:
            return found.execute(query, values).fetchall()

    def refunds(self, order: str) -> list[tuple[Any, ...]]:
        """Return (id, cents, operation id) of every refund of an order."""
        query = "SELECT id, amount_cents, operation_id FROM refunds WHERE order_id = ? ORDER BY id"
        return self.rows(query, order)


def lay(folder: Path, policies: Path) -> Ground:
    """Empty the folder and lay it out: keys, secrets, `policies` and manifests.

    Raises `FolderError` for a folder that holds something else than an earlier demo.
    """
    _clear(folder)
    for name in ("logs", "manifests", "auditor"):
        (folder / name).mkdir()
    for name in ("secrets", "keys"):
        (folder / name).mkdir(mode=0o700)
    ground = Ground(folder.resolve(), _free_port())
    for name in (AGENT, LAUNCHER, *PEOPLE):
        ground.keep_secret(name, secrets.token_urlsafe(32))
    _, vkey = load_or_create(ground.folder / "keys" / "audit.pem", name=ORIGIN)
    ground.vkey.write_text(vkey + "\n", encoding="utf-8")
    ignored = shutil.ignore_patterns("*_test.rego")
    shutil.copytree(policies, ground.folder / "policies", ignore=ignored)
    for manifest in (HERE / "manifests").glob("*.yaml"):
        shutil.copy(manifest, ground.folder / "manifests")
    return ground


def _clear(folder: Path) -> None:
    mark = folder / ".acme-demo"
    if folder.exists() and any(folder.iterdir()) and not mark.exists():
        raise FolderError(f"`{folder}` holds something else; name another folder or empty it")
    folder.mkdir(parents=True, exist_ok=True)
    mark.touch()
    for entry in folder.iterdir():
        if entry.is_dir() and entry.name != KEPT:
            shutil.rmtree(entry)
        elif not entry.is_dir() and entry != mark:
            entry.unlink()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


def write_config(ground: Ground, acme_url: str) -> None:
    """Write `countersign.yaml`. It holds hashes of secrets, never a secret."""
    text = CONFIG.format(
        port=ground.port,
        origin=ORIGIN,
        acme_url=acme_url,
        git_program=ground.git_program,
        repository=ground.repository,
        launcher=LAUNCHER,
        agent=AGENT,
        launcher_hash=hash_secret(ground.secret(LAUNCHER)),
        agent_hash=hash_secret(ground.secret(AGENT)),
        people="\n".join(_person(ground, name) for name in PEOPLE),
    )
    ground.config.touch(mode=0o600)
    ground.config.write_text(text, encoding="utf-8")


def _person(ground: Ground, name: str) -> str:
    hashed = hash_secret(ground.secret(name))
    return f'  - {{id: {name}, roles: [{PEOPLE[name]}], secret_hash: "{hashed}"}}'


async def install_git_server(ground: Ground) -> None:
    """Install the git server from the index, away from our own environment. Raises `StartError`."""
    if ground.git_program.exists():
        return
    tools = ground.folder / KEPT
    places = {"UV_TOOL_DIR": str(tools / "environments"), "UV_TOOL_BIN_DIR": str(tools / "bin")}
    install = ("tool", "install", "--quiet", "--python", sys.executable, GIT_SERVER)
    done = await run(command("uv"), *install, env=places)
    if done.code:
        raise StartError(f"`uv tool install {GIT_SERVER}` failed:\n{done.err.strip()}")


async def make_repository(ground: Ground) -> None:
    """Make a small repository with one commit, and one change that a colleague has staged."""
    home = ground.repository
    home.mkdir()
    (home / "returns.md").write_text("# Returns\n\nThirty days, with receipt.\n", encoding="utf-8")
    await git(ground, "init", "--quiet", "--initial-branch=main")
    await git(ground, "config", "user.name", "Acme support")
    await git(ground, "config", "user.email", "support@acme.example")
    await git(ground, "add", "returns.md")
    await git(ground, "commit", "--quiet", "--message", "Returns: thirty days")


async def git(ground: Ground, *arguments: str) -> str:
    """Run git in the repository, untouched by the settings of whoever runs the demo."""
    own = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    done = await run("git", "-C", str(ground.repository), *arguments, env=own)
    if done.code:
        raise StartError(f"`git {arguments[0]}` failed: {done.last_error}")
    return done.out.strip()
