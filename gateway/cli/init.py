"""`countersign init DIR`: a first configuration that works, with policies, keys and people."""

from __future__ import annotations

import json
import os
import secrets
import shlex
from pathlib import Path
from typing import Annotated, Final, Literal, NamedTuple

import typer

from gateway.adapters.audit.audit_keys import load_or_create, load_or_create_kek
from gateway.adapters.keys.token_keys import create_token_key
from gateway.adapters.policy.policy_bundle import default_pack
from gateway.cli.exits import Exit
from gateway.core.tokens.clients import hash_secret

_SECRET_BYTES: Final = 32
_KEYS: Final = ("keys/audit.pem", "keys/kek", "keys/tokens.pem")
_MODES: Final = {"countersign.yaml": 0o600}

TEMPLATE: Final = """\
# Countersign, on this machine. `countersign config schema` lists every key,
# `countersign config check` says what is wrong with this file.
environment: development
dev: true                     # policies reload when they change; forces loopback
listen: 127.0.0.1:8080

state:
  url: sqlite:///state.db     # relative paths start at this file's folder
audit:
  dir: audit
  origin: countersign/{log}  # its name: verifiers remember each log by that
  key: keys/audit.pem
  kek: keys/kek
policy:
  path: policies
tokens:
  key: keys/tokens.pem

# The tools. Remove the `#` of one of these blocks, write its manifest, then run
# `countersign tools approve`. Grants below may then name it.
servers: {{}}
#  billing:
#    transport: http
#    url: http://127.0.0.1:9000/mcp
#    manifest: manifests/billing.yaml
#  files:
#    transport: stdio
#    command: [mcp-server-git, --repository, /srv/repository]
#    manifest: manifests/files.yaml

clients:
  # Hands out authority: creates runs for agents, within `grants`.
  - kind: launcher
    id: launcher
    secret_hash: {launcher}
    may_launch: [agent]
    grants: []
    #  - {{server: billing, tool: refund, constraints: {{/amount: {{max: 500}}}}}}
    #  - {{server: files}}
  # Uses authority: that of a run, or under its own secret only this baseline.
  - kind: agent
    id: agent
    secret_hash: {agent}
    grants: []
    #  - {{server: billing, effects: [read]}}

# People at the admin API. They never use agents' credentials, nor agents theirs.
humans:
  - id: approver
    roles: [approver]
    secret_hash: {approver}

log:
  format: console
"""


class Secret(NamedTuple):
    """A generated secret. Its hash is in the file; the secret itself is printed once."""

    id: str
    kind: str
    secret: str


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to write into.")],
    output: Annotated[
        Literal["table", "json"], typer.Option("--output", "-o", help="How to print the secrets.")
    ] = "table",
) -> None:
    """Write a working configuration with policies and keys. Nothing is ever overwritten.

    The secrets are printed once; only their hashes are kept.
    """
    made = [
        Secret(name, kind, secrets.token_urlsafe(_SECRET_BYTES))
        for name, kind in (("launcher", "launcher"), ("agent", "agent"), ("approver", "human"))
    ]
    texts = _policies()
    hashes = {secret.id: hash_secret(secret.secret) for secret in made}
    texts["countersign.yaml"] = TEMPLATE.format(**hashes, log=secrets.token_hex(4)).encode()
    existing = [name for name in (*texts, *_KEYS) if (folder / name).exists()]
    if existing:
        text = f"`{folder / existing[0]}` exists; nothing was written; name another folder"
        typer.echo(text, err=True)
        raise typer.Exit(Exit.CONFLICT)
    try:
        _write(folder, texts)
    except OSError as error:
        typer.echo(f"`{folder}` cannot be written: {error.strerror}; name another folder", err=True)
        raise typer.Exit(Exit.ERROR) from None
    _tell(folder, made, output)


def _policies() -> dict[str, bytes]:
    """Return the default pack, by path in the folder."""
    pack = default_pack()
    files = sorted(path for path in pack.rglob("*") if path.suffix in (".rego", ".json"))
    return {f"policies/{path.relative_to(pack)}": path.read_bytes() for path in files}


def _write(folder: Path, texts: dict[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "keys").mkdir(mode=0o700, exist_ok=True)
    load_or_create(folder / _KEYS[0])
    load_or_create_kek(folder / _KEYS[1])
    create_token_key(folder / _KEYS[2])
    (folder / "manifests").mkdir(exist_ok=True)
    for name, content in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # O_EXCL: between the check above and now, somebody else may have written here.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _MODES.get(name, 0o644))
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)


def _tell(folder: Path, made: list[Secret], output: str) -> None:
    config = folder / "countersign.yaml"
    if output == "json":
        body = {"config": str(config), "secrets": [secret._asdict() for secret in made]}
        print(json.dumps(body, indent=2))
        return
    print(f"wrote {config}\n\nsecrets, shown only now:")
    for secret in made:
        print(f"  {secret.id:<10} {secret.kind:<9} {secret.secret}")
    print(f"\nnext: countersign serve --config {shlex.quote(str(config))}")
