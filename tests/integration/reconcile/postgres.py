"""A PostgreSQL server of the test's own: a fresh cluster, on a unix socket of its own."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

PROGRAMS = max(Path("/usr/lib/postgresql").glob("*/bin"), default=Path("/usr/lib/postgresql"))
START_S = 30.0


def is_installed() -> bool:
    """Whether there is a server to start, and a user who may."""
    return (PROGRAMS / "initdb").exists() and (os.getuid() != 0 or _owner() is not None)


def _owner() -> pwd.struct_passwd | None:
    """Return whom the server runs as where the tests run as root, which it refuses."""
    return next((user for user in pwd.getpwall() if user.pw_name == "postgres"), None)


class Cluster:
    """One running server. Ends with `stop`, and leaves nothing behind."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="pg-"))  # short: it is part of a socket's name
        self._user: dict[str, Any] = {}
        if os.getuid() == 0:
            owner = _owner()
            assert owner is not None
            os.chown(self._folder, owner.pw_uid, owner.pw_gid)
            self._user = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
        data = str(self._folder / "data")
        init = ["initdb", "-D", data, "-A", "trust", "-U", "postgres", "-N", "-E", "UTF8"]
        subprocess.run(self._command(*init), check=True, capture_output=True, **self._options())
        options = {"listen_addresses": "", "unix_socket_directories": str(self._folder)}
        options |= {"fsync": "off", "timezone": "UTC"}
        settings = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        self._log = (self._folder / "log").open("wb")
        self._process = subprocess.Popen(
            self._command("postgres", "-D", data, *settings),
            stdout=self._log,
            stderr=self._log,
            **self._options(),
        )
        self._wait_ready()

    @property
    def url(self) -> str:
        """Where a client finds it; no password is asked for."""
        return f"postgresql:///postgres?host={self._folder}&user=postgres"

    def ask(self, sql: str) -> str:
        """Run statements; return what they answer, one line for each row."""
        command = ["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", self.url]
        ran = subprocess.run(
            self._command(*command), input=sql, capture_output=True, text=True, check=False
        )
        assert ran.returncode == 0, ran.stderr
        return ran.stdout.strip()

    def stop(self) -> None:
        """End it, as `pg_ctl stop -m fast` does."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait(START_S)
        self._log.close()
        shutil.rmtree(self._folder)

    def _wait_ready(self) -> None:
        ready = self._command("pg_isready", "-q", "-h", str(self._folder))
        deadline = time.monotonic() + START_S
        while subprocess.run(ready, check=False).returncode != 0:
            said = (self._folder / "log").read_text()
            assert self._process.poll() is None, said
            assert time.monotonic() < deadline, said

    def _command(self, program: str, *words: str) -> list[str]:
        return [str(PROGRAMS / program), *words]

    def _options(self) -> dict[str, Any]:
        return {"cwd": self._folder, **self._user}
