"""AuthZEN Authorization API 1.0: `/access/v1/evaluation`, `/access/v1/evaluations`, metadata.

Whoever enforces decisions elsewhere asks here. An error is an HTTP status with a text, as the
specification says; whoever gets one must treat it as a deny.
"""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable
from typing import Final

import orjson
from msgspec import Struct

from gateway.core.calls.answer import Refused
from gateway.core.calls.call import Arguments, CallMeta, RawCall
from gateway.core.errors import CountersignError, CredentialError, RequestError
from gateway.core.limits import Limits
from gateway.core.ports import Clock
from gateway.core.records.evaluation_records import Asker
from gateway.core.refusal import Refusal, kind_of
from gateway.core.tokens.clients import Launcher
from gateway.core.tokens.token import SCOPE_CALL
from gateway.enforce import Enforcement
from gateway.evaluating import Allowances, Evaluator
from gateway.http.asgi import REQUEST_ID, HeaderPairs, Receive, Scope, Send, read_body
from gateway.http.challenge import Challenges
from gateway.http.client_auth import BASIC_CHALLENGE, read_launcher
from gateway.http.humans import Admit
from gateway.http.issue_desk import IssueDesk
from gateway.http.proved_reply import answer_proved, show_possession
from gateway.protocol import authzen
from gateway.protocol.headers import Headers, read_headers

ROLES: Final = frozenset({"operator", "auditor", "policy_author"})
OPERATOR: Final = "operator"
PATHS: Final = (authzen.EVALUATION_PATH, authzen.EVALUATIONS_PATH, authzen.METADATA_PATH)

_REQUEST_ID: Final = b"x-request-id"
_REQUEST_ID_MAX: Final = 256
_PRINTABLE: Final = range(0x20, 0x7F)
_ISSUED_HERE: Final = "at+jwt"
_JSON: Final = (b"content-type", b"application/json")
_TEXT: Final = (b"content-type", b"text/plain; charset=utf-8")
_NO_STORE: Final = (b"cache-control", b"no-store")
_AGAIN: Final = (b"retry-after", b"1")
_FORBIDDEN: Final = {
    "subject_forbidden": "an agent may ask about itself only: name it in `subject.id`",
    "role_missing": f"this needs one of the roles {', '.join(sorted(ROLES))}",
}


class Fault(Struct, frozen=True):
    """A request that gets no decision: status, text for who asked, headers that go with it."""

    status: int
    text: str
    headers: tuple[tuple[bytes, bytes], ...] = ()


