"""A gateway with an upstream of every kind of credential, each with a canary of its own."""

from __future__ import annotations

import base64
import json
import secrets
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from connectors.approve import ALL, approve_definitions
from tests.e2e.site import Site
from tests.integration.credentials.offices import (
    TOOLS,
    Kv2,
    Office,
    Reply,
    Request,
    Upstream,
    define,
    reply_json,
)

HERE = Path(__file__).parent
KINDS = ("header", "file", "query", "basic", "vaulted", "ring", "client", "person")
POLICY = """
# METADATA
# title: Everything goes; nobody watches results, so that notifications are streamed
# custom:
#   applies_to:
#     phases: [list, call, resume, issue]
package policies.house

permit contains {"code": "house_tool"} if input.resource.server in %s

permit contains {"code": "house_run"} if input.phase == "issue"
"""


class Canaries:
    """The secrets, unique and easy to find; tokens that are issued later join them."""

    def __init__(self) -> None:
        names = ("header", "file", "query", "basic", "vaulted", "ring", "desk", "vault", "client")
        self.of = {name: f"canary-{name}-{secrets.token_hex(12)}" for name in names}
        self.issued: list[str] = []

    def all(self) -> list[str]:
        """Every secret there was."""
        return [*self.of.values(), *self.issued]


class World:
    """Everybody outside the gateway: token endpoint, vault and upstreams behind one port."""

    def __init__(self) -> None:
        self.canaries = Canaries()
        of = self.canaries.of
        self.kv2 = Kv2(of["vault"], {"house": {"token": of["vaulted"]}})
        self.upstream = Upstream(self._accepts)
        self.refusing = self.token_endpoint_fails = False
        self._lock = threading.Lock()
        self.office = Office(self._answer)

    def _answer(self, request: Request) -> Reply:
        if request.path.startswith("/v1/"):
            return self.kv2(request)
        if request.path == "/token":
            return self._issue(request)
        return self.upstream(request)

    def _issue(self, request: Request) -> Reply:
        if self.token_endpoint_fails or request.basic != ("gw", self.canaries.of["client"]):
            told = {"error": "invalid_client", "error_description": request.raw.decode()}
            return reply_json(told, 401)
        form = request.form
        with self._lock:
            if "subject_token" in form:
                self.canaries.issued.append(form["subject_token"])
            token = f"canary-token-{len(self.canaries.issued)}-{secrets.token_hex(12)}"
            self.canaries.issued.append(token)
        return reply_json({"access_token": token, "token_type": "Bearer", "expires_in": 300})

    def _accepts(self, request: Request) -> bool:
        """Whether a request shows what its server wants to see."""
        if self.refusing:
            return False
        of, shown = self.canaries.of, request.headers.get("authorization", "")
        match request.path.partition("?")[0].removeprefix("/mcp/"):
            case "header":
                return shown == f"Bearer {of['header']}"
            case "file":
                return request.headers.get("x-api-key") == of["file"]
            case "query":
                return request.path.endswith(f"?key={of['query']}") and not shown
            case "basic":
                pair = base64.b64encode(f"gw:{of['basic']}".encode()).decode()
                return shown == f"Basic {pair}"
            case "vaulted" | "ring" as name:
                return shown == of[name]
            case "client" | "person":
                return shown.removeprefix("Bearer ") in self.canaries.issued
        return False


