"""Checkpoints kept elsewhere: as files, and in S3 under object lock (a `moto_server`).

The S3 tests need `moto_server` in `.cache/bin` or on PATH.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from structlog.testing import capture_logs

from gateway.adapters.system import SystemClock, SystemIds
from gateway.adapters.witness.file_anchor import FileAnchor
from gateway.adapters.witness.s3_anchor import Credentials, S3Anchor, sign
from gateway.adapters.witness.witness_file import WitnessFile
from gateway.adapters.witness.witnessing import Anchor, Settings, Witnessing
from gateway.core.errors import ConfigurationError
from tests.integration.audit.parts import FaultyFiles, StillClock
from tests.integration.witness.conftest import Build
from tests.integration.witness.parts import ROOT, Log

pytestmark = [pytest.mark.network, pytest.mark.req("AUD-08")]

MOTO: Final = shutil.which("moto_server", path=f"{ROOT}/.cache/bin{os.pathsep}{os.environ['PATH']}")
needs_moto = pytest.mark.skipif(MOTO is None, reason="no moto_server: install `moto[server]`")
BUCKET: Final = "checkpoints"
SECOND_NS = 1_000_000_000


async def test_a_witnessed_checkpoint_is_dropped_as_a_file_for_good(build: Build) -> None:
    drop = build.directory / "drop"
    client = build(anchors=(FileAnchor(drop),))
    await client.turn()
    await build.log.grow(1)
    await client.turn()
    assert sorted(path.name for path in drop.iterdir()) == ["5.checkpoint", "7.checkpoint"]
    path = drop / "7.checkpoint"
    assert path.read_text() == (build.directory / "witness" / "checkpoint").read_text()
    assert path.stat().st_mode & 0o777 == 0o444
    # Kept again after a restart: the file stays as it is.
    again = FileAnchor(drop)
    assert await again.keep(7, path.read_text().rpartition("— ")[0]) == "kept"
    assert path.read_text().count("— ") == 4


async def test_another_history_at_a_size_kept_before_is_found_out(build: Build) -> None:
    drop = build.directory / "drop"
    await build(anchors=(FileAnchor(drop),)).turn()
    forged = await Log(tag="forged").grow(3)
    assert await FileAnchor(drop).keep(5, forged.newest()) == "other_history"
    client = _anchors_only(forged, build.directory / "forged", FileAnchor(drop))
    with capture_logs() as logs:
        await client.turn()
    (line,) = logs
    assert (line["event"], line["reason"]) == ("witness_saw_other_history", "other_history")
    assert line["log_level"] == "error"


async def test_a_place_that_cannot_be_written_is_told_and_tried_again(
    build: Build, tmp_path: Path
) -> None:
    drop = tmp_path / "drop"
    drop.write_text("no directory")
    client = build(anchors=(FileAnchor(drop),))
    await client.turn()
    assert client.status()["problems"] == {f"file:{drop}": "unreachable"}
    drop.unlink()
    await client.turn()  # nothing new in the log, but this is still to be kept
    assert client.status()["problems"] == {}
    assert [path.name for path in drop.iterdir()] == ["5.checkpoint"]
    (drop / "5.checkpoint").unlink()
    (drop / "5.checkpoint").write_text("torn")
    assert await FileAnchor(drop).keep(5, build.log.newest()) == "unreadable"


async def test_without_witnesses_each_intervals_checkpoint_is_kept(
    log: Log, tmp_path: Path
) -> None:
    clock = StillClock()
    drop = tmp_path / "drop"
    drop.write_text("no directory")
    client = _anchors_only(log, tmp_path / "log", FileAnchor(drop), clock=clock)
    for _ in range(6):
        await client.turn()
        clock.ns += 60 * SECOND_NS
    assert client.status()["records_beyond"] == 5
    assert client.status()["behind"] is False
    with capture_logs() as logs:
        await client.turn()
    assert [line["event"] for line in logs] == ["witness_behind"]
    drop.unlink()
    await client.turn()
    status = client.status()
    assert (status["size"], status["records_beyond"], status["behind"]) == (5, 0, False)
    await client.turn()
    await log.grow(2)
    await client.turn()
    assert sorted(path.name for path in drop.iterdir()) == ["5.checkpoint", "7.checkpoint"]
    assert (drop / "7.checkpoint").read_text() == log.newest()
    assert [one["type"] for one in log.audit.records].count("checkpoint.witnessed") == 0


async def test_a_place_that_hangs_is_told_and_holds_up_neither_witnesses_nor_the_alarm(
    build: Build, tmp_path: Path
) -> None:
    drop = tmp_path / "drop"
    drop.mkdir()
    pipe = drop / "5.checkpoint"
    os.mkfifo(pipe)  # whoever opens it waits for another end that is not there
    client = build(quorum=3, anchors=(FileAnchor(drop, timeout_s=0.05),))
    async with asyncio.timeout(5):
        await client.turn()
        assert client.status()["problems"] == {f"file:{drop}": "timed_out"}
        build.served[0].behave = _hang_up
        await build.log.grow(2)
        build.clock.ns += 400 * SECOND_NS
        with capture_logs() as logs:
            await client.turn()
        assert "witness_behind" in [line["event"] for line in logs]
        assert client.status()["behind"] is True
    os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
    pipe.unlink()
    build.served[0].behave = None
    async with asyncio.timeout(5):
        while client.status()["problems"]:
            await client.turn()
    assert [path.name for path in drop.iterdir()] == ["8.checkpoint"]


async def test_a_place_that_hangs_does_not_hold_up_the_end(log: Log, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "5.checkpoint")
    assert await FileAnchor(tmp_path, timeout_s=0.05).keep(5, log.newest()) == "timed_out"
    async with asyncio.timeout(5):  # the loop's own threads are waited for
        await asyncio.get_running_loop().shutdown_default_executor()


async def test_a_disk_that_was_full_leaves_no_part_of_a_checkpoint_behind(
    log: Log, tmp_path: Path
) -> None:
    full = FaultyFiles()
    full.fail_write_after = 10
    assert await FileAnchor(tmp_path, files=full).keep(5, log.newest()) == "unreachable"
    assert await FileAnchor(tmp_path).keep(5, log.newest()) == "kept"


async def test_two_buckets_of_one_name_are_two_anchors(
    http: httpx.AsyncClient, log: Log, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {
        "bucket": BUCKET, "prefix": "", "region": "us-east-1", "lock_days": 1, "http": http,
        "credentials": lambda: Credentials("a", "b"), "clock": SystemClock(),
    }  # fmt: skip
    anchors = [S3Anchor(url=f"http://127.0.0.1:{n}", **settings) for n in (1, 2)]
    client = _anchors_only(log, tmp_path, *anchors)
    await client.turn()
    assert client.status()["problems"] == {
        f"s3:127.0.0.1:{n}/{BUCKET}": "unreachable" for n in (1, 2)
    }


async def _hang_up(writer: asyncio.StreamWriter, _body: bytes) -> None:
    writer.close()


def _anchors_only(
    log: Log, directory: Path, *anchors: Anchor, clock: StillClock | None = None
) -> Witnessing:
    return Witnessing(
        audit=log.audit,
        newest=log.newest,
        witnesses=[],
        anchors=anchors,
        file=WitnessFile(directory, origin=log.audit.key.name),
        settings=Settings(quorum=1, interval_s=60, alert_after_s=300),
        clock=clock or StillClock(),
        ids=SystemIds(),
    )


class Bucket:
    """A bucket with object lock on a server that checks every signature, and its root user."""

    def __init__(self, url: str, credentials: Credentials) -> None:
        self.url, self.credentials = url, credentials

    async def ask(
        self, http: httpx.AsyncClient, method: str, path: str, content: bytes = b"", **headers: str
    ) -> httpx.Response:
        url = f"{self.url}{path}"
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        signed = sign(
            method,
            url,
            {"host": self.url.removeprefix("http://"), **named},
            content,
            credentials=self.credentials,
            region="us-east-1",
            now=datetime.now(UTC),
        )
        return await http.request(method, url, content=content, headers=signed)

    async def versions(self, http: httpx.AsyncClient) -> list[str]:
        body = (await self.ask(http, "GET", f"/{BUCKET}?versions=")).text
        return re.findall(r"<VersionId>([^<]+)</VersionId>", body)

    def anchor(self, http: httpx.AsyncClient, **changes: Any) -> S3Anchor:  # noqa: ANN401 - any setting
        settings: dict[str, Any] = {
            "url": self.url,
            "bucket": BUCKET,
            "prefix": "gateway 1/eu",
            "region": "us-east-1",
            "lock_days": 30,
            "credentials": lambda: self.credentials,
            "http": http,
            "clock": SystemClock(),
            **changes,
        }
        return S3Anchor(**settings)


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    assert MOTO is not None
    process = subprocess.Popen(
        [MOTO, "-H", "127.0.0.1", "-p", "0"],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if "Running on " in line:
                yield line.split()[-1]
                break
    finally:
        process.terminate()
        process.communicate(timeout=20)


@pytest.fixture
async def bucket(moto: str, http: httpx.AsyncClient) -> Bucket:
    """An administrator, who may do everything, and a bucket with object lock."""
    await http.post(f"{moto}/moto-api/reset-auth", content=b"inf")
    await http.post(f"{moto}/moto-api/reset")
    iam = {"authorization": "AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/iam/aws4_request"}

    async def act(**form: str) -> str:
        reply = await http.post(moto, data={"Version": "2010-05-08", **form}, headers=iam)
        assert reply.status_code == 200, reply.text
        return reply.text

    await act(Action="CreateUser", UserName="root")
    allow = '{"Effect":"Allow","Action":"*","Resource":"*"}'
    everything = f'{{"Version":"2012-10-17","Statement":[{allow}]}}'
    await act(Action="PutUserPolicy", UserName="root", PolicyName="all", PolicyDocument=everything)
    created = await act(Action="CreateAccessKey", UserName="root")
    access, secret = (
        created.partition(f"<{name}>")[2].partition("<")[0]
        for name in ("AccessKeyId", "SecretAccessKey")
    )
    await http.post(f"{moto}/moto-api/reset-auth", content=b"0")  # from now on it looks
    found = Bucket(moto, Credentials(access, secret))
    made = await found.ask(http, "PUT", f"/{BUCKET}", x_amz_bucket_object_lock_enabled="true")
    assert made.status_code == 200, made.text
    return found


@needs_moto
async def test_a_checkpoint_in_s3_can_be_neither_deleted_nor_hidden_for_good(
    bucket: Bucket, http: httpx.AsyncClient, build: Build
) -> None:
    client = build(anchors=(bucket.anchor(http),))
    await client.turn()
    assert client.status()["problems"] == {}
    path = f"/{BUCKET}/gateway%201/eu/5.checkpoint"
    kept = (build.directory / "witness" / "checkpoint").read_bytes()
    (version,) = await bucket.versions(http)
    one = f"{path}?versionId={version}"
    found = await bucket.ask(http, "GET", path)
    assert found.content == kept
    assert found.headers["x-amz-object-lock-mode"] == "COMPLIANCE"
    until = datetime.fromisoformat(found.headers["x-amz-object-lock-retain-until-date"])
    assert 29 <= (until - datetime.now(UTC)).days <= 30

    # Whoever has every right deletes it: it is there.
    assert (await bucket.ask(http, "DELETE", one)).status_code == 403
    forced = await bucket.ask(http, "DELETE", one, x_amz_bypass_governance_retention="true")
    assert forced.status_code == 403
    # He hides it behind a marker and a newer object: the version is there.
    assert (await bucket.ask(http, "DELETE", path)).status_code == 204
    assert (await bucket.ask(http, "PUT", path, b"forged")).status_code == 200
    assert (await bucket.ask(http, "GET", one)).content == kept


@needs_moto
async def test_what_is_in_s3_already_is_compared_and_left_alone(
    bucket: Bucket, http: httpx.AsyncClient, log: Log
) -> None:
    anchor = bucket.anchor(http)
    forged = await Log(tag="forged").grow(3)
    assert await anchor.keep(5, log.newest()) == "kept"
    assert await bucket.anchor(http).keep(5, log.newest()) == "kept"
    assert await anchor.keep(5, forged.newest()) == "other_history"
    assert len(await bucket.versions(http)) == 1


@needs_moto
@pytest.mark.parametrize("fault", ["no bucket", "no such key", "wrong secret", "nobody there"])
async def test_s3_that_keeps_nothing_is_told(
    bucket: Bucket, http: httpx.AsyncClient, log: Log, fault: str
) -> None:
    known = bucket.credentials
    changes: dict[str, dict[str, Any]] = {
        "no bucket": {"bucket": "elsewhere"},
        "no such key": {"credentials": lambda: Credentials("AKIANOBODY", "x")},
        "wrong secret": {"credentials": lambda: Credentials(known.access, "x")},
        "nobody there": {"url": "http://127.0.0.1:1"},
    }
    answer = await bucket.anchor(http, **changes[fault]).keep(5, log.newest())
    assert answer == ("unreachable" if fault == "nobody there" else "refused")


@needs_moto
async def test_credentials_that_were_renewed_are_used_and_missing_ones_are_told(
    bucket: Bucket, http: httpx.AsyncClient, log: Log
) -> None:
    now = [Credentials(bucket.credentials.access, "of a session that has ended")]

    def read() -> Credentials:
        if not now:
            raise ConfigurationError("secret file `token` cannot be read; provide it")
        return now[0]

    anchor = bucket.anchor(http, credentials=read)
    assert await anchor.keep(5, log.newest()) == "refused"
    now[:] = [bucket.credentials]
    assert await anchor.keep(5, log.newest()) == "kept"
    now.clear()
    assert await anchor.keep(6, log.newest()) == "no_credential"
