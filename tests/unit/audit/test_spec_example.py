"""The example on the page of the format is what the code writes and accepts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import gateway
from gateway.core.log.chain import RESERVED, commit
from gateway.core.log.chain_check import Break, ChainCheck
from gateway.core.log.note import parse_vkey

PAGE = (Path(__file__).parents[3] / "docs" / "spec" / "audit-log-v1.md").read_text("utf-8")
STATEMENTS = {"search_premise", "sentences", "statement"}


@pytest.mark.req("GW-13")
def test_the_page_s_example_verifies_under_the_page_s_key() -> None:
    block = re.search(r"```jsonl\n(.*?)```", PAGE, re.DOTALL)
    vkey = re.search(r"Verifier key: `([^`]+)`", PAGE)
    root = re.search(r"root at 3 records: `([0-9a-f]{64})`", PAGE)
    assert block is not None
    assert vkey is not None
    assert root is not None
    key = parse_vkey(vkey[1])
    check = ChainCheck("log.example.com/audit", key, every_signature=True)
    for line in block[1].encode().splitlines():
        assert not isinstance(check.feed(line), Break)
    assert check.tail() is None
    assert check.chain.tree.root().hex() == root[1]


def test_the_page_s_commitment_is_ours() -> None:
    assert str(commit(bytes(32), "args", b'{"amount":250}')["c"]) in PAGE


def test_the_page_names_every_reserved_member() -> None:
    assert {name for name in RESERVED if f"| `{name}` |" in PAGE} == RESERVED


@pytest.mark.req("AUD-01")
def test_the_page_describes_every_type_of_record_that_the_code_writes() -> None:
    paths = Path(gateway.__path__[0]).rglob("*.py")
    # What statements about policies may name (`run.calls`) is no record.
    code = "\n".join(path.read_text("utf-8") for path in paths if path.stem not in STATEMENTS)
    written = set(re.findall(r'type="((?:[a-z]+\.[a-z]+)|genesis|boot|shutdown)"', code))
    written |= {name for name in re.findall(r'"((?:run|token)\.[a-z]+)"', code) if "." in name}
    assert len(written) >= 15
    table = PAGE[PAGE.index("### 9.1 Fields") : PAGE.index("### 9.2")]
    assert {name for name in written if f"`{name}`" not in table} == set()
