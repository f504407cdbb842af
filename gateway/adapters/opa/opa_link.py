"""The gateway's end of an OPA server: questions out, answers in, over opa-python-client.

What the client would do that a gateway must not, is undone here (ADR 0024): it retries, follows
redirects, keeps cookies, trusts the system's certificates only, rewrites refused policies, reads
answers without end, and writes every input anew. INVARIANT: an input goes out byte for byte as it
is kept on record; a number that Python would write differently would be decided on as another.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import aiohttp
import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType
from opa_client.errors import RegoParseError
from opa_client.opa_async import AsyncOpaClient

from gateway.adapters.opa.opa_endpoint import OpaEndpoint
from gateway.core.errors import ConfigurationError, PolicyError

CONTROL_TIMEOUT_S: Final = 30.0
CONNECTIONS_MAX: Final = 64
ANSWER_MAX_BYTES: Final = 4 << 20
LISTING_MAX_BYTES: Final = 512 << 20
"""OPA lists modules with their syntax trees."""

_JSON: Final = {"Content-Type": "application/json"}
_OK, _NO_CONTENT = 200, 204
_FORBIDDEN: Final = (401, 403)


class OpaAccess(Struct, frozen=True):
    """How an OPA knows the gateway, and the gateway an OPA. Files are PEM."""

    token: str = ""
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None


class OpaAnswer(Struct, frozen=True):
    """What a document says beside the revision of its bundle. `UNSET`: undefined."""

    revision: str | UnsetType = UNSET
    decision: Raw | UnsetType = UNSET
    decisions: dict[str, Raw] | UnsetType = UNSET


class _Reply(Struct, frozen=True):
    result: OpaAnswer | UnsetType = UNSET


class _Location(Struct, frozen=True):
    file: str = ""
    row: int = 0


class _Error(Struct, frozen=True):
    message: str = ""
    location: _Location | None = None


class _Errors(Struct, frozen=True):
    message: str | None = None
    errors: list[_Error] | None = None


class _Module(Struct, frozen=True):
    id: str


class _Listing(Struct, frozen=True):
    result: list[_Module] = []


_decode_listing: Final = msgspec.json.Decoder(_Listing).decode
_decode: Final = msgspec.json.Decoder(_Reply).decode


class _Client(AsyncOpaClient):  # type: ignore[misc]  # it has no types
    """opa-python-client with a session that a gateway can stand on."""

    def __init__(
        self, endpoint: OpaEndpoint, *, headers: Mapping[str, str], tls: ssl.SSLContext | None
    ) -> None:
        host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
        super().__init__(
            host=host,
            port=endpoint.port,
            ssl=endpoint.tls,
            headers=dict(headers),
            retries=0,
            timeout=CONTROL_TIMEOUT_S,
        )
        self._socket = endpoint.socket
        self._tls = tls

    async def _init_session(self) -> None:
        connector: aiohttp.BaseConnector
        if self._socket:
            connector = aiohttp.UnixConnector(self._socket, limit=CONNECTIONS_MAX)
        else:
            connector = aiohttp.TCPConnector(
                ssl=self._tls or True, limit=CONNECTIONS_MAX, ttl_dns_cache=10
            )
        self._session = aiohttp.ClientSession(
            connector=connector,
            headers=self.headers,
            timeout=aiohttp.ClientTimeout(total=self.timeout),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        )

    async def open(self) -> None:
        """Make the session; connections are made when they are needed, and kept."""
        await self._init_session()

    @asynccontextmanager
    async def exchange(
        self,
        method: str,
        url: str,
        **options: Any,  # noqa: ANN401 - aiohttp's
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send one request, once."""
        async with self._request(method, url, **options) as response:
            yield response

    def _request(self, method: str, url: str, **options: Any) -> Any:  # noqa: ANN401 - aiohttp's
        # A redirect would take the input, or the token, somewhere else.
        return super()._request(method, url, allow_redirects=False, **options)


