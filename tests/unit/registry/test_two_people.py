"""What takes two people, and how a single one does not get around it (TOK-08)."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.core.people.registry import Member, Person
from gateway.core.tags import person_tags
from gateway.core.tokens.clients import hash_secret
from gateway.http.registry_desk import Applied
from tests.fixed import NOW_S
from tests.unit.registry.desk import Desk, human, secret_of, told

pytestmark = pytest.mark.req("TOK-08")
DAY_S = 86_400


async def propose(desk: Desk, who: str, path: str, body: object) -> str:
    answer = (await desk.post(who, path, body)).json()
    assert answer["status"] == "proposed", answer
    return str(answer["proposal"]["proposal"])


async def confirm(desk: Desk, who: str, proposal: str) -> Any:  # noqa: ANN401 - a response
    return await desk.post(who, f"registry/proposals/{proposal}/confirm")


def roles(desk: Desk, name: str) -> tuple[str, ...]:
    found = desk.humans.find(name)
    return () if found is None else found.roles


@pytest.fixture
async def pat(desk: Desk) -> Desk:
    """Register Pat, who decides nothing yet and has a secret of their own."""
    body = {"id": "pat", "secret_hash": hash_secret(secret_of("pat"))}
    assert (await desk.post("ada", "users", body)).status_code == 200
    return desk


@pytest.mark.req("TOK-01")
async def test_who_decides_nothing_is_registered_by_one_admin(pat: Desk) -> None:
    assert roles(pat, "pat") == ()
    done = await pat.post("ada", "users/pat/roles", {"grant": ["auditor"], "add_groups": ["hr"]})
    assert done.json()["status"] == "applied"
    assert roles(pat, "pat") == ("auditor", "hr")
    assert (await pat.get("pat", "users")).status_code == 200
    await pat.post("otto", "users/pat/suspend", {"reason": "lost laptop"})
    assert told(await pat.get("pat", "users")) == (401, "token_invalid")
    assert pat.humans.find("pat") is None
    assert "pat" not in pat.humans.everyone()


@pytest.mark.parametrize("role", ["approver", "policy_publisher", "admin"])
async def test_a_role_that_decides_is_given_by_two(pat: Desk, role: str) -> None:
    asked = await propose(pat, "ada", "users/pat/roles", {"grant": [role]})
    assert roles(pat, "pat") == ()
    (shown,) = (await pat.get("alan", "registry/proposals")).json()["proposals"]
    assert (shown["granted"], shown["revoked"], shown["asked_by"]) == ([role], [], "ada")
    assert told(await confirm(pat, "ada", asked)) == (403, "registry_same_person")
    assert told(await confirm(pat, "otto", asked)) == (403, "role_missing")
    done = (await confirm(pat, "alan", asked)).json()
    assert (done["status"], done["alone"], roles(pat, "pat")) == ("applied", False, (role,))
    assert told(await confirm(pat, "alan", asked)) == (404, "registry_not_found")
    before, applied = pat.changes()[-2:]
    assert [before["step"], applied["step"]] == ["proposed", "applied"]
    assert applied["granted"] == [role]
    assert applied["proposal"] == before["proposal"] == asked
    assert pat.audit.read_opening(applied["seq"], "by.asked") == b"ada"
    assert pat.audit.read_opening(applied["seq"], "by.confirmed") == b"alan"
    assert len(applied["persons"]) == 2


async def test_the_people_of_a_change_are_tagged_under_a_secret_of_its_own(pat: Desk) -> None:
    asked = await propose(pat, "ada", "users/pat/roles", {"grant": ["admin"]})
    (kept,) = (await pat.store.load()).proposals
    await confirm(pat, "alan", asked)
    assert pat.changes()[-1]["persons"] == person_tags(kept.nonce, ["ada", "alan"])


async def test_nobody_confirms_a_change_of_their_own_entry(desk: Desk) -> None:
    asked = await propose(desk, "ada", "users/alan/suspend", {"reason": "gone"})
    assert told(await confirm(desk, "alan", asked)) == (403, "registry_own_change")
    assert roles(desk, "alan") == ("admin",)


async def test_who_decides_is_suspended_by_two_and_not_by_an_operator(pat: Desk) -> None:
    answer = await pat.post("otto", "users/ann/suspend", {})
    assert told(answer) == (403, "role_missing")
    assert "kill switch" in answer.json()["detail"]
    asked = await propose(pat, "ada", "users/ann/suspend", {"reason": "case 7"})
    assert roles(pat, "ann") == ("approver",)
    assert (await confirm(pat, "alan", asked)).json()["entry"]["state"] == "suspended"
    assert roles(pat, "ann") == ()
    asked = await propose(pat, "alan", "users/ann/resume", {})
    await confirm(pat, "ada", asked)
    assert roles(pat, "ann") == ("approver",)


async def test_groups_of_who_decides_are_given_by_two(pat: Desk) -> None:
    await confirm(
        pat, "alan", await propose(pat, "ada", "users/pat/roles", {"grant": ["approver"]})
    )
    await propose(pat, "ada", "users/pat/roles", {"add_groups": ["finance"]})
    assert roles(pat, "pat") == ("approver",)


async def test_a_proposal_lapses_after_a_day(pat: Desk) -> None:
    asked = await propose(pat, "ada", "users/pat/roles", {"grant": ["admin"]})
    assert len((await pat.get("eve", "registry/proposals")).json()["proposals"]) == 1
    pat.clock.now_s += DAY_S
    assert told(await confirm(pat, "alan", asked)) == (409, "registry_conflict")
    assert (await pat.get("eve", "registry/proposals")).json()["proposals"] == []
    await propose(pat, "ada", "users/pat/roles", {"grant": ["admin"]})
    assert len((await pat.store.load()).proposals) == 1  # the lapsed one is gone


async def test_a_proposal_is_for_the_entry_as_it_was(pat: Desk) -> None:
    asked = await propose(pat, "ada", "users/pat/roles", {"grant": ["approver"]})
    await pat.post("ada", "users/pat/roles", {"add_groups": ["finance"]})
    assert told(await confirm(pat, "alan", asked)) == (409, "registry_conflict")
    new = {"id": "zoe", "roles": ["approver"]}
    asked = await propose(pat, "ada", "users", new)
    await pat.post("ada", "users", {"id": "ZOE"})
    assert told(await confirm(pat, "alan", asked)) == (409, "registry_conflict")


async def test_a_proposal_of_somebody_who_is_no_admin_any_more_is_void(pat: Desk) -> None:
    new = {"id": "amy", "roles": ["admin"], "secret_hash": hash_secret(secret_of("amy"))}
    await confirm(pat, "alan", await propose(pat, "ada", "users", new))
    asked = await propose(pat, "amy", "users/pat/roles", {"grant": ["admin"]})
    gone = await propose(pat, "ada", "users/amy/suspend", {})
    await confirm(pat, "alan", gone)
    assert told(await confirm(pat, "alan", asked)) == (409, "registry_conflict")


async def test_a_proposal_is_taken_back_by_an_admin(pat: Desk) -> None:
    asked = await propose(pat, "ada", "users/pat/roles", {"grant": ["admin"]})
    path = f"registry/proposals/{asked}/withdraw"
    assert told(await pat.post("otto", path)) == (403, "role_missing")
    assert (await pat.post("alan", path)).json()["status"] == "withdrawn"
    assert told(await pat.post("alan", path)) == (404, "registry_not_found")
    assert told(await confirm(pat, "alan", asked)) == (404, "registry_not_found")
    assert pat.changes()[-1]["step"] == "withdrawn"


async def test_proposals_outlive_the_process(pat: Desk) -> None:
    asked = await propose(pat, "ada", "users/pat/roles", {"grant": ["admin"]})
    later = await pat.again()
    assert (await confirm(later, "alan", asked)).status_code == 200
    assert roles(later, "pat") == ("admin",)
    assert roles(await later.again(), "pat") == ("admin",)


async def test_the_only_admin_works_alone_and_the_record_says_so() -> None:
    desk = Desk()
    await desk.start([human("ada", "admin")])
    new = {"id": "ann", "roles": ["approver"], "secret_hash": hash_secret("s")}
    done = (await desk.post("ada", "users", new)).json()
    assert (done["status"], done["alone"]) == ("applied", True)
    assert desk.changes()[-1]["alone"] is True
    new = {"id": "alan", "roles": ["admin"], "secret_hash": hash_secret(secret_of("alan"))}
    await desk.post("ada", "users", new)
    asked = await propose(desk, "ada", "users/ann/roles", {"revoke": ["approver"]})
    await confirm(desk, "alan", asked)
    assert roles(desk, "ann") == ()


async def test_the_last_admin_stays() -> None:
    desk = Desk()
    await desk.start([human("ada", "admin"), human("otto", "operator")])
    new = {"id": "root", "roles": ["admin"], "secret_hash": hash_secret(secret_of("root"))}
    await desk.post("ada", "users", new)
    asked = await propose(desk, "ada", "users/ada/retire", {})
    await confirm(desk, "root", asked)
    for path, body in (
        ("users/root/suspend", {}),
        ("users/root/retire", {}),
        ("users/root/roles", {"revoke": ["admin"]}),
    ):
        assert told(await desk.post("root", path, body)) == (409, "registry_last_admin")


async def test_two_admins_cannot_be_taken_away_by_two_standing_proposals(pat: Desk) -> None:
    new = {"id": "amy", "roles": ["admin"], "secret_hash": hash_secret(secret_of("amy"))}
    await confirm(pat, "alan", await propose(pat, "ada", "users", new))
    first = await propose(pat, "ada", "users/alan/retire", {})
    second = await propose(pat, "amy", "users/ada/retire", {})
    await confirm(pat, "amy", first)
    assert told(await confirm(pat, "amy", second)) == (403, "registry_same_person")
    assert pat.desk.registry.admins == {"ada", "amy"}


async def test_the_secret_of_who_decides_is_told_to_nobody_else(pat: Desk) -> None:
    new = {"id": "abe", "roles": ["admin"], "secret_hash": hash_secret(secret_of("abe"))}
    await confirm(pat, "alan", await propose(pat, "ada", "users", new))
    shared = {"id": "zoe", "secret": True}
    made = (await pat.post("ada", "users", shared)).json()
    granted = await pat.post("ada", "users/zoe/roles", {"grant": ["approver"]})
    assert told(granted) == (403, "registry_secret_shared")
    both = await pat.post("ada", "users", {"id": "x", "roles": ["approver"], "secret": True})
    assert told(both) == (403, "registry_secret_shared")
    own = (await pat.ask("zoe", "POST", "users/zoe/secret", {}, secret=made["secret"])).json()
    assert pat.humans.authenticate(f"Bearer {own['secret']}").id == "zoe"
    # Who rotated it may have been ada, who was told it: she has no part in what zoe decides.
    granted = await pat.post("ada", "users/zoe/roles", {"grant": ["approver"]})
    assert told(granted) == (403, "registry_same_person")
    asked = await propose(pat, "alan", "users/zoe/roles", {"grant": ["approver"]})
    assert told(await confirm(pat, "ada", asked)) == (403, "registry_same_person")
    await confirm(pat, "abe", asked)
    taken = await pat.post("ada", "users/zoe/secret", {})
    assert told(taken) == (403, "registry_secret_shared")
    brought = {"secret_hash": hash_secret("another")}
    asked = await propose(pat, "alan", "users/zoe/secret", brought)
    listed = (await pat.get("alan", "registry/proposals")).json()["proposals"]
    assert listed[0]["after"]["secret"] == brought["secret_hash"].removeprefix("sha256:")[:16]
    await confirm(pat, "abe", asked)
    assert pat.humans.authenticate("Bearer another").id == "zoe"


async def test_a_person_without_a_role_rotates_only_their_own_secret(pat: Desk) -> None:
    assert (await pat.post("pat", "users/pat/secret")).status_code == 200
    body = {"id": "tim", "secret_hash": hash_secret(secret_of("tim"))}
    await pat.post("ada", "users", body)
    assert told(await pat.post("tim", "users/pat/secret")) == (403, "role_missing")


async def test_the_first_admin_is_registered_where_there_is_none() -> None:
    desk = Desk()
    await desk.start([human("otto", "operator")])
    taken = await desk.desk.claim(Person(id="OTTO"))
    assert getattr(taken, "code", None) == "registry_exists"
    unfit = await desk.desk.claim(Person(id="a b"))
    assert getattr(unfit, "code", None) == "registry_invalid"
    done = await desk.desk.claim(Person(id="ada", secret_hash=hash_secret(secret_of("ada"))))
    assert getattr(done, "alone", False)
    assert roles(desk, "ada") == ("admin",)
    again = await desk.desk.claim(Person(id="eve"))
    assert getattr(again, "code", None) == "registry_conflict"
    assert [one["granted"] for one in desk.changes()] == [["admin"]]


async def test_a_new_approver_counts_after_the_delay_and_old_ones_at_once(pat: Desk) -> None:
    asked = await propose(pat, "ada", "users/pat/roles", {"grant": ["approver"]})
    pat.clock.now_s += 60
    await confirm(pat, "alan", asked)
    assert pat.desk.voting_roles("pat") == ()
    assert pat.desk.votes_from_s("pat") == NOW_S + 60 + 3_600
    assert pat.desk.voting_roles("ann") == ("approver",)
    pat.clock.now_s = NOW_S + 60 + 3_599
    assert pat.desk.voting_roles("pat") == ()
    pat.clock.now_s += 1
    assert pat.desk.voting_roles("pat") == ("approver",)
    await confirm(
        pat, "alan", await propose(pat, "ada", "users/pat/roles", {"add_groups": ["finance"]})
    )
    assert pat.desk.voting_roles("pat") == ("approver",)
    pat.clock.now_s += 3_600
    assert pat.desk.voting_roles("pat") == ("approver", "finance")
    assert pat.desk.voting_roles("nobody") == ()


async def test_a_role_that_was_taken_and_given_again_is_new(pat: Desk) -> None:
    for body in ({"grant": ["approver"]}, {"revoke": ["approver"]}, {"grant": ["approver"]}):
        await confirm(pat, "alan", await propose(pat, "ada", "users/pat/roles", body))
        pat.clock.now_s += 3_600
    assert pat.desk.voting_roles("pat") == ("approver",)
    pat.clock.now_s -= 1
    assert pat.desk.voting_roles("pat") == ()


async def test_no_person_stands_in_any_record(pat: Desk) -> None:
    asked = await propose(pat, "ada", "users/pat/roles", {"grant": ["admin"]})
    await confirm(pat, "alan", asked)
    lines = b"".join(pat.audit.lines)
    for name in (b'"ada', b'"alan', b'"pat', b":pat"):
        assert name not in lines


@pytest.fixture
async def abe(pat: Desk) -> Desk:
    """A third admin, and Pat's account set up by a claim that Ada made an hour ago."""
    new = {"id": "abe", "roles": ["admin"], "secret_hash": hash_secret(secret_of("abe"))}
    await confirm(pat, "alan", await propose(pat, "ada", "users", new))
    await pat.post("ada", "users", {"id": "pete"})
    noted = await pat.desk.note_claim("pete", "ada", NOW_S - 3_600)
    assert isinstance(noted, Applied)
    return pat


