"""Checkpoints put into an S3 bucket under object lock: not even its owner deletes them in time.

One PUT and one GET, signed by hand with AWS Signature Version 4, so that no cloud library is
needed. The bucket must have been made with object lock (which brings versioning with it).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import quote, urlsplit

import httpx
from msgspec import Struct

from gateway.adapters.bounded_http import TIMEOUT_S, NoReply, Reply, exchange
from gateway.adapters.witness.file_anchor import compare
from gateway.adapters.witness.witnessing import Kept
from gateway.aside import Aside
from gateway.core.errors import ConfigurationError
from gateway.core.ports import Clock

_ALGORITHM: Final = "AWS4-HMAC-SHA256"


class Credentials(Struct, frozen=True):
    """An access key. `token`: of a session, empty for a lasting key."""

    access: str
    secret: str
    token: str = ""


class S3Anchor:
    """A prefix in a bucket with one object `<size>.checkpoint` for each checkpoint kept."""

    def __init__(
        self,
        *,
        url: str,
        bucket: str,
        prefix: str,
        region: str,
        lock_days: int,
        credentials: Callable[[], Credentials],
        http: httpx.AsyncClient,
        clock: Clock,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """`credentials` is asked for each checkpoint, for those of a session end.

        It raises `ConfigurationError` where there are none.
        """
        self._url: Final = url.rstrip("/")
        self._folder: Final = "/".join(part for part in (bucket, prefix.strip("/")) if part)
        self._region: Final = region
        self._lock: Final = timedelta(days=lock_days)
        self._read_credentials: Final = credentials
        self._aside: Final = Aside(stuck_max=1)
        self._http: Final = http
        self._clock: Final = clock
        self._timeout_s: Final = timeout_s
        self.name: Final = f"s3:{urlsplit(self._url).netloc}/{self._folder}"

    async def keep(self, size: int, note: str) -> Kept:
        """Put the note under a lock of `lock_days`. What is there already stays.

        1. `COMPLIANCE`: nobody shortens the lock or deletes the version, whatever their rights.
        2. `If-None-Match: *`: an object of this name is not hidden behind a newer version; another
           history of this log at this size is found out instead.
        """
        try:
            credentials = await self._aside.run(self._read_credentials, timeout_s=self._timeout_s)
        except (ConfigurationError, TimeoutError):
            return "no_credential"
        path = f"/{self._folder}/{size}.checkpoint"
        until = self._now() + self._lock
        digest = hashlib.md5(note.encode(), usedforsecurity=False).digest()
        headers = {
            "content-md5": base64.b64encode(digest).decode(),  # S3 asks for one with every lock
            "content-type": "text/plain; charset=utf-8",
            "if-none-match": "*",
            "x-amz-object-lock-mode": "COMPLIANCE",
            "x-amz-object-lock-retain-until-date": until.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        reply = await self._send("PUT", path, headers, note.encode(), credentials)
        if isinstance(reply, Reply) and reply.status == httpx.codes.PRECONDITION_FAILED:
            reply = await self._send("GET", path, {}, b"", credentials)
            if isinstance(reply, Reply) and reply.status == httpx.codes.OK:
                return compare(reply.body, note)
        if isinstance(reply, NoReply):
            return "timed_out" if reply.reason == "timed_out" else "unreachable"
        return "kept" if reply.status == httpx.codes.OK else "refused"

    async def _send(
        self,
        method: str,
        path: str,
        headers: dict[str, str],
        content: bytes,
        credentials: Credentials,
    ) -> Reply | NoReply:
        path = urlsplit(self._url).path + quote(path)
        url = urlsplit(self._url)._replace(path=path).geturl()
        signed = sign(
            method,
            url,
            {**headers, "host": urlsplit(url).netloc},
            content,
            credentials=credentials,
            region=self._region,
            now=self._now(),
        )
        return await exchange(
            self._http, method, url, content=content, headers=signed, timeout_s=self._timeout_s
        )

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.now_ns() // 1_000_000_000, UTC)


def sign(
    method: str,
    url: str,
    headers: dict[str, str],
    content: bytes,
    *,
    credentials: Credentials,
    region: str,
    now: datetime,
) -> dict[str, str]:
    """Return the headers with an AWS Signature Version 4 for S3 over all of them.

    `headers` have lower-case names, `host` among them; a query in `url` is sorted and quoted.
    """
    stamp = now.strftime("%Y%m%dT%H%M%SZ")
    digest = hashlib.sha256(content).hexdigest()
    headers = {**headers, "x-amz-date": stamp, "x-amz-content-sha256": digest}
    if credentials.token:
        headers["x-amz-security-token"] = credentials.token
    names = ";".join(sorted(headers))
    lines = "".join(f"{name}:{headers[name].strip()}\n" for name in sorted(headers))
    place = urlsplit(url)
    request = f"{method}\n{place.path}\n{place.query}\n{lines}\n{names}\n{digest}"
    scope = f"{stamp[:8]}/{region}/s3/aws4_request"
    to_sign = f"{_ALGORITHM}\n{stamp}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = f"AWS4{credentials.secret}".encode()
    for part in scope.split("/"):
        key = _hmac(key, part)
    signature = _hmac(key, to_sign).hex()
    said = f"Credential={credentials.access}/{scope},SignedHeaders={names},Signature={signature}"
    return {**headers, "authorization": f"{_ALGORITHM} {said}"}


def _hmac(key: bytes, message: str) -> bytes:
    return hmac.digest(key, message.encode(), hashlib.sha256)
