"""Runs: `/v1/runs`, for the launchers that create them and the people who watch (DESIGN §4).

A launcher proves itself by Basic, or by an assertion of its key (RFC 7523) as `Bearer`. It gives at
most what the configuration gives it, to agents that it may launch, for people that it may name.
Errors are `application/problem+json` with a hint.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

import msgspec
import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from gateway.core import strict_json
from gateway.core.errors import CountersignError, RequestError
from gateway.core.kills.kill import KILLED
from gateway.core.oauth import metadata as oauth
from gateway.core.tokens.clients import Client, Launcher
from gateway.core.tokens.grants import find_excess
from gateway.core.tokens.issuing import Site
from gateway.core.tokens.launching import (
    RunBody,
    build_run,
    find_deadline,
    find_unclear,
    find_unheard,
)
from gateway.core.tokens.token import Run
from gateway.http.admin_route import ProblemRoute
from gateway.http.client_auth import BASIC_CHALLENGE, read_body, read_launcher
from gateway.http.issue_desk import Created, IssueDeps, IssueDesk
from gateway.http.openapi import takes
from gateway.http.problem import problem
from gateway.http.run_views import BODY_MAX_BYTES, CloseBody, read_close, view_run
from gateway.http.runs_admin import RunsDesk, is_person

BODY_MAX_DEPTH: Final = 8
ANYBODY: Final = "*"


class _Fault(NamedTuple):
    """Why a run cannot be: HTTP status, code, what is wrong, what to do."""

    status: int
    code: str
    detail: str
    hint: str


def build_runs_router(deps: IssueDeps, people: RunsDesk | None = None) -> APIRouter:
    """Build the routes under `/v1/runs`. With `people`, they see all runs and may close them."""
    router = APIRouter(prefix="/v1/runs", tags=["runs"], route_class=ProblemRoute)
    desk = IssueDesk(deps)

    @router.get("")
    async def find(request: Request) -> Response:
        """List runs, newest first, to operators, auditors and admins."""
        return _unknown() if people is None else await people.find(request)

    @router.post("")
    @takes(RunBody)
    async def create(request: Request) -> Response:
        """Create a run; its credential is in the reply and nowhere else."""
        return await _for_launcher(
            deps, desk, request, lambda who: _create(deps, desk, who, request)
        )

    @router.get("/{run_id}")
    async def show(request: Request, run_id: str) -> Response:
        """Show a run to the launcher that created it, or to people."""
        if people is not None and is_person(request):
            return await people.show(request, run_id)
        return await _for_launcher(deps, desk, request, lambda who: _show(deps, who, run_id))

    @router.post("/{run_id}/close")
    @takes(CloseBody, required=False)
    async def close(request: Request, run_id: str) -> Response:
        """End a run. Answered once that is durable; asking again is harmless."""
        if people is not None and is_person(request):
            return await people.close(request, run_id)
        return await _for_launcher(
            deps, desk, request, lambda who: _close(deps, desk, who, run_id, request)
        )

    return router


async def _for_launcher(
    deps: IssueDeps,
    desk: IssueDesk,
    request: Request,
    story: Callable[[Launcher], Awaitable[Response]],
) -> Response:
    """Tell `story` for the launcher that sent `request`; strangers and failures end here."""
    try:
        launcher = await _authenticate(deps, desk, request)
        if launcher is not None:
            return await story(launcher)
    except CountersignError as error:
        # What broke inside is for the operators' log; nothing was handed out.
        return problem(503, error.code, "this could not be completed", "try again later")
    detail, hint = "no launcher has this id and secret", "send `Authorization: Basic id:secret`"
    headers = {"WWW-Authenticate": BASIC_CHALLENGE}
    return problem(401, "client_invalid", detail, hint, headers=headers)


async def _authenticate(deps: IssueDeps, desk: IssueDesk, request: Request) -> Launcher | None:
    presented = read_launcher(request.headers.get("authorization"))
    client: Client | None = None
    if presented is not None and presented.assertion:
        client = await desk.authenticate_key(presented)
    elif presented is not None:
        client = deps.clients.authenticate(presented.client_id, presented.secret)
    if isinstance(client, Launcher):
        return client
    await deps.refuse("authenticate", "client_invalid")
    return None


async def _create(
    deps: IssueDeps, desk: IssueDesk, launcher: Launcher, request: Request
) -> Response:
    op, now_s = deps.ids.new(), deps.clock.now_ns() // 1_000_000_000
    actor: dict[str, Any] = {"client": launcher.id}
    try:
        body = await _read(request)
    except RequestError as error:
        await desk.refuse_run(op, actor, error.code)
        status = 413 if error.code == "body_too_large" else 400
        return problem(status, error.code, str(error), "send the run as JSON; see docs/runs.md")
    fault = _find_fault(body, launcher, deps, now_s)
    if fault is not None:
        await desk.refuse_run(op, actor, fault.code)
        return problem(fault.status, fault.code, fault.detail, fault.hint)
    run = build_run(body, launcher, site=deps.site, run_id=deps.ids.new(), now_s=now_s)
    result = await desk.create(run, launcher, op)
    if not isinstance(result, Created):
        asked = "who writes the policies of phase `issue`"
        hint = f"ask {'an operator' if result.code == KILLED else asked}"
        return problem(403, result.code, result.detail, hint)
    return _created(result, deps.site)


async def _show(deps: IssueDeps, launcher: Launcher, run_id: str) -> Response:
    run = await _find(deps, launcher, run_id)
    return _unknown() if run is None else _json(view_run(run, deps.clock.now_ns()))


async def _close(
    deps: IssueDeps, desk: IssueDesk, launcher: Launcher, run_id: str, request: Request
) -> Response:
    try:
        body = await read_close(request)
    except RequestError as error:
        return problem(400, error.code, str(error), 'send `{"outcome": "done"}` or nothing')
    run = await _find(deps, launcher, run_id)
    if run is None:
        return _unknown()
    closed = await desk.close(run, body.outcome)
    return _json(view_run(closed, deps.clock.now_ns()))


async def _read(request: Request) -> RunBody:
    raw = await read_body(request, BODY_MAX_BYTES)
    try:
        return msgspec.convert(strict_json.parse(raw, max_depth=BODY_MAX_DEPTH), RunBody)
    except msgspec.ValidationError as error:
        text = f"the body does not fit: {str(error)[:200]}"
        raise RequestError(text, code="request_invalid") from None


def _find_fault(body: RunBody, launcher: Launcher, deps: IssueDeps, now_s: int) -> _Fault | None:
    """Say why `launcher` cannot have this run, or return None."""
    # 1. Asking for what has no clear meaning.
    if (unclear := find_unclear(body)) is not None:
        return _Fault(400, "request_invalid", unclear, "change the body and send it again")
    longest_s = deps.site.run_max_s
    if not 0 < find_deadline(body, now_s) - now_s <= longest_s:
        detail = "the deadline is past or too far away"
        return _Fault(400, "deadline_invalid", detail, f"let it end within {longest_s} s")
    if body.max_depth is not None and not 0 <= body.max_depth <= deps.site.max_depth:
        detail = f"`max_depth` is not from 0 to {deps.site.max_depth}"
        return _Fault(400, "request_invalid", detail, "hand on less often")
    # 2. A launcher reaching for agents of others.
    if body.agent not in launcher.may_launch:
        detail = "this launcher may not launch this agent"
        return _Fault(403, "agent_forbidden", detail, "add the agent to its `may_launch`")
    if body.may_act and body.may_act not in launcher.may_launch:
        detail = "this launcher may not have a run handed on to this agent"
        return _Fault(403, "agent_forbidden", detail, "add the agent to its `may_launch`")
    # 3. A launcher acting in anybody's name, which would also choose who may approve.
    if body.on_behalf_of is not None and not {ANYBODY, body.on_behalf_of} & {*launcher.humans}:
        detail = "this launcher may not act for this person"
        return _Fault(403, "on_behalf_of_forbidden", detail, "add the person to its `humans`")
    # 4. Authority out of nothing.
    if (excess := find_excess(launcher.grants, body.grants, deps.effect_of)) is not None:
        hint = "ask for less, or widen the launcher's `grants` in countersign.yaml"
        return _Fault(403, "grants_exceeded", excess, hint)
    # 5. A limit that a slip of the pen would lift.
    if (unheard := find_unheard(body, deps.effect_of)) is not None:
        hint = (
            "write `server.tool#/pointer`, with the tool's name as `countersign tools list` has it"
        )
        return _Fault(400, "request_invalid", unheard, hint)
    return None


async def _find(deps: IssueDeps, launcher: Launcher, run_id: str) -> Run | None:
    """Return a run of this launcher; one of another is no more there than none."""
    run = await deps.runs.get_run(run_id)
    return run if run is not None and run.launcher == launcher.id else None


def _created(created: Created, site: Site) -> Response:
    body = {
        "run_id": created.run.id,
        "run_credential": created.credential,
        "token_endpoint": site.public_url + oauth.TOKEN_PATH,
        "mcp_url": site.public_url + oauth.MCP_PATH,
        "deadline": created.run.deadline,
    }
    response = _json(body, status=201)
    response.headers["Location"] = f"/v1/runs/{created.run.id}"
    return response


def _json(body: dict[str, Any], status: int = 200) -> Response:
    headers = {"Cache-Control": "no-store"}
    return Response(orjson.dumps(body), status, headers=headers, media_type="application/json")


def _unknown() -> Response:
    return problem(404, "run_unknown", "there is no such run of this launcher", "check its id")
