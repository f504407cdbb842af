from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gateway.core.approvals.declined import Declined
from gateway.core.releases.history import History
from gateway.core.releases.publisher_keys import public_of
from gateway.core.releases.publishing import (
    Enough,
    Waits,
    Withdrawn,
    find_unsigned,
    judge,
    judge_withdrawal,
)
from gateway.core.releases.statement import SHADOW_MAX_S, Signed
from tests.unit.releases.made import (
    NOW_S,
    PAUL,
    PIA,
    PIA_AGAIN,
    STRANGER,
    publish,
    record,
    release,
    rules,
    say,
)

pytestmark = pytest.mark.req("POL-07")

ONE, TWO, THREE = (release(f"package policies.p{n}\n".encode()).revision for n in (1, 2, 3))


def everybody(_person: str, _at: int) -> bool:
    return True


def proposed(history: History, signed: Signed, at_s: int = NOW_S) -> None:
    said = signed.statement
    fields = record("policy.propose", said.number, said.rev, signed, op=f"by {signed.key.kid}")
    history.fold(
        fields
        | {"ts": at_s * 1_000_000, "action": said.act}
        | {"shadow_s": said.shadow_s, "again": said.again}
    )


def ask(
    history: History,
    signed: Signed,
    *,
    by: str,
    may: Callable[[str, int], bool] = everybody,
    now_s: int = NOW_S,
    **over: Any,  # noqa: ANN401 - fields of the rules
) -> Enough | Waits | Declined:
    return judge(rules(**over), history, signed, by=by, may_publish=may, now_s=now_s)


def test_one_word_waits_and_the_same_word_of_another_publisher_is_enough() -> None:
    history, first, second = History(), say(PIA, ONE), say(PAUL, ONE)
    assert ask(history, first, by="pia") == Waits(first)
    proposed(history, first)
    assert ask(history, second, by="paul") == Enough(first.statement, (first, second))


def test_one_person_is_one_publisher_with_two_keys_and_under_two_spellings() -> None:
    history = History()
    proposed(history, say(PIA, ONE))
    assert isinstance(ask(history, say(PIA, ONE), by="pia"), Waits)
    assert isinstance(ask(history, say(PIA_AGAIN, ONE), by="PIA"), Waits)


def test_somebody_elses_key_is_refused() -> None:
    declined = ask(History(), say(PAUL, ONE), by="pia")
    assert isinstance(declined, Declined)
    assert declined.code == "release_key_foreign"


@pytest.mark.parametrize(
    ("over", "code"),
    [
        ({"env": "dev"}, "release_elsewhere"),
        ({"log": "log.example.com/other"}, "release_elsewhere"),
        ({"number": 1}, "release_stale"),
        ({"number": 3}, "release_stale"),
        ({"prev": ""}, "release_stale"),
        ({"prev": TWO}, "release_stale"),
        ({"rev": ONE, "act": "rollback"}, "release_conflict"),
        ({"rev": "sha256:1"}, "release_invalid"),
        ({"shadow_s": -1}, "release_invalid"),
        ({"shadow_s": SHADOW_MAX_S + 1}, "release_invalid"),
        ({"shadow_s": 60}, "release_no_shadow"),
        ({"act": "rollback"}, "release_conflict"),
    ],
)
def test_a_word_that_does_not_fit_the_row_is_refused(over: dict[str, Any], code: str) -> None:
    history = History()
    publish(history, ONE)
    given: dict[str, Any] = {"rev": TWO, "number": 2, "prev": ONE} | over
    signed = say(PIA, given.pop("rev"), given.pop("number"), **given)
    declined = ask(history, signed, by="pia")
    assert isinstance(declined, Declined)
    assert declined.code == code


def test_an_old_pair_of_signatures_brings_nothing_back() -> None:
    history = History()
    old = [say(key, ONE) for key in (PIA, PAUL)]
    publish(history, ONE)
    publish(history, TWO)
    for signed, by in zip(old, ("pia", "paul"), strict=True):
        declined = ask(history, signed, by=by)
        assert isinstance(declined, Declined)
        assert declined.code == "release_stale"


