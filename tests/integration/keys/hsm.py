"""A SoftHSM token of a test's own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
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

CHANGE = """
import sys
import pkcs11
from pkcs11 import Attribute, ObjectClass

token = pkcs11.lib(sys.argv[1]).get_token(token_label="gateway")
session = token.open(rw=True, user_pin=sys.argv[2])

def find(kind, label="one"):
    return session.get_key(object_class=kind, label=label)

"""


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

    def serial(self) -> str:
        """Return the serial number of the only token."""
        found = re.findall(r"Serial number: +(\w+)", self._run("--show-slots"))
        return str(found[0])

    def change(self, what: str) -> None:
        """Run Python in a process of its own: `find(kind)` is the key `one`, `session` is open."""
        self._execute([sys.executable, "-c", CHANGE + what, self.library, PIN])

    def _run(self, *arguments: str) -> str:
        return self._execute(["softhsm2-util", *arguments])

    def _execute(self, command: list[str]) -> str:
        environ = {**os.environ, "SOFTHSM2_CONF": str(self.conf)}
        done = subprocess.run(command, env=environ, check=True, capture_output=True, text=True)
        return done.stdout
