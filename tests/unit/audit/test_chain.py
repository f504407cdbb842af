from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.log.chain import GENESIS_PREV, RESERVED, Chain, commit, place

ORIGIN = "gateway.example.com/audit"
Build = Callable[[list[list[dict[str, Any]]]], list[bytes]]


def _append(chain: Chain, fields: dict[str, Any], ts: int = 0, max_bytes: int = 16_384) -> bytes:
    line, _ = chain.append(
        type="call.intent", op="o", boot="b", ts=ts, fields=fields, max_bytes=max_bytes
    )
    return line


def test_the_first_record_has_no_predecessor() -> None:
    record = orjson.loads(_append(Chain(ORIGIN), {}))
    assert (record["seq"], record["prev"]) == (0, GENESIS_PREV)
    assert record["prev"] == "0" * 64
    assert "cp" not in record


@pytest.mark.req("GW-13")
def test_a_record_names_the_leaf_hash_of_the_one_before(build: Build) -> None:
    first, second, _ = build([[{}, {"x": 1}]])
    assert orjson.loads(second)["prev"] == hashlib.sha256(b"\x00" + first).hexdigest()


@pytest.mark.req("GW-13")
def test_the_record_after_a_checkpoint_names_its_line_and_no_other_does(build: Build) -> None:
    _, checkpoint, second, third, _ = build([[{}], [{}, {}]])
    assert orjson.loads(second)["cp"] == hashlib.sha256(checkpoint).hexdigest()
    assert "cp" not in orjson.loads(third)


def test_time_never_goes_back() -> None:
    chain = Chain(ORIGIN)
    stamps = [orjson.loads(_append(chain, {}, ts=ts))["ts"] for ts in (5, 3, 9)]
    assert stamps == [5, 5, 9]


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_a_field_cannot_take_the_place_of_one_of_the_log_s_own(name: str) -> None:
    with pytest.raises(ValueError, match="log's own"):
        _append(Chain(ORIGIN), {name: "x"})


@pytest.mark.parametrize("fields", [{"x": 1.5}, {"x": "y" * 16_384}, {"x": "\ud800"}, {"ü": 1}])
def test_a_refused_record_leaves_the_chain_where_it_was(fields: dict[str, Any]) -> None:
    chain = Chain(ORIGIN)
    _append(chain, {})
    before = (chain.seq, chain.prev, chain.head())
    with pytest.raises(ValueError, match="record"):
        _append(chain, fields)
    assert (chain.seq, chain.prev, chain.head()) == before


def test_a_record_of_exactly_the_limit_is_written() -> None:
    size = len(_append(Chain(ORIGIN), {"x": "y"}))
    assert _append(Chain(ORIGIN), {"x": "y"}, max_bytes=size)
    with pytest.raises(ValueError, match="beyond"):
        _append(Chain(ORIGIN), {"x": "y"}, max_bytes=size - 1)


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=200))
def test_a_commitment_is_the_keyed_hash_that_the_page_says(salt: bytes, value: bytes) -> None:
    mac = hmac.new(salt, b"cs/commit/v1\x00args\x00" + value, "sha256").digest()
    expected = base64.urlsafe_b64encode(mac).rstrip(b"=").decode()
    assert commit(salt, "args", value) == {"c": expected, "bytes": len(value)}


def test_a_value_is_placed_without_touching_what_stood_inside() -> None:
    policy = {"rev": "r"}
    fields = {"policy": policy, "x": 1}
    place(fields, "policy.input", 2)
    place(fields, "a.b", 2)
    assert fields == {"policy": {"rev": "r", "input": 2}, "x": 1, "a": {"b": 2}}
    assert policy == {"rev": "r"}


@pytest.mark.parametrize("path", ["x", "policy.rev", "x.y", "", "policy.", "a b", 'a"', ".x"])
def test_a_value_is_not_placed_over_a_field_or_nowhere(path: str) -> None:
    with pytest.raises(ValueError, match=r"field|object|path"):
        place({"policy": {"rev": "r"}, "x": 1}, path, 2)