def test_what_decided_before_is_rolled_back_to_and_not_published_again() -> None:
    history = History()
    publish(history, ONE)
    publish(history, TWO)
    declined = ask(history, say(PIA, ONE, 3, prev=TWO), by="pia")
    assert isinstance(declined, Declined)
    assert "policy rollback" in declined.why
    back = say(PIA, ONE, 3, prev=TWO, act="rollback")
    assert isinstance(ask(history, back, by="pia"), Waits)
    assert isinstance(ask(history, back, by="pia", rollback="one"), Enough)


def test_what_decides_may_be_signed_anew_so_that_keys_can_go() -> None:
    history = History()
    publish(history, ONE)
    proposed(history, say(PIA, ONE, 2, prev=ONE))
    assert isinstance(ask(history, say(PAUL, ONE, 2, prev=ONE), by="paul"), Enough)


def test_one_publisher_alone_publishes_nothing_new_though_the_way_back_takes_one() -> None:
    assert isinstance(ask(History(), say(PIA, ONE), by="pia", rollback="one"), Waits)


def test_the_word_of_who_publishes_no_longer_does_not_count() -> None:
    history = History()
    proposed(history, say(PIA, ONE))
    gone = ask(history, say(PAUL, ONE), by="paul", may=lambda person, _at: person != "pia")
    assert isinstance(gone, Waits)


def test_a_word_that_waited_too_long_does_not_count() -> None:
    history = History()
    proposed(history, say(PIA, ONE))
    assert isinstance(ask(history, say(PAUL, ONE), by="paul", now_s=NOW_S + 86_399), Enough)
    assert isinstance(ask(history, say(PAUL, ONE), by="paul", now_s=NOW_S + 86_400), Waits)


@pytest.mark.parametrize("over", [{"shadow_s": 60}, {"rev": TWO}])
def test_two_words_that_differ_are_not_one(over: dict[str, Any]) -> None:
    history = History()
    proposed(history, say(PIA, over.get("rev", ONE), shadow_s=over.get("shadow_s", 0)))
    assert isinstance(ask(history, say(PAUL, ONE), by="paul", can_shadow=True), Waits)


def test_a_publisher_has_one_word_at_a_time() -> None:
    history = History()
    proposed(history, say(PIA, ONE))
    proposed(history, say(PIA, TWO))
    assert [one.revision for one in history.proposals.values()] == [TWO]


def test_a_word_under_a_key_that_is_gone_by_now_does_not_count() -> None:
    history = History()
    proposed(history, say(STRANGER, ONE))
    assert isinstance(ask(history, say(PAUL, ONE), by="paul"), Waits)


def test_a_word_that_is_damaged_in_the_log_does_not_count() -> None:
    history = History()
    first = say(PIA, ONE)
    broken = record("policy.propose", 1, ONE, first) | {"statements": [first.token[:-4]]}
    history.fold(broken)
    assert isinstance(ask(history, say(PAUL, ONE), by="paul"), Waits)


def test_a_publication_of_the_log_is_checked_again_at_every_start() -> None:
    history = History()
    publish(history, ONE)
    assert history.target is not None
    assert find_unsigned(rules(), history.target) is None
    assert "another environment" in (find_unsigned(rules(environment="dev"), history.target) or "")
    without = {k: one for k, one in rules().publishers.items() if one.id != "paul"}
    told = find_unsigned(rules(publishers=without), history.target)
    assert "none of `policy.publishers`" in (told or "")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "one statement"),
        ([say(PIA, ONE)], "two publishers"),
        ([say(PIA, ONE), say(PIA_AGAIN, ONE)], "two publishers"),
        ([say(PIA, ONE), say(PAUL, TWO)], "one statement"),
        ([say(PIA, TWO), say(PAUL, TWO)], "another environment, log, place or release"),
        ([say(PIA, ONE, 2), say(PAUL, ONE, 2)], "another environment, log, place or release"),
    ],
)
def test_a_publication_that_was_forged_may_not_decide(words: list[Signed], told: str) -> None:
    history = History()
    history.fold(record("policy.publish", 1, ONE, *words))
    assert history.target is not None
    assert told in (find_unsigned(rules(), history.target) or "")


