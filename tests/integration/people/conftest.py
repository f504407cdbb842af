"""A gateway as a process of its own, with an identity provider, and nobody admin yet."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from ruamel.yaml import YAML

from gateway.adapters.audit.audit_reader import read_records
from tests.e2e.processes import eventually, listens
from tests.e2e.site import ROOT, free_port
from tests.integration.idp.provider import Idp
from tests.integration.people.chromium import Chromium, running_chromium

COMMAND: Final = str(Path(sys.executable).with_name("countersign"))
START_S: Final = 60.0
STOP_S: Final = 20.0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here listens and connects on loopback."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.network)
            item.add_marker(pytest.mark.allow_hosts(["127.0.0.1", "::1"]))


class House:
    """The gateway. `url` is its public address: a name, for a passkey needs one."""

    def __init__(self, folder: Path, idp: Idp) -> None:
        self.folder, self.port = folder, free_port()
        self.url = f"http://localhost:{self.port}"
        self.stderr = folder / "stderr.log"
        client = idp.register(f"{self.url}/signin/oidc/corp/callback")
        subprocess.run([COMMAND, "init", str(folder / "site")], check=True, capture_output=True)
        self.config = folder / "site" / "countersign.yaml"
        (folder / "secret").write_text(client.secret)
        yaml = YAML(typ="safe")
        settings = yaml.load(self.config.read_text())
        settings |= {
            "listen": f"127.0.0.1:{self.port}",
            "public_url": self.url,
            "log": {"format": "json"},
            "sign_in": {
                "oidc": [
                    {
                        "id": "corp",
                        "label": "Corp",
                        "issuer": idp.issuer,
                        "client_id": client.id,
                        "client_secret_from": f"file:{folder / 'secret'}",
                        "strong_acr": ["urn:test:passkey"],
                        "unknown_people": "provision",
                    }
                ]
            },
        }
        self.config.write_text(json.dumps(settings))
        with self.stderr.open("wb") as log:
            self.process = subprocess.Popen(
                [COMMAND, "serve", "--config", str(self.config)],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        eventually(self._answers, f"the gateway serves: {self.stderr}", START_S)

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.stderr.read_text()
        if not listens(self.port):
            return False
        try:
            answer = httpx.get(f"http://127.0.0.1:{self.port}/readyz", trust_env=False)
        except httpx.TransportError:
            return False
        return answer.status_code == httpx.codes.OK

    @property
    def claim(self) -> str:
        """The address that the gateway printed for its first admin."""
        lines = map(json.loads, self.stderr.read_text().splitlines())
        [line] = [line for line in lines if line["event"] == "admin_unclaimed"]
        return str(line["url"])

    def records(self, kind: str) -> list[dict[str, Any]]:
        found = read_records(self.config.parent / "audit")
        return [one for one in found if one["type"] == kind]

    def environ(self) -> dict[str, str]:
        """Return the environment of a command line of its own: nobody is signed in there."""
        return {
            **os.environ,
            "COUNTERSIGN_URL": self.url,
            "XDG_CONFIG_HOME": str(self.folder / "home"),
        }

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [COMMAND, *arguments],
            env=self.environ(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def login(self, *arguments: str) -> subprocess.Popen[str]:
        """Start `countersign login`; what it says is on its stderr."""
        return subprocess.Popen(
            [COMMAND, "login", "--no-browser", *arguments],
            env=self.environ(),
            stderr=subprocess.PIPE,
            text=True,
        )

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(STOP_S)
        finally:
            self.process.kill()
            self.process.wait()


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, idp: Idp) -> Iterator[House]:
    made = House(tmp_path_factory.mktemp("house"), idp)
    yield made
    made.stop()


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with running_chromium(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser
