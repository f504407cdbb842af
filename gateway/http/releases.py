"""`/v1/policy/releases`: what was published, by whom it was signed, and publishing itself.

Reads are for publishers, authors, operators, auditors and admins; publishing is for people with
the role `policy_publisher`, each under a key of their own (docs/releases.md).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
from fastapi import APIRouter, Request
from msgspec import Struct
from starlette.responses import Response

from gateway.core.approvals.declined import Declined
from gateway.core.errors import RequestError
from gateway.core.people.registry import ADMIN, AUDITOR, OPERATOR
from gateway.core.releases.archive import ARCHIVE_MAX_BYTES
from gateway.core.releases.history import Publication
from gateway.core.releases.history import Withdrawal as Taken
from gateway.core.releases.publishing import PUBLISHER
from gateway.core.releases.release import write_archive
from gateway.http.admin_route import (
    ProblemRoute,
    decline,
    read_body,
    reply,
    require_role,
    require_step_up,
)
from gateway.http.humans import Admit, Human
from gateway.http.openapi import takes
from gateway.http.releases_desk import Done, ReleaseDesk, Word

READERS: Final = (PUBLISHER, "policy_author", ADMIN, OPERATOR, AUDITOR)
BODY_MAX_BYTES: Final = ARCHIVE_MAX_BYTES * 3 // 2

Status = Callable[[], Mapping[str, Any]]


class NewRelease(Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /v1/policy/releases`. `archive` is base64; leave it out for a release kept here.

    `seen`: the digest of the impact that the proposal has, which says that you were shown it.
    """

    statement: str
    signature: str = ""
    archive: str = ""
    seen: str = ""


class Withdrawal(Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /v1/policy/releases/withdrawals`."""

    statement: str


class ReleaseAdmin:
    """The routes over a desk. `status` adds what the desk does not know (drift, shadow).

    Whoever publishes or withdraws must have signed in strongly within `step_up_s` seconds; 0 asks
    for nothing.
    """

    def __init__(self, *, desk: ReleaseDesk, admit: Admit, status: Status, step_up_s: int) -> None:
        self._desk = desk
        self._admit = admit
        self._status = status
        self._step_up_s = step_up_s

    def router(self) -> APIRouter:
        """Build all routes."""
        router = APIRouter(prefix="/v1/policy/releases", tags=["policy"], route_class=ProblemRoute)

        @router.get("")
        async def find(request: Request) -> Response:
            """List what was published, newest first, and what the next statement must say."""
            await require_role(self._admit, request, *READERS)
            return reply(self._view())

        @router.post("")
        @takes(NewRelease)
        async def publish(request: Request) -> Response:
            """Take one publisher's word."""
            by = await self._require_publisher(request)
            return _tell(await self._desk.publish(by.id, await _read_word(request)))

        @router.post("/withdrawals")
        @takes(Withdrawal)
        async def withdraw(request: Request) -> Response:
            """Take a proposal back: one's own, or another publisher's."""
            by = await self._require_publisher(request)
            given = await read_body(request, Withdrawal)
            return _tell(await self._desk.withdraw(by.id, given.statement))

        @router.get("/impacts/{digest}")
        async def impact(request: Request, digest: str) -> Response:
            """Return in full what a proposal would have changed."""
            await require_role(self._admit, request, *READERS)
            found = await asyncio.to_thread(self._desk.deps.store.load_impact, digest)
            if found is None:
                return decline(Declined("release_missing", "no such impact is kept here"))
            return reply(found)

        @router.get("/{revision}")
        async def fetch(request: Request, revision: str) -> Response:
            """Return a release as an archive, with the newest publisher's signature in it."""
            await require_role(self._admit, request, *READERS)
            found = await self._desk.read(revision)
            if isinstance(found, Declined):
                return decline(found)
            store = self._desk.deps.store
            signatures = await asyncio.to_thread(store.find_signatures, revision)
            signature = signatures[0] if signatures else None
            content = await asyncio.to_thread(write_archive, found, signature)
            archive = base64.b64encode(content).decode()
            return reply({"revision": found.revision, "archive": archive})

        return router

    async def _require_publisher(self, request: Request) -> Human:
        by = await require_role(self._admit, request, PUBLISHER)
        now_s = self._desk.deps.clock.now_ns() // 1_000_000_000
        require_step_up(by, max_age_s=self._step_up_s, now_s=now_s)
        return by

    def _view(self) -> dict[str, Any]:
        deps = self._desk.deps
        history, rules = deps.history, deps.rules
        target = history.target
        return {
            "environment": rules.environment,
            "log": rules.log,
            "next": history.number + 1,
            "active": None if history.active is None else history.active.revision,
            "replaces": "" if target is None else target.revision,
            "releases": [
                {**view(one.publication), "state": one.state} for one in history.standings()
            ],
            "proposals": [
                {
                    "id": one.id,
                    "revision": one.revision,
                    "number": one.number,
                    "action": one.act,
                    "shadow_s": one.shadow_s,
                    "again": one.again,
                    "key": one.kid,
                    "statement": one.token,
                    "at": one.at,
                    "expires": one.at + rules.ttl_s,
                    "impact": one.impact,
                }
                for one in history.proposals.values()
            ],
            "withdrawn": [msgspec.to_builtins(one) for one in history.withdrawn()],
            "withdrawals": [_view_withdrawal(one) for one in reversed(history.withdrawals)],
            "publishers": [
                {"id": one.id, "key": kid} for kid, one in sorted(rules.publishers.items())
            ],
            **self._status(),
        }


def view(publication: Publication) -> dict[str, Any]:
    """Return a publication for readers; the keys stand for the publishers."""
    return {
        "revision": publication.revision,
        "number": publication.number,
        "action": publication.act,
        "keys": list(publication.kids),
        "at": publication.at,
        "shadow_s": publication.shadow_s,
        "impact": publication.impact,
    }


def _view_withdrawal(one: Taken) -> dict[str, Any]:
    return {
        "revision": one.revision,
        "number": one.number,
        "action": "withdraw",
        "key": one.kid,
        "at": one.at,
        "shadow_s": one.shadow_s,
        "again": one.again,
    }


def _tell(done: Done | Declined) -> Response:
    return decline(done) if isinstance(done, Declined) else reply(msgspec.to_builtins(done))


async def _read_word(request: Request) -> Word:
    """Read a body that may hold a whole release; it is larger than the other routes take."""
    raw = bytearray()
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > BODY_MAX_BYTES:
            raise RequestError(
                f"the body is larger than {BODY_MAX_BYTES} bytes", code="body_too_large"
            )
    try:
        given = msgspec.json.decode(bytes(raw), type=NewRelease)
        archive = base64.b64decode(given.archive, validate=True)
    except (msgspec.MsgspecError, binascii.Error, ValueError) as error:
        why = f"the body does not fit: {str(error)[:200]}"
        raise RequestError(why, code="request_invalid") from None
    return Word(given.statement, given.signature, archive, given.seen)