def test_a_way_back_by_one_may_decide_where_one_is_enough() -> None:
    history = History()
    publish(history, ONE)
    publish(history, TWO)
    alone = say(PIA, ONE, 3, act="rollback", prev=TWO)
    history.fold(record("policy.rollback", 3, ONE, alone))
    assert history.target is not None
    assert find_unsigned(rules(rollback="one"), history.target) is None
    assert find_unsigned(rules(), history.target) is not None


def test_one_alone_goes_back_to_nothing_that_never_decided_though_the_log_says_so() -> None:
    history = History()
    history.fold(record("policy.rollback", 1, ONE, say(PIA, ONE, act="rollback")))
    assert history.target is not None
    assert "two publishers" in (find_unsigned(rules(rollback="one"), history.target) or "")


def test_one_alone_does_not_bring_back_what_two_went_back_from() -> None:
    history = History()
    publish(history, ONE)
    publish(history, TWO)
    publish(history, ONE, act="rollback")
    again = say(PIA, TWO, 4, prev=ONE, act="rollback")
    assert isinstance(ask(history, again, by="pia", rollback="one"), Waits)
    proposed(history, again)
    both = ask(history, say(PAUL, TWO, 4, prev=ONE, act="rollback"), by="paul", rollback="one")
    assert isinstance(both, Enough)
    assert len(both.signed) == 2
    history.fold(record("policy.rollback", 4, TWO, again))
    assert history.target is not None
    assert "two publishers" in (find_unsigned(rules(rollback="one"), history.target) or "")
    # What two brought back may be gone back to by one again.
    publish(history, TWO, act="rollback")
    publish(history, THREE)
    assert isinstance(
        ask(history, say(PIA, TWO, 7, prev=THREE, act="rollback"), by="pia", rollback="one"),
        Enough,
    )


def test_one_alone_does_not_bring_back_what_was_halted() -> None:
    history = History()
    publish(history, ONE)
    publish(history, TWO)
    history.fold({"type": "policy.halt", "op": "h", "ts": 0, "number": 2, "release": TWO})
    history.fold(record("policy.activate", 1, ONE))
    again = say(PIA, TWO, 3, prev=ONE, act="rollback")
    assert isinstance(ask(history, again, by="pia", rollback="one"), Waits)


def test_a_publication_that_takes_the_place_of_another_one_than_was_signed_does_not_decide() -> (
    None
):
    history = History()
    publish(history, ONE)
    publish(history, TWO)
    # Both signed it for the place of the first; the log puts it into that of the second.
    words = [say(key, THREE, 3, prev=ONE) for key in (PIA, PAUL)]
    history.fold(record("policy.publish", 3, THREE, *words, replaces=ONE))
    assert history.target is not None
    assert "another environment, log, place" in (find_unsigned(rules(), history.target) or "")


def withdraw(history: History, signed: Signed, **over: Any) -> Withdrawn | Declined:  # noqa: ANN401
    said = signed.statement
    word = say(
        PAUL, said.rev, said.number, prev=said.prev, act="withdraw", again=said.again, **over
    )
    answer = judge_withdrawal(rules(), history, word, by="paul")
    if isinstance(answer, Withdrawn):
        fields = record("policy.withdraw", said.number, said.rev, word)
        history.fold(fields | {"again": said.again, "shadow_s": word.statement.shadow_s})
    return answer


