from __future__ import annotations

import copy

import pytest

from gateway.adapters.audit.audit_openings import SALT_BYTES, commit_openings, is_committed
from gateway.core.entry import Entry, Opening

pytestmark = pytest.mark.req("GW-13")

FIELDS = {"policy": {"rev": "sha256:0"}, "surface": "mcp"}


def _entry(*paths: str) -> Entry:
    openings = tuple(Opening(path, path.encode(), "alice") for path in paths)
    return Entry(type="call.intent", op="op-1", fields=copy.deepcopy(FIELDS), openings=openings)


def test_each_opening_is_committed_to_under_a_salt_of_its_own() -> None:
    fields, salts = commit_openings(_entry("policy.input", "args"))
    assert fields["policy"]["rev"] == "sha256:0"
    assert [len(salt) for salt in salts] == [SALT_BYTES, SALT_BYTES]
    assert salts[0] != salts[1]
    assert is_committed("policy.input", salts[0], b"policy.input", fields["policy"]["input"])
    assert is_committed("args", salts[1], b"args", fields["args"])


def test_the_entry_stays_as_it_is_so_that_it_can_be_recorded_again() -> None:
    entry = _entry("policy.input", "policy.more", "args")
    commit_openings(entry)
    assert entry.fields == FIELDS


def test_an_entry_without_openings_keeps_its_fields() -> None:
    assert commit_openings(_entry()) == (FIELDS, [])


@pytest.mark.parametrize("paths", [("args", "args"), ("surface",), ("policy.rev",), ("surface.x",)])
def test_no_commitment_takes_the_place_of_another_or_of_a_field(paths: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"stands|object"):
        commit_openings(_entry(*paths))
