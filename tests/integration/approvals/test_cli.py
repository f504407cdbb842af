from __future__ import annotations

import json
import re
from functools import partial
from typing import TYPE_CHECKING

import pytest
from fastapi import FastAPI
from starlette.responses import PlainTextResponse

from gateway.cli.admin_api import visible

if TYPE_CHECKING:
    from tests.integration.approvals.conftest import Gateway

pytestmark = [pytest.mark.network, pytest.mark.req("GW-12")]


async def test_two_people_approve_at_the_command_line(gateway: Gateway) -> None:
    held = await gateway.hold()
    listed = await gateway.cli("ann", "list")
    assert listed.exit_code == 0
    assert [line.split()[0] for line in listed.stdout.splitlines()] == ["ID", held.id]
    first = await gateway.cli("ann", "approve", held.id, "--reason", "matches the ticket")
    assert (first.exit_code, first.stdout) == (0, f"{held.id} PENDING\n")
    second = await gateway.cli("bob", "approve", held.id, "--reason", "checked")
    assert (second.exit_code, second.stdout) == (0, f"{held.id} APPROVED\n")
    assert gateway.approved == [held.id]
    log = gateway.log()
    kinds = [b"approval.request", b"approval.vote", b"approval.grant"]
    assert [log.count(b'"%s"' % kind) for kind in kinds] == [1, 2, 1]
    assert b"matches the ticket" not in log
    assert b'"ann"' not in log


async def test_show_puts_the_raw_arguments_first(gateway: Gateway) -> None:
    held = await gateway.hold()
    shown = await gateway.cli("ann", "show", held.id)
    lines = [line.split(maxsplit=1) for line in shown.stdout.splitlines()]
    assert lines[0] == ["arguments", '{"amount": 120}']
    assert ["reason", "large_refund: more than 100 (refunds)"] in lines
    assert ["reason", "night"] in lines
    assert "may vote      ann, bob" in shown.stdout
    assert held.binding in shown.stdout
    assert re.search(r"\(in (9|10) min \d+ s\)", shown.stdout)


async def test_agents_that_handed_their_authority_on_are_shown(gateway: Gateway) -> None:
    held = await gateway.hold(actor_chain=("refund-bot", "planner", "clerk"))
    shown = (await gateway.cli("ann", "show", held.id)).stdout.splitlines()
    agents = [line.split() for line in shown if line.startswith(("agent", "by way of"))]
    assert agents == [
        ["agent", "refund-bot"],
        ["by", "way", "of", "planner"],
        ["by", "way", "of", "clerk"],
    ]
    alone = await gateway.hold()
    assert "by way of" not in (await gateway.cli("ann", "show", alone.id)).stdout


async def test_a_denial_is_shown_with_its_reason(gateway: Gateway) -> None:
    held = await gateway.hold()
    denied = await gateway.cli("bob", "deny", held.id, "--reason", "no such order", "-o", "json")
    assert denied.exit_code == 0
    assert json.loads(denied.stdout)["state"] == "DENIED"
    shown = await gateway.cli("ann", "show", held.id)
    assert "vote          deny by bob: no such order" in shown.stdout
    assert "may vote      nobody" in shown.stdout


async def test_a_vote_that_counts_no_more_is_shown_as_void_until_people_have_decided(
    gateway: Gateway,
) -> None:
    held = await gateway.hold()
    await gateway.cli("ann", "approve", held.id, "--reason", "checked")
    gateway.stopped.add("ann")
    shown = (await gateway.cli("otto", "show", held.id)).stdout
    assert "void vote     approve by ann: checked" in shown
    assert "stages met    0 of 1" in shown
    assert "may vote      bob" in shown
    await gateway.cli("bob", "deny", held.id, "--reason", "nobody else has looked")
    decided = (await gateway.cli("otto", "show", held.id)).stdout
    assert [line.split()[0] for line in decided.splitlines() if "vote  " in line] == [
        "vote",
        "vote",
        "may",
    ]


async def test_lists_and_requests_come_as_json(gateway: Gateway) -> None:
    held = await gateway.hold()
    listed = await gateway.cli("ann", "list", "-o", "json")
    assert [one["id"] for one in json.loads(listed.stdout)] == [held.id]
    shown = await gateway.cli("ann", "show", held.id, "-o", "json")
    assert json.loads(shown.stdout)["arguments"] == '{"amount": 120}'
    nothing = await gateway.cli("ann", "list", "--state", "denied", "-o", "json")
    assert json.loads(nothing.stdout) == []
    everything = await gateway.cli("ann", "list", "--state", "all", "-o", "json")
    assert [one["id"] for one in json.loads(everything.stdout)] == [held.id]


