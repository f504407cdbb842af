"""Releases, as two publishers meet them: the command line, a gateway, its log (POL-07)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import orjson
import pytest
from typer.testing import CliRunner

from gateway.cli import build
from gateway.core.tokens.clients import hash_secret
from tests.e2e.conftest import Build, Start
from tests.e2e.processes import eventually
from tests.e2e.site import ROOT, Site, secret_of

pytestmark = pytest.mark.req("POL-07")

FORBID = """
deny contains {"code": "not_today"} if {
	input.phase == "call"
	input.resource.id == "stub.echo"
}
"""


class Done(NamedTuple):
    """What a command said."""

    code: int
    out: str
    err: str


class House:
    """A site outside `dev`, whose publishers are pia and paul."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.keys = {name: site.folder / f"{name}.pem" for name in ("pia", "paul")}
        publishers = []
        for name, kind in (("pia", "ed25519"), ("paul", "es256")):
            said = self.run("keygen", str(self.keys[name]), "--alg", kind)
            publishers.append({"id": name, "key": said.out.split("key: ")[1].strip()})
            site.settings["humans"].append(
                {
                    "id": name,
                    "roles": ["policy_publisher"],
                    "secret_hash": hash_secret(secret_of(name)),
                }
            )
        site.settings["policy"] |= {
            "releases": "required",
            "publishers": publishers,
            "step_up_s": 0,  # they have secrets here, and no passkeys
        }
        site.write()

    def run(self, *words: str, by: str = "pia") -> Done:
        """Run `countersign policy …` as somebody."""
        env = {
            "COUNTERSIGN_URL": self.site.url,
            "COUNTERSIGN_TOKEN": secret_of(by),
            "COUNTERSIGN_FROM_TOKEN": secret_of(by),
            "XDG_CONFIG_HOME": str(self.site.folder),
        }
        done = CliRunner().invoke(build("policy"), ["policy", *words], env=env)
        return Done(done.exit_code, done.stdout, done.stderr)

    def build(self, name: str) -> tuple[Path, str]:
        """Build a release of the site's files; return its file and revision."""
        path = self.site.folder / name
        done = self.run(
            "build", str(self.site.policies), "-o", str(path), "--config", str(self.site.path)
        )
        assert done.code == 0, done.err
        return path, done.out.strip()

    def publish_first(self) -> str:
        """Publish what the files say on the stopped gateway."""
        path, revision = self.build("first.tar.gz")
        done = self.run(
            "publish",
            str(path),
            *("--key", str(self.keys["pia"]), "--key", str(self.keys["paul"])),
            *("--offline", "--config", str(self.site.path)),
        )
        assert done.code == 0, done.err
        return revision

    def publish(self, path: Path, by: str, *more: str) -> Done:
        """Give the word of a publisher for a release."""
        key = ("--key", str(self.keys[by]))
        return self.run("publish", str(path), *key, "--yes", *more, by=by)

    def change(self) -> None:
        """Forbid a tool, in the folder."""
        package = self.site.policies / "house.rego"
        package.write_text(package.read_text() + FORBID)


@pytest.fixture
def house(build_site: Build) -> House:
    return House(build_site())


