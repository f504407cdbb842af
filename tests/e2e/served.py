"""The gateway as a process of its own, its log, and who uses it."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

from gateway.adapters.audit.audit_reader import read_records
from gateway.adapters.audit.audit_verify import verify
from tests.e2e.callers import Agent, Person
from tests.e2e.processes import STOP_S, Process, descendants, environment, eventually, listens
from tests.e2e.site import ROOT, Site, secret_of

SERVE = [str(Path(sys.executable).with_name("countersign")), "serve", "--config"]
START_S = 30.0
Record = dict[str, Any]


class Served:
    """A running gateway. `http` is a client without any credential of its own."""

    def __init__(self, site: Site, process: Process | None = None) -> None:
        self.site = site
        self.log = site.folder / "stderr.log"
        self.log.touch()
        self.process = process or self._serve()
        self.http = httpx.Client(base_url=site.url, verify=False, trust_env=False, timeout=30)  # noqa: S501 - plain HTTP on loopback

    def _serve(self) -> Process:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [*SERVE, str(self.site.path)],
                cwd=ROOT,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )

    def wait_ready(self) -> Served:
        """Return once it serves."""
        eventually(self._answers, f"the gateway serves; see {self.log}", START_S)
        return self

    def _answers(self) -> bool:
        assert self.process.poll() is None, f"the gateway ended:\n{self.said()}"
        if not listens(httpx.URL(self.site.url).port or 80):
            return False
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

    def keepers(self) -> list[int]:
        """Return the id of the process that keeps its log, while there is one."""
        return [pid for pid in self.children() if b"audit_process" in _command_of(pid)]

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
        return Agent(self.http, token, created)

    def person(self, name: str) -> Person:
        """Return somebody at the admin API."""
        return Person(self.http, name)


def fill_disk(served: Served) -> None:
    """Let no file of this gateway grow any more, as on a full disk."""
    segment = max(served.site.audit.glob("*.jsonl"))
    limit = segment.stat().st_size
    for pid in (served.process.pid, *served.keepers()):
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))


def free_disk(served: Served) -> None:
    """Let files grow again. A log that has failed stays failed until a restart."""
    most = resource.RLIM_INFINITY
    for pid in (served.process.pid, *served.keepers()):
        with suppress(ProcessLookupError):  # what keeps a failed log ends
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (most, most))


def _command_of(pid: int) -> bytes:
    with suppress(OSError):  # it has ended meanwhile
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""