@pytest.mark.parametrize("role", ["approver", "policy_publisher", "admin"])
async def test_who_made_the_claim_of_an_account_neither_proposes_nor_confirms_its_roles(
    abe: Desk, role: str
) -> None:
    refused = await abe.post("ada", "users/pete/roles", {"grant": [role]})
    assert told(refused) == (403, "registry_same_person")
    assert "a claim or secret of yours; let two other admins do this" in refused.json()["detail"]
    asked = await propose(abe, "alan", "users/pete/roles", {"grant": [role]})
    (shown,) = (await abe.get("abe", "registry/proposals")).json()["proposals"]
    assert shown["account_opened"] == {"by": ["ada"], "at": NOW_S - 3_600}
    assert told(await confirm(abe, "ada", asked)) == (403, "registry_same_person")
    assert roles(abe, "pete") == ()
    assert (await confirm(abe, "abe", asked)).status_code == 200
    assert roles(abe, "pete") == (role,)
    assert told(await abe.post("ada", "users/pete/roles", {"add_groups": ["finance"]})) == (
        403,
        "registry_same_person",
    )
    await propose(abe, "ada", "users/pete/suspend", {"reason": "anybody may ask for a stop"})


async def test_who_made_the_claim_of_an_account_is_remembered_by_the_next_process(
    abe: Desk,
) -> None:
    later = await abe.again()
    refused = await later.post("ada", "users/pete/roles", {"grant": ["approver"]})
    assert told(refused) == (403, "registry_same_person")
    listed = (await later.get("eve", "users/pete")).json()
    assert listed["account_opened"] == {"by": ["ada"], "at": NOW_S - 3_600}
    assert "account_opened" not in (await later.get("eve", "users/pat")).json()
    assert b'"ada"' not in b"".join(abe.audit.lines)


