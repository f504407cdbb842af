"""An OPA that decides: how a bundle gets in, what is believed, and what becomes of every fault."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from gateway.adapters.opa.opa_bundle import build_archive
from gateway.adapters.opa.opa_endpoint import OpaEndpoint
from gateway.adapters.opa.opa_link import ANSWER_MAX_BYTES, OpaAccess, OpaLink
from gateway.adapters.opa.opa_policy import ASKED_MAX, OpaPolicy, OpaTimes
from gateway.adapters.policy.policy_bundle import build_bundle
from gateway.core.errors import ConfigurationError, PolicyError
from gateway.core.policy.decision import Decision, Deny, Permit
from tests.integration.policy.certificates import make_authority
from tests.integration.policy.conftest import SHOP, make_bundle, question
from tests.integration.policy.opa_engines import (
    TIMES,
    build_opa,
    fetch_from,
    offering,
    pulling,
    pushing,
)
from tests.opa_server import NO_OPA, OPA, OpaServer, free_port, run_opa

needs_opa = pytest.mark.skipif(OPA is None, reason=NO_OPA)
pytestmark = [pytest.mark.network, pytest.mark.req("POL-05")]

BUNDLE = make_bundle()
STRICTER = make_bundle(SHOP.replace("> 100", "> 10"))
LOOSE = build_bundle(
    {"loose.rego": 'package policies.loose\n\npermit contains {"code": "all"} if true\n'},
    {"authority": {"policies": {"loose": ["*"]}}},
)


async def ask(engine: OpaPolicy, **args: Any) -> Decision:  # noqa: ANN401 - JSON
    return await engine.decide("shop.act", "call", question(**args))


async def failure(engine: OpaPolicy, **args: Any) -> str:  # noqa: ANN401 - JSON
    with pytest.raises(PolicyError) as raised:
        await ask(engine, **args)
    return raised.value.code


def code(decision: Decision) -> str:
    assert isinstance(decision, Deny)
    return decision.reasons[0].code


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 - another process tells nobody
        await asyncio.sleep(0.02)


# --- what OPA does -------------------------------------------------------------------------------


@needs_opa
async def test_a_pushed_bundle_is_swapped_without_a_failed_call() -> None:
    async with pushing(BUNDLE) as engine:
        stop = asyncio.Event()

        async def call() -> set[tuple[bool, str]]:
            seen = set()
            while not stop.is_set():
                decision = await ask(engine, amount=50)
                seen.add((isinstance(decision, Permit), decision.revision))
            return seen

        calling = [asyncio.create_task(call()) for _ in range(2)]
        for bundle in [STRICTER, BUNDLE, STRICTER]:
            await engine.activate(bundle)
        stop.set()
        seen = set.union(*await asyncio.gather(*calling))
    # Each answer is that of the bundle that it names, and both have answered.
    assert seen == {(True, BUNDLE.revision), (False, STRICTER.revision)}


@needs_opa
async def test_a_pulled_bundle_is_swapped_without_a_failed_call() -> None:
    async with pulling(BUNDLE) as engine:
        swap = asyncio.create_task(engine.activate(STRICTER))
        seen = set()
        while not swap.done():
            decision = await ask(engine, amount=50)
            seen.add((isinstance(decision, Permit), decision.revision))
        await swap
        assert code(await ask(engine, amount=50)) == "too_much"
        assert engine.revision == STRICTER.revision
        assert engine.healthy
    assert (True, BUNDLE.revision) in seen
    assert seen <= {(True, BUNDLE.revision), (False, STRICTER.revision)}


@needs_opa
async def test_the_bundle_before_is_taken_out_of_opa_and_those_of_others_at_the_start() -> None:
    with run_opa() as opa:
        link = OpaLink(OpaEndpoint("127.0.0.1", opa.port), OpaAccess())
        await link.open()
        first = build_opa(BUNDLE, opa.url)
        await first.start()
        await first.activate(STRICTER)
        while len(await link.list_policies()) > 4:  # noqa: ASYNC110 - OPA tells nobody
            await asyncio.sleep(0.02)
        await first.stop()
        second = build_opa(BUNDLE, opa.url)
        await second.start()
        modules = await link.list_policies()
        await second.stop()
        await link.close()
    name = BUNDLE.revision.removeprefix("sha256:")[:16]
    assert len(modules) == 4
    assert all(module.startswith(f"countersign_bundles/r{name}/") for module in modules)


@needs_opa
async def test_a_bundle_that_may_not_be_used_leaves_the_old_one_in_force() -> None:
    async with pushing(BUNDLE) as engine:
        with pytest.raises(ConfigurationError) as raised:
            await engine.activate(LOOSE)
        assert raised.value.code == "policy_selftest_failed"
        assert engine.revision == BUNDLE.revision
        assert isinstance(await ask(engine, amount=5), Permit)


@needs_opa
async def test_an_opa_that_was_started_anew_gets_its_bundle_back() -> None:
    told: list[str | None] = []
    with run_opa() as opa:
        engine = build_opa(BUNDLE, opa.url, report=told.append)
        await engine.start()
        opa.stop()
        assert await failure(engine, amount=5) == "policy_unavailable"
        await until(lambda: not engine.healthy)
        opa.start()
        await until(lambda: engine.healthy)
        assert isinstance(await ask(engine, amount=5), Permit)
        await engine.stop()
    assert [text is None for text in told] == [True, False, True]
    assert "no connection" in str(told[1])


@needs_opa
async def test_a_policy_without_end_is_given_up_at_the_deadline_and_slows_nobody() -> None:
    async with pushing(BUNDLE, deadline_ms=300) as engine:
        bombs = [asyncio.create_task(failure(engine, bomb=True)) for _ in range(2)]
        await asyncio.gather(*bombs)
        assert {bomb.result() for bomb in bombs} == {"policy_timeout"}
        assert isinstance(await ask(engine, amount=5), Permit)


@needs_opa
async def test_an_opa_without_the_bundle_decides_nothing() -> None:
    with run_opa() as opa:
        engine = build_opa(BUNDLE, opa.url, bundles="pull")
        await engine.start()
        assert not engine.healthy
        assert await failure(engine, amount=5) == "policy_unavailable"
        with pytest.raises(PolicyError):
            await engine.decide_many([("shop.act", question("list"))], "list")
        await engine.stop()


@needs_opa
async def test_a_new_bundle_that_opa_does_not_pull_is_given_up_and_the_old_one_offered(
    tmp_path: Path,
) -> None:
    times = OpaTimes(start_s=10, pull_s=0.3, watch_s=0.1)
    (tmp_path / "bundle.tar.gz").write_bytes(build_archive(BUNDLE))
    with run_opa("--bundle", str(tmp_path / "bundle.tar.gz")) as opa:
        engine = build_opa(BUNDLE, opa.url, bundles="pull", times=times)
        await engine.start()
        await until(lambda: engine.healthy)
        with pytest.raises(PolicyError, match="did not pull the bundle within"):
            await engine.activate(STRICTER)
        assert engine.shelf.etag == BUNDLE.revision
        assert isinstance(await ask(engine, amount=50), Permit)
        await engine.stop()


@needs_opa
async def test_an_opa_with_a_wrong_token_fetches_nothing() -> None:
    port = free_port()
    with run_opa(*fetch_from(port, "another")) as opa:
        engine = build_opa(BUNDLE, opa.url, bundles="pull")
        async with offering(engine.shelf, port):
            await engine.start()
            assert await failure(engine, amount=5) == "policy_unavailable"
            await engine.stop()


AUTHZ = """package system.authz