class OpaLink:
    """One OPA. Every method but `close` raises `PolicyError`, with words for operators.

    `policy_unavailable`: not reached, or it does not let the gateway in; `policy_timeout`: no
    answer within the time; `policy_error`: it failed on what it was given.
    """

    def __init__(self, endpoint: OpaEndpoint, access: OpaAccess) -> None:
        """Raises `ConfigurationError` for certificates that cannot be used."""
        headers = {"Accept-Encoding": "identity"}  # a small answer cannot become a large one
        if access.token:
            headers["Authorization"] = f"Bearer {access.token}"
        self.endpoint = endpoint
        self._client = _Client(endpoint, headers=headers, tls=_build_tls(endpoint, access))
        self._opened = False

    async def open(self) -> None:
        """Make ready to connect."""
        await self._client.open()
        self._opened = True

    async def close(self) -> None:
        """Close every connection."""
        if self._opened:
            self._opened = False
            await self._client.close_connection()

    async def ask(self, path: str, document: bytes, timeout_s: float) -> OpaAnswer | None:
        """Return what `data/<path>` says of an input; None for what is no answer of an OPA.

        An error of a built-in function is an error, as in the embedded engine.
        """
        url = f"{self._client.root_url}/data/{path}?strict-builtin-errors=true"
        body = b'{"input":%b}' % document
        status, raw = await self._exchange("POST", url, body, _JSON, timeout_s)
        if status != _OK:
            raise _refused(status, raw, self.endpoint)
        try:
            result = _decode(raw).result
        except (msgspec.MsgspecError, RecursionError, ValueError):
            return None
        return OpaAnswer() if isinstance(result, UnsetType) else result

    async def check(self, timeout_s: float) -> None:
        """Return when OPA says that it is healthy."""
        url = f"{self._client.schema}{self._client.host}:{self._client.port}/health"
        status, raw = await self._exchange("GET", url, b"", {}, timeout_s)
        if status != _OK:
            raise _refused(status, raw, self.endpoint)

    async def put_data(self, path: str, document: bytes) -> None:
        """Replace what is at `data/<path>`."""
        url = f"{self._client.root_url}/data/{path}"
        await self._command("PUT", url, document, _JSON, _NO_CONTENT)

    async def put_policy(self, policy_id: str, source: str) -> None:
        """Load one module, as it is: never as some other version of Rego."""
        put = self._client.update_policy_from_string
        try:
            await put(source, quote(policy_id), rego_compat=False)
        except RegoParseError as error:
            if error.expression == "unauthorized":
                raise _refused(_FORBIDDEN[0], b"", self.endpoint) from None
            words = _own_words({"message": error.message, "errors": error.errors})
            raise PolicyError(f"{self.endpoint}: {words}", code="policy_error") from None
        except TimeoutError:
            raise PolicyError(f"{self.endpoint} is too slow", code="policy_timeout") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _unreachable(self.endpoint, error) from None

    async def list_policies(self) -> list[str]:
        """Return the ids of all modules."""
        url = f"{self._client.root_url}/policies"
        status, raw = await self._exchange(
            "GET", url, b"", {}, CONTROL_TIMEOUT_S, max_bytes=LISTING_MAX_BYTES
        )
        if status != _OK:
            raise _refused(status, raw, self.endpoint)
        try:
            return [each.id for each in _decode_listing(raw).result]
        except msgspec.MsgspecError:
            raise PolicyError(f"what {self.endpoint} answered is no list of policies") from None

    async def delete(self, kind: str, path: str) -> None:
        """Take `policies/<path>` or `data/<path>` away, if it is there."""
        url = f"{self._client.root_url}/{kind}/{quote(path)}"
        status, raw = await self._exchange("DELETE", url, b"", {}, CONTROL_TIMEOUT_S)
        if status not in {_OK, _NO_CONTENT, 404}:
            raise _refused(status, raw, self.endpoint)

    async def _command(
        self, method: str, url: str, body: bytes, headers: Mapping[str, str], done: int
    ) -> None:
        status, raw = await self._exchange(method, url, body, headers, CONTROL_TIMEOUT_S)
        if status != done:
            raise _refused(status, raw, self.endpoint, told=True)

    async def _exchange(
        self,
        method: str,
        url: str,
        body: bytes,
        headers: Mapping[str, str],
        timeout_s: float,
        *,
        max_bytes: int = ANSWER_MAX_BYTES,
    ) -> tuple[int, bytes]:
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        try:
            async with self._client.exchange(
                method, url, data=body, headers=headers, timeout=timeout
            ) as response:
                return response.status, await _read(response, max_bytes)
        except TimeoutError:
            raise PolicyError(
                f"{self.endpoint} did not answer within {timeout_s:g} s", code="policy_timeout"
            ) from None
        except (aiohttp.ClientError, OSError, OverflowError) as error:
            raise _unreachable(self.endpoint, error) from None


async def _read(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    """Return the whole body. Raises `OverflowError` for one that is too large to be an answer."""
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > max_bytes:
            response.close()
            raise OverflowError
    return bytes(body)


def _build_tls(endpoint: OpaEndpoint, access: OpaAccess) -> ssl.SSLContext | None:
    if not endpoint.tls:
        return None
    try:
        context = ssl.create_default_context(cafile=access.ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if access.certificate is not None:
            context.load_cert_chain(access.certificate, access.key)
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"policy.opa: a certificate or key cannot be used ({type(error).__name__}); give PEM "
            "files that the gateway may read"
        ) from None
    return context


def _unreachable(endpoint: OpaEndpoint, error: BaseException) -> PolicyError:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        why = "its certificate is not believed; name its CA in `policy.opa.ca`"
    elif isinstance(error, aiohttp.ClientConnectorError):
        why = "no connection; start it, or correct `policy.engine`"
    else:
        why = f"the exchange broke off ({type(error).__name__})"
    return PolicyError(f"{endpoint}: {why}")


def _refused(status: int, raw: bytes, endpoint: OpaEndpoint, *, told: bool = False) -> PolicyError:
    """Say what a status means. OPA's own words only where no input can stand in them (`told`)."""
    if status in _FORBIDDEN:
        return PolicyError(
            f"{endpoint} does not let the gateway in ({status}); give it a token or a certificate "
            "that may (`policy.opa.token_from`, `.certificate`)"
        )
    words = f": {_own_words(_parsed(raw))}" if told else ""
    return PolicyError(f"{endpoint} answered {status}{words}", code="policy_error")


def _parsed(raw: bytes) -> object:
    try:
        return msgspec.json.decode(raw)
    except msgspec.MsgspecError:
        return None


def _own_words(body: object) -> str:
    """Return OPA's error messages, each with its place."""
    try:
        errors = msgspec.convert(body, _Errors)
    except msgspec.ValidationError:
        return "in words that are not OPA's"
    found = [
        f"{each.location.file}:{each.location.row}: {each.message}"
        if each.location
        else each.message
        for each in errors.errors or ()
    ]
    return ("; ".join(found) or errors.message or "no reason given")[:2000]
