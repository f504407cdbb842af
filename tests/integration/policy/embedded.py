"""The embedded engine in this process, asked as workers ask it, and whole."""

from __future__ import annotations

import json
from typing import Any

from gateway.adapters.policy.policy_bundle import Bundle
from gateway.adapters.regorus.regorus_index import describe_subset
from gateway.adapters.regorus.regorus_worker import ANSWER, CONTROL, Evaluator, build_engine

FAILED = "the engine failed"
"""Stands for an answer that is an error: the call is denied."""


class Embedded:
    """One bundle, in one engine for everything, and in one for each set of packages heard."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        modules = [module for modules in bundle.modules().values() for module in modules]
        self._whole = build_engine(modules, bundle.data)
        self._worker = Evaluator()
        self._known: dict[frozenset[str], int] = {}
        parts = {"modules": bundle.modules(), "data": bundle.data, "samples": []}
        self._command({"do": "load", "tag": 1, **parts}, b'{"faults": []}')

    def ask_whole(self, document: dict[str, Any]) -> object:
        """Return what the engine that holds every package answers."""
        self._whole.set_input_json(json.dumps(document))
        try:
            return json.loads(self._whole.eval_rule_as_json("data.countersign.decision"))
        except RuntimeError:
            return FAILED

    def ask(self, document: dict[str, Any]) -> object:
        """Return what the engine of the packages answers that this tool and phase concern."""
        heard = self._heard(document)
        if heard not in self._known:
            self._known[heard] = len(self._known) + 1
            subset = describe_subset(self._bundle, heard)
            self._command({"do": "subset", "index": self._known[heard], **subset}, b"{}")
        kind, payload = self._worker.answer(1, self._known[heard], json.dumps(document).encode())
        return json.loads(payload) if kind == ANSWER else FAILED

    def _heard(self, document: dict[str, Any]) -> frozenset[str]:
        resource = document.get("resource")
        given = resource if isinstance(resource, dict) else {}
        tool, server, effect = (_text(given.get(name)) for name in ("id", "server", "effect"))
        return frozenset(
            package.name
            for package in self._bundle.packages.values()
            if package.scope is None
            or package.scope.matches(tool, server, effect, _text(document.get("phase")))
        )

    def _command(self, command: dict[str, Any], expected: bytes) -> None:
        assert self._worker.answer(0, CONTROL, json.dumps(command).encode()) == (ANSWER, expected)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
