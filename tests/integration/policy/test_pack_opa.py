"""The default pack answers alike on a stock OPA, in one engine, and as the workers hear it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pytest

from gateway.adapters.authoring.policy_notes import Notes
from gateway.adapters.policy.bundle_store import save_bundle
from gateway.adapters.policy.policy_bundle import (
    Bundle,
    build_bundle,
    default_pack,
    load_bundle_dir,
)
from gateway.adapters.regorus.regorus_index import describe_subset
from gateway.adapters.regorus.regorus_worker import build_engine
from gateway.cli.policy_docs import build_settings, read_all
from tests.effort import share

OPA = os.environ.get("COUNTERSIGN_OPA") or shutil.which("opa")
pytestmark = pytest.mark.req("POL-03")
QUERY = "[d | some i in input.all; d := data.countersign.decision with input as i]"
NOW = 1_766_000_000_000_000_000

PER_BUNDLE = 600


def read_pack() -> list[Notes]:
    """Return what the pack's annotations say."""
    files = (file for file in default_pack().glob("*.rego") if "_test" not in file.name)
    return read_all({file.name: file.read_text() for file in files})


SHIPPED = build_settings(read_pack())
STRICT: dict[str, Any] = {
    "approval": {"groups": ["security"], "ttl": "1h"},
    "calendar": {
        "freezes": [{"from": "2025-12-17T00:00:00Z", "until": "2025-12-18T00:00:00Z"}, {}],
        "hours": [{"days": ["mon", "fri"], "start": "22:00", "end": "06:00", "zone": "Here"}],
        "hours_effects": ["create", "money"],
        "zones": {"Here": 90},
    },
    "duties": {"pairs": [{"name": "p", "one": ["shop.act"], "other": ["shop.other"]}]},
    "egress": {
        "untrusted": "hold",
        "unknown": "deny",
        "links": "deny",
        "internal_domains": ["acme.example"],
    },
    "environment": {"servers": {"shop": ["prod"]}},
    "grants": {"named": True, "bounded": ["money"]},
    "high_risk": {
        "named": ["money"],
        "looked_up": ["external_send", "delete"],
        "except": ["shop.other"],
    },
    "labels": {"private": ["untrusted"]},
    "loops": {"in_a_row": 2, "per_tool": 3, "same_call": 1},
    "money_limits": {"per_call": {"hold": 5}, "servers": {"shop": {"per_run": {"deny": "x"}}}},
    "pace": {"calls_per_run": 5, "calls_per_minute": 5, "same_call": 2},
    "personal_data": {"servers": ["bank"], "roles": ["support"]},
    "writes": {"permit": "granted"},
}
WRONG: dict[str, Any] = {
    "approval": {"groups": [], "ttl": 5},
    "calendar": {"freezes": [{"until": "2025-02-30T00:00:00Z", "effects": ["money"]}],
                 "hours": [{"days": "mon"}, 7], "hours_effects": "all", "zones": {"Here": "90"}},
    "duties": {"pairs": [{"one": 5}, {}]},
    "egress": {"untrusted": 0, "unknown": None, "links": [], "internal_domains": "acme.example"},
    "environment": {"servers": {"shop": "prod"}},
    "fetches": {"next": "off"},
    "high_risk": {"named": "money", "looked_up": None, "except": "shop.act"},
    "labels": {"private": "pii"},
    "loops": {"in_a_row": "2", "per_tool": None, "same_call": []},
    "money_limits": {"per_call": 5, "per_day": {"hold": None}, "servers": {"shop": []}},
    "pace": {"calls_per_run": "5", "same_call": None},
    "personal_data": {"servers": "bank", "roles": {}},
    "writes": {"permit": ["named"]},
}  # fmt: skip


@cache
def bundle_of(which: str) -> Bundle:
    values = SETTINGS[which]
    plain = load_bundle_dir(default_pack())
    files = {
        path.removeprefix("policies/"): content.decode()
        for path, content in plain.files
        if path.startswith("policies/")
    }
    data = json.loads(plain.data)
    data.pop("applies_to")
    return build_bundle(files, data if values is None else {**data, "settings": values})


CALM: dict[str, Any] = {
    "calendar": {"hours": [{"start": "08:00", "end": "08:01"}], "hours_effects": ["create"]},
    "personal_data": {"roles": ["support"]},
}
SETTINGS = {"plain": None, "shipped": SHIPPED, "strict": STRICT, "wrong": WRONG, "calm": CALM}


