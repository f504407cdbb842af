"""Inputs of version 1 from a seed: such as a gateway builds, and such as it should never build."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from typing import Any

from gateway.adapters.policy.policy_bundle import Bundle
from gateway.adapters.policy.policy_sample import build_sample
from tests.integration.policy import random_rego

HOSTILE: list[Any] = [*random_rego.HOSTILE, 1e300, 2**53 + 1, -0.1, 2**63, "1e400"]
PHASES = ["issue", "list", "call", "call", "call", "result", "resume"]
EFFECTS = [
    "read", "create", "update", "delete", "external_send", "money", "privilege", "unreviewed",
]  # fmt: skip
SERVERS = ["acme", "shop", "bank", "git", "mail", "stub"]
NOW_NS = [0, 1_700_000_000_000_000_000, 1_767_225_600_000_000_000, 1_767_345_600_123_456_789]
LABELS = ["untrusted", "pii", "confidential", "secret", "internal"]
_STRING = re.compile(r'"((?:[^"\\\n]|\\.){1,60})"')
_NUMBER = re.compile(r"(?<![\w.])\d{1,9}(?![\w.])")


class Questioner:
    """Asks about a bundle: most values are such that its policies know them."""

    def __init__(self, seed: int, bundle: Bundle) -> None:
        self._pick = random.Random(seed)  # noqa: S311 - to be the same each time
        text = "\n".join(content.decode() for _, content in bundle.files)
        self._words = sorted(set(_STRING.findall(text)))
        self._tools = [each for each in self._words if re.fullmatch(r"[a-z_-]+\.[a-z_-]+", each)]
        self._names = sorted(set(re.findall(r"context\.args\.(\w+)", text)) | {"to", "amount"})
        self._numbers = sorted({int(each) for each in _NUMBER.findall(text)})

    def documents(self, count: int) -> list[dict[str, Any]]:
        """Return so many inputs."""
        return [self._document() for _ in range(count)]

    def _document(self) -> dict[str, Any]:
        phase = self._pick.choice(PHASES)
        document: dict[str, Any] = json.loads(build_sample(phase))
        document["environment"] = self._pick.choice(["prod", "test", "development"])
        document["subject"] |= {
            "id": self._word(),
            "owner": self._pick.choice(["lars", "hanna", self._word()]),
            "roles": self._some([*LABELS, *self._words]),
            "on_behalf_of": self._pick.choice([None, "ana", self._word()]),
        }
        if phase != "issue":
            document["resource"] |= self._resource()
        document["context"] |= self._context(phase)
        for _ in range(self._pick.choice([0, 0, 0, 1, 1, 2, 4])):
            self._spoil(document)
        return document

    def _resource(self) -> dict[str, Any]:
        tool = self._pick.choice(self._tools or ["shop.pay"])
        server = tool.partition(".")[0] if self._pick.random() < 0.8 else self._pick.choice(SERVERS)
        return {
            "id": tool,
            "server": server,
            "effect": self._pick.choice(EFFECTS),
            "reversible": self._pick.random() < 0.5,
            "labels": self._some(LABELS),
            "sensitive": self._some(["/to", "/amount", "/body"]),
            "sinks": self._some([f"/{name}" for name in self._names]),
            "sums": self._some([f"/{name}" for name in self._names]),
        }

    def _context(self, phase: str) -> dict[str, Any]:
        spent = {"calls": self._number(), "counts": self._counts(), "sums": self._counts()}
        context: dict[str, Any] = {
            "now_ns": self._pick.choice(NOW_NS),
            "run": {
                **spent,
                "id": "run",
                "workflow": self._word(),
                "labels": self._some(LABELS),
                "recent": self._some([*self._tools, "shop.pay"]),
                "repeats": self._number(),
                "egress": {self._word(): self._number()},
                "provenance": {f"/{name}": self._some(LABELS) for name in self._some(self._names)},
            },
            "family": {**spent, "last_24h": spent, "last_minute": self._number()},
            "claimed": {"confidence": self._pick.choice([0, 0.5, 1]), "intent": self._word()},
            "budget": {"calls": self._number()},
        }
        if phase not in {"issue", "list"}:
            context["args"] = {name: self._value() for name in self._some(self._names)}
        if phase == "result":
            context["result"] = {
                "is_error": False,
                "bytes": self._number(),
                "structured": self._value(),
                "text": [str(self._word())],
            }
        return context

    def _counts(self) -> dict[str, Any]:
        return {tool: self._number() for tool in self._some(self._tools)}

    def _some(self, items: list[Any]) -> list[Any]:
        return self._pick.sample(items, min(len(items), self._pick.randint(0, 4)))

    def _word(self) -> str:
        return self._pick.choice(self._words) if self._words else "word"

    def _number(self) -> int:
        near = self._pick.choice([*self._numbers, 0, 1, 1000])
        return near + self._pick.choice([-1, 0, 0, 1])

    def _value(self) -> Any:  # noqa: ANN401 - JSON
        makers: list[Callable[[], object]] = [
            self._word,
            self._number,
            self._number,
            lambda: self._some(self._words),
        ]
        if self._pick.random() < 0.2:
            return self._pick.choice(HOSTILE)
        return self._pick.choice(makers)()

    def _spoil(self, document: dict[str, Any]) -> None:
        """Take something away, or put something odd in its place."""
        places = list(_places(document))
        holder, key = self._pick.choice(places)
        if self._pick.random() < 0.4:
            del holder[key]
        else:
            holder[key] = self._pick.choice(HOSTILE)


def _places(node: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    for key, value in node.items():
        yield node, key
        if isinstance(value, dict):
            yield from _places(value)
