"""`countersign policy keygen|build|sign|verify|diff`: releases as files (POL-07)."""

from __future__ import annotations

import base64
import json
import stat
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from gateway.adapters.releases.release_keys import load_key
from gateway.cli import build, policy_publish
from gateway.cli.exits import Exit
from gateway.cli.impact_table import say_impact
from gateway.core import canonical
from gateway.core.errors import ConfigurationError
from gateway.core.records import impact_told
from gateway.core.records.impact import Change, Impact
from gateway.core.releases.publisher_keys import public_of
from gateway.core.releases.release import read_archive
from gateway.core.releases.statement import read_statement
from tests.unit.releases.test_config_parts import write

pytestmark = pytest.mark.req("POL-07")

HOUSE = """package policies.house

permit contains {"code": "reads"} if input.resource.effect == "read"
"""


class Bench:
    """A deployment's folder and the command line."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        write(folder)
        (folder / "policies" / "house.rego").write_text(HOUSE)
        authority = {"policies": {"house": ["*"]}}
        (folder / "policies" / "authority.json").write_text(json.dumps(authority))

    def run(self, *words: str | Path) -> tuple[int, str, str]:
        done = CliRunner().invoke(build("policy"), ["policy", *map(str, words)])
        return done.exit_code, done.stdout, done.stderr

    def build(self, name: str) -> Path:
        path = self.folder / name
        config = self.folder / "countersign.yaml"
        code, out, err = self.run("build", self.folder / "policies", "-o", path, "--config", config)
        assert code == 0, err
        assert out.strip() == read_archive(path.read_bytes()).release.revision
        return path


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.mark.parametrize("kind", ["ed25519", "es256"])
def test_a_key_is_made_for_its_owner_alone_and_never_over_another(bench: Bench, kind: str) -> None:
    path = bench.folder / "pia.pem"
    code, out, _ = bench.run("keygen", path, "--alg", kind)
    assert code == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert public_of(load_key(path)).text in out
    assert "PRIVATE" not in out
    code, _, err = bench.run("keygen", path)
    assert code == 1
    assert "exists; name another file" in err
    path.chmod(0o640)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        load_key(path)


def test_a_key_whose_public_half_cannot_be_put_beside_it_is_not_made(bench: Bench) -> None:
    path = bench.folder / "half.pem"
    (beside := bench.folder / "half.pem.pub").write_text("mine")
    code, _, err = bench.run("keygen", path)
    assert (code, "name another file" in err) == (Exit.ERROR, True)
    assert (path.exists(), beside.read_text()) == (False, "mine")
    beside.unlink()
    assert bench.run("keygen", path)[0] == Exit.OK


def test_a_key_that_cannot_be_read_or_is_no_key_is_told(bench: Bench) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_key(bench.folder / "none.pem")
    path = bench.folder / "text.pem"
    path.write_text("no key")
    path.chmod(0o600)
    with pytest.raises(ConfigurationError, match="policy keygen"):
        load_key(path)
    assert "cannot be written" in bench.run("keygen", bench.folder / "no" / "folder.pem")[2]


def test_the_same_files_are_built_to_the_same_bytes(bench: Bench) -> None:
    assert bench.build("one.tar.gz").read_bytes() == bench.build("two.tar.gz").read_bytes()


def test_a_release_is_built_for_the_configuration_that_the_environment_names(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COUNTERSIGN_CONFIG", str(bench.folder / "countersign.yaml"))
    out = bench.folder / "named.tar.gz"
    assert bench.run("build", bench.folder / "policies", "-o", out)[0] == 0
    assert out.read_bytes() == bench.build("given.tar.gz").read_bytes()


def test_policies_that_do_not_pass_the_gate_are_not_built(bench: Bench) -> None:
    (bench.folder / "policies" / "house.rego").write_text("package {{{")
    config = bench.folder / "countersign.yaml"
    out = bench.folder / "r.tar.gz"
    code, _, err = bench.run("build", bench.folder / "policies", "-o", out, "--config", config)
    assert code == 1
    assert "house.rego" in err
    assert not out.exists()


def test_a_signed_release_is_verified_for_its_environment_and_no_other(bench: Bench) -> None:
    key, signed = bench.folder / "pia.pem", bench.folder / "signed.tar.gz"
    bench.run("keygen", key)
    archive = bench.build("r.tar.gz")
    words = ("sign", archive, "--key", key, "--environment", "prod", "-o", signed)
    assert bench.run(*words)[0] == 0
    check = ("verify", signed, "--verification-key", f"{key}.pub", "--scope")
    code, out, _ = bench.run(*check, "countersign:prod")
    assert (code, out.startswith("ok: ")) == (0, True)
    code, _, err = bench.run(*check, "countersign:dev")
    assert (code, "not for `countersign:dev`" in err) == (8, True)
    code, _, err = bench.run("verify", archive, "--verification-key", f"{key}.pub")
    assert (code, "nobody signed it" in err) == (8, True)
    for other in (key, archive):
        code, _, err = bench.run("verify", signed, "--verification-key", other)
        assert (code, f"`{other}` is no public key in PEM" in err) == (2, True)
    changed = bytearray(signed.read_bytes())
    changed[600] ^= 1
    signed.write_bytes(changed)
    assert bench.run(*check, "countersign:prod")[0] == 8


def test_two_releases_are_compared_for_people_and_for_programs(bench: Bench) -> None:
    before = bench.build("before.tar.gz")
    house = bench.folder / "policies" / "house.rego"
    house.write_text(HOUSE + "\n# more\n")
    after = bench.build("after.tar.gz")
    code, out, _ = bench.run("diff", before, after)
    assert code == 0
    assert out.startswith("changed rego policies/house.rego\n")
    assert out.endswith("1 differences\n")
    found = json.loads(bench.run("diff", before, after, "-o", "json")[1])
    assert [(one["kind"], one["place"]) for one in found] == [("rego", "policies/house.rego")]
    assert bench.run("diff", before, before)[1] == "no differences\n"
    code, _, err = bench.run("diff", before, bench.folder / "none.tar.gz")
    assert (code, "No such file" in err) == (2, True)


def serve(
    monkeypatch: pytest.MonkeyPatch, *answers: dict[str, Any]
) -> list[tuple[str, str, dict[str, Any]]]:
    """Answer what commands ask a gateway, in this order; return what was asked."""
    asked: list[tuple[str, str, dict[str, Any]]] = []
    left = list(answers)

    def answer(method: str, url: str, **more: Any) -> httpx.Response:  # noqa: ANN401 - httpx's own
        asked.append((method, url, more))
        return httpx.Response(200, json=left.pop(0))

    monkeypatch.setattr(httpx, "request", answer)
    monkeypatch.setenv("COUNTERSIGN_URL", "https://prod.example")
    monkeypatch.setenv("COUNTERSIGN_TOKEN", "of-prod")
    return asked


def head_of(bench: Bench, *names: str, **over: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """Return what a gateway says of releases; people's keys are `<name>.pem` here."""
    publishers = [
        {"id": name, "key": public_of(load_key(bench.folder / f"{name}.pem")).kid} for name in names
    ]
    return {
        "environment": "prod",
        "log": "log",
        "next": 2,
        "active": "sha256:" + "1" * 64,
        "replaces": "sha256:" + "1" * 64,
        "releases": [],
        "proposals": [],
        "withdrawn": [],
        "withdrawals": [],
        "publishers": publishers,
    } | over