def verify_alone(site: Site, *words: str) -> Done:
    """Run the stand-alone verifier on the log of a site."""
    done = subprocess.run(
        [
            sys.executable,
            "verify/countersign_verify.py",
            "--state",
            "none",
            *words,
            str(site.audit),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def assert_shown(house: House, before: str, after: Path) -> None:
    """Say that differences, and what they would have changed, are shown before anybody signs."""
    changed = "changed rego policies/house.rego"
    assert house.run("diff", before, str(after)).out.startswith(changed)
    since = ("--since", "7d", "--config", str(house.site.path), "--purpose", "before we sign")
    both = house.run("diff", str(after), *since, by="aud")
    assert both.out.startswith(changed), both.err
    assert "newly denied, by rule, tool and agent" in both.out
    assert "\n         2  house:not_today  stub.echo" in both.out
    impact = house.run("replay", str(after), *since, by="aud")
    assert impact.code == 0, impact.err
    assert "not_today" in impact.out
    # By the revision that `build` and `history` print, too.
    again = house.run("replay", "--release", before, *since, by="aud")
    assert again.code == 0, again.err
    assert "newly denied                     0" in again.out
    nobody = house.run("replay", str(after), *since, "--agent", "nobody", by="aud")
    assert (nobody.code, nobody.out) == (5, "")
    assert (
        "no record of a decision matches `--agent nobody`, `--since 7d`; ask for more" in nobody.err
    )
    gone = house.run("replay", str(after.with_name("gone")), *since, by="aud")
    assert "is not there; name a folder or a release's file" in gone.err


def test_a_release_is_built_signed_by_two_and_decides_and_files_change_nothing(
    house: House, start: Start
) -> None:
    site = house.site
    refused = start(site)
    assert refused.wait() == 1
    assert "no release was published here yet" in refused.said()
    first = house.publish_first()
    served = start(site, step="never").wait_ready()
    assert served.http.get("/readyz").json()["release"]["release"] == first
    agent = served.agent()
    assert agent.call("stub__echo").text == "{}"

    # Editing a file changes nothing, and is told.
    house.change()
    eventually(lambda: served.records("policy.drift"), "the change is on record", 30)
    assert agent.call("stub__echo").text == "{}"
    assert served.records("policy.drift")[-1]["files"] == ["policies/house.rego"]
    assert "folder differs from the active release: policies/house.rego" in house.run("status").out
    assert served.http.get("/readyz").json()["release"]["files_differ"] is True

    # One publisher proposes, the same one is not the second, another one is.
    path, second = house.build("second.tar.gz")
    assert_shown(house, first, path)
    assert house.publish(path, "pia").code == 7
    proposed = house.publish(path, "pia")
    assert proposed.code == 7
    assert "of 4 decisions since" in proposed.err
    assert "2 newly denied, 0 newly held, 0 newly permitted" in proposed.err
    assert "2 newly denied" in house.run("history").out
    assert agent.call("stub__echo").text == "{}"

    # It can be taken back, and is then said anew.
    withdrawn = house.run("withdraw", second, "--key", str(house.keys["paul"]), by="paul")
    assert (withdrawn.code, withdrawn.out) == (0, f"{second}: number 2, withdrawn\n")
    assert house.publish(path, "paul").code == 7
    assert "policy.withdraw" in {one["type"] for one in served.records("policy.withdraw")}
    words = ("publish", str(path), "--key", str(house.keys["pia"]))
    unasked = house.run(*words, "--impact", str(site.folder / "impact.json"))
    assert (unasked.code, "add `--yes`" in unasked.err) == (2, True)
    whole = orjson.loads((site.folder / "impact.json").read_bytes())
    assert whole["counts"]["newly_denied"] == 3
    done = house.publish(path, "pia")
    assert (done.code, done.out) == (0, f"{second}: number 2, active\n")
    assert "house:not_today  stub.echo" in done.err  # who comes second is shown it first
    assert agent.call("stub__echo").code == "not_today"

    # Back, by two again.
    assert house.run("rollback", first, "--key", str(house.keys["paul"]), by="paul").code == 7
    assert house.run("rollback", first, "--key", str(house.keys["pia"]), "--yes").code == 0
    assert agent.call("stub__echo").text == "{}"
    assert served.stop() == 0
    again = start(site, step="never").wait_ready()
    assert again.http.get("/readyz").json()["release"]["release"] == first
    assert again.stop() == 0
    activations = [one["release"] for one in again.records("policy.activate")]
    assert activations == [first, second, first, first]
    assert verify_alone(site).code == 0, verify_alone(site).out


def test_with_both_keys_at_hand_nobody_signs_for_two_without_a_look(
    house: House, start: Start
) -> None:
    house.publish_first()
    served = start(house.site, step="never").wait_ready()
    assert served.agent().call("stub__echo").text == "{}"
    assert served.stop() == 0
    house.change()
    path, second = house.build("second.tar.gz")
    keys = [word for key in house.keys.values() for word in ("--key", str(key))]
    words = ("publish", str(path), *keys, "--offline", "--config", str(house.site.path))
    unasked = house.run(*words)
    assert (unasked.code, "add `--yes`" in unasked.err) == (2, True), unasked.err
    assert "house:not_today  stub.echo" in unasked.err
    assert not any(one["release"] == second for one in served.records("policy.publish"))
    assert house.run(*words, "--yes").code == 0
    assert [one["release"] for one in served.records("policy.publish")][1:] == [second]
    assert verify_alone(house.site).code == 0


def test_a_release_is_promoted_from_test_to_production_under_one_name(
    build_site: Build, start: Start
) -> None:
    test, prod = House(build_site(environment="test")), House(build_site())
    test.change()
    both = ("--config", str(test.site.path), "--config", str(prod.site.path))
    path = test.site.folder / "both.tar.gz"
    revision = test.run("build", str(test.site.policies), "-o", str(path), *both).out.strip()
    prod.publish_first()
    done = test.run(
        "publish",
        str(path),
        *("--key", str(test.keys["pia"]), "--key", str(test.keys["paul"])),
        *("--offline", "--config", str(test.site.path)),
    )
    assert done.code == 0, done.err
    there = start(test.site, step="never").wait_ready()
    here = start(prod.site, step="never").wait_ready()
    agent = here.agent()
    assert agent.call("stub__echo").text == "{}"

    # Its signatures for `test` are worth nothing here.
    for by in ("pia", "paul"):
        replayed = prod.run("publish", str(path), "--key", str(test.keys[by]), by=by)
        assert replayed.code == 2
        assert "no key at hand is a publisher's here" in replayed.err
        assert "publishers are `paul`, `pia`" in replayed.err
    for by, code in (("pia", 7), ("paul", 0)):
        keys = [word for path in prod.keys.values() for word in ("--key", str(path))]
        done = prod.run("promote", revision, "--from", there.site.url, *keys, by=by)
        assert done.code == 2
        assert f"`pia` ({prod.keys['pia']}), `paul` ({prod.keys['paul']})" in done.err
        words = ("promote", revision, "--from", there.site.url, "--as", by, "--yes", *keys)
        done = prod.run(*words, by=by)
        assert done.code == code, done.err
    assert agent.call("stub__echo").code == "not_today"

    # Killed, it comes back with the same; the log is as an auditor wants it.
    here.process.kill()
    here.wait()
    again = start(prod.site, step="never").wait_ready()
    assert again.http.get("/readyz").json()["release"]["release"] == revision
    rows = prod.run("history").out.splitlines()
    assert [row.split()[:2] for row in rows[1:]] == [["2", "active"], ["1", "superseded"]]
    assert again.stop() == 0
    keys = [one["key"] for one in prod.site.settings["policy"]["publishers"]]
    pinned = [word for key in keys for word in ("--publisher-key", key)]
    assert verify_alone(prod.site, *pinned).code == 0
    strangers = [
        word
        for one in test.site.settings["policy"]["publishers"]
        for word in ("--publisher-key", one["key"])
    ]
    told = verify_alone(prod.site, *strangers)
    assert told.code == 1
    assert "two publishers had not signed" in told.out


def test_what_a_publisher_said_before_they_were_stopped_counts_no_more(
    house: House, start: Start
) -> None:
    first = house.publish_first()
    served = start(house.site, step="never").wait_ready()
    house.change()
    path, _ = house.build("second.tar.gz")
    assert house.publish(path, "pia").code == 7
    kill = CliRunner().invoke(
        build("kill"),
        ["kill", "on", "--human", "pia", "--reason", "her key was stolen"],
        env={"COUNTERSIGN_URL": served.site.url, "COUNTERSIGN_TOKEN": secret_of("opal")},
    )
    assert kill.exit_code == 0, kill.output
    assert house.publish(path, "pia").code == 3
    assert house.publish(path, "paul").code == 7
    assert served.http.get("/readyz").json()["release"]["release"] == first
    # Nor where nobody is asked: whoever has the machine and one key has no second word.
    assert served.stop() == 0
    words = ("--key", str(house.keys["paul"]), "--offline", "--config", str(house.site.path))
    assert house.run("publish", str(path), *words).code == 7
    assert [one["number"] for one in served.records("policy.publish")] == [1]
