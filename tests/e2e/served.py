"""The gateway as a process of its own, and the people and agents who use it over the wire."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from gateway.adapters.audit_reader import read_records
from gateway.adapters.audit_verify import verify
from gateway.core.refusal import KINDS
from tests.e2e.site import ROOT, Site, secret_of

SERVE = [str(Path(sys.executable).with_name("countersign")), "serve", "--config"]
START_S, STOP_S, PATIENCE_S = 30.0, 30.0, 15.0
MODERN, LEGACY = "2026-07-28", "2025-11-25"
META = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientCapabilities": {},
}
Record = dict[str, Any]


def eventually(condition: Callable[[], object], what: str, within_s: float = PATIENCE_S) -> Any:  # noqa: ANN401 - whatever it returns
    """Return what `condition` returns as soon as that is true; fail when it never is."""
    deadline = time.monotonic() + within_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.02)
    return found


class Served:
    """A running gateway. `http` is a client without any credential of its own."""

    def __init__(self, site: Site, command: Sequence[str] = (), *, arguments: Sequence[str] = ()):
        self.site = site
        self.log = site.folder / "stderr.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*(command or SERVE), str(site.path), *arguments],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        self.http = httpx.Client(base_url=site.url, verify=False, trust_env=False, timeout=30)  # noqa: S501 - plain HTTP on loopback

    def wait_ready(self) -> Served:
        """Return once it serves."""
        eventually(self._answers, f"the gateway serves; it said:\n{self.said()}", START_S)
        return self

    def _answers(self) -> bool:
        assert self.process.poll() is None, f"the gateway ended:\n{self.said()}"
        try:
            return self.http.get("/readyz").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def said(self) -> str:
        """Return everything that it wrote to stderr so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def stop(self) -> int:
        """Ask it to end, as a service manager does; return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        """Return its exit code, once it has ended."""
        try:
            return self.process.wait(STOP_S)
        finally:
            self.process.kill()
            self.http.close()

    def children(self) -> list[int]:
        """Return the ids of all processes that it has started, and that they have."""
        return descendants(self.process.pid)

    # The log

    def records(self, kind: str | None = None, *, first: int = 0) -> list[Record]:
        """Return the records of the log, of one type or all."""
        found = read_records(self.site.audit, first=first)
        return [record for record in found if kind is None or record["type"] == kind]

    @contextmanager
    def adding(self) -> Iterator[list[Record]]:
        """Yield a list that holds, after the block, the records that were added in it."""
        first = len(self.records())
        added: list[Record] = []
        yield added
        added += self.records(first=first)

    def verify(self) -> None:
        """Check the whole log with the key that was made outside of it."""
        report = verify(self.site.audit, every_signature=True)
        assert report.valid, report.findings

    # Who uses it

    def create_run(self, agent: str = "helper", **body: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
        """Create a run as the launcher, with every server unless `grants` says else."""
        granted = [{"server": name} for name in self.site.settings["servers"]]
        answer = self.http.post(
            "/v1/runs",
            auth=("launcher", secret_of("launcher")),
            json={"agent": agent, "grants": granted, **body},
        )
        assert answer.status_code == httpx.codes.CREATED, answer.text
        run: dict[str, Any] = answer.json()
        return run

    def token(self, client_id: str, secret: str, scope: str = "") -> str:
        """Get an access token."""
        form = {"grant_type": "client_credentials"} | ({"scope": scope} if scope else {})
        answer = self.http.post("/oauth/token", auth=(client_id, secret), data=form)
        assert answer.status_code == httpx.codes.OK, answer.text
        token: str = answer.json()["access_token"]
        return token

    def agent(self, agent: str = "helper", scope: str = "", **run: Any) -> Agent:  # noqa: ANN401 - JSON
        """Return an agent with a token of a new run."""
        created = self.create_run(agent, **run)
        token = self.token(created["run_id"], created["run_credential"], scope)
        return Agent(self, token, created)

    def person(self, name: str) -> Person:
        """Return somebody at the admin API."""
        return Person(self, name)


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
            assert self.result.get("isError"), self.body
            return str(self.result["_meta"]["countersign/refusal"]["code"])
        said = self.body["error"]["message"]
        return next(code for code, kind in KINDS.items() if said.startswith(kind.text))


class Agent:
    """An agent with a token, speaking either MCP wire or REST."""

    def __init__(self, served: Served, token: str, run: dict[str, Any]) -> None:
        self.served, self.token, self.run = served, token, run
        self.http = served.http
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

    def __init__(self, served: Served, name: str) -> None:
        self.http = served.http
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


def descendants(pid: int) -> list[int]:
    """Return the ids of the processes below this one that are alive."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = stat.read_text().rpartition(")")
        except OSError:  # it has ended
            continue
        state, parent = rest.split()[:2]
        if state != "Z":
            parents.setdefault(int(parent), []).append(int(name.split()[0]))
    found: list[int] = []
    below = parents.get(pid, [])
    while below:
        found += below
        below = [child for parent in below for child in parents.get(parent, [])]
    return found
