from __future__ import annotations

import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from connectors.approve import ALL, Approved, approve_definitions
from connectors.catalog import Catalog
from connectors.listing import read_offers
from connectors.manifest import Manifest, load_manifest
from connectors.memory import build_definition
from gateway.core.errors import ConfigurationError

pytestmark = pytest.mark.req("GW-08")

TEXT = """# Who pays whom.
id: billing
transport: http          # over there
egress: [billing.example]

tools:
  - name: refund         # asks twice
    effect: money
    labels: [pii, untrusted]   # free text

  - name: "quote"
    effect: read

  - {name: list, effect: read}
"""
LISTING = [build_definition(name) for name in ("refund", "quote", "list", "extra")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "billing.yaml"
    path.write_text(TEXT, encoding="utf-8")
    path.chmod(0o640)
    return path


def test_what_is_approved_becomes_callable(path: Path) -> None:
    approved = approve_definitions(path, LISTING, ALL, "Ann")
    offers, _ = read_offers(LISTING)
    assert approved == [
        Approved(name, None, offers[name].digest) for name in ("refund", "quote", "list")
    ]
    catalog = Catalog()
    catalog.review(load_manifest(path))
    catalog.offer("billing", LISTING)
    states = {status.name: status.state for status in catalog.states()}
    assert states == {
        "refund": "callable",
        "quote": "callable",
        "list": "callable",
        "extra": "unreviewed",
    }


def test_only_lines_are_added_and_comments_stay(path: Path) -> None:
    approve_definitions(path, LISTING, ["refund"], "Ann")
    after = path.read_text(encoding="utf-8").splitlines()
    added = [line for line in after if line not in TEXT.splitlines()]
    assert [line for line in after if line not in added] == TEXT.splitlines()
    assert [line.split(":")[0].strip() for line in added] == ["definition_digest", "reviewed_by"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert list(path.parent.iterdir()) == [path]


def test_approving_again_replaces_the_digest(path: Path) -> None:
    approve_definitions(path, LISTING, ["refund"], "Ann")
    once = path.read_text(encoding="utf-8")
    changed = [build_definition("refund", {"type": "object"})]
    (approved,) = approve_definitions(path, changed, ["refund"], "Bob")
    assert approved.before is not None
    assert approved.before != approved.digest
    twice = path.read_text(encoding="utf-8")
    assert twice == once.replace(approved.before, approved.digest).replace(
        "reviewed_by: Ann", "reviewed_by: Bob"
    )


@pytest.mark.parametrize(
    ("tools", "reviewer", "listing", "problem"),
    [
        (["extra", "nonesuch"], "Ann", LISTING, "`extra` is not in the manifest"),
        (["refund"], "Ann", LISTING[1:], "is not offered"),
        (["refund"], "Ann", [*LISTING, build_definition("refund", {})], "two tools"),
        (["refund"], " ", LISTING, "--reviewed-by"),
        (ALL, "Ann", LISTING[3:], "offers none"),
    ],
)
def test_an_approval_that_cannot_be_given_writes_nothing(
    path: Path, tools: list[str] | str, reviewer: str, listing: list[bytes], problem: str
) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        approve_definitions(path, listing, tools, reviewer)
    assert path.read_text(encoding="utf-8") == TEXT
    assert list(path.parent.iterdir()) == [path]


def test_a_definition_that_nobody_has_read_is_not_pinned(path: Path) -> None:
    offers, _ = read_offers(LISTING)
    changed = [build_definition("refund", {"type": "object"}), *LISTING[1:]]
    read = [offers["refund"].digest, offers["quote"].digest]
    with pytest.raises(ConfigurationError, match=r"`refund` is offered as sha256:.* `--digest`"):
        approve_definitions(path, changed, ["refund", "quote"], "Ann", read)
    assert path.read_text(encoding="utf-8") == TEXT
    approve_definitions(path, LISTING, ["quote"], "Ann", read)
    # What is pinned already need not be read again.
    both = approve_definitions(path, LISTING, ["refund", "quote"], "Ann", read[:1])
    assert [one.name for one in both] == ["refund", "quote"]


def test_a_file_that_would_not_read_again_is_not_put_in_place(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(at: Path) -> Manifest:
        if at != path:
            raise ConfigurationError("unreadable")
        return load_manifest(at)

    monkeypatch.setattr("connectors.approve.load_manifest", load)
    with pytest.raises(ConfigurationError, match="unreadable"):
        approve_definitions(path, LISTING, ALL, "Ann")
    assert path.read_text(encoding="utf-8") == TEXT
    assert list(path.parent.iterdir()) == [path]


def test_two_reviewers_at_once_are_both_heard(path: Path) -> None:
    both = threading.Barrier(2)

    def approve(name: str) -> None:
        both.wait(10)
        approve_definitions(path, LISTING, [name], f"who read {name}")

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(approve, ("refund", "quote")))
    told = {review.name: review.reviewed_by for review in load_manifest(path).tools}
    assert told == {"refund": "who read refund", "quote": "who read quote", "list": None}
    assert [one.name for one in path.parent.iterdir()] == [path.name]