default allow := false

allow if input.identity == "let-me-in"
"""


@needs_opa
async def test_an_opa_that_asks_for_a_token_gets_it(tmp_path: Path) -> None:
    (tmp_path / "authz.rego").write_text(AUTHZ)
    guarded = ("--authentication=token", "--authorization=basic", str(tmp_path / "authz.rego"))
    with run_opa(*guarded) as opa:
        engine = build_opa(BUNDLE, opa.url, access=OpaAccess(token="let-me-in"))
        await engine.start()
        assert isinstance(await ask(engine, amount=5), Permit)
        await engine.stop()
        stranger = build_opa(BUNDLE, opa.url, times=OpaTimes(start_s=0))
        with pytest.raises(PolicyError, match=r"does not let the gateway in \(401\)"):
            await stranger.start()
        await stranger.stop()


@needs_opa
async def test_opa_is_believed_by_its_ca_and_believes_the_gateways_certificate(
    tmp_path: Path,
) -> None:
    make_authority(tmp_path)
    files = (
        *("--tls-cert-file", str(tmp_path / "server.pem")),
        *("--tls-private-key-file", str(tmp_path / "server.key")),
        *("--tls-ca-cert-file", str(tmp_path / "ca.pem"), "--authentication=tls"),
    )
    with run_opa(*files, tls=True) as opa:
        access = OpaAccess(
            ca=tmp_path / "ca.pem",
            certificate=tmp_path / "client.pem",
            key=tmp_path / "client.key",
        )
        engine = build_opa(BUNDLE, opa.url, access=access)
        await engine.start()
        assert isinstance(await ask(engine, amount=5), Permit)
        await engine.stop()
        for other in (OpaAccess(), OpaAccess(ca=tmp_path / "ca.pem")):
            stranger = build_opa(BUNDLE, opa.url, access=other, times=OpaTimes(start_s=0))
            with pytest.raises(PolicyError):
                await stranger.start()
            await stranger.stop()


@needs_opa
async def test_an_opa_on_a_unix_socket_decides(tmp_path: Path) -> None:
    opa = OpaServer()
    opa.address = f"unix://{tmp_path}/opa.sock"
    opa.start(wait=False)
    engine = build_opa(BUNDLE, f"opa+unix://{tmp_path}/opa.sock")
    try:
        await engine.start()
        assert isinstance(await ask(engine, amount=5), Permit)
    finally:
        await engine.stop()
        opa.stop()


# --- what something that is no OPA, or a broken one, does ----------------------------------------

HEAD = (
    "HTTP/1.1 {status} Said\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
)
Answer = Callable[[bytes], "tuple[int, bytes] | None"]
"""Takes an input; None is silence."""


class Fake:
    """Says what it is told to: to questions with `answer`, to everything else that all is well."""

    def __init__(self) -> None:
        self.answer: Answer = self.deny
        self.refuse_policies: tuple[int, bytes] | None = None
        self.url = ""

    def deny(self, body: bytes, revision: str = BUNDLE.revision) -> tuple[int, bytes]:
        """Answer as an OPA with the bundle."""
        decision = {"outcome": "deny", "reasons": [{"code": "fake"}], "obligations": []}
        many = orjson.loads(body)["input"].get("many", [])
        found = {"decision": decision, "decisions": {str(n): decision for n in range(len(many))}}
        return 200, orjson.dumps({"result": {"revision": revision, **found}})

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        while head := await _read_head(reader):
            method, path, length = head
            reply = self._reply(method, path, await reader.readexactly(length))
            if reply is None:
                await reader.read()  # until the other side gives up
                break
            status, body = reply
            writer.write(HEAD.format(status=status, length=len(body)).encode() + body)
        writer.close()

    def _reply(self, method: str, path: str, body: bytes) -> tuple[int, bytes] | None:
        if method == "POST":
            return self.answer(body)
        if method == "PUT" and path.startswith("/v1/data"):
            return 204, b""
        if method == "PUT" and self.refuse_policies is not None:
            return self.refuse_policies
        return 200, b"{}"


async def _read_head(reader: asyncio.StreamReader) -> tuple[str, str, int] | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionResetError):
        return None
    first, *lines = head.decode().split("\r\n")
    fields = dict(line.lower().split(": ", 1) for line in lines if ": " in line)
    method, path, _ = first.split(" ")
    return method, path, int(fields.get("content-length", 0))


@asynccontextmanager
async def faking(**more: Any) -> AsyncIterator[tuple[Fake, OpaPolicy]]:  # noqa: ANN401 - settings
    """Run an engine on a fake OPA."""
    fake = Fake()
    server = await asyncio.start_server(fake.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    fake.url = f"opa://127.0.0.1:{port}"
    engine = build_opa(BUNDLE, fake.url, **{"deadline_ms": 300, **more})
    try:
        await engine.start()
        yield fake, engine
    finally:
        await engine.stop()
        server.close()


def say(status: int, body: bytes) -> Answer:
    return lambda _: (status, body)


def result(**members: Any) -> bytes:  # noqa: ANN401 - JSON
    return orjson.dumps({"result": members})


DENIED = {
    "no result": (200, b"{}", "policy_undefined"),
    "an empty result": (200, b'{"result":{}}', "policy_undefined"),
    "no decision": (200, result(revision=BUNDLE.revision), "policy_undefined"),
    "not JSON": (200, b"<html>busy</html>", "policy_answer_invalid"),
    "nothing": (200, b"", "policy_answer_invalid"),
    "a list": (200, b"[]", "policy_answer_invalid"),
    "result of a wrong type": (200, b'{"result":true}', "policy_answer_invalid"),
    "revision of a wrong type": (200, result(revision=7, decision={}), "policy_answer_invalid"),
    "a decision of a wrong type": (
        200,
        result(revision=BUNDLE.revision, decision=True),
        "policy_answer_invalid",
    ),
    "an unknown outcome": (
        200,
        result(
            revision=BUNDLE.revision, decision={"outcome": "yes", "reasons": [], "obligations": []}
        ),
        "policy_answer_invalid",
    ),
    "an unknown obligation": (
        200,
        result(
            revision=BUNDLE.revision,
            decision={"outcome": "permit", "reasons": [], "obligations": [{"type": "fly"}]},
        ),
        "obligation_unknown",
    ),
}
PERMIT = {"outcome": "permit", "reasons": [], "obligations": []}
FAILED = {
    "an internal error": (500, b'{"code":"internal_error","message":"canary"}', "policy_error"),
    "nonsense and 500": (500, b"canary", "policy_error"),
    "a bad request": (400, b"{}", "policy_error"),
    "a redirect": (302, b"", "policy_error"),
    "unavailable": (503, b"", "policy_error"),
    "a token refused": (401, b"{}", "policy_unavailable"),
    "forbidden": (403, b"{}", "policy_unavailable"),
    "a foreign revision": (
        200,
        result(revision=STRICTER.revision, decision=PERMIT),
        "policy_revision_foreign",
    ),
    "no revision": (200, result(decision=PERMIT), "policy_revision_foreign"),
    "too large": (200, b" " * (ANSWER_MAX_BYTES + 1), "policy_unavailable"),
}


@pytest.mark.parametrize("name", DENIED)
async def test_what_is_no_answer_is_a_deny(name: str) -> None:
    status, body, expected = DENIED[name]
    async with faking() as (fake, engine):
        fake.answer = say(status, body)
        assert code(await ask(engine)) == expected


@pytest.mark.parametrize("name", FAILED)
async def test_what_decides_nothing_is_an_error_with_a_code_and_no_word_of_the_input(
    name: str,
) -> None:
    status, body, expected = FAILED[name]
    async with faking() as (fake, engine):
        fake.answer = say(status, body)
        with pytest.raises(PolicyError) as raised:
            await ask(engine, amount=5, secret="canary")
        assert raised.value.code == expected
        assert "canary" not in str(raised.value)
        with pytest.raises(PolicyError):
            await engine.decide_many([("shop.act", question("list"))] * 3, "list")


async def test_silence_is_a_timeout_and_a_late_answer_goes_to_nobody_else() -> None:
    async with faking(deadline_ms=100) as (fake, engine):
        fake.answer = lambda _: None
        assert await failure(engine) == "policy_timeout"
        fake.answer = fake.deny
        assert code(await ask(engine)) == "fake"


async def test_inputs_go_out_as_they_are_on_record() -> None:
    seen: list[bytes] = []

    async with faking() as (fake, engine):

        def answer(body: bytes) -> tuple[int, bytes]:
            seen.append(body)
            return fake.deny(b'{"input":{}}')

        fake.answer = answer
        document = b'{"version":1,"n":[1.0,1e400,123456789012345678901234567890,0.1000]}'
        await engine.decide("shop.act", "call", document)
    # What OPA would write as it was sent, and the embedded engine as it reads it.
    plain = document.replace(b"1.0,", b"1,").replace(b"0.1000", b"0.1")
    assert seen[0] == b'{"input":%b}' % plain


async def test_an_input_that_is_too_large_is_not_sent() -> None:
    sent: list[int] = []

    async with faking() as (fake, engine):

        def answer(body: bytes) -> tuple[int, bytes]:
            sent.append(len(body))
            return fake.deny(body)

        fake.answer = answer
        assert await failure(engine, text="x" * (5 << 20)) == "policy_error"
        with pytest.raises(PolicyError):
            await engine.decide_many([("shop.act", question(text="x" * (5 << 20)))], "list")
    assert max(sent, default=0) < 1 << 20


async def test_too_many_questions_are_refused_and_may_be_asked_again() -> None:
    async with faking(deadline_ms=2_000) as (fake, engine):
        fake.answer = lambda _: None
        asking = [asyncio.create_task(ask(engine)) for _ in range(ASKED_MAX)]
        await asyncio.sleep(0)
        with pytest.raises(PolicyError) as raised:
            await ask(engine)
        assert raised.value.code == "policy_overloaded"
        assert raised.value.retryable
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)


async def test_a_bundle_that_opa_refuses_is_told_in_its_words_with_file_and_line() -> None:
    async with faking() as (fake, engine):
        error = {
            "message": "rego_type_error: undefined function nice",
            "location": {"file": f"countersign_bundles/r{'0' * 16}/policies/shop.rego", "row": 7},
        }
        fake.refuse_policies = 400, orjson.dumps({"code": "invalid_parameter", "errors": [error]})
        with pytest.raises(ConfigurationError) as raised:
            await engine.activate(STRICTER)
        assert raised.value.code == "policy_invalid"
        assert "policies/shop.rego:7: rego_type_error: undefined function nice" in str(raised.value)
        fake.refuse_policies = 500, b"<html>"
        with pytest.raises(PolicyError):
            await engine.activate(STRICTER)
        assert engine.revision == BUNDLE.revision
        assert code(await ask(engine)) == "fake"


async def test_a_start_without_an_opa_fails_in_words() -> None:
    engine = build_opa(BUNDLE, f"opa://127.0.0.1:{free_port()}", times=OpaTimes(start_s=0))
    with pytest.raises(PolicyError, match=r"no OPA to decide: opa://127\.0\.0\.1:.*start it"):
        await engine.start()
    await engine.stop()


async def test_an_engine_that_was_not_started_decides_nothing() -> None:
    engine = build_opa(BUNDLE, "opa://127.0.0.1:1")
    assert engine.revision == BUNDLE.revision
    assert not engine.healthy
    assert await failure(engine) == "policy_unavailable"


def test_certificates_that_cannot_be_used_are_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "no.pem").write_text("not PEM")
    endpoint = OpaEndpoint("127.0.0.1", 1, tls=True)
    for access in (OpaAccess(ca=tmp_path / "no.pem"), OpaAccess(ca=tmp_path / "missing.pem")):
        with pytest.raises(ConfigurationError, match=r"policy\.opa: a certificate or key"):
            OpaLink(endpoint, access)
    assert ssl.OPENSSL_VERSION
    assert TIMES.watch_s < 1