DONE = {"revision": "sha256:2", "number": 2, "state": "active", "impact": None}


def said_in(asked: tuple[str, str, dict[str, Any]]) -> dict[str, Any]:
    """Return the statement that was sent."""
    payload = asked[2]["json"]["statement"].split(".")[1]
    found: dict[str, Any] = json.loads(
        base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
    )
    return found


def test_of_several_keys_as_says_which_and_without_it_the_choices_are_told(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pia", "paul", "gone"):
        bench.run("keygen", bench.folder / f"{name}.pem")
    archive, head = bench.build("r.tar.gz"), head_of(bench, "pia", "paul")
    words = [word for name in ("pia", "gone", "paul") for word in ("--key", f"{name}.pem")]
    monkeypatch.chdir(bench.folder)
    serve(monkeypatch, head)
    code, _, err = bench.run("publish", archive, *words)
    assert (code, "`pia` (pia.pem), `paul` (paul.pem); say which with `--as`" in err) == (2, True)
    serve(monkeypatch, head)
    code, _, err = bench.run("publish", archive, *words, "--as", "zoe")
    assert (code, "`zoe` publishes nothing here; publishers are `paul`, `pia`" in err) == (2, True)
    serve(monkeypatch, head)
    code, _, err = bench.run("publish", archive, "--key", "pia.pem", "--as", "paul")
    assert (code, "no key at hand is that publisher's" in err) == (2, True)
    asked = serve(monkeypatch, head, DONE)
    code, out, err = bench.run("publish", archive, *words, "--as", "human:PAUL")
    assert (code, out) == (0, "sha256:2: number 2, active\n"), err
    token = asked[1][2]["json"]["statement"]
    kid = public_of(load_key(bench.folder / "paul.pem")).kid
    signed = read_statement(token, {kid: public_of(load_key(bench.folder / "paul.pem"))})
    assert signed.statement.number == 2


def test_two_keys_of_one_publisher_are_told_apart_by_their_files(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pia", "old"):
        bench.run("keygen", bench.folder / f"{name}.pem")
    head = head_of(bench, "pia", "old")
    head["publishers"][1]["id"] = "PIA"
    archive = bench.build("r.tar.gz")
    serve(monkeypatch, head)
    keys = [word for name in ("pia", "old") for word in ("--key", bench.folder / f"{name}.pem")]
    code, _, err = bench.run("publish", archive, *keys, "--as", "pia")
    assert (code, "name one with `--key`" in err) == (2, True)


def test_keys_are_found_where_they_are_kept(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(bench.folder / "home"))
    bench.run("keygen", bench.folder / "pia.pem")
    archive, head = bench.build("r.tar.gz"), head_of(bench, "pia")
    serve(monkeypatch, head)
    code, _, err = bench.run("publish", archive)
    assert (code, "publisher-keys" in err) == (2, True)
    kept = bench.folder / "home" / "countersign" / "publisher-keys"
    kept.mkdir(parents=True)
    (bench.folder / "pia.pem").rename(kept / "pia.pem")
    serve(monkeypatch, head, DONE)
    assert bench.run("publish", archive)[0] == 0


def test_another_gateway_is_not_shown_the_credential_for_this_one(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.run("keygen", bench.folder / "pia.pem")
    archive = bench.build("r.tar.gz")
    content = archive.read_bytes()
    revision = read_archive(content).release.revision
    there = head_of(bench, "pia", active=revision)
    sent = {"revision": revision, "archive": base64.b64encode(content).decode()}
    key = ("--key", str(bench.folder / "pia.pem"))
    words = ("promote", revision[7:19], "--from", "https://test.example", *key)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(bench.folder / "home"))
    asked = serve(monkeypatch)
    code, _, err = bench.run(*words)
    assert (code, "COUNTERSIGN_FROM_TOKEN" in err, asked) == (4, True, [])
    monkeypatch.setenv("COUNTERSIGN_FROM_TOKEN", "of-test")
    asked = serve(monkeypatch, there, sent, head_of(bench, "pia"), DONE)
    assert bench.run(*words)[0] == 0
    shown = {(url.split("/")[2], more["headers"]["Authorization"]) for _, url, more in asked}
    assert shown == {("test.example", "Bearer of-test"), ("prod.example", "Bearer of-prod")}
    assert said_in(asked[-1])["env"] == "prod"
    asked = serve(monkeypatch, head_of(bench, "pia"))
    code, _, err = bench.run(*words)
    assert (code, "does not decide at https://test.example" in err) == (6, True)


def test_who_comes_second_says_it_as_the_first_one_did_and_is_shown_the_impact(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pia", "paul"):
        bench.run("keygen", bench.folder / f"{name}.pem")
    archive = bench.build("r.tar.gz")
    revision = read_archive(archive.read_bytes()).release.revision
    head = head_of(bench, "pia", "paul")
    whole = impact_told.describe(Impact(), revision)
    summary = impact_told.summarize(whole)
    waiting = {
        "id": "p1",
        "revision": revision,
        "key": head["publishers"][0]["key"],
        "shadow_s": 600,
        "again": 1,
        "expires": time.time() + 60,
        "impact": summary,
    }
    head |= {
        "proposals": [waiting],
        "withdrawn": [{"number": 2, "revision": revision, "shadow_s": 600, "again": 0}],
    }
    alone = ("publish", archive, "--key", bench.folder / "paul.pem")
    asked = serve(monkeypatch, head, whole)
    code, _, err = bench.run(*alone)  # nobody is there to be asked
    assert (code, len(asked)) == (2, 2)
    assert "newly denied" in err
    assert "look at what it would change, add `--yes`" in err
    words = (*alone, "--yes")
    asked = serve(monkeypatch, head, whole, DONE)
    code, _, err = bench.run(*words)
    assert code == 0, err
    assert "proposed with 600 s in the shadow" in err
    assert "newly denied" in err
    said = said_in(asked[-1])
    assert (said["shadow_s"], said["again"]) == (600, 1)
    assert asked[-1][2]["json"]["seen"] == summary["digest"]
    asked = serve(monkeypatch, head, whole | {"decisions": 9})
    code, _, err = bench.run(*words)
    assert (code, "another impact than it recorded" in err, len(asked)) == (8, True, 2)
    # Who proposed it is not shown their own, and what is over is nobody's.
    for over in ({"key": head["publishers"][1]["key"]}, {"expires": 0}):
        head["proposals"] = [waiting | over]
        asked = serve(monkeypatch, head, DONE)
        assert bench.run(*words)[0] == 0
        assert "seen" not in asked[-1][2]["json"]


def waiting_with_much(bench: Bench) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    """Return a release, what a gateway says of its proposal, and a table longer than a screen."""
    for name in ("pia", "paul"):
        bench.run("keygen", bench.folder / f"{name}.pem")
    archive = bench.build("r.tar.gz")
    revision = read_archive(archive.read_bytes()).release.revision
    impact = Impact()
    for number in range(30):
        change = Change("newly_permitted", "deny", "permit", (f"p:r{number}",))
        impact.add(change, tool="s.t", agent="ann", seq=number, op="op")
    whole = impact_told.describe(impact, revision)
    head = head_of(bench, "pia", "paul")
    head["proposals"] = [
        {
            "id": "p1",
            "revision": revision,
            "key": head["publishers"][0]["key"],
            "shadow_s": 0,
            "again": 0,
            "expires": time.time() + 60,
            "impact": impact_told.summarize(whole),
        }
    ]
    return archive, head, whole


@pytest.mark.parametrize("said", ["y", "n"])
def test_who_comes_second_is_asked_at_their_terminal(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    archive, head, whole = waiting_with_much(bench)
    monkeypatch.setattr(policy_publish, "is_terminal", lambda: True)
    asked = serve(monkeypatch, head, whole, DONE)
    words = ["policy", "publish", str(archive), "--key", str(bench.folder / "paul.pem")]
    done = CliRunner().invoke(build("policy"), words, input=f"{said}\n")
    assert "sign it?" in done.stderr
    assert (done.exit_code, len(asked)) == ((0, 3) if said == "y" else (1, 2))


def test_all_that_a_release_would_change_can_be_had_before_it_is_signed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, head, whole = waiting_with_much(bench)
    file = bench.folder / "impact.json"
    words = ("publish", archive, "--key", bench.folder / "paul.pem")
    asked = serve(monkeypatch, head, whole)
    code, _, err = bench.run(*words)
    assert (code, "and 10 more; all with `--impact FILE`" in err) == (2, True)
    asked = serve(monkeypatch, head, whole)
    code, _, err = bench.run(*words, "--impact", file)
    assert (code, f"and 10 more; all in `{file}`" in err, len(asked)) == (2, True, 2)
    written = json.loads(file.read_bytes())
    assert [row["rule"] for row in written["rows"]] == [row["rule"] for row in whole["rows"]]
    assert canonical.digest(file.read_bytes()) == head["proposals"][0]["impact"]["digest"]
    serve(monkeypatch, head, whole)
    code, _, err = bench.run(*words, "--yes", "--impact", bench.folder / "no" / "file")
    assert (code, "cannot be written" in err) == (1, True)


def test_a_proposal_is_withdrawn_by_its_release_or_its_id(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.run("keygen", bench.folder / "pia.pem")
    revision = "sha256:" + "a" * 64
    one = {"id": "p1", "revision": revision, "shadow_s": 0, "again": 0}
    two = one | {"id": "p2", "shadow_s": 60}
    head = head_of(bench, "pia", proposals=[one, two])
    key = ("--key", bench.folder / "pia.pem")
    serve(monkeypatch, head)
    code, _, err = bench.run("withdraw", "aaaa", *key)
    assert (code, "name one by its id" in err) == (5, True)
    serve(monkeypatch, head)
    code, _, err = bench.run("withdraw", "bbbb", *key)
    assert (code, "policy history" in err) == (5, True)
    asked = serve(monkeypatch, head, DONE | {"state": "withdrawn"})
    assert bench.run("withdraw", "p2", *key)[:2] == (0, "sha256:2: number 2, withdrawn\n")
    assert asked[-1][1].endswith("/withdrawals")
    said = said_in(asked[-1])
    assert (said["act"], said["rev"], said["shadow_s"]) == ("withdraw", revision, 60)


def test_the_row_is_told_with_what_waits_what_was_withdrawn_and_by_whom(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pia", "paul"):
        bench.run("keygen", bench.folder / f"{name}.pem")
    head = head_of(bench, "pia", "paul")
    pia, paul = (one["key"] for one in head["publishers"])
    row = {"revision": "sha256:a", "number": 1, "action": "publish", "at": 0, "impact": None}
    waiting = row | {"number": 2, "key": pia, "shadow_s": 0, "again": 1}
    withdrawn = {"revision": "sha256:b", "action": "withdraw", "at": -1, "again": 0, "shadow_s": 0}
    head |= {
        "releases": [row | {"keys": [pia, paul, "unheard-of"], "state": "active"}],
        "proposals": [waiting | {"expires": time.time() + 9}, waiting | {"expires": 0}],
        "withdrawals": [
            withdrawn | {"number": 2, "key": paul, "at": 1_700_000_000},
            withdrawn | {"number": 1, "key": pia},
        ],
    }
    serve(monkeypatch, head)
    code, out, _ = bench.run("history")
    assert code == 0
    rows = [line.split() for line in out.splitlines() if line[:1].isdigit()]
    assert [one[:2] for one in rows] == [
        ["2", "proposed"],
        ["2", "expired"],
        ["2", "withdrawn"],
        ["1", "active"],
        ["1", "withdrawn"],
    ]
    assert rows[2][2:] == ["withdraw", "2023-11-14", "22:13:20Z", "sha256:b", "paul"]
    assert rows[3][-3:] == ["pia,", "paul,", "unheard-"]
    assert "sha256:a, proposed: nothing is known of what it would change" in out
    serve(monkeypatch, head)
    assert json.loads(bench.run("history", "-o", "json")[1])["next"] == 2


@pytest.mark.parametrize(
    ("active", "when"), [("1", "right now"), ("3", "from the next restart on")]
)
def test_there_is_no_way_back_to_what_decides(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, active: str, when: str
) -> None:
    bench.run("keygen", bench.folder / "pia.pem")
    now = "sha256:" + "1" * 64
    releases = [{"revision": now}]
    head = head_of(bench, "pia", active="sha256:" + active * 64, releases=releases)
    serve(monkeypatch, head)
    code, _, err = bench.run("rollback", now, "--key", bench.folder / "pia.pem")
    assert code == Exit.CONFLICT
    assert f"`{now}` decides {when}; name an older one of `policy history`" in err


@pytest.mark.parametrize(
    ("over", "lines"),
    [
        ({"mode": "off"}, ["prod: the files of the folder decide (`off`)"]),
        (
            {"waits_for_restart": True, "gate": "refused", "differs": ["policies/x\u202e.rego"]},
            [
                "prod: sha256:1 decides, by two publishers",
                "published: sha256:2; it decides from the next restart on",
                "the gate of this version refuses it; see `release_refused_by_gate` in the log",
                "folder differs from the active release: policies/x\\u202e.rego",
            ],
        ),
    ],
)
def test_what_decides_is_told_and_what_is_wrong_about_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, over: dict[str, Any], lines: list[str]
) -> None:
    told = {
        "environment": "prod",
        "mode": "required",
        "active": "sha256:1",
        "replaces": "sha256:2",
        "waits_for_restart": False,
        "gate": "passed",
        "differs": [],
    }
    serve(monkeypatch, told | over)
    assert bench.run("status")[1].splitlines() == lines
    serve(monkeypatch, told | over)
    assert json.loads(bench.run("status", "-o", "json")[1])["environment"] == "prod"


def test_a_release_alone_is_compared_with_what_decides(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = bench.build("before.tar.gz")
    content = before.read_bytes()
    house = bench.folder / "policies" / "house.rego"
    house.write_text(HOUSE + "\n# \tmore\n")
    after = bench.build("after.tar.gz")
    sent = {"revision": "", "archive": base64.b64encode(content).decode()}
    asked = serve(monkeypatch, head_of(bench), sent)
    code, out, err = bench.run("diff", after)
    assert code == 0, err
    assert out.startswith("changed rego policies/house.rego\n")
    assert "+#  more" in out  # a tab is a gap, and not a character to be wary of
    assert asked[1][1].endswith("/" + "sha256:" + "1" * 64)
    serve(monkeypatch, head_of(bench, active=None))
    code, _, err = bench.run("diff", after)
    assert (code, "no release decides there" in err) == (5, True)


def test_a_release_that_decides_later_says_when(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.run("keygen", bench.folder / "pia.pem")
    archive = bench.build("r.tar.gz")
    serve(monkeypatch, head_of(bench, "pia"), DONE | {"state": "published"})
    code, _, err = bench.run("publish", archive, "--key", bench.folder / "pia.pem")
    assert (code, "it decides from the next start on" in err) == (0, True)
    serve(monkeypatch, head_of(bench, "pia"), DONE)
    code, out, _ = bench.run("publish", archive, "--key", bench.folder / "pia.pem", "-o", "json")
    assert json.loads(out) == DONE


@pytest.mark.parametrize(
    ("impact", "line"),
    [
        (None, "nothing is known"),
        ({"unmeasured": "no_decisions"}, "no decision of the last week is on record"),
        ({"unmeasured": "too_slow"}, "it took too long"),
        (
            {"decisions": 9, "since_s": 0, "newly_denied": 2, "newly_held": 1}
            | {"newly_permitted": 0, "error": 3},
            "00:00Z: 2 newly denied, 1 newly held, 0 newly permitted, 3 without an answer",
        ),
    ],
)
def test_an_impact_is_said_in_a_line(impact: dict[str, Any] | None, line: str) -> None:
    assert line in say_impact(impact)


@pytest.mark.parametrize("span", ["10", "0m", "ten minutes", "10y"])
def test_a_time_in_the_shadow_that_is_none_is_refused(bench: Bench, span: str) -> None:
    key = bench.folder / "pia.pem"
    bench.run("keygen", key)
    archive = bench.build("r.tar.gz")
    code, _, err = bench.run("publish", archive, "--key", key, "--shadow", span)
    assert (code, "such as `10m`" in err) == (2, True)


def test_offline_a_key_of_nobody_publishes_nothing(bench: Bench) -> None:
    key = bench.folder / "pia.pem"
    bench.run("keygen", key)
    archive = bench.build("r.tar.gz")
    config = bench.folder / "countersign.yaml"
    words = ("publish", archive, "--key", key, "--offline", "--config", config)
    code, _, err = bench.run(*words)
    assert (code, "no key at hand is a publisher's here" in err) == (2, True)
