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
from gateway.core.releases.publishing import PUBLISHER
from gateway.core.releases.release import write_archive
from gateway.http.admin_route import ProblemRoute, decline, reply, require_role
from gateway.http.humans import Admit
from gateway.http.releases_desk import ReleaseDesk, Word

READERS: Final = (PUBLISHER, "policy_author", ADMIN, OPERATOR, AUDITOR)
BODY_MAX_BYTES: Final = ARCHIVE_MAX_BYTES * 3 // 2

Status = Callable[[], Mapping[str, Any]]


class NewRelease(Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /v1/policy/releases`. `archive` is base64; leave it out for a release kept here."""

    statement: str
    signature: str = ""
    archive: str = ""


class ReleaseAdmin:
    """The routes over a desk. `status` adds what the desk does not know (drift, shadow)."""

    def __init__(self, *, desk: ReleaseDesk, admit: Admit, status: Status) -> None:
        self._desk = desk
        self._admit = admit
        self._status = status

    def router(self) -> APIRouter:
        """Build all routes."""
        router = APIRouter(prefix="/v1/policy/releases", tags=["policy"], route_class=ProblemRoute)

        @router.get("")
        async def find(request: Request) -> Response:
            """List what was published, newest first, and what the next statement must say."""
            await require_role(self._admit, request, *READERS)
            return reply(self._view())

        @router.post("")
        async def publish(request: Request) -> Response:
            """Take one publisher's word."""
            by = await require_role(self._admit, request, PUBLISHER)
            word = await _read_word(request)
            done = await self._desk.publish(by.id, word)
            if isinstance(done, Declined):
                return decline(done)
            return reply(msgspec.to_builtins(done))

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
                    "key": one.kid,
                    "statement": one.token,
                    "at": one.at,
                    "expires": one.at + rules.ttl_s,
                }
                for one in history.proposals.values()
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
    }


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
    return Word(given.statement, given.signature, archive)
