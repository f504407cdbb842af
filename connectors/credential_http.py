"""One short exchange with somebody who gives out credentials: a token endpoint, a vault."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct

from connectors.http_pool import HttpError, HttpPool, HttpTimeoutError, build_head, read_target
from gateway.core.credentials import CredentialFailure, Reason

TIMEOUT_S: Final = 5.0
REPLY_MAX_BYTES: Final = 65_536


class CredentialProblem(Exception):  # noqa: N818 - becomes a value, `CredentialFailure`, further up
    """No credential, and why. The message names places, never a value."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.failure: Final = CredentialFailure(reason=reason, detail=detail)


class CredentialReply(Struct, frozen=True):
    """A whole answer. Its body holds secrets: it is neither logged nor put into errors."""

    status: int
    body: bytes

    def __repr__(self) -> str:
        return f"CredentialReply({self.status})"

    def object(self, who: str) -> dict[str, Any]:
        """Return the JSON object that it holds. Raises `CredentialProblem` `malformed`."""
        try:
            return msgspec.json.decode(self.body, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise CredentialProblem("malformed", f"{who} answered with no JSON object") from None


async def exchange(
    pool: HttpPool,
    method: str,
    url: str,
    *,
    who: str,
    headers: Mapping[str, str],
    body: bytes = b"",
    timeout_s: float = TIMEOUT_S,
) -> CredentialReply:
    """Send a request and read its whole answer within `timeout_s`. `who`: for error texts.

    Raises `CredentialProblem` `unreachable`, `timed_out` or `malformed`. No redirect is followed:
    a secret goes where the reviewers of the manifest sent it, and nowhere else.
    """
    sent = {
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "User-Agent": "countersign",
    }
    try:
        target = read_target(url)
        head = build_head(method, target, {**sent, **headers})
        async with asyncio.timeout(timeout_s):
            answer = await pool.post(target, head, body, limit=REPLY_MAX_BYTES, timeout_s=timeout_s)
            try:
                return CredentialReply(answer.status, await answer.read())
            finally:
                answer.release()
    except (TimeoutError, HttpTimeoutError):
        raise CredentialProblem("timed_out", f"{who} did not answer in time") from None
    except HttpError as error:
        raise CredentialProblem("unreachable", f"{who} cannot be asked: {error}") from None
    except (ValueError, OverflowError):
        raise CredentialProblem(
            "malformed", f"{who} cannot be talked to, or said too much"
        ) from None