class AuthZenEndpoint:
    """Answers who may ask. `refuse(stage, code)` records, or counts, refusals of strangers."""

    def __init__(
        self,
        *,
        evaluator: Evaluator,
        enforcement: Enforcement,
        clients: IssueDesk,
        admit: Admit,
        refuse: Callable[[str, str], Awaitable[None]],
        challenges: Challenges,
        public_url: str,
        clock: Clock,
        limits: Limits,
    ) -> None:
        self._evaluator = evaluator
        self._enforcement = enforcement
        self._clients = clients
        self._admit = admit
        self._refuse = refuse
        self._challenges = challenges
        self._metadata = authzen.build_metadata(public_url)
        self._clock = clock
        self._limits = limits
        self._allowances = Allowances()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one HTTP request."""
        method = "GET" if scope["path"] == authzen.METADATA_PATH else "POST"
        if scope["method"] != method:
            fault = Fault(405, f"use {method}", ((b"allow", method.encode()),))
            await _tell(send, fault, ())
            return
        if method == "GET":
            await _send(send, 200, self._metadata, [_JSON, (b"cache-control", b"max-age=300")])
            return
        named, headers = _name_reply(scope), read_headers(scope["headers"])
        if isinstance(named, Fault) or isinstance(headers, Refusal):
            detail = headers.detail if isinstance(headers, Refusal) else ""
            fault = named if isinstance(named, Fault) else Fault(400, detail)
            await _tell(send, await self._count(fault), ())
            return
        raw = _raw(scope, headers)
        send = answer_proved(send, raw.possession)
        try:
            answer = await self._answer(scope, receive, headers, raw)
        except CountersignError as error:
            answer = _later(error)
        if isinstance(answer, Fault):
            await _tell(send, answer, named)
            return
        await _send(send, 200, answer, [_JSON, _NO_STORE, *named])

    async def _count(self, fault: Fault) -> Fault:
        """Record, or count, headers that cannot be read; return what is told of them."""
        try:
            await self._refuse("read", "header_mismatch")
        except CountersignError as error:
            return _later(error)
        return fault

    async def _answer(
        self, scope: Scope, receive: Receive, headers: Headers, raw: RawCall
    ) -> bytes | Fault:
        # 1. Strangers, and people who may not read what policies decide.
        asker = await self._believe(headers, raw)
        if isinstance(asker, Fault):
            return asker
        op: str = scope[REQUEST_ID]
        # 2. Requests that cannot be read, or that two parsers may read differently.
        try:
            questions = await self._read(scope, receive, headers)
        except RequestError as error:
            if not self._allowances.take(asker.key, 1, self._clock.monotonic_ns()):
                return await self._limit()
            await self._evaluator.refuse(asker, op, error.code)
            return Fault(413 if error.code == "body_too_large" else 400, str(error))
        # 3. Floods: questions stand in one queue with calls.
        if not self._allowances.take(asker.key, len(questions.items), self._clock.monotonic_ns()):
            return await self._limit()
        told = await self._evaluator.answer(asker, questions, op)
        if isinstance(told, Refusal):
            return Fault(403, _FORBIDDEN[told.code])
        return authzen.build_reply(questions, told, op)

    async def _read(self, scope: Scope, receive: Receive, headers: Headers) -> authzen.Questions:
        body = await read_body(receive, self._limits.body_max_bytes)
        if isinstance(body, Refusal):
            text = body.detail or f"send at most {self._limits.body_max_bytes} bytes"
            raise RequestError(text, code=body.code)
        if not authzen.is_json(headers.text(b"content-type")):
            raise RequestError("send `Content-Type: application/json`", code="request_invalid")
        boxcar = scope["path"] == authzen.EVALUATIONS_PATH
        return authzen.read_questions(body, boxcar=boxcar, limits=self._limits)

    async def _limit(self) -> Fault:
        await self._refuse("read", "evaluations_too_many")
        return Fault(429, "you ask too often; wait a second", (_AGAIN,))

    async def _believe(self, headers: Headers, raw: RawCall) -> Asker | Fault:
        """Find out who asks, by the credential that is shown. Whoever is nobody is recorded."""
        authorization = headers.text(b"authorization")
        scheme, _, credential = (authorization or "").partition(" ")
        scheme, credential = scheme.lower(), credential.strip()
        if authorization is None or scheme == "dpop":
            return await self._believe_agent(raw)
        if scheme == "bearer" and "." in credential:  # a token of ours, or an assertion
            if _type_of(credential) == _ISSUED_HERE:
                return await self._believe_agent(raw)
            return await self._believe_launcher(authorization)
        if scheme == "bearer":
            return await self._believe_person(authorization, raw.op)
        return await self._believe_launcher(authorization)

    async def _believe_agent(self, raw: RawCall) -> Asker | Fault:
        call = await self._enforcement.identify(raw, SCOPE_CALL)
        if isinstance(call, Refused):
            kind = kind_of(call.refusal.code, call.refusal.stage)
            challenge = tuple(self._challenges.headers(call.refusal.code, ""))
            return Fault(kind.status, kind.text, challenge)
        return Asker(claims=call.claims)

    async def _believe_launcher(self, authorization: str) -> Asker | Fault:
        presented = read_launcher(authorization)
        client = await self._clients.authenticate(presented)
        if isinstance(client, Launcher):
            return Asker(client=client.id)
        await self._refuse("authenticate", "client_invalid")
        challenge = (b"www-authenticate", BASIC_CHALLENGE.encode())
        return Fault(401, "no launcher has this id and secret", (challenge,))

    async def _believe_person(self, authorization: str, op: str) -> Asker | Fault:
        try:
            human = await self._admit(authorization)
        except CredentialError as error:
            if error.code == "killed":
                return Fault(403, str(error))
            challenge = (b"www-authenticate", b'Bearer realm="countersign"')
            return Fault(401, str(error), (challenge,))
        asker = Asker(person=human.id, operator=OPERATOR in human.roles)
        if ROLES.isdisjoint(human.roles):
            await self._evaluator.refuse(asker, op, "role_missing")
            return Fault(403, _FORBIDDEN["role_missing"])
        return asker


def _later(error: CountersignError) -> Fault:
    """Nothing can be told now: no record, no state."""
    return Fault(503, kind_of(error.code).text, (_AGAIN,))


def _raw(scope: Scope, headers: Headers) -> RawCall:
    """Return what there is to identify an agent by."""
    return RawCall(
        op=scope[REQUEST_ID],
        credential=headers.credential(),
        tool="",
        server=None,
        arguments=Arguments(b"{}", {}),
        meta=CallMeta(surface="rest"),
        possession=show_possession(scope, headers),
    )


def _name_reply(scope: Scope) -> tuple[tuple[bytes, bytes], ...] | Fault:
    """Return the header that repeats the caller's name of its request, if it gave one (§10.1.3)."""
    named = [value for name, value in scope["headers"] if name == _REQUEST_ID]
    if not named:
        return ()
    value: bytes = named[0]
    fits = 0 < len(value) <= _REQUEST_ID_MAX and all(byte in _PRINTABLE for byte in value)
    if len(named) > 1 or not fits:
        return Fault(400, f"`X-Request-ID` is one text of 1 to {_REQUEST_ID_MAX} characters")
    return ((_REQUEST_ID, value),)


def _type_of(token: str) -> str:
    """Return the `typ` that a JWT says it has: only to know whom to ask whether it is genuine."""
    head = token.partition(".")[0]
    try:
        header = orjson.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))
    except ValueError:
        return ""
    found = header.get("typ") if isinstance(header, dict) else None
    return found.lower() if isinstance(found, str) else ""


async def _tell(send: Send, fault: Fault, named: tuple[tuple[bytes, bytes], ...]) -> None:
    """Tell an error: a text, as the specification has it (§10.1.2)."""
    headers = [_TEXT, _NO_STORE, *fault.headers, *named]
    await _send(send, fault.status, fault.text.encode(), headers)


async def _send(send: Send, status: int, body: bytes, headers: HeaderPairs) -> None:
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})
