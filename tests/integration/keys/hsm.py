"""A SoftHSM token of a test's own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

PIN = "123456"
LIBRARIES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/opt/homebrew/lib/softhsm/libsofthsm2.so",
)


def find_library() -> str:
    """Return where SoftHSM is, or skip (which CI takes for a failure)."""
    found = next((path for path in LIBRARIES if Path(path).exists()), None)
    if found is None:
        pytest.skip("SoftHSM is not installed; apt-get install softhsm2")
    return found


class SoftHsm:
    """Tokens in a folder, found through `SOFTHSM2_CONF`."""

    def __init__(self, folder: Path, library: str) -> None:
        self.library = library
        self._folder = folder
        (folder / "tokens").mkdir(parents=True)
        self.conf = folder / "softhsm2.conf"
        self.conf.write_text(f"directories.tokendir = {folder / 'tokens'}\n")

    def make_token(self, label: str = "gateway") -> None:
        arguments = ["--init-token", "--free", "--label", label, "--pin", PIN, "--so-pin", "000000"]
        self._run(*arguments)

    def put(
        self,
        name: str,
        *,
        number: str = "01",
        key: PrivateKeyTypes | None = None,
        token: str = "gateway",
    ) -> None:
        """Put a pair of keys into the token."""
        made = key or ec.generate_private_key(ec.SECP256R1())
        path = self._folder / f"{name}.pem"
        path.write_bytes(made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        arguments = ["--token", token, "--label", name, "--id", number, "--pin", PIN]
        self._run("--import", str(path), *arguments)

    def uri(self, name: str = "", *, number: str = "", token: str = "gateway") -> str:
        named = f"token={token}" + (f";object={name}" if name else "")
        named += f";id=%{number}" if number else ""
        return f"pkcs11:{named}?module-path={self.library}&pin-source=env:HSM_PIN"

    def _run(self, *arguments: str) -> None:
        environ = {**os.environ, "SOFTHSM2_CONF": str(self.conf)}
        subprocess.run(
            ["softhsm2-util", *arguments],  # noqa: S607
            env=environ,
            check=True,
            capture_output=True,
        )
