"""Tags compare what must not be read (audit log format, §7)."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.approvals.approval import quorum
from gateway.core.policy.decision import ApprovalSpec, Stage
from gateway.core.tags import arguments_tag, person_tag, person_tags

pytestmark = pytest.mark.req("AUD-04")


def test_a_tag_is_what_the_format_says() -> None:
    mac = hmac.new(b"nonce", b"cs/person/v1\0alice", hashlib.sha256).digest()
    assert person_tag("nonce", "alice") == base64.urlsafe_b64encode(mac).decode()[:22]
    mac = hmac.new(b"nonce", b'cs/args/v1\0{"a":1}', hashlib.sha256).digest()
    assert arguments_tag("nonce", b'{"a":1}') == base64.urlsafe_b64encode(mac).decode()[:22]


@given(st.text(), st.text(), st.text(min_size=1), st.text(min_size=1))
def test_tags_are_equal_for_equal_values_of_one_approval_only(
    one: str, other: str, nonce: str, second: str
) -> None:
    one, other, nonce, second = (
        text.encode("utf-8", "ignore").decode() for text in (one, other, nonce, second)
    )
    assert (person_tag(nonce, one) == person_tag(nonce, other)) == (one == other)
    assert (person_tag(nonce, one) == person_tag(second, one)) == (nonce == second)
    assert person_tag(nonce, one) != arguments_tag(nonce, one.encode())


def test_the_tags_of_several_people_do_not_tell_their_order_or_how_often() -> None:
    assert person_tags("n", ["b", "a", "b"]) == person_tags("n", ["a", "b"])


def test_the_quorum_is_the_least_number_of_people_that_can_approve() -> None:
    two, one, zero = Stage(approve=2), Stage(approve=1), Stage(approve=0)
    assert quorum(ApprovalSpec(stages=((two, one), (two,)))) == 3
    assert quorum(ApprovalSpec(stages=((zero,),))) == 1
    assert quorum(ApprovalSpec(stages=())) == 0