class Embedded:
    """One bundle in the engine of everything, and in the engines that workers would build."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        modules = bundle.modules()
        self._all = build_engine([m for found in modules.values() for m in found], bundle.data)
        self._modules = modules
        self._data = json.loads(bundle.data)
        self._data.pop("applies_to")
        self._subsets: dict[frozenset[str], Any] = {}

    def whole(self, document: dict[str, Any]) -> Any:  # noqa: ANN401 - an answer is JSON
        return _decide(self._all, document)

    def heard(self, document: dict[str, Any]) -> Any:  # noqa: ANN401 - an answer is JSON
        return _decide(self._subset(document), document)

    def _subset(self, document: dict[str, Any]) -> Any:  # noqa: ANN401 - the engine has no types
        resource = document["resource"]
        heard = frozenset(
            package.name
            for package in self.bundle.packages.values()
            if package.scope is not None
            and package.name not in self.bundle.silent
            and package.scope.matches(
                resource["id"], resource["server"], resource["effect"], document["phase"]
            )
        )
        if heard not in self._subsets:
            subset = describe_subset(self.bundle, heard)
            modules = [m for name in ("", *subset["packages"]) for m in self._modules[name]]
            data = {**self._data, "applies_to": subset["applies_to"]}
            if not subset["applies_to"]:
                data.pop("applies_to")
            self._subsets[heard] = build_engine(modules, json.dumps(data))
        return self._subsets[heard]


def _decide(engine: Any, document: dict[str, Any]) -> Any:  # noqa: ANN401
    engine.set_input_json(json.dumps(document))
    return json.loads(engine.eval_rule_as_json("data.countersign.decision"))


@cache
def embedded(which: str) -> Embedded:
    return Embedded(bundle_of(which))


@cache
def said(which: str) -> list[Any]:
    """Return what is said of each document of a bundle, as the workers hear it."""
    return [embedded(which).heard(document) for document in build_documents(which, PER_BUNDLE)]


ABSENT = object()
VALUES: tuple[Any, ...] = (
    "bob@acme.example", "eve@elsewhere.example", "https://acme.example/a", "", None, 7,
    ["bob@acme.example"], ["bob@acme.example", "eve@elsewhere.example"], [],
)  # fmt: skip
TOOLS = ("shop.act", "shop.other", "bank.pay")
CLASSES = ("allowed", "trusted", "untrusted", "untrusted", "unseen", "later", ABSENT)
EFFECTS = (
    "read", "read", "create", "update", "delete", "external_send", "money", "money", "money",
    "privilege", "unreviewed",
)  # fmt: skip
GRANTS = (
    {"server": "shop"},
    {"server": "shop", "tool": "act"},
    {"server": "shop", "tool": "*", "effects": ["money", "create"]},
    {"server": "shop", "tool": "act", "max_calls": 2},
)
LABELS = ("untrusted", "pii", "confidential", "secret")
PHASES = ("call", "call", "call", "call", "resume", "list", "issue", "result")


class Dice(Random):
    """Throws documents."""

    def some(self, **fields: object) -> dict[str, Any]:
        """Most of these members."""
        return {k: v for k, v in fields.items() if v is not ABSENT and self.random() > 0.15}

    def sums(self) -> dict[str, int]:
        amounts = (0, 10, 4_500, 9_999, 500_000)
        return {f"{tool}#/amount": self.choice(amounts) for tool in self.sample(TOOLS, 2)}

    def counts(self) -> dict[str, int]:
        return {
            tool: self.choice((0, 1, 3, 150)) for tool in self.sample(TOOLS, self.choice((2, 3, 3)))
        }

    def resource(self, tool: str) -> dict[str, Any]:
        pick = self.choice
        return {
            "id": tool,
            "server": tool.partition(".")[0],
            "effect": pick(EFFECTS),
            **self.some(
                sinks=pick(([], ["/to"], ["/to"], ["/url"], ["/to", "/url"])),
                texts=pick(([], ["/url"], ["/body"])),
                sums=pick(([], ["/amount"], ["/amount"])),
                labels=pick(([], ["pii"], ["pii"], ["untrusted"], ["env-prod"], ["env-test"])),
                sensitive=pick(([], ["/to"], ["/to"])),
                sensitive_out=pick(([], ["/rows/*/iban"], ["/rows/*/iban"])),
            ),
        }

    def run(self, tool: str) -> dict[str, Any]:
        pick = self.choice
        return self.some(
            calls=pick((0, 4, 5, 4_999, 5_000)),
            counts=self.counts(),
            sums=self.sums(),
            labels=self.sample(LABELS, pick((0, 1, 2))),
            recent=[pick(TOOLS[:2]) for _ in range(pick((0, 1, 3)))] + [tool] * pick((0, 2, 20)),
            repeats=pick((0, 0, 0, 1, 2, 5, 60)),
            provenance=self.some(**{"/to": pick(CLASSES), "/url": pick(CLASSES)}),
            egress={"servers": {"shop": 3}, "classes": {"trusted": 3}},
        )


def build_document(dice: Dice) -> dict[str, Any]:
    """Return an input as the gateway builds them, and a little beyond."""
    pick = dice.choice
    tool = pick(TOOLS)
    scopes = (["tools:call", "tools:list"], ["tools:call"], ["tools:list"])
    amounts = (0, 1, 6, 900, 1_500, 250_000, "10")
    return {
        "version": 1,
        "phase": pick(PHASES),
        "environment": pick(("prod", "test")),
        "subject": dice.some(roles=pick(([], ["support"], ["sales"]))),
        "resource": dice.resource(tool),
        "context": {
            "args": dice.some(to=pick(VALUES), url=pick(VALUES), amount=pick(amounts)),
            "now_ns": NOW + dice.randrange(-(10**15), 10**15),
            "token": {
                "scopes": pick(scopes),
                "allowed_values": pick(({}, {}, {"/to": ["x"]}, {"shop.act#/url": ["x"]})),
                "constraints": dice.sample(GRANTS, pick((0, 1, 1))),
                **dice.some(narrowed=pick(([], [], ["tool"], ["max_calls"]))),
            },
            "run": dice.run(tool),
            "family": dice.some(
                counts=dice.counts(),
                sums=dice.sums(),
                last_minute=pick((0, 5, 240)),
                last_24h={"counts": dice.counts(), "sums": dice.sums()},
            ),
        },
    }


def build_documents(seed: str, number: int) -> list[dict[str, Any]]:
    dice = Dice(seed)
    return [build_document(dice) for _ in range(number)]


@pytest.mark.skipif(OPA is None, reason="no opa: set COUNTERSIGN_OPA or install it on PATH")
@pytest.mark.parametrize("which", sorted(SETTINGS))
def test_the_pack_answers_alike_on_opa_and_in_the_gateway(tmp_path: Path, which: str) -> None:
    assert OPA is not None
    asked = build_documents(which, PER_BUNDLE)
    folder = save_bundle(tmp_path, bundle_of(which))
    done = subprocess.run(
        [OPA, "eval", "--format=raw", "--bundle", folder, "--stdin-input", QUERY],
        input=json.dumps({"all": asked}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    answers = zip(asked, json.loads(done.stdout), said(which), strict=True)
    for number, (document, answer, ours) in enumerate(answers):
        assert ours == answer, json.dumps(document)
        if number < share(PER_BUNDLE):
            assert embedded(which).whole(document) == answer, json.dumps(document)


def test_the_documents_compared_meet_every_rule() -> None:
    seen: set[str] = set()
    for which in SETTINGS:
        for answer in said(which):
            seen |= {answer["outcome"], *(reason["code"] for reason in answer["reasons"])}
            seen |= {item["type"] for item in answer["obligations"]}
    assert {"permit", "hold", "deny", "redact"} <= seen
    codes = {note.code for notes in read_pack() for note in notes.rules if "…" not in note.code}
    # A permit is told only where nothing holds: this one never is, for a hold goes with it.
    assert codes - seen == {"", "allowed_once_approved"}


def test_what_the_page_calls_shipped_is_what_is_shipped() -> None:
    for document in build_documents("defaults", share(PER_BUNDLE)):
        assert embedded("shipped").heard(document) == embedded("plain").heard(document)


def test_nothing_that_cannot_be_taken_back_goes_to_a_stranger() -> None:
    risky = {"money", "delete", "privilege", "external_send"}
    for document in build_documents("strangers", share(PER_BUNDLE)):
        if (
            document["phase"] not in {"call", "resume"}
            or document["resource"]["effect"] not in risky
        ):
            continue
        document["resource"]["sinks"] = ["/to"]
        document["context"]["args"]["to"] = "eve@elsewhere.example"
        document["context"]["run"]["provenance"] = {"/to": "untrusted"}
        assert embedded("plain").heard(document)["outcome"] in {"deny", "hold"}
