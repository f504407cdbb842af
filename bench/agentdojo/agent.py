"""Who acts in a run: an agent over REST with a run's token, and the person who is asked."""

from __future__ import annotations

import time
from typing import Any, Final, Literal

import httpx

from bench.agentdojo.deployment import AGENT, APPROVER, LAUNCHER, Deployment
from bench.agentdojo.stage import Call
from bench.agentdojo.verdict import Outcome
from bench.processes import MeasurementError

_POLL_S: Final = 0.004
_WAIT_S: Final = 20.0
_PENDING: Final = "pending_approval"
Vote = Literal["approve", "deny"]


class Desk:
    """Launches runs at a gateway and votes on what they ask for."""

    def __init__(self, made: Deployment, suite: str) -> None:
        self._http = httpx.Client(base_url=made.base, timeout=30, trust_env=False)
        self._launcher = (LAUNCHER, made.secrets[LAUNCHER])
        self._approver = {"Authorization": f"Bearer {made.secrets[APPROVER]}"}
        self._suite = suite

    def launch(self, scope: dict[str, Any]) -> Run:
        """Create a run of this scope and get its token."""
        made = self._post("/v1/runs", self._launcher, json={"agent": AGENT, **scope})
        credential = (made["run_id"], made["run_credential"])
        form = {"grant_type": "client_credentials"}
        token = self._post("/oauth/token", credential, data=form)["access_token"]
        return Run(self, made["run_id"], token)

    def close(self) -> None:
        """Hang up."""
        self._http.close()

    def send(self, token: str, call: Call) -> httpx.Response:
        """Make one call."""
        return self._http.post(
            f"/v1/tools/{self._suite}__{call.tool}/call",
            json={"arguments": call.args},
            headers={"Authorization": f"Bearer {token}"},
        )

    def vote(self, token: str, held: dict[str, Any], vote: Vote) -> None:
        """Answer a held call; once approved, wait until it has run."""
        path = f"/v1/approvals/{held['approval_id']}"
        shown = self._http.get(path, headers=self._approver)
        body = {"decision": vote, "binding": shown.json()["binding"], "reason": "bench"}
        voted = self._http.post(f"{path}/votes", json=body, headers=self._approver)
        if voted.status_code != httpx.codes.OK:
            raise MeasurementError(f"a vote was not taken: {voted.text[:500]}")
        if vote == "approve":
            self._await(token, held["id"])

    def end(self, run_id: str) -> None:
        """Close a run."""
        self._post(f"/v1/runs/{run_id}/close", self._launcher)

    def _await(self, token: str, call_id: str) -> None:
        end = time.monotonic() + _WAIT_S
        while time.monotonic() < end:
            headers = {"Authorization": f"Bearer {token}"}
            now = self._http.get(f"/v1/calls/{call_id}", headers=headers).json()
            if now.get("status") != _PENDING:
                if now.get("status") not in {"completed", "failed"}:
                    raise MeasurementError(f"an approved call did not run: {str(now)[:500]}")
                return
            time.sleep(_POLL_S)
        raise MeasurementError("an approved call did not run in time")

    def _post(self, path: str, auth: tuple[str, str], **content: Any) -> dict[str, Any]:  # noqa: ANN401 - httpx's own
        reply = self._http.post(path, auth=auth, **content)
        if reply.is_error:
            raise MeasurementError(f"`{path}` answered {reply.status_code}: {reply.text[:500]}")
        answer: dict[str, Any] = reply.json() if reply.content else {}
        return answer


class Run:
    """One run, from its launch to its end."""

    def __init__(self, desk: Desk, run_id: str, token: str) -> None:
        self._desk, self._id, self._token = desk, run_id, token

    def call(self, call: Call, vote: Vote) -> tuple[Outcome, str]:
        """Make a call, have it voted on if it is held; return what became of it, and the reason."""
        reply = self._desk.send(self._token, call)
        answer = reply.json()
        match reply.status_code:
            case 200:
                return "allowed", answer.get("status", "")
            case 202:
                self._desk.vote(self._token, answer, vote)
                return "held", answer["reason"]
            case 401 | 403 | 404 | 429:
                return "denied", answer["code"]
            case status:
                raise MeasurementError(f"`{call.tool}` answered {status}: {reply.text[:500]}")

    def end(self) -> None:
        """Close it."""
        self._desk.end(self._id)
