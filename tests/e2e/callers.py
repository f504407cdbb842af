"""Agents and people, as they speak to a gateway over the wire."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import httpx

from gateway.core.refusal import KINDS
from tests.e2e.site import secret_of

MODERN, LEGACY = "2026-07-28", "2025-11-25"
META = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientCapabilities": {},
}


class Reply:
    """One answer to an MCP request, plain or as the last event of a stream."""

    def __init__(self, answer: httpx.Response) -> None:
        self.http = answer
        self.status = answer.status_code
        text = answer.text
        if answer.headers.get("content-type", "").startswith("text/event-stream"):
            text = [line[6:] for line in text.splitlines() if line.startswith("data: ")][-1]
        self.body: dict[str, Any] = json.loads(text) if text else {}

    @property
    def result(self) -> dict[str, Any]:
        """The result, of a request that has one."""
        assert "result" in self.body, self.body
        found: dict[str, Any] = self.body["result"]
        return found

    @property
    def text(self) -> str:
        """The first text of a tool's result."""
        found: str = self.result["content"][0]["text"]
        return found

    @property
    def code(self) -> str:
        """The code of a refusal: in a tool's result, or by the fixed text of an error."""
        if "error" not in self.body:
            return str(self.refusal["code"])
        said = self.body["error"]["message"]
        return next(code for code, kind in KINDS.items() if said.startswith(kind.text))

    @property
    def refusal(self) -> dict[str, Any]:
        """What a refused result tells to programs: `code`, `stage` and `op`."""
        assert self.result.get("isError"), self.body
        found: dict[str, Any] = self.result["_meta"]["countersign/refusal"]
        return found


class Agent:
    """An agent with a token, speaking either MCP wire or REST."""

    def __init__(self, http: httpx.Client, token: str, run: dict[str, Any]) -> None:
        self.http, self.token, self.run = http, token, run
        self.auth = {"Authorization": f"Bearer {token}"}
        self._session: dict[str, str] = {}

    def call(self, tool: str, arguments: Mapping[str, Any] | None = None) -> Reply:
        """Call a tool over MCP 2026-07-28."""
        return self.post(build_call(tool, arguments or {}), tool)

    def post(self, body: bytes, tool: str, *, path: str = "/mcp", **headers: str) -> Reply:
        """Send these bytes as a `tools/call` of MCP 2026-07-28."""
        sent = {**self.auth, **modern_headers("tools/call", tool), **headers}
        return Reply(self.http.post(path, content=body, headers=sent))

    def list_names(self, path: str = "/mcp") -> set[str]:
        """List tools over MCP 2026-07-28."""
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": META}}
        headers = {**self.auth, **modern_headers("tools/list")}
        reply = Reply(self.http.post(path, json=body, headers=headers))
        return {tool["name"] for tool in reply.result["tools"]}

    def post_legacy(self, body: bytes) -> Reply:
        """Send these bytes in a session of MCP 2025-11-25."""
        if not self._session:
            hello = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "e2e"}}
            request = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello}
            answer = self.http.post("/mcp", json=request, headers=self.auth)
            self._session = {
                "Mcp-Session-Id": answer.headers["mcp-session-id"],
                "MCP-Protocol-Version": LEGACY,
                "Content-Type": "application/json",
            }
        headers = {**self.auth, **self._session}
        return Reply(self.http.post("/mcp", content=body, headers=headers))

    def rest(
        self, tool: str, arguments: Mapping[str, Any] | None = None, **headers: str
    ) -> httpx.Response:
        """Call a tool over REST."""
        return self.rest_raw(tool, json.dumps({"arguments": arguments or {}}).encode(), **headers)

    def rest_raw(self, tool: str, body: bytes, **headers: str) -> httpx.Response:
        """Send these bytes as the body of a call over REST."""
        return self.http.post(
            f"/v1/tools/{tool}/call", content=body, headers={**self.auth, **headers}
        )

    def get(self, path: str) -> httpx.Response:
        """Read something of the REST API."""
        return self.http.get(path, headers=self.auth)

    def hold(self, tool: str, arguments: Mapping[str, Any]) -> str:
        """Call a tool that is held; return the approval's id."""
        reply = self.call(tool, arguments)
        told = reply.result["structuredContent"]
        assert told["status"] == "pending_approval", reply.body
        return str(told["approval_id"])

    def status(self, approval_id: str, wait_seconds: int = 0) -> dict[str, Any]:
        """Ask what became of a held call: a CallToolResult."""
        asked = {"approval_id": approval_id, "wait_seconds": wait_seconds}
        return self.call("countersign_approval_status", asked).result


class Person:
    """Somebody at the admin API, with a credential of their own."""

    def __init__(self, http: httpx.Client, name: str) -> None:
        self.http = http
        self.auth = {"Authorization": f"Bearer {secret_of(name)}"}

    def get(self, path: str) -> httpx.Response:
        """Read something of the admin API."""
        return self.http.get(path, headers=self.auth)

    def show(self, approval_id: str) -> dict[str, Any]:
        """Read one held call."""
        answer = self.get(f"/v1/approvals/{approval_id}")
        assert answer.status_code == httpx.codes.OK, answer.text
        shown: dict[str, Any] = answer.json()
        return shown

    def vote(self, approval_id: str, decision: str = "approve") -> httpx.Response:
        """Vote on what is shown."""
        body = {
            "decision": decision,
            "binding": self.show(approval_id)["binding"],
            "reason": "checked",
        }
        return self.http.post(f"/v1/approvals/{approval_id}/votes", json=body, headers=self.auth)


def modern_headers(method: str, name: str | None = None) -> dict[str, str]:
    """Return the headers of MCP 2026-07-28."""
    headers = {
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": MODERN,
        "Mcp-Method": method,
    }
    return headers if name is None else {**headers, "Mcp-Name": name}


def build_call(tool: str, arguments: Mapping[str, Any]) -> bytes:
    """Return a `tools/call` of MCP 2026-07-28."""
    return call_with(tool, json.dumps(arguments).encode())


def call_with(tool: str, arguments: bytes, *, modern: bool = True) -> bytes:
    """Return a `tools/call` with these bytes as arguments, on either wire."""
    meta = b',"_meta":' + json.dumps(META).encode() if modern else b""
    head = b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"%b","arguments":'
    return head % tool.encode() + arguments + meta + b"}}"
