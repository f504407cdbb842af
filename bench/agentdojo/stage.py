"""The bench's end of the side socket of a suite's server (bench/agentdojo/suite_server.py)."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import orjson
from msgspec import Struct


class Call(Struct, frozen=True):
    """One call to be made. `told`: its arguments say what an earlier answer said."""

    tool: str
    args: dict[str, Any]
    told: bool = False


class Plan(Struct, frozen=True):
    """A run to be played: the user's calls, the attack's, where the attack is first read."""

    calls: list[Call]
    attack: list[Call]
    read_at: int


class Stage:
    """Asks the suite's server for fresh environments, and what has become of them."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        self._file = self._socket.makefile("rwb")

    def tasks(self) -> dict[str, Any]:
        """Return the suite's version, its users' prompts and its attacks' goals."""
        return self._ask(ask="plan")

    def reset(self, task_id: str, attack_id: str | None) -> Plan:
        """Have a fresh environment made for one run; return what is to be played in it."""
        told = self._ask(ask="reset", task_id=task_id, attack_id=attack_id)
        return Plan(
            [Call(**call) for call in told["calls"]],
            [Call(**call) for call in told["attack"]],
            told["read_at"],
        )

    def is_done(self, task_id: str, attack_id: str | None) -> bool:
        """Whether the package finds the user's task done, or the attack where one is named."""
        return bool(self._ask(ask="judge", task_id=task_id, attack_id=attack_id)["done"])

    def close(self) -> None:
        """Hang up."""
        self._file.close()
        self._socket.close()

    def _ask(self, **asked: object) -> dict[str, Any]:
        self._file.write(orjson.dumps(asked) + b"\n")
        self._file.flush()
        told: dict[str, Any] = orjson.loads(self._file.readline())
        return told