async def test_a_role_asked_for_before_the_claim_was_used_is_not_given_after_it(abe: Desk) -> None:
    await abe.post("ada", "users", {"id": "quin"})
    asked = await propose(abe, "ada", "users/quin/roles", {"grant": ["approver"]})
    await abe.desk.note_claim("quin", "ada", NOW_S)
    assert told(await confirm(abe, "alan", asked)) == (409, "registry_conflict")


async def test_a_later_claim_of_another_admin_takes_the_place_of_the_first(abe: Desk) -> None:
    await abe.desk.note_claim("pete", "alan", NOW_S)
    asked = await propose(abe, "ada", "users/pete/roles", {"grant": ["approver"]})
    assert told(await confirm(abe, "alan", asked)) == (403, "registry_same_person")
    assert (await confirm(abe, "abe", asked)).status_code == 200


async def test_a_claim_opens_nobody_who_decides_or_has_a_secret_and_voids_one_that_was_told(
    abe: Desk,
) -> None:
    for name, code in (
        ("pat", "registry_secret_shared"),
        ("ann", "registry_secret_shared"),
        ("nobody", "registry_not_found"),
        ("bot", "registry_not_found"),
    ):
        assert getattr(await abe.desk.note_claim(name, "ada", NOW_S), "code", None) == code
    made = (await abe.post("ada", "users", {"id": "zoe", "secret": True})).json()
    await abe.desk.note_claim("zoe", "ada", NOW_S)
    taken = await abe.ask("zoe", "POST", "users/zoe/secret", {}, secret=made["secret"])
    assert told(taken) == (401, "token_invalid")