async def test_no_number_of_held_calls_keeps_another_one_from_being_listed(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = [await gateway.hold(agent="flood-bot") for _ in range(100)]
    last = await gateway.hold()
    for most in ("500", "7"):
        monkeypatch.setattr("gateway.cli.approvals._PAGE", most)
        for state in ("pending", "all"):
            listed = (await gateway.cli("ann", "list", "--state", state)).stdout.splitlines()
            assert sorted(line.split()[0] for line in listed[1:]) == sorted(
                one.id for one in (*many, last)
            )


async def test_words_that_do_not_match_keep_the_vote_back(gateway: Gateway) -> None:
    held = await gateway.hold()
    words = json.loads((await gateway.cli("ann", "show", held.id, "-o", "json")).stdout)[
        "binding_words"
    ]
    voting = ("approve", held.id, "--reason", "x", "--words")
    wrong = await gateway.cli("ann", *voting, "lusab-babad-gutih-tugad")
    assert wrong.exit_code == 6
    assert await gateway.store.votes(held.id) == []
    assert (await gateway.cli("ann", *voting, words)).exit_code == 0


async def test_arguments_cannot_play_with_the_terminal(gateway: Gateway) -> None:
    held = await gateway.hold(arguments='{"to":"\x1b[2Ka\u202eb\u200bc\U000e0041"}'.encode())
    shown = await gateway.cli("ann", "show", held.id)
    assert "\\u001b[2Ka\\u202eb\\u200bc\\U000e0041" in shown.stdout
    assert shown.stdout.replace("\n", "").isprintable()


# What Unicode calls a letter or a mark, and no screen shows.
UNSEEN = (
    "\u034f\u115f\u1160\u17b4\u180b\u2800\u3164\ufe0f\uffa0\U000e0100\U000e01ef\U0001d159\U00016fe4"
)


async def test_nothing_in_arguments_is_there_and_not_seen(gateway: Gateway) -> None:
    held = await gateway.hold(arguments=f'{{"to":"a{UNSEEN}b"}}'.encode())
    shown = (await gateway.cli("ann", "show", held.id)).stdout
    assert not set(UNSEEN) & set(shown)
    assert "a\\u034f\\u115f\\u1160" in shown.splitlines()[0]


async def test_rows_of_spaces_neither_push_arguments_away_nor_make_lines_like_ours(
    gateway: Gateway,
) -> None:
    forged = "tool          billing.read".ljust(80)
    held = await gateway.hold(arguments=f'{{"a":1,{" " * 3000}"b":"{forged}"}}'.encode())
    shown = (await gateway.cli("ann", "show", held.id)).stdout.splitlines()
    assert "  " not in shown[0].removeprefix("arguments").lstrip()
    assert [line for line in shown if "tool   " in line] == ["tool          billing.refund"]


@pytest.mark.parametrize(
    ("given", "spelled"),
    [
        ("p\u0430ypal", "p\\u0430ypal"),
        ("\u05d0 10 \u05d1", "\\u05d0 10 \\u05d1"),
        ("a\u0336", "a\\u0336"),
    ],
)
async def test_letters_that_look_like_others_or_turn_them_around_are_spelled_out_too(
    given: str, spelled: str, gateway: Gateway
) -> None:
    held = await gateway.hold(arguments=f'{{"to":"{given}"}}'.encode())
    shown = (await gateway.cli("ann", "show", held.id)).stdout.splitlines()
    assert shown[:2] == [f'arguments     {{"to":"{given}"}}', f'in ASCII      {{"to":"{spelled}"}}']
    plain = await gateway.hold()
    assert "in ASCII" not in (await gateway.cli("ann", "show", plain.id)).stdout


async def test_what_became_of_a_call_is_told_with_its_state(gateway: Gateway) -> None:
    held = await gateway.hold()
    for who in ("ann", "bob"):
        await gateway.cli(who, "approve", held.id, "--reason", "checked")
    move = partial(gateway.store.move, held.id, now_s=held.created_at, event=None, claim_token="c")
    await move(source="APPROVED", target="CLAIMED")
    await move(source="CLAIMED", target="STALE", changes={"outcome": "definition_changed"})
    shown = (await gateway.cli("otto", "show", held.id)).stdout.splitlines()
    assert "state         STALE: definition_changed" in shown


def test_what_can_be_read_stays_as_it_is() -> None:
    assert visible("Zoë paid 5 € ✓") == "Zoë paid 5 € ✓"


@pytest.mark.parametrize(
    ("who", "arguments", "code", "said"),
    [
        ("olga", ("approve", "{id}", "--reason", "mine"), 3, "requester's side"),
        ("otto", ("approve", "{id}", "--reason", "x"), 3, "the role `approver`"),
        ("a-stranger", ("list",), 4, "not known"),
        ("", ("list",), 4, "set COUNTERSIGN_TOKEN"),
        ("two\nlines", ("list",), 4, "no credential has"),
        ("ann", ("show", "f" * 32), 5, "no such request"),
        ("ann", ("show", "../tools"), 2, "letters and digits"),
        ("ann", ("list", "--state", "sleeping"), 1, "`SLEEPING` is no state"),
        ("ann", ("approve", "{id}"), 2, "--reason"),
        ("ann", ("deny", "{id}", "--reason", " "), 2, "say why"),
        ("ann", ("approve", "{id}", "--reason", ""), 2, "say why"),
        ("otto", ("cancel", "{id}", "--reason", ""), 2, "say why"),
        ("otto", ("resolve", "{id}", "--ran", "--reason", " "), 2, "say why"),
        ("ann", ("approve", "{id}", "--reason", "\udcff"), 2, "write it in UTF-8"),
    ],
)
async def test_what_goes_wrong_has_an_exit_code_and_says_so(
    who: str, arguments: tuple[str, ...], code: int, said: str, gateway: Gateway
) -> None:
    held = await gateway.hold()
    ended = await gateway.cli(who, *(one.format(id=held.id) for one in arguments))
    assert (ended.exit_code, said in ended.stderr) == (code, True), ended.stderr
    assert ended.stdout == ""
    assert await gateway.store.get(held.id) == held


async def test_of_two_operators_who_cancel_at_once_one_does(gateway: Gateway) -> None:
    held = await gateway.hold()
    cancelling = ("cancel", held.id, "--reason", "wrong order")
    ended = [await gateway.cli("otto", *cancelling) for _ in range(2)]
    assert [one.exit_code for one in ended] == [0, 6]
    assert ended[0].stdout == f"{held.id} CANCELLED\n"


async def test_an_operator_resolves_only_what_is_unknown(gateway: Gateway) -> None:
    held = await gateway.hold()
    resolving = ("resolve", held.id, "--not-ran", "--reason", "no such refund in the ledger")
    early = await gateway.cli("otto", *resolving)
    assert (early.exit_code, "`PENDING`" in early.stderr) == (6, True)
    assert (await gateway.cli("ann", *resolving)).exit_code == 3


async def test_something_else_that_answers_is_not_taken_for_a_gateway(gateway: Gateway) -> None:
    other = FastAPI()
    other.add_api_route("/v1/approvals", lambda: PlainTextResponse("hello"))
    async with gateway.serve(other) as url:
        ended = await gateway.cli("ann", "list", COUNTERSIGN_URL=url)
    assert (ended.exit_code, "not from a gateway" in ended.stderr) == (1, True)


async def test_a_second_word_is_a_conflict(gateway: Gateway) -> None:
    held = await gateway.hold()
    await gateway.cli("ann", "approve", held.id, "--reason", "x")
    assert (await gateway.cli("ann", "deny", held.id, "--reason", "x")).exit_code == 6


async def test_an_expired_request_says_that_it_is_over(gateway: Gateway) -> None:
    held = await gateway.hold(created_at=1_000, expires_at=1_900)
    shown = await gateway.cli("ann", "show", held.id)
    assert "state         EXPIRED" in shown.stdout
    assert "1970-01-01 00:31:40Z (over)" in shown.stdout


@pytest.mark.parametrize(
    ("url", "code", "said"),
    [
        ("", 2, "set COUNTERSIGN_URL"),
        ("gateway", 2, "set COUNTERSIGN_URL"),
        ("https://gateway:port", 2, "set COUNTERSIGN_URL"),
        ("http://gateway.example", 2, "must be https"),
        ("http://127.0.0.1:1", 1, "cannot be reached"),
    ],
)
async def test_an_address_that_leads_nowhere_is_told(
    url: str, code: int, said: str, gateway: Gateway
) -> None:
    ended = await gateway.cli("ann", "list", COUNTERSIGN_URL=url)
    assert (ended.exit_code, said in ended.stderr) == (code, True), ended.stderr
    assert gateway.secrets["ann"] not in ended.stderr
