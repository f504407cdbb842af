"""The socket between a gateway and its broker: who may ask, and who is believed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from typer.testing import CliRunner

from gateway.adapters.broker.broker_memory import MemoryBroker
from gateway.adapters.broker.broker_server import BrokerServer
from gateway.adapters.broker.broker_socket import SocketBroker
from gateway.cli import build
from gateway.core.credentials import CredentialAsk, CredentialFailure, UpstreamCredential
from gateway.core.errors import ConfigurationError
from tests.e2e.processes import eventually
from tests.e2e.site import ROOT
from tests.unit.connectors.calls import HandClock

pytestmark = [pytest.mark.network, pytest.mark.req("TOK-12")]

UID = os.getuid()
ASK = CredentialAsk(server="srv", agent="helper", person="ann")
HAS = UpstreamCredential(headers=(("Authorization", "Bearer s3cr3t-s3cr3t"),), secrets=("s3cr3t",))
COMMAND = Path(sys.executable).with_name("countersign")


@asynccontextmanager
async def serving(path: Path, *, uids: set[int] | None = None) -> AsyncIterator[BrokerServer]:
    broker = MemoryBroker({ASK: HAS})
    server = BrokerServer(broker, clock=HandClock(), uids=uids or {UID})
    await server.start(path)
    try:
        yield server
    finally:
        await server.close()


@asynccontextmanager
async def asking(
    path: Path, *, uid: int = UID, timeout_s: float = 2
) -> AsyncIterator[SocketBroker]:
    broker = SocketBroker(path, uid=uid, timeout_s=timeout_s)
    try:
        yield broker
    finally:
        await broker.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "broker.sock"


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


async def reason(broker: SocketBroker, ask: CredentialAsk = ASK, now_ns: int = 0) -> str:
    found = await broker.obtain(ask, now_ns)
    assert isinstance(found, CredentialFailure)
    return found.reason


async def test_what_the_broker_has_comes_over_whole(path: Path) -> None:
    async with serving(path), asking(path) as broker:
        assert await broker.obtain(ASK, 0) == HAS
        assert mode_of(path) == 0o600


async def test_a_stranger_is_told_nothing(path: Path) -> None:
    async with serving(path, uids={UID + 1}), asking(path) as broker:
        assert mode_of(path) == 0o666  # the kernel's word decides, not the mode
        assert await reason(broker) == "unreachable"


async def test_a_stranger_in_the_brokers_place_is_told_nothing(path: Path) -> None:
    heard: list[bytes] = []

    async def pretend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(1000))
        writer.close()

    path.parent.mkdir()
    async with await asyncio.start_unix_server(pretend, path):
        async with asking(path, uid=UID + 1) as broker:
            assert await reason(broker) == "refused"
        await asyncio.sleep(0.01)
    assert b"".join(heard) == b""


async def test_a_broker_that_is_not_there_is_told_and_found_when_it_is(path: Path) -> None:
    async with asking(path) as broker:
        assert await reason(broker) == "unreachable"
        async with serving(path):
            assert await reason(broker) == "unreachable"  # the failure stands for a second
            assert await broker.obtain(ASK, 1_000_000_000) == HAS


async def test_a_broker_that_was_started_anew_is_found_with_the_next_ask(path: Path) -> None:
    async with asking(path) as broker:
        async with serving(path):
            assert await broker.obtain(ASK, 0) == HAS
        other = CredentialAsk(server="other")
        async with serving(path):
            found = [await reason(broker, other, n * 2_000_000_000) for n in range(2)]
    assert found[-1] == "missing"


async def test_a_broker_that_hangs_up_fails_who_waits(path: Path) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.close()

    path.parent.mkdir()
    async with await asyncio.start_unix_server(hang_up, path), asking(path) as broker:
        assert await reason(broker) == "unreachable"


async def test_a_broker_that_is_silent_is_waited_for_no_longer_than_said(path: Path) -> None:
    silence = asyncio.Event()

    async def say_nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await silence.wait()
        writer.close()

    path.parent.mkdir()
    async with await asyncio.start_unix_server(say_nothing, path):
        async with asking(path, timeout_s=0.05) as broker:
            assert await reason(broker) == "timed_out"
        silence.set()


@pytest.mark.parametrize("line", [b"no json\n", b'{"id":"one"}\n', b'{"id":1}\n', b"x" * 300_000])
async def test_an_answer_that_is_none_fails_the_call(path: Path, line: bytes) -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(line)
        await reader.read()
        writer.close()

    path.parent.mkdir()
    async with await asyncio.start_unix_server(babble, path), asking(path) as broker:
        assert await reason(broker) in {"unreachable", "malformed"}


@pytest.mark.parametrize("line", [b"no json\n", b'{"id":1,"op":"put"}\n', b"x" * 70_000 + b"\n"])
async def test_a_question_that_is_none_is_told_and_ends_the_connection_and_no_other(
    path: Path, line: bytes
) -> None:
    async with serving(path), asking(path) as broker:
        with capture_logs() as told:
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(line)
            assert await reader.read() == b""
            writer.close()
        assert [one["event"] for one in told] == ["broker_request_unreadable"]
        assert await broker.obtain(ASK, 0) == HAS


async def test_a_rejection_reaches_the_broker_before_the_next_question(path: Path) -> None:
    inner = MemoryBroker({ASK: HAS})
    server = BrokerServer(inner, clock=HandClock(), uids={UID})
    await server.start(path)
    async with asking(path) as broker:
        first = await broker.obtain(ASK, 0)
        assert isinstance(first, UpstreamCredential)
        renewed = UpstreamCredential(headers=(("Authorization", "Bearer renewed"),))
        inner.has[ASK] = renewed
        assert broker.reject(ASK, first, 0)
        assert await broker.obtain(ASK, 0) == renewed
    await server.close()


async def test_a_socket_that_a_dead_broker_left_is_taken_over(path: Path) -> None:
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with serving(path), asking(path) as broker:
        assert await broker.obtain(ASK, 0) == HAS


async def test_a_live_brokers_place_is_not_taken(path: Path) -> None:
    async with serving(path):
        with pytest.raises(ConfigurationError, match="another broker is there"):
            await BrokerServer(MemoryBroker(), clock=HandClock(), uids={UID}).start(path)


async def test_a_file_in_the_way_is_left_alone(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("mine", encoding="utf-8")  # noqa: ASYNC240 - before anything runs
    with pytest.raises(ConfigurationError, match="choose another path"):
        await BrokerServer(MemoryBroker(), clock=HandClock(), uids={UID}).start(path)
    assert path.read_text(encoding="utf-8") == "mine"  # noqa: ASYNC240 - as above


# The command


def configure(folder: Path, **credentials: str) -> Path:
    (folder / "policies").mkdir()
    manifest = {
        "id": "srv",
        "transport": "http",
        "egress": ["127.0.0.1"],
        "auth": {"value_from": "env:BROKER_TEST"},
        "tools": [],
    }
    (folder / "srv.yaml").write_text(json.dumps(manifest), encoding="utf-8")
    settings: dict[str, Any] = {
        "policy": {"path": "policies"},
        "credentials": credentials,
        "servers": {
            "srv": {"transport": "http", "url": "http://127.0.0.1:1/mcp", "manifest": "srv.yaml"}
        },
    }
    path = folder / "countersign.yaml"
    path.write_text(json.dumps(settings), encoding="utf-8")
    return path


def test_the_command_prints_the_key_that_others_have_to_trust(tmp_path: Path) -> None:
    path = configure(tmp_path)
    done = CliRunner().invoke(build("broker"), ["broker", "--jwks", "-c", str(path)])
    (key,) = json.loads(done.stdout)["keys"]
    assert (key["kty"], key["crv"], key["alg"]) == ("EC", "P-256", "ES256")
    assert "d" not in key
    assert mode_of(tmp_path / "keys" / "assertion.pem") == 0o600


def test_the_command_needs_a_place_to_listen(tmp_path: Path) -> None:
    path = configure(tmp_path)
    done = CliRunner().invoke(build("broker"), ["broker", "-c", str(path)])
    assert (done.exit_code, "credentials.socket" in done.stderr) == (1, True)


def test_the_command_does_not_start_without_a_secret(tmp_path: Path) -> None:
    done = subprocess.run(
        [COMMAND, "broker", "-c", configure(tmp_path, socket="b.sock")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert "servers.srv: variable `BROKER_TEST` is not set; set it" in done.stderr
    assert not (tmp_path / "b.sock").exists()


@pytest.mark.parametrize("kind", ["oauth_client_credentials", "token_exchange"])
@pytest.mark.parametrize("place", ["broker", "gateway"])
def test_nothing_starts_without_the_secret_that_tokens_are_asked_for_with(
    tmp_path: Path, kind: str, place: str
) -> None:
    path = configure(tmp_path, **({"socket": "b.sock"} if place == "broker" else {}))
    manifest = json.loads((tmp_path / "srv.yaml").read_text(encoding="utf-8"))
    manifest["auth"] = {
        "kind": kind,
        "token_url": "http://127.0.0.1:1/token",
        "client_id": "countersign",
        "client_secret_from": "env:BROKER_TEST",
    }
    (tmp_path / "srv.yaml").write_text(json.dumps(manifest), encoding="utf-8")
    words = ["broker"] if place == "broker" else ["tools", "list"]
    done = CliRunner().invoke(build(words[0]), [*words, "--config", str(path)])
    assert done.exit_code == 1
    assert "servers.srv: variable `BROKER_TEST` is not set; set it" in done.stderr


async def test_the_command_hands_out_credentials_until_it_is_told_to_stop(tmp_path: Path) -> None:
    config = configure(tmp_path, socket="b.sock")
    env = {**os.environ, "BROKER_TEST": "s3cr3t-s3cr3t"}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([COMMAND, "broker", "-c", config], cwd=ROOT, stderr=log, env=env)  # noqa: ASYNC220 - waited for below
    try:
        await asyncio.to_thread(eventually, (tmp_path / "b.sock").is_socket, "it listens", 30.0)
        async with asking(tmp_path / "b.sock") as broker:
            found = await broker.obtain(CredentialAsk(server="srv"), 0)
    finally:
        process.send_signal(signal.SIGTERM)
        code = await asyncio.to_thread(process.wait, 30)
    assert isinstance(found, UpstreamCredential)
    assert found.headers == (("Authorization", "s3cr3t-s3cr3t"),)
    said = await asyncio.to_thread((tmp_path / "log").read_text, "utf-8")
    assert (code, "s3cr3t" in said) == (0, False)


def test_no_process_of_the_same_user_reads_its_memory() -> None:
    code = (
        "import ctypes\n"
        "from gateway.adapters.broker.broker_privacy import hide_memory\n"
        "hide_memory()\n"
        "print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"  # PR_GET_DUMPABLE
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "0"