async def test_the_only_admin_gives_a_role_to_whom_they_made_a_claim_for() -> None:
    desk = Desk()
    await desk.start(
        [human("ada", "admin"), Member(kind="human", body=Person(id="fay"), origin="file")]
    )
    assert isinstance(await desk.desk.note_claim("fay", "ada", NOW_S), Applied)  # the file's: as is
    await desk.post("ada", "users", {"id": "pete"})
    await desk.desk.note_claim("pete", "ada", NOW_S)
    done = (await desk.post("ada", "users/pete/roles", {"grant": ["approver"]})).json()
    assert (done["status"], done["alone"]) == ("applied", True)


async def test_who_came_by_an_identity_provider_is_known_to_have_by_the_next_process(
    desk: Desk,
) -> None:
    assert isinstance(await desk.desk.provision("ida"), Applied)
    await desk.post("ada", "users/ida/roles", {"grant": ["auditor"]})
    ida = (await desk.again()).desk.registry.active_person("ida")
    assert ida is not None
    assert (ida.roles, ida.provisioned) == (("auditor",), True)


async def test_all_who_were_told_a_secret_are_remembered_though_it_was_changed_since(
    abe: Desk,
) -> None:
    first = (await abe.post("ada", "users", {"id": "tess", "secret": True})).json()["secret"]
    second = (await abe.post("alan", "users/tess/secret", {})).json()["secret"]
    assert first != second
    await abe.ask("tess", "POST", "users/tess/secret", {}, secret=second)
    shown = (await abe.get("eve", "users/tess")).json()
    assert shown["account_opened"] == {"by": ["ada", "alan"], "at": NOW_S}
    for told_it in ("ada", "alan"):
        refused = await abe.post(told_it, "users/tess/roles", {"grant": ["approver"]})
        assert told(refused) == (403, "registry_same_person")
    asked = await propose(abe, "abe", "users/tess/roles", {"grant": ["approver"]})
    for told_it in ("ada", "alan"):
        assert told(await confirm(abe, told_it, asked)) == (403, "registry_same_person")
