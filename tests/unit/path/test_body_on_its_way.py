"""A caller was believed before the body was read; what ended meanwhile is not believed any more."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.adapters.keys.jose_tokens import JoseVerifier
from gateway.adapters.keys.token_keys import generate_token_key
from gateway.core.policy.decision import Decision
from gateway.http.asgi import Message
from tests.fixed import NOW_S
from tests.unit.path.world import PERMIT, World, build_claims, build_modern, modern_headers, sign


def revoke(world: World) -> None:
    world.revoked.add("run-1")


def expire(world: World) -> None:
    world.clock.pass_s(300)


def take_the_key_away(world: World) -> None:
    verifier = world.authenticator._tokens  # noqa: SLF001 - what a key that is retired changes
    assert isinstance(verifier, JoseVerifier)
    verifier.use([generate_token_key()])


async def ask(
    world: World, path: str, meanwhile: Callable[[World], None], odd: bytes = b""
) -> tuple[int, bytes]:
    """Send a call whose body comes in two parts, with something happening in between.

    `odd`: ends the body, which is none then.
    """
    token = sign(build_claims())
    body, headers = b'{"arguments":{"amount":1}}', {"idempotency-key": "k1"}
    if path == "/mcp":
        body = build_modern("tools/call", "billing__refund", b'{"amount":1}')
        headers = modern_headers("tools/call", "billing__refund")
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    pairs += [(b"host", b"gw.example"), (b"authorization", b"Bearer " + token)]
    parts, sent = [body[:5], body[5:] + odd], list[Message]()

    async def receive() -> Message:
        if len(parts) == 1:
            meanwhile(world)
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": path, "headers": pairs}
    await world.app(scope, receive, send)
    return sent[0]["status"], sent[1]["body"]


PATHS = ["/mcp", "/v1/tools/billing__refund/call"]


@pytest.mark.parametrize("odd", [b"", b"}"])
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("meanwhile", "code"),
    [
        (revoke, "token_revoked"),
        (expire, "token_expired"),
        (take_the_key_away, "token_invalid"),
    ],
)
async def test_what_ended_while_the_body_was_on_its_way_is_refused_before_policy_is_asked(
    path: str, meanwhile: Callable[[World], None], code: str, odd: bytes
) -> None:
    asked: list[str] = []

    def answer(tool: str, *_: object) -> Decision:
        asked.append(tool)
        return PERMIT

    world = World(answer)
    await world.launch()
    status, body = await ask(world, path, meanwhile, odd)
    assert (status, code in body.decode(), asked, world.sent) == (401, True, [], [])
    record = world.only_record()
    assert (record["type"], record["stage"], record["reason"]) == (
        "call.refused",
        "authenticate",
        code,
    )


@pytest.mark.req("GW-07")
@pytest.mark.parametrize("meanwhile", [revoke, expire])
async def test_who_was_not_believed_meanwhile_may_send_the_same_request_again(
    world: World, meanwhile: Callable[[World], None]
) -> None:
    status, _ = await ask(world, "/v1/tools/billing__refund/call", meanwhile)
    assert (status, world.sent) == (401, [])
    world.revoked.clear()
    later = build_claims(jti="jti-2", expires_at=NOW_S + 600)
    body, key = b'{"arguments":{"amount":1}}', {"idempotency-key": "k1"}
    reply = await world.call_rest("billing__refund", body, key, claims=later)
    assert (reply.status, len(world.sent)) == (200, 1)


@pytest.mark.req("GW-07")
@pytest.mark.parametrize("why", ["killed", "tool_killed", "identity_suspended"])
async def test_what_was_stopped_meanwhile_runs_under_the_same_key_once_it_is_let_go_on(
    world: World, why: str
) -> None:
    world.why_barred = why
    status, body = await ask(world, "/v1/tools/billing__refund/call", revoke)
    assert (status, why in body.decode(), world.sent) == (403, True, [])
    world.revoked.clear()
    body, key = b'{"arguments":{"amount":1}}', {"idempotency-key": "k1"}
    for _ in range(2):  # the second is told what became of the first
        reply = await world.call_rest("billing__refund", body, key)
        assert (reply.status, len(world.sent)) == (200, 1)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("token", [b"", b"Bearer !!", b"Bearer a.b.c"])
async def test_the_body_of_a_stranger_is_not_read(world: World, path: str, token: bytes) -> None:
    headers = modern_headers("tools/call", "billing__refund").items()
    pairs = [(name.encode(), value.encode()) for name, value in headers]
    pairs += [(b"host", b"gw.example"), (b"authorization", token)]
    asked, sent = list[str](), list[Message]()

    async def receive() -> Message:
        asked.append(path)
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    await world.app(
        {"type": "http", "method": "POST", "path": path, "headers": pairs}, receive, send
    )
    assert (sent[0]["status"], asked) == (401, [])


@pytest.mark.parametrize("path", PATHS)
async def test_a_call_goes_on_where_nothing_ended(path: str) -> None:
    world = World()
    await world.launch()
    status, body = await ask(world, path, lambda _world: None)
    assert status == 200, body
    assert b"refunded" in body
