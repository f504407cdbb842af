"""The `Signer` port over PKCS#11: a key in an HSM, reached by a process of its own.

A dead or hanging process signs nothing (no token is issued meanwhile) and is started again, later
each time. A session that the HSM dropped is got again in the same way.
"""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import structlog
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from gateway.adapters.keys.pkcs11_link import PIN_REFUSED, Pkcs11Link, unavailable
from gateway.adapters.keys.pkcs11_uri import Pkcs11Key, parse_pkcs11_uri
from gateway.adapters.keys.pkcs11_worker import OPEN, SIGN, SIGNATURE_BYTES
from gateway.adapters.keys.token_keys import public_jwk, read_public_key
from gateway.core.errors import ConfigurationError, CountersignError

OPEN_DEADLINE_S: Final = 15.0
SIGN_DEADLINE_S: Final = 3.0
_RESTART_DELAYS_S: Final = (0.0, 0.2, 1.0, 5.0, 15.0)
_PROBE: Final = b"countersign: can this key sign"
_log: Final = structlog.get_logger("gateway.keys")


class Pkcs11Signer:
    """One P-256 key in a token. Made by `open`."""

    alg: Final = "ES256"

    def __init__(self, key: Pkcs11Key, environ: Mapping[str, str], deadline_s: float) -> None:
        self._key: Final = key
        self._environ: Final = environ
        self._deadline_s: Final = deadline_s
        self._link: Pkcs11Link | None = None
        self._reviving: asyncio.Task[None] | None = None
        self._buried: set[asyncio.Task[None]] = set()
        self._closed = False
        self.kid = ""
        self.public: Mapping[str, str] = {}

    @classmethod
    async def open(
        cls, uri: str, *, environ: Mapping[str, str], deadline_s: float = SIGN_DEADLINE_S
    ) -> Pkcs11Signer:
        """Return the signer of the key that `uri` names. Raises `ConfigurationError`."""
        signer = cls(parse_pkcs11_uri(uri), environ, deadline_s)
        try:
            await signer._connect()
        except ConfigurationError:
            await signer.close()
            raise
        except CountersignError as error:
            await signer.close()
            raise ConfigurationError(str(error)) from None
        return signer

    @property
    def pid(self) -> int:
        """Process id of the worker; 0 while there is none."""
        return 0 if self._link is None else self._link.pid

    async def sign(self, data: bytes) -> bytes:
        """Return r and s, as the port promises."""
        if self._link is None:
            raise unavailable("its process is being started again")
        found = await self._link.ask(SIGN, data, self._deadline_s)
        if len(found) != SIGNATURE_BYTES:
            raise unavailable("the module gave no ES256 signature")
        return found

    async def close(self) -> None:
        """End the process."""
        self._closed = True
        if self._reviving is not None:
            self._reviving.cancel()
            await asyncio.gather(self._reviving, return_exceptions=True)
        link, self._link = self._link, None
        if link is not None:
            await link.close()
        await asyncio.gather(*self._buried, return_exceptions=True)

    async def _connect(self) -> None:
        link = Pkcs11Link(self._on_lost)
        try:
            await self._log_in(link)
        except BaseException:
            await link.close()
            raise
        self._link = link

    async def _log_in(self, link: Pkcs11Link) -> None:
        key = self._key
        wanted = {
            "module": key.module_path,
            "token": key.token,
            "serial": key.serial,
            "object": key.object,
            "id": key.id.hex(),
            "pin": read_pin(key.pin_source, self._environ),
        }
        await link.start(hidden=key.pin_source.removeprefix("env:"))
        point = await link.ask(OPEN, json.dumps(wanted).encode(), OPEN_DEADLINE_S)
        public = EllipticCurvePublicKey.from_encoded_point(SECP256R1(), point)
        # A pair that does not belong together would make tokens that nobody believes.
        _check_pair(public, await link.ask(SIGN, _PROBE, OPEN_DEADLINE_S))
        found = read_public_key(public)
        if self.kid and found.kid != self.kid:
            raise ConfigurationError("the token now holds another key under this name")
        self.kid, self.public = str(found.kid), public_jwk(found)

    def _on_lost(self) -> None:
        """Start another process, unless this one was lost while it was being started."""
        link, self._link = self._link, None
        if link is None or self._closed:
            return
        _log.warning("token_signer_lost", kid=self.kid)
        burial = asyncio.create_task(link.close())
        self._buried.add(burial)
        burial.add_done_callback(self._buried.discard)
        self._reviving = asyncio.create_task(self._revive())

    async def _revive(self) -> None:
        for failures in range(2**31):
            await asyncio.sleep(_RESTART_DELAYS_S[min(failures, len(_RESTART_DELAYS_S) - 1)])
            try:
                await self._connect()
            except CountersignError as error:
                _log.warning("token_signer_not_started", kid=self.kid, problem=str(error))
                if error.code == PIN_REFUSED:
                    _log.error("token_signer_given_up", hint="mend `pin-source`, then restart")
                    return
            else:
                _log.info("token_signer_started", kid=self.kid)
                return


def read_pin(source: str, environ: Mapping[str, str]) -> str:
    """Return the PIN that `env:NAME` or `file:PATH` holds, none where there is no source.

    Raises `ConfigurationError`.
    """
    kind, _, name = source.partition(":")
    if kind == "env":
        if not environ.get(name):
            raise ConfigurationError(f"`pin-source`: the variable `{name}` is not set")
        return environ[name]
    if kind != "file":
        return ""
    path = Path(name.removeprefix("//"))
    try:
        if path.stat().st_mode & stat.S_IRWXO:
            raise ConfigurationError(f"`pin-source`: `{path}` can be read by others; protect it")
        return path.read_text().rstrip("\n")
    except (OSError, UnicodeDecodeError):
        raise ConfigurationError(f"`pin-source`: `{path}` cannot be read; mend the path") from None


def _check_pair(public: EllipticCurvePublicKey, signature: bytes) -> None:
    half = SIGNATURE_BYTES // 2
    r, s = (int.from_bytes(part, "big") for part in (signature[:half], signature[half:]))
    try:
        public.verify(encode_dss_signature(r, s), _PROBE, ECDSA(SHA256()))
    except InvalidSignature:
        raise ConfigurationError(
            "the public key of this name is not that of the private one; name the pair by `id`"
        ) from None