def test_what_was_withdrawn_by_any_publisher_is_never_enough_again() -> None:
    history, first = History(), say(PIA, ONE)
    proposed(history, first)
    answer = withdraw(history, first)
    assert isinstance(answer, Withdrawn)
    assert len(answer.proposals) == 1
    assert history.proposals == {}
    for key, by in ((PIA, "pia"), (PAUL, "paul")):
        declined = ask(history, say(key, ONE), by=by)
        assert isinstance(declined, Declined)
        assert declined.code == "release_withdrawn"
    # Who still wants it says so anew, and that can be withdrawn as well.
    anew = say(PIA, ONE, again=1)
    assert isinstance(ask(history, anew, by="pia"), Waits)
    proposed(history, anew)
    assert isinstance(ask(history, say(PAUL, ONE, again=1), by="paul"), Enough)
    withdraw(history, anew)
    assert [one.again for one in history.withdrawn()] == [0, 1]
    assert isinstance(ask(history, say(PIA, ONE, again=2), by="pia"), Waits)
    ahead = ask(history, say(PIA, ONE, again=3), by="pia")
    assert isinstance(ahead, Declined)
    # Another release is not concerned, and with the next place in the row all is forgotten.
    assert isinstance(ask(history, say(PIA, TWO), by="pia"), Waits)
    publish(history, TWO)
    assert history.withdrawn() == []
    # Who took what back, and when, stays known.
    kid = public_of(PAUL).kid
    told = [(one.revision, one.again, one.kid, one.at) for one in history.withdrawals]
    assert told == [(ONE, 0, kid, NOW_S), (ONE, 1, kid, NOW_S)]


def test_what_was_withdrawn_does_not_decide_though_the_log_says_so() -> None:
    history, first = History(), say(PIA, ONE)
    proposed(history, first)
    withdraw(history, first)
    history.fold(record("policy.publish", 1, ONE, first, say(PAUL, ONE)))
    assert history.target is not None
    assert find_unsigned(rules(), history.target) == "it was withdrawn before"


@pytest.mark.parametrize(
    ("over", "code"),
    [
        ({"env": "dev"}, "release_elsewhere"),
        ({"log": "other"}, "release_elsewhere"),
        ({"act": "publish"}, "release_conflict"),
        ({"shadow_s": 60}, "release_conflict"),
        ({"again": 1}, "release_conflict"),
        ({"prev": TWO}, "release_conflict"),
        ({"number": 2}, "release_conflict"),
        ({"rev": TWO}, "release_conflict"),
    ],
)
def test_only_what_waits_here_is_withdrawn(over: dict[str, Any], code: str) -> None:
    history = History()
    proposed(history, say(PIA, ONE))
    given: dict[str, Any] = {"act": "withdraw", "rev": ONE, "number": 1} | over
    word = say(PAUL, given.pop("rev"), given.pop("number"), **given)
    declined = judge_withdrawal(rules(), history, word, by="paul")
    assert isinstance(declined, Declined)
    assert declined.code == code


def test_nobody_withdraws_with_anothers_key_and_a_withdrawal_publishes_nothing() -> None:
    history = History()
    proposed(history, say(PIA, ONE))
    word = say(PAUL, ONE, act="withdraw")
    declined = judge_withdrawal(rules(), history, word, by="pia")
    assert isinstance(declined, Declined)
    assert declined.code == "release_key_foreign"
    for signed, by in ((word, "paul"), (say(PIA, ONE, act="withdraw"), "pia")):
        refused = ask(history, signed, by=by, rollback="one")
        assert isinstance(refused, Declined)
        assert "policy withdraw" in refused.why
    history.fold(record("policy.publish", 1, ONE, word, say(PIA, ONE, act="withdraw")))
    assert history.target is not None
    assert find_unsigned(rules(), history.target) is not None


def test_a_clock_that_is_put_back_revives_no_word_that_waited_too_long() -> None:
    history = History()
    proposed(history, say(PIA, ONE))
    history.see(NOW_S + 86_400)
    late = ask(history, say(PAUL, ONE), by="paul", now_s=history.see(NOW_S + 1))
    assert isinstance(late, Waits)


def test_whether_a_word_counts_is_asked_for_the_time_at_which_it_was_given() -> None:
    history, asked = History(), list[tuple[str, int]]()
    proposed(history, say(PIA, ONE), NOW_S + 5)

    def stopped_since(person: str, at: int) -> bool:
        asked.append((person, at))
        return False

    waits = ask(history, say(PAUL, ONE), by="paul", may=stopped_since, now_s=NOW_S + 9)
    assert isinstance(waits, Waits)
    assert asked == [("pia", NOW_S + 5)]
