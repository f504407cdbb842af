"""Token keys over a folder, a log in memory and a clock that is set by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gateway.adapters.audit.audit_files import Files
from gateway.adapters.audit.memory_audit import MemoryAuditLog
from gateway.adapters.keys.jose_tokens import JoseVerifier
from gateway.adapters.keys.key_keeper import TokenKeys
from gateway.adapters.keys.key_ring_file import KeyRingFile
from gateway.adapters.keys.key_sources import GivenKeys, KeySource, OwnKeys
from gateway.adapters.system import SystemIds
from gateway.core.entry import Entry, Receipt
from gateway.core.errors import CredentialError
from gateway.core.tokens.key_ring import Timing
from gateway.core.tokens.token import Claims

NOW_S = 1_800_000_000
URL = "https://gateway.test"
STEP_S = Timing().publish_s


def claims_at(now_s: int) -> Claims:
    return Claims(
        issuer=URL,
        audience=URL,
        subject="bot",
        client_id="workflow",
        jti=f"jti-{now_s}",
        issued_at=now_s,
        expires_at=now_s + 300,
        scopes=frozenset({"tools:call"}),
        grants=(),
        environment="test",
        run_id="run-1",
        root_jti="run-1",
        sid="run-1",
    )


class KeyWorld:
    """One deployment, which can be started again and again. Its folder outlives each start."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now_s = NOW_S
        self.audit = MemoryAuditLog()
        self.keys: TokenKeys
        self.verifier: JoseVerifier

    def now_ns(self) -> int:
        return self.now_s * 1_000_000_000

    def monotonic_ns(self) -> int:
        return self.now_ns()

    async def start(
        self,
        *uris: str,
        environ: Mapping[str, str] | None = None,
        environment: str = "test",
        max_age_s: int = 0,
        files: Files | None = None,
    ) -> TokenKeys:
        """Start with keys of its own, or with those that `uris` name."""
        path = self.folder / "keys" / "tokens.pem"
        source: KeySource = OwnKeys(path, environment=environment, files=files)
        if uris:
            source = GivenKeys(uris, environment=environment, environ=environ or {})
        ring = path.with_name("tokens.ring.json")
        self.keys = TokenKeys(
            store=KeyRingFile(ring, environment=environment, files=files),
            source=source,
            record=self.record,
            clock=self,
            ids=SystemIds(),
            timing=Timing(max_age_s=max_age_s),
            environment=environment,
            folder=path.parent,
            files=files,
        )
        await self.keys.open()
        self.verifier = self.keys.build_verifier(issuer=URL, audience=URL)
        return self.keys

    async def record(self, entry: Entry) -> Receipt:
        return await self.audit.record(entry)

    async def wait(self, seconds: int) -> None:
        """Let time pass, then have the gateway look at its keys."""
        self.now_s += seconds
        await self.keys.turn()

    async def issue(self) -> str:
        return await self.keys.issuer.issue(claims_at(self.now_s))

    def is_believed(self, token: str) -> bool:
        try:
            self.verifier.verify(token.encode(), self.now_s)
        except CredentialError:
            return False
        return True

    @property
    def published(self) -> list[str]:
        return [key["kid"] for key in self.keys.issuer.jwks()["keys"]]

    @property
    def states(self) -> list[str]:
        return [key.state for key in self.keys.ring.keys]

    @property
    def changes(self) -> list[tuple[str, str]]:
        """(kid, state) of each record of a key."""
        found = [r for r in self.audit.records if r["type"] == "token_key.change"]
        return [(record["kid"], record["state"]) for record in found]

    def records(self) -> Sequence[dict[str, Any]]:
        return [r for r in self.audit.records if r["type"] == "token_key.change"]

    def key_files(self) -> set[str]:
        """Names of the files with private keys, or parts of one."""
        return {path.name for path in (self.folder / "keys").glob("*.pem*")}