class House(Site):
    """The gateway's folder. Its secrets are in `vault` beside it, or in the environment."""

    def __init__(self, folder: Path, world: World, *, socket: bool) -> None:
        self.world = world
        self.secrets = folder.parent / f"{folder.name}-secrets"
        self.secrets.mkdir()
        of = world.canaries.of
        self._write_secret("file", of["file"])
        self._write_secret("vault", of["vault"])
        self._write_secret("drawer", json.dumps({"house/gw": of["ring"]}))
        urls = {name: f"{world.office.url}/mcp/{name}" for name in KINDS}
        listing = [define(name) for name in TOOLS]
        super().__init__(folder, urls=urls, listings=dict.fromkeys(KINDS, listing))
        self._add_desk()
        launcher = self.settings["clients"][0]
        launcher["humans"] = ["*"]
        launcher["grants"] = [{"server": name} for name in self.settings["servers"]]
        self.settings["log"]["level"] = "debug"
        self.settings["credentials"] = {
            "vault": {"address": world.office.url, "token_from": f"file:{self.secrets}/vault"}
        } | ({"socket": "broker.sock"} if socket else {})
        self.write()

    @property
    def variables(self) -> dict[str, str]:
        """The environment of whoever holds the secrets."""
        of = self.world.canaries.of
        return {
            "HOUSE_HEADER": of["header"],
            "HOUSE_QUERY": of["query"],
            "HOUSE_BASIC": of["basic"],
            "HOUSE_DESK": of["desk"],
            "HOUSE_CLIENT": of["client"],
            "PYTHON_KEYRING_BACKEND": "tests.integration.credentials.drawer.Drawer",
            "DRAWER": str(self.secrets / "drawer"),
        }

    def _write_secret(self, name: str, value: str) -> None:
        path = self.secrets / name
        path.write_text(value, encoding="utf-8")
        path.chmod(0o600)

    def _copy_policies(self) -> None:
        self.policies.mkdir(parents=True)
        servers = "{" + ", ".join(f'"{name}"' for name in (*KINDS, "desk")) + "}"
        (self.policies / "house.rego").write_text(POLICY % servers, encoding="utf-8")
        authority = json.dumps({"policies": {"house": ["*"]}})
        (self.policies / "authority.json").write_text(authority, encoding="utf-8")

    def _auth(self, name: str) -> dict[str, str]:
        oauth = {
            "token_url": f"{self.world.office.url}/token",
            "client_id": "gw",
            "client_secret_from": "env:HOUSE_CLIENT",
        }
        return {
            "header": {"scheme": "Bearer {secret}", "value_from": "env:HOUSE_HEADER"},
            "file": {"header": "X-Api-Key", "value_from": f"file:{self.secrets}/file"},
            "query": {"kind": "query", "parameter": "key", "value_from": "env:HOUSE_QUERY"},
            "basic": {"kind": "basic", "user": "gw", "value_from": "env:HOUSE_BASIC"},
            "vaulted": {"value_from": "vault:kv/house#token"},
            "ring": {"value_from": "keyring:house/gw"},
            "client": {"kind": "oauth_client_credentials", **oauth},
            "person": {"kind": "token_exchange", "listing": "client", **oauth},
            "desk": {"kind": "env", "variable": "KEY", "value_from": "env:HOUSE_DESK"},
        }[name]

    def _pin(self, name: str, listings: Mapping[str, Sequence[bytes]]) -> str:
        """Write a manifest with its `auth`, and approve what its server offers."""
        path = self.folder / "manifests" / f"{name}.yaml"
        tools = [json.loads(raw)["name"] for raw in listings[name]]
        manifest = {
            "id": name,
            "transport": "stdio" if name == "desk" else "http",
            "egress": [] if name == "desk" else ["127.0.0.1"],
            "auth": self._auth(name),
            "tools": [{"name": tool, "effect": "update"} for tool in tools],
        }
        path.write_text(json.dumps(manifest), encoding="utf-8")
        approve_definitions(path, listings[name], ALL, "dana")
        return f"manifests/{name}.yaml"

    def _add_desk(self) -> None:
        schema: dict[str, Any] = {"type": "object", "additionalProperties": True}
        tools = [{"name": name, "inputSchema": schema} for name in ("length", "tell")]
        self.settings["servers"]["desk"] = {
            "transport": "stdio",
            "command": [sys.executable, "-S", str(HERE / "telling_server.py")],
            "manifest": self._pin("desk", {"desk": [json.dumps(tool).encode() for tool in tools]}),
        }
